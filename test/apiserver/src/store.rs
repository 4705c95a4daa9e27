//! All objects, their history and the log: what etcd and the watch cache are to a real API server.
//!
//! ```text
//! write --> version + 1 --> bytes, once --> log line --> map and history --> watchers are woken
//! ```
//!
//! One lock guards the whole state and every write runs under it from its read to its end, so there is nothing to retry;
//! readers copy pointers under the lock and stream afterwards. Nothing here knows HTTP.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::error::ApiError;
use crate::history::{Event, History};
use crate::log::{Line, Log, LogError, Record};
use crate::object::{Key, Object, Objects, metadata, object};
use crate::resource::{CRDS, Registry, Resource};

/// The objects of one resource.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) objects: Objects,
    pub(crate) history: History,
    changed: watch::Sender<u64>,
}

impl Collection {
    /// Yields the version of each write; late receivers see only the last.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The objects of one namespace, or all for the empty one, from `start` on.
    pub(crate) fn range<'a>(
        objects: &'a Objects,
        namespace: &'a str,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(key) => Excluded(key.clone()),
            None => Included(Key::new(namespace, "")),
        };
        objects
            .range((start, Unbounded))
            .map(|(_, object)| object)
            .take_while(move |object| namespace.is_empty() || *object.key.namespace == *namespace)
    }
}

/// Everything the server knows.
#[derive(Debug)]
pub(crate) struct State {
    /// The resourceVersion of the last write.
    pub(crate) version: u64,
    pub(crate) registry: Registry,
    collections: HashMap<String, Collection>,
    log: Option<Log>,
    history_limit: usize,
    /// What a collection that nobody has touched yet does not remember.
    trimmed: u64,
}

impl State {
    /// Loads the log at `path`, if any, compacts it and continues it.
    pub(crate) fn open(path: Option<&Path>, history_limit: usize) -> Result<Self, LogError> {
        let mut state = Self {
            version: 0,
            registry: Registry::new(),
            collections: HashMap::new(),
            log: None,
            history_limit,
            trimmed: 0,
        };
        let Some(path) = path else { return Ok(state) };
        Log::read(path, |line| match line {
            Line::Start(version) => {
                (state.version, state.trimmed) = (version, version);
                Ok(())
            }
            Line::Record(record, collection, json) => state.replay(record, collection, json),
        })?;
        let mut objects: Vec<_> = state
            .collections
            .iter()
            .flat_map(|(id, collection)| collection.objects.values().map(move |object| (id.as_str(), object)))
            .collect();
        objects.sort_by_key(|(id, object)| (*id != CRDS, object.version));
        let log = Log::rewrite(path, state.version, objects.iter().map(|(id, object)| (*id, &object.bytes[..])))?;
        state.log = Some(log);
        Ok(state)
    }

    fn replay(&mut self, record: Record, id: &str, json: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let resource = self.registry.of_collection(id).cloned();
        let resource = resource.ok_or_else(|| format!("no resource {id} is served"))?;
        let version = value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        let version: u64 = version.ok_or("the object has no resourceVersion")?;
        let object = Arc::new(Object::new(&resource, &value, version, Bytes::copy_from_slice(json.as_bytes())));
        self.version = self.version.max(version);
        match record {
            Record::Snapshot => {
                self.declare(&resource, &value, false);
                self.collection_mut(id).objects.insert(object.key.clone(), object);
            }
            Record::Put => self.apply(&resource, &value, object, false),
            Record::Delete => self.apply(&resource, &value, object, true),
        }
        Ok(())
    }

    pub(crate) fn collection(&self, resource: &Resource) -> Option<&Collection> {
        self.collections.get(&resource.id)
    }

    pub(crate) fn collections(&self) -> impl Iterator<Item = (&String, &Collection)> {
        self.collections.iter()
    }

    /// The collection of a resource, made when nobody has touched it yet.
    pub(crate) fn collection_mut(&mut self, id: &str) -> &mut Collection {
        let (limit, trimmed, version) = (self.history_limit, self.trimmed, self.version);
        self.collections.entry(id.to_owned()).or_insert_with(|| Collection {
            objects: Objects::new(),
            history: History::new(limit, trimmed),
            changed: watch::Sender::new(version),
        })
    }

    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> Result<&Arc<Object>, ApiError> {
        let found = self.collection(resource).and_then(|collection| collection.objects.get(key));
        found.ok_or_else(|| ApiError::not_found(resource, &key.name))
    }

    /// Stores a new state under the next version and wakes the watchers.
    pub(crate) fn put(&mut self, resource: &Resource, value: &mut Value) -> Result<Arc<Object>, ApiError> {
        self.commit(resource, value, Record::Put)
    }

    /// Takes an object away. Watchers see `value`, its last state, under the next version.
    pub(crate) fn remove(&mut self, resource: &Resource, value: &mut Value) -> Result<Arc<Object>, ApiError> {
        self.commit(resource, value, Record::Delete)
    }

    fn commit(&mut self, resource: &Resource, value: &mut Value, record: Record) -> Result<Arc<Object>, ApiError> {
        let version = self.version + 1;
        head_first(value);
        metadata(value).insert("resourceVersion".into(), version.to_string().into());
        let bytes = serde_json::to_vec(value).map_err(|error| ApiError::internal(format!("cannot encode: {error}")))?;
        let object = Arc::new(Object::new(resource, value, version, bytes.into()));
        if let Some(log) = &mut self.log {
            log.append(record, &resource.id, &object.bytes)
                .map_err(|error| ApiError::internal(format!("cannot append to the data file: {error}")))?;
        }
        self.version = version;
        self.apply(resource, value, object.clone(), record == Record::Delete);
        Ok(object)
    }

    fn apply(&mut self, resource: &Resource, value: &Value, object: Arc<Object>, deleted: bool) {
        self.declare(resource, value, deleted);
        let version = object.version;
        let collection = self.collection_mut(&resource.id);
        let previous = if deleted {
            collection.objects.remove(&object.key)
        } else {
            collection.objects.insert(object.key.clone(), object.clone())
        };
        collection.history.push(Event { object, previous, deleted });
        collection.changed.send_replace(version);
    }

    fn declare(&mut self, resource: &Resource, value: &Value, deleted: bool) {
        if resource.id == CRDS {
            if deleted { self.registry.remove_crd(value) } else { self.registry.add_crd(value) }
        }
    }

    /// Forgets all history, so that every watch that resumes must list again.
    pub(crate) fn expire_history(&mut self) {
        self.version += 1;
        self.trimmed = self.version;
        for collection in self.collections.values_mut() {
            collection.history.expire(self.version);
        }
    }
}

/// Moves apiVersion and kind to the front, where `Resource::head` expects them.
fn head_first(value: &mut Value) {
    let map = object(value);
    for (at, field) in ["apiVersion", "kind"].into_iter().enumerate() {
        if let Some(text) = map.shift_remove(field) {
            map.shift_insert(at.min(map.len()), field.to_owned(), text);
        }
    }
}
