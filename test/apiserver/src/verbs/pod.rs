//! The binding subresource of pods: what a scheduler posts to place a pod on a node.

use serde_json::{Value, json};

use super::Outcome;
use crate::error::ApiError;
use crate::object::{Key, child, is_terminating, metadata, object, timestamp};
use crate::route::Target;
use crate::store::State;

/// Sets `spec.nodeName` once. `binding` is a v1 Binding.
pub(super) fn bind(state: &mut State, target: &Target, name: &str, binding: &Value) -> Result<Outcome, ApiError> {
    let resource = &target.resource;
    let mut pod = state.get(resource, &Key::new(&target.namespace, name))?.value()?;
    let node = binding["target"]["name"].as_str().unwrap_or("");
    if node.is_empty() {
        return Err(ApiError::invalid(resource, name, "target.name", "Required value"));
    }
    if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
        let why = format!("pod {name} is already assigned to node \"{bound}\"");
        return Err(ApiError::conflict(resource, name, &why));
    }
    if is_terminating(&pod) {
        return Err(ApiError::conflict(
            resource,
            name,
            &format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    child(object(&mut pod), "spec").insert("nodeName".into(), node.into());
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        child(metadata(&mut pod), "annotations").extend(annotations.clone());
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(0)});
    let status = child(object(&mut pod), "status");
    let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(scheduled);
    status.insert("conditions".into(), conditions.into());
    state.put(resource, &mut pod)?;
    Ok(Outcome::Value(
        201,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
