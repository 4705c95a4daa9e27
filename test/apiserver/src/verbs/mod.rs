//! The writing verbs. Each runs from its read to its commit under the state's lock, on a body parsed before.
//!
//! ```text
//! POST -> create     PUT, PATCH -> update     DELETE -> delete     pods/binding, pods/eviction -> pod
//! ```
//!
//! Nothing here writes bytes to a client; the result is an `Outcome`.

mod create;
mod delete;
mod event;
mod pod;
mod update;

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::App;
use crate::error::ApiError;
use crate::list::List;
use crate::object::{Key, Object, metadata, timestamp};
use crate::patch::{self, Patch};
use crate::protobuf;
use crate::resource::Resource;
use crate::route::{Options, Target};
use crate::store::State;

/// What a write answers.
pub(crate) enum Outcome {
    /// A stored object, as its bytes.
    Object(u16, Arc<Object>),
    /// Anything else: a Status, or the object that a dry run would have stored.
    Value(u16, Value),
    /// The objects that a deletecollection found.
    List(List),
}

/// Performs the write that method and path ask for. `media` is the body's media type, without parameters.
pub(crate) fn write(
    app: &App,
    target: &Target,
    options: &Options,
    method: &Method,
    media: &str,
    body: &[u8],
) -> Result<Outcome, ApiError> {
    let subresource = target.subresource.as_deref();
    let whole = matches!(subresource, None | Some("status"));
    match (method, &target.name, subresource) {
        (&Method::POST, None, None) => {
            let mut body = decode(media, body)?;
            metadata(&mut body).shift_remove("managedFields");
            create::create(&mut app.state.write(), target, options, body)
        }
        (&Method::POST, Some(name), Some("binding")) if target.resource.id == "pods" => {
            let body = decode(media, body)?;
            pod::bind(&mut app.state.write(), target, name, &body)
        }
        (&Method::POST, Some(name), Some("eviction")) if target.resource.id == "pods" => {
            let body = decode(media, body)?;
            delete::delete(&mut app.state.write(), target, options, name, &body["deleteOptions"])
        }
        (&Method::PUT, Some(name), _) if whole || subresource == Some("finalize") => {
            let body = decode(media, body)?;
            update::put(&mut app.state.write(), target, options, name, body)
        }
        (&Method::PATCH, Some(name), _) if whole => {
            let patch = Patch::decode(&target.resource, media, body)?;
            update::patch(&mut app.state.write(), target, options, name, &patch)
        }
        (&Method::DELETE, Some(name), None) => {
            let body = decode_optional(media, body)?;
            delete::delete(&mut app.state.write(), target, options, name, &body)
        }
        (&Method::DELETE, None, None) => {
            let body = decode_optional(media, body)?;
            delete::delete_collection(&mut app.state.write(), target, options, &body)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Creates the namespaces that every cluster has.
pub(crate) fn seed(app: &App) -> Result<(), ApiError> {
    let mut state = app.state.write();
    let resource = state.registry.find("", "v1", "namespaces").cloned().ok_or_else(ApiError::no_such_path)?;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        if state.get(&resource, &Key::new("", name)).is_err() {
            let target = Target { resource: resource.clone(), namespace: String::new(), name: None, subresource: None };
            let body = json!({"metadata": {"name": name}});
            create::create(&mut state, &target, &Options::default(), body)?;
        }
    }
    Ok(())
}

fn decode(media: &str, body: &[u8]) -> Result<Value, ApiError> {
    let refused = || ApiError::unsupported_media_type(media, "application/json and application/yaml");
    let value = match media {
        "application/json" | "" => serde_json::from_slice(body).map_err(|error| error.to_string()),
        "application/yaml" => patch::from_yaml(body),
        protobuf::MEDIA_TYPE => match protobuf::decode(body) {
            Err(None) => return Err(refused()),
            Err(Some(why)) => Err(why),
            Ok(value) => Ok(value),
        },
        _ => return Err(refused()),
    };
    let value = value.map_err(|error| ApiError::bad_request(format!("the body cannot be decoded: {error}")))?;
    if !Value::is_object(&value) {
        return Err(ApiError::bad_request("the body is not an object"));
    }
    Ok(value)
}

fn decode_optional(media: &str, body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() { Ok(json!({})) } else { decode(media, body) }
}

/// A stored object as a tree, in the version of the request.
fn load(resource: &Resource, stored: &Object) -> Result<Value, ApiError> {
    let mut value = stored.value()?;
    value["apiVersion"] = resource.api_version().into();
    Ok(value)
}

/// Fills in apiVersion and kind, or refuses those of something else.
fn check_type(resource: &Resource, value: &mut Value) -> Result<(), ApiError> {
    for (field, want) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        match value[field].as_str() {
            None | Some("") => value[field] = want.into(),
            Some(got) if got == want => {}
            Some(got) => {
                let message = format!("{field} in the body is {got:?}, the path is for {want:?}");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(())
}

/// Stores an object, or on a dry run only says what would be stored.
fn store(
    state: &mut State,
    resource: &Resource,
    options: &Options,
    code: u16,
    mut value: Value,
) -> Result<Outcome, ApiError> {
    if options.dry_run() {
        return Ok(Outcome::Value(code, value));
    }
    state.put(resource, &mut value).map(|object| Outcome::Object(code, object))
}

/// Marks an object as being deleted, `grace` seconds from now.
fn mark_deleted(value: &mut Value, grace: i64) {
    let metadata = metadata(value);
    metadata.insert("deletionTimestamp".into(), timestamp(grace).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
}
