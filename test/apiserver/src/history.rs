//! What happened to one collection lately: a bounded ring of events, from which watches and consistent lists are served.
//!
//! Input: every write, in order of resourceVersion. Output: the events after a version, or the news that they are gone.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::object::{Object, Objects};

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
    pub(crate) fn after(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        let start = self.events.partition_point(|event| event.object.version <= version);
        (version >= self.trimmed).then(|| self.events.range(start..))
    }

    /// The collection as it was at `version`: the present itself, or, when there are later events, a copy on which they are undone.
    /// None when they are gone.
    pub(crate) fn at<'a>(&self, version: u64, now: &'a Objects) -> Option<Cow<'a, Objects>> {
        let mut then = Cow::Borrowed(now);
        for event in self.after(version)?.rev() {
            match &event.previous {
                Some(previous) => then.to_mut().insert(previous.key.clone(), previous.clone()),
                None => then.to_mut().remove(&event.object.key),
            };
        }
        Some(then)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::resource::Registry;

    fn pod(name: &str, version: u64) -> Arc<Object> {
        let registry = Registry::new();
        let pods = registry.of_collection("pods").unwrap();
        let value = json!({"metadata": {"namespace": "ns", "name": name}});
        Arc::new(Object::new(pods, &value, version, Bytes::new()))
    }

    /// Every page of a list asks for its first page's state, and mostly it is still the present.
    #[test]
    fn the_present_is_not_copied() {
        let mut history = History::new(9, 0);
        let mut now = Objects::new();
        let (old, new, other) = (pod("a", 1), pod("a", 5), pod("b", 6));
        now.insert(old.key.clone(), old.clone());
        history.push(Event { object: old.clone(), previous: None, deleted: false });
        // Versions 2 to 4 were of other collections.
        for version in 1..5 {
            assert!(matches!(history.at(version, &now), Some(Cow::Borrowed(_))), "at {version}");
        }
        now.insert(new.key.clone(), new.clone());
        history.push(Event { object: new, previous: Some(old), deleted: false });
        now.insert(other.key.clone(), other.clone());
        history.push(Event { object: other, previous: None, deleted: false });
        let then = history.at(4, &now).unwrap();
        assert_eq!(then.values().map(|object| object.version).collect::<Vec<_>>(), [1]);
        assert!(history.at(0, &now).unwrap().is_empty());
    }
}
