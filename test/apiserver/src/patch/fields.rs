//! Sets of fields, in the FieldsV1 form of `metadata.managedFields`: who owns what, for server-side apply.
//!
//! ```text
//! {"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}}
//! ```
//!
//! `f:` steps into an object, `k:` to the item of a keyed list, `v:` to a member of a set; `{}` is a leaf. Atomic lists
//! and scalars are leaves. Nothing here knows managers.

use serde_json::{Map, Value, json};

use super::lists::{ListKind, list_kind};

/// A set of fields.
pub(super) type Fields = Map<String, Value>;

/// Fields that identify an object or belong to the server: nobody owns them.
const UNOWNED: &[&str] = &["apiVersion", "kind"];
const UNOWNED_METADATA: &[&str] = &[
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// All fields that a configuration sets.
pub(super) fn of_object(object: &Value) -> Fields {
    let mut fields = of_value(object, "", "");
    for name in UNOWNED {
        fields.shift_remove(&format!("f:{name}"));
    }
    if let Some(metadata) = fields.get_mut("f:metadata").and_then(Value::as_object_mut) {
        for name in UNOWNED_METADATA {
            metadata.shift_remove(&format!("f:{name}"));
        }
        if metadata.is_empty() {
            fields.shift_remove("f:metadata");
        }
    }
    fields
}

fn of_value(value: &Value, parent: &str, field: &str) -> Fields {
    match value {
        Value::Object(map) => {
            map.iter().map(|(name, v)| (format!("f:{name}"), of_value(v, field, name).into())).collect()
        }
        Value::Array(items) => match list_kind(parent, field) {
            ListKind::Atomic => Fields::new(),
            ListKind::Set => items.iter().map(|item| (format!("v:{item}"), json!({}))).collect(),
            ListKind::Keyed(key) => items
                .iter()
                .map(|item| {
                    let mut fields = of_value(item, parent, field);
                    fields.insert(".".into(), json!({}));
                    (format!("k:{}", json!({key: item[key]})), fields.into())
                })
                .collect(),
        },
        _ => Fields::new(),
    }
}

/// The value that one step of a path leads to.
fn step<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match step.split_at_checked(2)? {
        ("f:", name) => value.get(name),
        ("k:", key) => value.as_array()?.iter().find(|item| is_item(item, key)),
        ("v:", member) => value.as_array()?.iter().find(|item| is_member(item, member)),
        _ => None,
    }
}

fn is_item(item: &Value, key: &str) -> bool {
    let key: Value = serde_json::from_str(key).unwrap_or_default();
    key.as_object().is_some_and(|key| key.iter().all(|(name, value)| item.get(name) == Some(value)))
}

fn is_member(item: &Value, member: &str) -> bool {
    serde_json::from_str::<Value>(member).is_ok_and(|member| member == *item)
}

fn child<'a>(fields: &'a Fields, step: &str) -> Option<&'a Fields> {
    fields.get(step).and_then(Value::as_object)
}

/// Adds `other` to `fields`.
pub(super) fn unite(fields: &mut Fields, other: &Fields) {
    for (step, below) in other {
        let slot = fields.entry(step.clone()).or_insert_with(|| json!({}));
        if let (Value::Object(slot), Value::Object(below)) = (slot, below) {
            unite(slot, below);
        }
    }
}

/// Takes the leaves of `other` out of `fields`, and whatever is empty then.
pub(super) fn subtract(fields: &mut Fields, other: &Fields) {
    fields.retain(|step, below| {
        let (Some(below), Some(other)) = (below.as_object_mut(), child(other, step)) else { return true };
        if below.is_empty() {
            return !other.is_empty();
        }
        subtract(below, other);
        !below.is_empty()
    });
}

/// The leaves of `fields` whose values in `a` and `b` differ.
pub(super) fn differing(fields: &Fields, a: &Value, b: &Value) -> Fields {
    let mut found = Fields::new();
    for (name, below) in fields {
        let (a, b) = (step(a, name), step(b, name));
        match below.as_object() {
            Some(below) if !below.is_empty() => {
                let below = differing(below, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null));
                if !below.is_empty() {
                    found.insert(name.clone(), below.into());
                }
            }
            _ if name == "." => {}
            _ if a != b => drop(found.insert(name.clone(), json!({}))),
            _ => {}
        }
    }
    found
}

/// The leaves that are in both.
pub(super) fn common(a: &Fields, b: &Fields) -> Fields {
    let mut found = Fields::new();
    for (step, below) in a {
        let (Some(below), Some(other)) = (below.as_object(), child(b, step)) else { continue };
        let both = common(below, other);
        if !both.is_empty() || (below.is_empty() && other.is_empty()) {
            found.insert(step.clone(), both.into());
        }
    }
    found
}

/// Removes from `value` the fields in `gone` that are not in `kept`, and objects and lists that become empty by it.
pub(super) fn remove(value: &mut Value, gone: &Fields, kept: &Fields) {
    for (name, below) in gone {
        let below = below.as_object().cloned().unwrap_or_default();
        let kept = child(kept, name);
        let whole = kept.is_none() && (below.is_empty() || below.contains_key("."));
        let nothing = Fields::new();
        match (name.split_at_checked(2), &mut *value) {
            (Some(("f:", name)), Value::Object(map)) => {
                if let Some(inner) = map.get_mut(name).filter(|_| !whole && !below.is_empty()) {
                    remove(inner, &below, kept.unwrap_or(&nothing));
                }
                let empty = map.get(name).is_some_and(|inner| *inner == json!({}) || *inner == json!([]));
                if whole || (kept.is_none() && empty) {
                    map.shift_remove(name);
                }
            }
            (Some(("k:", key)), Value::Array(items)) => {
                if whole {
                    items.retain(|item| !is_item(item, key));
                } else if let Some(item) = items.iter_mut().find(|item| is_item(item, key)) {
                    remove(item, &below, kept.unwrap_or(&nothing));
                }
            }
            (Some(("v:", member)), Value::Array(items)) if whole => items.retain(|item| !is_member(item, member)),
            _ => {}
        }
    }
}

/// The leaves as paths for people: `.spec.replicas`.
pub(super) fn paths(fields: &Fields, prefix: &str, out: &mut Vec<String>) {
    for (step, below) in fields {
        let path = match step.split_at_checked(2) {
            Some(("f:", name)) => format!("{prefix}.{name}"),
            Some((_, rest)) => format!("{prefix}[{rest}]"),
            None => continue,
        };
        match below.as_object() {
            Some(below) if !below.is_empty() => paths(below, &path, out),
            _ => out.push(path),
        }
    }
}
