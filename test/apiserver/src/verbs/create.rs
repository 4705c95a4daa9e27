//! CREATE: names, identity and first status of a new object.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Outcome, check_type, event, store};
use crate::error::ApiError;
use crate::object::{Key, child, is_terminating, metadata, object, timestamp};
use crate::resource::{CRDS, Resource, of_crd};
use crate::route::{Options, Target};
use crate::store::State;

/// Stores a new object under a name of its own or a generated one.
pub(super) fn create(
    state: &mut State,
    target: &Target,
    options: &Options,
    mut value: Value,
) -> Result<Outcome, ApiError> {
    let resource = &target.resource;
    check_type(resource, &mut value)?;
    let name = name(resource, &mut value)?;
    check_namespace(state, target, &mut value)?;
    let key = Key::new(&target.namespace, &name);
    if state.get(resource, &key).is_ok() {
        return Err(ApiError::already_exists(resource, &name));
    }
    let fields = metadata(&mut value);
    for server_side in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
        fields.shift_remove(server_side);
    }
    fields.insert("uid".into(), Uuid::new_v4().to_string().into());
    fields.insert("creationTimestamp".into(), timestamp(0).into());
    first_status(resource, &mut value);
    complete(resource, &name, &mut value)?;
    store(state, resource, options, 201, value)
}

fn name(resource: &Resource, value: &mut Value) -> Result<String, ApiError> {
    let metadata = metadata(value);
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let (mut name, prefix) = (text("name"), text("generateName"));
    if name.is_empty() && !prefix.is_empty() {
        let random = Uuid::new_v4().simple().to_string();
        let prefix: String = prefix.chars().take(58).collect();
        name = format!("{prefix}{}", &random[..5]);
    }
    check_name(resource, &name)?;
    metadata.insert("name".into(), name.clone().into());
    Ok(name)
}

fn check_name(resource: &Resource, name: &str) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::invalid(resource, name, "metadata.name", why));
    if name.is_empty() {
        return refuse("Required value: name or generateName is required");
    }
    if resource.group == "rbac.authorization.k8s.io" {
        let bad = matches!(name, "." | "..") || name.contains(['/', '%']);
        return if bad { refuse("Invalid value: may not be '.', '..' or contain '/' or '%'") } else { Ok(()) };
    }
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return refuse("Invalid value: a lowercase RFC 1123 subdomain of at most 253 characters is required");
    }
    if resource.id == "namespaces" && (name.len() > 63 || name.contains('.')) {
        return refuse("Invalid value: a lowercase RFC 1123 label of at most 63 characters is required");
    }
    Ok(())
}

/// The namespace of path and body must agree, exist and not be on its way out.
fn check_namespace(state: &State, target: &Target, value: &mut Value) -> Result<(), ApiError> {
    let resource = &target.resource;
    let metadata = metadata(value);
    if !resource.namespaced {
        metadata.shift_remove("namespace");
        return Ok(());
    }
    if target.namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or("");
    if !given.is_empty() && given != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let namespaces = state.registry.find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    let namespace = state.get(namespaces, &Key::new("", &target.namespace))?.value()?;
    if is_terminating(&namespace) {
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or("");
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", target.namespace);
        return Err(ApiError::forbidden(resource, name, &why));
    }
    metadata.insert("namespace".into(), target.namespace.clone().into());
    Ok(())
}

/// The status that the server itself gives a new object.
fn first_status(resource: &Resource, value: &mut Value) {
    match resource.id.as_str() {
        "pods" => value["status"] = json!({"phase": "Pending"}),
        "namespaces" => {
            value["spec"] = json!({"finalizers": ["kubernetes"]});
            value["status"] = json!({"phase": "Active"});
        }
        CRDS => value["status"] = established(value),
        _ if resource.custom && resource.status => drop(object(value).shift_remove("status")),
        _ => {}
    }
    if value.get("spec").is_some() {
        metadata(value).insert("generation".into(), 1.into());
    }
}

fn established(crd: &Value) -> Value {
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "served as stored",
               "lastTransitionTime": timestamp(0)})
    };
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<&Value> = versions.filter(|version| version["storage"] == true).map(|v| &v["name"]).collect();
    json!({
        "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
        "acceptedNames": crd["spec"]["names"], "storedVersions": stored,
    })
}

/// The few defaults that clients rely on and the few checks that the server itself relies on. Done on every write.
pub(super) fn complete(resource: &Resource, name: &str, value: &mut Value) -> Result<(), ApiError> {
    match resource.id.as_str() {
        "namespaces" => {
            let name = value["metadata"]["name"].clone();
            child(metadata(value), "labels").insert("kubernetes.io/metadata.name".into(), name);
        }
        "events" => event::mirror(resource, value),
        CRDS if of_crd(value).is_empty() => {
            let why = "Invalid value: group, names.plural, names.kind and a served version are required";
            return Err(ApiError::invalid(resource, name, "spec", why));
        }
        CRDS if of_crd(value).iter().any(|custom| custom.id != name) => {
            let why = "Invalid value: must be spec.names.plural+\".\"+spec.group";
            return Err(ApiError::invalid(resource, name, "metadata.name", why));
        }
        _ => {}
    }
    Ok(())
}
