//! Strategic merge patch: a merge patch that merges some lists item by item. Which lists, is a table.
//!
//! Directives understood: `$patch: delete|replace|merge`, `$deleteFromPrimitiveList/F`, `$setElementOrder/F` (ignored),
//! `$retainKeys` (ignored).

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::object::object;

/// How two versions of a list become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// The new one replaces the old one.
    Atomic,
    /// Items with the same value of this field are the same item.
    Keyed(&'static str),
    /// A set of strings.
    Set,
}

/// The list `field` of an object that is itself the value of `parent` (or an item of it).
/// From the patchMergeKey tags of the Kubernetes API types.
#[rustfmt::skip]
const LISTS: &[(&str, &str, ListKind)] = &[
    ("*", "conditions", ListKind::Keyed("type")),
    ("*", "containers", ListKind::Keyed("name")),
    ("*", "initContainers", ListKind::Keyed("name")),
    ("*", "ephemeralContainers", ListKind::Keyed("name")),
    ("*", "volumes", ListKind::Keyed("name")),
    ("*", "env", ListKind::Keyed("name")),
    ("*", "volumeMounts", ListKind::Keyed("mountPath")),
    ("*", "volumeDevices", ListKind::Keyed("devicePath")),
    ("*", "imagePullSecrets", ListKind::Keyed("name")),
    ("*", "hostAliases", ListKind::Keyed("ip")),
    ("*", "topologySpreadConstraints", ListKind::Keyed("topologyKey")),
    ("containers", "ports", ListKind::Keyed("containerPort")),
    ("initContainers", "ports", ListKind::Keyed("containerPort")),
    ("spec", "ports", ListKind::Keyed("port")),
    ("spec", "podCIDRs", ListKind::Set),
    ("status", "addresses", ListKind::Keyed("type")),
    ("status", "podIPs", ListKind::Keyed("ip")),
    ("status", "hostIPs", ListKind::Keyed("ip")),
    ("metadata", "ownerReferences", ListKind::Keyed("uid")),
    ("metadata", "finalizers", ListKind::Set),
];

pub(super) fn list_kind(parent: &str, field: &str) -> ListKind {
    let found = LISTS.iter().find(|(under, name, _)| *name == field && (*under == "*" || *under == parent));
    found.map_or(ListKind::Atomic, |(_, _, kind)| *kind)
}

/// Merges `patch` into `target`.
pub(super) fn merge(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    merge_value(target, patch, "")
}

fn merge_value(target: &mut Value, patch: &Value, parent: &str) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => {
            *target = Value::Null;
            return Ok(());
        }
        Some("replace") => *target = Value::Object(Map::new()),
        Some("merge") | None => {}
        Some(other) => return Err(ApiError::bad_request(format!("unknown strategic merge directive $patch: {other}"))),
    }
    let target = object(target);
    for (field, value) in patch {
        if let Some(name) = field.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(list) = target.get_mut(name).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
        } else if field.starts_with('$') {
            continue;
        } else if value.is_null() {
            target.shift_remove(field);
        } else {
            merge_field(target, field, value, parent)?;
        }
    }
    Ok(())
}

fn merge_field(target: &mut Map<String, Value>, field: &str, value: &Value, parent: &str) -> Result<(), ApiError> {
    let slot = target.entry(field).or_insert(Value::Null);
    match value {
        Value::Array(items) => {
            let old = match slot.take() {
                Value::Array(old) => old,
                _ => Vec::new(),
            };
            *slot = merge_list(old, items, list_kind(parent, field), field)?.into();
        }
        value => merge_value(slot, value, field)?,
    }
    if slot.is_null() {
        target.shift_remove(field);
    }
    Ok(())
}

fn merge_list(mut old: Vec<Value>, patch: &[Value], kind: ListKind, field: &str) -> Result<Vec<Value>, ApiError> {
    match kind {
        ListKind::Atomic => Ok(patch.to_vec()),
        ListKind::Set => {
            for item in patch {
                if !old.contains(item) {
                    old.push(item.clone());
                }
            }
            Ok(old)
        }
        ListKind::Keyed(key) => {
            if patch.iter().any(|item| item["$patch"] == "replace") {
                old.clear();
            }
            for item in patch.iter().filter(|item| item["$patch"] != "replace") {
                if item.get(key).is_none() {
                    return Err(ApiError::bad_request(format!(
                        "an item of {field} does not contain its merge key {key}"
                    )));
                }
                let at = old.iter().position(|candidate| candidate.get(key) == item.get(key));
                match (at, item["$patch"] == "delete") {
                    (Some(at), true) => drop(old.remove(at)),
                    (None, true) => {}
                    (Some(at), false) => merge_value(&mut old[at], item, field)?,
                    (None, false) => {
                        let mut new = Value::Null;
                        merge_value(&mut new, item, field)?;
                        old.push(new);
                    }
                }
            }
            Ok(old)
        }
    }
}
