//! UPDATE and PATCH: from the stored object and a new state to the next stored object.
//!
//! ```text
//! new state --> identity and version agree --> what the client may not write is restored --> changed? --> store
//! ```
//!
//! A write that changes nothing stores nothing and answers the object as it is, as a real API server does.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Outcome, check_type, create, delete, load, store};
use crate::error::ApiError;
use crate::object::{Key, Object, has_finalizers, is_terminating, metadata, object};
use crate::patch::{Manager, Patch, record};
use crate::resource::Resource;
use crate::route::{Options, Target};
use crate::store::State;

/// Metadata that only the server writes.
const SERVER_METADATA: [&str; 6] =
    ["namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Replaces an object.
pub(super) fn put(
    state: &mut State,
    target: &Target,
    options: &Options,
    name: &str,
    value: Value,
) -> Result<Outcome, ApiError> {
    let stored = state.get(&target.resource, &Key::new(&target.namespace, name))?.clone();
    let old = load(&target.resource, &stored)?;
    replace(state, target, options, (&stored, &old), value, Some(options.manager(target)?))
}

/// Applies a patch; server-side apply creates what is missing.
pub(super) fn patch(
    state: &mut State,
    target: &Target,
    options: &Options,
    name: &str,
    patch: &Patch,
) -> Result<Outcome, ApiError> {
    let resource = &target.resource;
    let manager = options.manager(target)?;
    if patch.is_apply() && !options.names_manager() {
        return Err(ApiError::bad_request("fieldManager is required for apply patch"));
    }
    let stored = match state.get(resource, &Key::new(&target.namespace, name)) {
        Ok(stored) => stored.clone(),
        Err(_) if patch.is_apply() && target.subresource.is_none() => {
            let mut value = json!({"apiVersion": resource.api_version(), "kind": resource.kind});
            patch.apply(resource, name, &manager, &mut value)?;
            metadata(&mut value).insert("name".into(), name.into());
            return create::create(state, target, options, value);
        }
        Err(missing) => return Err(missing),
    };
    let old = load(resource, &stored)?;
    let mut new = old.clone();
    patch.apply(resource, name, &manager, &mut new)?;
    replace(state, target, options, (&stored, &old), new, (!patch.is_apply()).then_some(manager))
}

fn replace(
    state: &mut State,
    target: &Target,
    options: &Options,
    (stored, old): (&Arc<Object>, &Value),
    mut new: Value,
    manager: Option<Manager>,
) -> Result<Outcome, ApiError> {
    let resource = &target.resource;
    check_type(resource, &mut new)?;
    check_identity(resource, stored, old, &mut new)?;
    restore(resource, target.subresource.as_deref(), old, &mut new);
    create::complete(resource, &stored.key.name, &mut new)?;
    if let Some(manager) = manager {
        record(resource, &manager, old, &mut new);
    }
    if new.get("spec") != old.get("spec") {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        metadata(&mut new).insert("generation".into(), generation.saturating_add(1).into());
    }
    if new == *old {
        return Ok(Outcome::Object(200, stored.clone()));
    }
    let graceful = new["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|grace| grace > 0);
    let last_finalizer_gone = is_terminating(&new) && !has_finalizers(&new) && !graceful;
    if last_finalizer_gone && !options.dry_run() && resource.id != "namespaces" {
        return delete::remove(state, resource, new).map(|object| Outcome::Object(200, object));
    }
    let outcome = store(state, resource, options, 200, new)?;
    if resource.id == "namespaces" {
        // The answer is the namespace as it was stored last, even if this takes it away.
        delete::finish_namespace(state, &stored.key.name)?;
    }
    Ok(outcome)
}

fn check_identity(resource: &Resource, stored: &Object, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    let name = &*stored.key.name;
    let metadata = metadata(new);
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    if !text("name").is_empty() && text("name") != name {
        let message = format!("the name of the object ({}) does not match the name on the URL ({name})", text("name"));
        return Err(ApiError::bad_request(message));
    }
    let namespace = text("namespace");
    if !namespace.is_empty() && *namespace != *stored.key.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let uid = old["metadata"]["uid"].as_str().unwrap_or("");
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {uid}", text("uid"));
        return Err(ApiError::conflict(resource, name, &why));
    }
    let version = text("resourceVersion");
    if !version.is_empty() && version != "0" && version != stored.version.to_string() {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(resource, name, why));
    }
    metadata.insert("name".into(), name.into());
    metadata.insert("resourceVersion".into(), stored.version.to_string().into());
    Ok(())
}

/// Puts back what this request may not change: server metadata, and status or everything but status.
fn restore(resource: &Resource, subresource: Option<&str>, old: &Value, new: &mut Value) {
    if subresource == Some("status") {
        let status = object(new).shift_remove("status");
        let metadata = object(new).shift_remove("metadata");
        *new = old.clone();
        set(new, "status", status.as_ref());
        // Built-in resources take labels and annotations through status too; custom ones do not.
        if !resource.custom {
            set(new, "metadata", metadata.as_ref());
        }
    } else if resource.status {
        set(new, "status", old.get("status"));
    }
    for field in SERVER_METADATA {
        match old["metadata"].get(field) {
            Some(value) => drop(metadata(new).insert(field.into(), value.clone())),
            None => drop(metadata(new).shift_remove(field)),
        }
    }
}

fn set(value: &mut Value, field: &str, to: Option<&Value>) {
    match to {
        Some(to) if !to.is_null() => value[field] = to.clone(),
        _ => drop(object(value).shift_remove(field)),
    }
}

/// The body of a successful deletion.
pub(super) fn success(resource: &Resource, name: &str, uid: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid},
    })
}
