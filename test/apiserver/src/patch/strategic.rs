//! Strategic merge patch: a merge patch that merges some lists item by item. Which, says the
//! table in `lists`.
//!
//! Directives understood: `$patch: delete|replace|merge`, `$deleteFromPrimitiveList/F`, `$setElementOrder/F` (ignored),
//! `$retainKeys` (ignored).

use serde_json::{Map, Value};

use super::lists::{ListKind, list_kind};
use crate::error::ApiError;
use crate::object::object;

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
