//! DELETE: at once, after finalizers, after a pod's grace period, and with everything inside a namespace.
//!
//! ```text
//! preconditions --> finalizers or grace? mark : remove --> namespace on its way out and now empty? remove it too
//! ```

use std::sync::Arc;

use serde_json::Value;

use super::update::success;
use super::{Outcome, mark_deleted};
use crate::error::ApiError;
use crate::list::List;
use crate::object::{Key, Object, child, has_finalizers, is_terminating, object};
use crate::resource::{CRDS, Resource, of_crd};
use crate::route::{Options, Target};
use crate::store::{Collection, State};

/// How long a pod may take to stop when nobody says.
const DEFAULT_GRACE: i64 = 30;

/// Deletes one object. `body` is a DeleteOptions, perhaps empty.
pub(super) fn delete(
    state: &mut State,
    target: &Target,
    options: &Options,
    name: &str,
    body: &Value,
) -> Result<Outcome, ApiError> {
    let resource = &target.resource;
    let stored = state.get(resource, &Key::new(&target.namespace, name))?.clone();
    let value = stored.value()?;
    check_preconditions(resource, &stored, &value, body)?;
    let grace = body["gracePeriodSeconds"].as_i64().or(options.grace_period_seconds()?);
    let uid = value["metadata"]["uid"].clone();
    if options.dry_run() || body["dryRun"].as_array().is_some_and(|list| !list.is_empty()) {
        return Ok(Outcome::Object(200, stored));
    }
    Ok(match delete_value(state, resource, value, grace)? {
        Some(object) => Outcome::Object(200, object),
        None => Outcome::Value(200, success(resource, name, &uid)),
    })
}

/// Deletes what the selectors match.
pub(super) fn delete_collection(
    state: &mut State,
    target: &Target,
    options: &Options,
    body: &Value,
) -> Result<Outcome, ApiError> {
    let list = List::select(state, target, options)?;
    let grace = body["gracePeriodSeconds"].as_i64().or(options.grace_period_seconds()?);
    if !options.dry_run() {
        for object in list.objects() {
            // An earlier deletion of this loop may have taken it along.
            if state.get(&target.resource, &object.key).is_ok() {
                delete_value(state, &target.resource, object.value()?, grace)?;
            }
        }
    }
    Ok(Outcome::List(list))
}

fn check_preconditions(resource: &Resource, stored: &Object, value: &Value, body: &Value) -> Result<(), ApiError> {
    let (uid, version) = (&value["metadata"]["uid"], stored.version.to_string());
    for (field, have) in [("uid", uid.as_str().unwrap_or("")), ("resourceVersion", &version)] {
        let want = body["preconditions"][field].as_str();
        if want.is_some_and(|want| want != have) {
            let why = format!("the {field} in the precondition ({}) does not match {have}", want.unwrap_or(""));
            return Err(ApiError::conflict(resource, &stored.key.name, &why));
        }
    }
    Ok(())
}

/// Removes the object, or marks it and returns it when something must happen first.
fn delete_value(
    state: &mut State,
    resource: &Resource,
    mut value: Value,
    grace: Option<i64>,
) -> Result<Option<Arc<Object>>, ApiError> {
    let key = Key::of(&value);
    let grace = grace_period(resource, &value, grace);
    let namespace = resource.id == "namespaces";
    if grace == 0 && !has_finalizers(&value) && !namespace {
        remove(state, resource, value)?;
        return Ok(None);
    }
    let known = value["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if !is_terminating(&value) || known.is_some_and(|known| grace < known) {
        mark_deleted(&mut value, grace);
        if namespace {
            child(object(&mut value), "status").insert("phase".into(), "Terminating".into());
        }
        state.put(resource, &mut value)?;
    }
    if namespace {
        empty_namespace(state, &key.name)?;
    }
    Ok(state.get(resource, &key).ok().cloned())
}

/// Only running pods on a node get time to stop; a kubelet ends it by deleting with grace 0.
fn grace_period(resource: &Resource, value: &Value, asked: Option<i64>) -> i64 {
    let bound = value["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let finished = matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if resource.id != "pods" || !bound || finished {
        return 0;
    }
    asked.or(value["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(DEFAULT_GRACE).max(0)
}

/// Takes an object away for good, with what cannot outlive it.
pub(super) fn remove(state: &mut State, resource: &Resource, mut value: Value) -> Result<Arc<Object>, ApiError> {
    if resource.id == CRDS {
        for custom in of_crd(&value) {
            remove_all(state, &custom)?;
        }
    }
    let object = state.remove(resource, &mut value)?;
    if resource.namespaced {
        finish_namespace(state, &object.key.namespace)?;
    }
    Ok(object)
}

fn remove_all(state: &mut State, resource: &Resource) -> Result<(), ApiError> {
    let objects: Vec<_> = state.collection_mut(&resource.id).objects.values().cloned().collect();
    for object in objects {
        state.remove(resource, &mut object.value()?)?;
    }
    Ok(())
}

/// Deletes all content of a namespace, then the namespace if nothing has to be waited for.
fn empty_namespace(state: &mut State, namespace: &str) -> Result<(), ApiError> {
    let content: Vec<(Arc<Resource>, Arc<Object>)> = state
        .collections()
        .filter_map(|(id, collection)| Some((state.registry.of_collection(id)?, collection)))
        .filter(|(resource, _)| resource.namespaced)
        .flat_map(|(resource, collection)| {
            let objects = Collection::range(&collection.objects, namespace, None);
            objects.map(|object| (resource.clone(), object.clone()))
        })
        .collect();
    for (resource, object) in content {
        delete_value(state, &resource, object.value()?, None)?;
    }
    finish_namespace(state, namespace)
}

/// Removes a namespace that is being deleted, empty and without finalizers of its own.
pub(super) fn finish_namespace(state: &mut State, name: &str) -> Result<(), ApiError> {
    let Some(namespaces) = state.registry.find("", "v1", "namespaces").cloned() else { return Ok(()) };
    let Ok(stored) = state.get(&namespaces, &Key::new("", name)) else { return Ok(()) };
    let mut value = stored.value()?;
    let empty = |state: &State| {
        let mut collections = state.collections().filter(|(id, _)| *id != "namespaces");
        collections.all(|(_, collection)| Collection::range(&collection.objects, name, None).next().is_none())
    };
    if is_terminating(&value) && !has_finalizers(&value) && empty(state) {
        state.remove(&namespaces, &mut value)?;
    }
    Ok(())
}
