//! Server-side apply, and the field ownership that it needs.
//!
//! ```text
//! apply:  configuration --> conflicts with other managers? 409 --> merge --> drop what this manager no longer sets
//! write:  old, new object --> what changed belongs to the writer now
//! ```
//!
//! Simpler than a real API server: ownership is recorded only from the first apply of an object on (others' earlier
//! fields are nobody's), and lists are merged by the table of strategic merge patches.

use serde_json::{Value, json};

use super::fields::{self, Fields};
use super::strategic;
use crate::error::ApiError;
use crate::object::{metadata, timestamp};
use crate::resource::Resource;

/// Who writes: name of the field manager, and whether it takes fields from others.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) force: bool,
    /// Empty for the main resource.
    pub(crate) subresource: String,
}

/// One entry of managedFields.
struct Entry {
    head: Value,
    fields: Fields,
}

impl Entry {
    fn read(object: &Value) -> Vec<Self> {
        let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        entries
            .map(|entry| {
                let fields = entry["fieldsV1"].as_object().cloned().unwrap_or_default();
                Self { head: entry.clone(), fields }
            })
            .collect()
    }

    /// Writes the entries that still own something, in a stable order: applying twice must change nothing.
    fn write(mut entries: Vec<Self>, object: &mut Value) {
        entries.retain(|entry| !entry.fields.is_empty());
        entries.sort_by_cached_key(|Self { head, .. }| {
            ["operation", "manager", "subresource"].map(|field| head[field].as_str().unwrap_or("").to_owned())
        });
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|Self { mut head, fields }| {
                let fields = Value::Object(fields);
                if head["fieldsV1"] != fields {
                    head["time"] = timestamp(0).into();
                    head["fieldsV1"] = fields;
                }
                head
            })
            .collect();
        metadata(object).insert("managedFields".into(), entries.into());
    }

    /// The entry of a manager, taken out of `entries` or new.
    fn take(entries: &mut Vec<Self>, manager: &Manager, operation: &str, api_version: &str) -> Self {
        let same = |entry: &Self| {
            entry.head["manager"] == *manager.name
                && entry.head["operation"] == operation
                && entry.head["subresource"].as_str().unwrap_or("") == manager.subresource
        };
        if let Some(at) = entries.iter().position(same) {
            return entries.remove(at);
        }
        let mut head = json!({
            "manager": manager.name, "operation": operation, "apiVersion": api_version, "fieldsType": "FieldsV1",
        });
        if !manager.subresource.is_empty() {
            head["subresource"] = manager.subresource.as_str().into();
        }
        Self { head, fields: Fields::new() }
    }
}

/// Applies a configuration to `object`, which is called `name`.
pub(super) fn apply(
    resource: &Resource,
    name: &str,
    manager: &Manager,
    object: &mut Value,
    configuration: &Value,
) -> Result<(), ApiError> {
    let mut others = Entry::read(object);
    let mut mine = Entry::take(&mut others, manager, "Apply", &resource.api_version());
    let wanted = fields::of_object(configuration);
    let differing = fields::differing(&wanted, configuration, object);
    if !manager.force {
        let conflicts = conflicts(&others, &differing);
        if !conflicts.is_empty() {
            let why = format!("Apply failed with {} conflict(s): {}", conflicts.len(), conflicts.join("; "));
            return Err(ApiError::conflict(resource, name, &why));
        }
    }
    for other in &mut others {
        fields::subtract(&mut other.fields, &differing);
    }
    let mut gone = std::mem::replace(&mut mine.fields, wanted);
    fields::subtract(&mut gone, &mine.fields);
    let mut kept = mine.fields.clone();
    for other in &others {
        fields::unite(&mut kept, &other.fields);
    }
    fields::remove(object, &gone, &kept);
    let mut configuration = configuration.clone();
    metadata(&mut configuration).shift_remove("managedFields");
    strategic::merge(object, &configuration)?;
    others.push(mine);
    Entry::write(others, object);
    Ok(())
}

fn conflicts(others: &[Entry], differing: &Fields) -> Vec<String> {
    let mut conflicts = Vec::new();
    for other in others {
        let mut paths = Vec::new();
        fields::paths(&fields::common(differing, &other.fields), "", &mut paths);
        let owner = other.head["manager"].as_str().unwrap_or("");
        conflicts.extend(paths.into_iter().map(|path| format!("conflict with \"{owner}\": {path}")));
    }
    conflicts
}

/// Records that a write other than an apply changed `old` to `new`. Does nothing for objects that nobody ever applied.
pub(crate) fn record(resource: &Resource, manager: &Manager, old: &Value, new: &mut Value) {
    let reset = new["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    if reset {
        metadata(new).shift_remove("managedFields");
        return;
    }
    let Some(known) = old["metadata"].get("managedFields") else {
        metadata(new).shift_remove("managedFields");
        return;
    };
    metadata(new).insert("managedFields".into(), known.clone());
    let now = fields::of_object(new);
    let changed = fields::differing(&now, new, old);
    let mut gone = fields::of_object(old);
    fields::subtract(&mut gone, &now);
    let mut entries = Entry::read(old);
    let mut mine = Entry::take(&mut entries, manager, "Update", &resource.api_version());
    for entry in &mut entries {
        fields::subtract(&mut entry.fields, &changed);
        fields::subtract(&mut entry.fields, &gone);
    }
    fields::subtract(&mut mine.fields, &gone);
    fields::unite(&mut mine.fields, &changed);
    entries.push(mine);
    Entry::write(entries, new);
}
