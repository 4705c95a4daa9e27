//! A stored object: its JSON bytes, written once, and the few values that selectors look at.
//!
//! Reads (list, watch, get) hand out the bytes; only writes parse them into a tree. Nothing here performs I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::resource::Resource;

/// Namespace (empty for cluster-scoped objects) and name; sorts as lists do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(value: &Value) -> Self {
        let metadata = &value["metadata"];
        Self::new(metadata["namespace"].as_str().unwrap_or(""), metadata["name"].as_str().unwrap_or(""))
    }
}

/// The objects of one resource, in the order of their keys.
pub(crate) type Objects = BTreeMap<Key, Arc<Object>>;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One version of one object. Immutable: a write stores a new one.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) version: u64,
    /// Compact JSON, with apiVersion, kind and resourceVersion.
    pub(crate) bytes: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(&'static str, Box<str>)]>,
}

impl Object {
    /// `value` must already carry `version` as its resourceVersion.
    pub(crate) fn new(resource: &Resource, value: &Value, version: u64, bytes: Bytes) -> Self {
        let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect();
        let fields = resource.fields.iter().filter_map(|path| Some((*path, field(value, path)?))).collect();
        Self { key: Key::of(value), version, bytes, labels, fields }
    }

    /// The parsed object.
    pub(crate) fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| ApiError::internal(format!("stored object {} is not JSON: {error}", self.key)))
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }

    /// The value that a field selector compares; absent is the empty string.
    pub(crate) fn field(&self, path: &str) -> &str {
        match path {
            "metadata.name" => &self.key.name,
            "metadata.namespace" => &self.key.namespace,
            _ => self.fields.iter().find(|(name, _)| *name == path).map_or("", |(_, value)| value),
        }
    }
}

fn field(value: &Value, path: &str) -> Option<Box<str>> {
    match path.split('.').try_fold(value, |value, step| value.get(step))? {
        Value::String(text) => Some(text.as_str().into()),
        scalar @ (Value::Bool(_) | Value::Number(_)) => Some(scalar.to_string().into()),
        _ => None,
    }
}

/// `metadata` of an object as a map, made when it is missing or of the wrong type.
pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    child(object(value), "metadata")
}

/// The value as a map; anything else is replaced by an empty one.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The map under `key`, made when it is missing or of the wrong type.
pub(crate) fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    object(map.entry(key).or_insert(Value::Null))
}

/// Whether `metadata.finalizers` holds anything.
pub(crate) fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// Whether deletion was asked for.
pub(crate) fn is_terminating(value: &Value) -> bool {
    value["metadata"]["deletionTimestamp"].is_string()
}

/// The present time as metadata carries it: RFC 3339, whole seconds, UTC.
pub(crate) fn timestamp(offset_seconds: i64) -> String {
    let seconds = jiff::Timestamp::now().as_second().saturating_add(offset_seconds);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
