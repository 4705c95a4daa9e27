//! What happened to one collection lately: a bounded ring of events, from which watches and consistent lists are served.
//!
//! Input: every write, in order of resourceVersion. Output: the events after a version, or the news that they are gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::object::{Key, Object};

/// One write.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The state after the write; for a deletion the last state, under the version of the deletion.
    pub(crate) object: Arc<Object>,
    /// The state before; none when the object was created.
    pub(crate) previous: Option<Arc<Object>>,
    pub(crate) deleted: bool,
}

/// The last events of a collection, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Event>,
    limit: usize,
    /// Everything up to and including this version may be missing.
    trimmed: u64,
}

impl History {
    /// An empty history that knows nothing of what happened up to `trimmed`.
    pub(crate) fn new(limit: usize, trimmed: u64) -> Self {
        Self { events: VecDeque::new(), limit, trimmed }
    }

    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() >= self.limit
            && let Some(oldest) = self.events.pop_front()
        {
            self.trimmed = oldest.object.version;
        }
        self.events.push_back(event);
    }

    /// Forgets everything up to `version`.
    pub(crate) fn expire(&mut self, version: u64) {
        self.events.retain(|event| event.object.version > version);
        self.trimmed = self.trimmed.max(version);
    }

    /// The events after `version`; none when the history no longer covers them (410 Gone).
    pub(crate) fn after(&self, version: u64) -> Option<impl Iterator<Item = &Event>> {
        let start = self.events.partition_point(|event| event.object.version <= version);
        (version >= self.trimmed).then(|| self.events.range(start..))
    }

    /// The collection as it was at `version`: undoes later events on a copy of the present. None when they are gone.
    pub(crate) fn at(&self, version: u64, now: &BTreeMap<Key, Arc<Object>>) -> Option<BTreeMap<Key, Arc<Object>>> {
        let mut then = now.clone();
        for event in self.after(version)?.collect::<Vec<_>>().into_iter().rev() {
            match &event.previous {
                Some(previous) => then.insert(previous.key.clone(), previous.clone()),
                None => then.remove(&event.object.key),
            };
        }
        Some(then)
    }
}
