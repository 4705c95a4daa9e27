//! What clients read before anything else: health, version, groups and resources.
//!
//! Input: the registry. Output: the discovery documents, unaggregated; clients fall back to them by themselves.

use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use crate::openapi;
use crate::resource::{Registry, Resource};
use crate::server::json_response;

/// The Kubernetes release whose API is imitated.
const VERSION: (&str, &str) = ("1", "33");

/// Answers the paths that name no resource; none when the path is not one of them.
pub(crate) fn serve<B>(registry: &Registry, request: &Request<B>) -> Option<Response<Body>> {
    if request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path().trim_end_matches('/');
    let document = match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Some(Response::new(Body::from("ok"))),
        ["version"] => version(),
        [] | [""] => json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(registry)}),
        ["apis", group] => groups(registry).into_iter().find(|found| found["name"] == *group)?,
        ["openapi", "v3"] => openapi::index(registry),
        ["openapi", "v3", "api", version] => openapi::document(registry, "", version)?,
        ["openapi", "v3", "apis", group, version] => openapi::document(registry, group, version)?,
        ["api", version] => resources(registry, "", version)?,
        ["apis", group, version] => resources(registry, group, version)?,
        _ => return None,
    };
    Some(json_response(200, &document))
}

fn version() -> Value {
    let (major, minor) = VERSION;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+ovenbird-stand-in"),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

fn groups(registry: &Registry) -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    for resource in registry.all() {
        if !resource.group.is_empty() && !names.contains(&resource.group.as_str()) {
            names.push(&resource.group);
        }
    }
    names.into_iter().map(|name| group(registry, name)).collect()
}

fn group(registry: &Registry, name: &str) -> Value {
    let mut versions: Vec<Value> = Vec::new();
    for resource in registry.all().iter().filter(|resource| resource.group == name) {
        let version = json!({"groupVersion": resource.api_version(), "version": resource.version});
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "preferredVersion": versions.first(), "versions": versions,
    })
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.all().iter().filter(|resource| resource.group == group && resource.version == version);
    let resources: Vec<Value> = found.flat_map(|resource| describe(resource)).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let document = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    (!resources.is_empty()).then_some(document)
}

fn describe(resource: &Resource) -> Vec<Value> {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let entry = |suffix: &str, kind: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}{suffix}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
            "kind": kind, "verbs": verbs,
        })
    };
    let mut main = entry("", &resource.kind, &verbs);
    main["singularName"] = resource.singular.as_str().into();
    main["shortNames"] = resource.short_names.as_slice().into();
    if matches!(resource.id.as_str(), "pods" | "services" | "deployments.apps" | "daemonsets.apps" | "jobs.batch") {
        main["categories"] = json!(["all"]);
    }
    let mut entries = vec![main];
    if resource.status {
        entries.push(entry("/status", &resource.kind, &["get", "patch", "update"]));
    }
    if resource.id == "pods" {
        entries.push(entry("/binding", "Binding", &["create"]));
        entries.push(entry("/eviction", "Eviction", &["create"]));
    }
    entries
}
