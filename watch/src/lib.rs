//! Lists and watches one kind, and tells of every change in batches.
//!
//! ```text
//! API server --(list pages, watch lines)--> kube watcher --> [Watch] --> channel of Batch<T>
//! ```
//!
//! A relist after a gap is turned into plain changes here: what it no longer names is deleted. So the reader sees upserts
//! and deletes only, and learns (`complete`) when it has seen everything; before that, absence means nothing.
//! What is read of an object is decided by [`object`], so that both daemons make the same facts of the same objects.
//! Must not: keep objects (only their keys), interpret them, or drop a change when the reader is slow: it waits.

pub mod object;

use std::fmt::Debug;
use std::hash::Hash;

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use ovenbird_daemon::{access, rights};
use ovenbird_topology::{
    AdminPolicyFact, EndpointSliceFact, NamespaceFact, NetworkFact, NetworkPolicyFact, NodeFact, PodFact,
    ProviderNetworkFact, ServiceCidrFact, ServiceFact,
};
use ovsdb::Str;
use rustc_hash::FxHashSet;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::object::Told;

/// Most changes in one batch.
const BATCH: usize = 256;

/// One change of one object.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// It is there, and looks like this.
    Upsert(T),
    /// `namespace/name`, or `name`, is gone.
    Delete(Str),
}

/// Changes in the order in which they happened.
#[derive(Debug)]
pub struct Batch<T> {
    /// The changes.
    pub changes: Vec<Change<T>>,
    /// With these changes everything is told that existed when the list of this generation began.
    pub complete: Option<u64>,
    /// Objects known after them.
    pub objects: usize,
    /// The last failure of the watch since the batch before; the watch goes on by itself.
    pub error: Option<String>,
}

/// What the reader keeps of an object.
pub trait Keyed {
    /// The object's key; shared, for it is kept by many.
    fn key(&self) -> &Str;
}

impl Keyed for Told<NodeFact> {
    fn key(&self) -> &Str {
        &self.fact.name
    }
}

impl Keyed for Told<PodFact> {
    fn key(&self) -> &Str {
        &self.fact.key
    }
}

impl Keyed for NamespaceFact {
    fn key(&self) -> &Str {
        &self.name
    }
}

impl Keyed for ServiceFact {
    fn key(&self) -> &Str {
        &self.key
    }
}

impl Keyed for EndpointSliceFact {
    fn key(&self) -> &Str {
        &self.key
    }
}

impl Keyed for NetworkPolicyFact {
    fn key(&self) -> &Str {
        &self.key
    }
}

impl Keyed for AdminPolicyFact {
    fn key(&self) -> &Str {
        &self.key.1
    }
}

impl Keyed for NetworkFact {
    fn key(&self) -> &Str {
        &self.name
    }
}

impl Keyed for ProviderNetworkFact {
    fn key(&self) -> &Str {
        &self.name
    }
}

impl Keyed for ServiceCidrFact {
    fn key(&self) -> &Str {
        &self.name
    }
}

/// What can be watched.
pub trait Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {}

impl<T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static> Object for T {}

/// Key of an object: `namespace/name`, or `name` when it has no namespace.
pub fn key(object: &impl Resource) -> Str {
    let name = object.meta().name.as_deref().unwrap_or_default();
    match object.meta().namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    }
}

/// Watches all objects that `api` names until the reader is gone. `slim` turns each into what the reader keeps. A change of
/// `generation` makes it list anew. Of an `optional` kind that the API server does not know there are no objects.
pub async fn run<O: Object, T: Keyed, E>(
    api: Api<O>,
    optional: bool,
    mut generation: watch::Receiver<u64>,
    mut slim: impl FnMut(O) -> T,
    wrap: impl Fn(Batch<T>) -> E,
    events: mpsc::Sender<E>,
) {
    let mut keys = Keys::default();
    loop {
        let current = *generation.borrow_and_update();
        let stream = watcher(api.clone(), Config::default()).backoff(access::watch_backoff());
        tokio::select! {
            () = follow(stream, optional, current, &mut keys, &mut slim, &wrap, &events) => return,
            changed = generation.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Cancelling it loses no change that `keys` counts as told.
async fn follow<O: Object, T: Keyed, E>(
    stream: impl Stream<Item = watcher::Result<Event<O>>>,
    optional: bool,
    generation: u64,
    keys: &mut Keys<Str>,
    slim: &mut impl FnMut(O) -> T,
    wrap: &impl Fn(Batch<T>) -> E,
    events: &mpsc::Sender<E>,
) {
    let mut chunks = std::pin::pin!(stream.ready_chunks(BATCH));
    while let Some(chunk) = chunks.next().await {
        let Ok(place) = events.reserve().await else { return };
        let mut batch = Batch { changes: Vec::with_capacity(chunk.len()), complete: None, objects: 0, error: None };
        for event in chunk {
            match event {
                Ok(Event::Init) => keys.begin(),
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    let kept = slim(object);
                    keys.insert(kept.key().clone());
                    batch.changes.push(Change::Upsert(kept));
                }
                Ok(Event::Delete(object)) => {
                    let key = key(&object);
                    keys.remove(&key);
                    batch.changes.push(Change::Delete(key));
                }
                Ok(Event::InitDone) => {
                    batch.changes.extend(keys.finish().map(Change::Delete));
                    batch.complete = Some(generation);
                }
                Err(error) => {
                    let kind = O::kind(&());
                    if optional && access::is_unknown_kind(&error) {
                        keys.begin();
                        batch.changes.extend(keys.finish().map(Change::Delete));
                        batch.complete = Some(generation);
                        continue;
                    }
                    if access::is_unknown_kind(&error) {
                        tracing::debug!(%kind, "the API server does not know this kind");
                    } else if !rights::was_told(&error) {
                        tracing::warn!(%kind, %error, "watch failed; trying again");
                    }
                    batch.error = Some(error.to_string());
                }
            }
        }
        batch.objects = keys.known.len();
        place.send(wrap(batch));
    }
}

/// The keys that were told, and during a list those it has named so far.
#[derive(Debug)]
pub struct Keys<T> {
    known: FxHashSet<T>,
    listed: Option<FxHashSet<T>>,
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Keys { known: FxHashSet::default(), listed: None }
    }
}

impl<T: Hash + Eq + Clone> Keys<T> {
    /// A list begins; one that was cut short is forgotten.
    pub fn begin(&mut self) {
        self.listed = Some(FxHashSet::default());
    }

    /// An object is there.
    pub fn insert(&mut self, key: T) {
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.known.insert(key);
    }

    /// An object is gone.
    pub fn remove(&mut self, key: &T) {
        self.known.remove(key);
    }

    /// The list is complete: yields, and forgets, what it did not name.
    pub fn finish(&mut self) -> impl Iterator<Item = T> + use<T> {
        let listed = self.listed.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.known, listed);
        let gone: Vec<T> = before.into_iter().filter(|k| !self.known.contains(k)).collect();
        gone.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use ovenbird_topology::Interner;

    use super::*;
    use crate::object::{PodKind, Slim};

    fn pod(name: &str) -> Slim<PodKind> {
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": name}})).expect("decodes")
    }

    async fn told(events: Vec<watcher::Result<Event<Slim<PodKind>>>>) -> (Vec<String>, Vec<Option<u64>>) {
        let (tx, mut rx) = mpsc::channel(16);
        let mut texts = Interner::default();
        let mut name = |pod: Slim<PodKind>| pod.tell(&mut texts);
        let mut keys = Keys::default();
        follow(futures::stream::iter(events), false, 7, &mut keys, &mut name, &|batch| batch, &tx).await;
        drop(tx);
        let (mut changes, mut complete) = (Vec::new(), Vec::new());
        while let Some(batch) = rx.recv().await {
            complete.push(batch.complete);
            changes.extend(batch.changes.into_iter().map(|c| match c {
                Change::Upsert(told) => format!("+{}", told.fact.name()),
                Change::Delete(key) => format!("-{key}"),
            }));
        }
        (changes, complete)
    }

    #[tokio::test]
    async fn a_relist_deletes_what_it_does_not_name() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(pod("a"))),
            Ok(Event::InitApply(pod("b"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(pod("c"))),
            Ok(Event::Delete(pod("a"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(pod("c"))),
            Ok(Event::InitDone),
        ];
        let (changes, complete) = told(events).await;
        assert_eq!(changes, ["+a", "+b", "+c", "-ns/a", "+c", "-ns/b"]);
        assert_eq!(complete, [Some(7)]);
    }

    #[tokio::test]
    async fn a_list_cut_short_deletes_nothing() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(pod("a"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(pod("b"))),
        ];
        let (changes, complete) = told(events).await;
        assert_eq!(changes, ["+a", "+b"]);
        assert_eq!(complete, [None]);
    }
}
