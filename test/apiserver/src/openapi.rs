//! OpenAPI v3, as little as lets kubectl create and apply without `--validate=false`: paths without schemas, whose
//! parameters say that the server validates fields. (It accepts every field.) `/openapi/v2` is not served.

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource};

/// Which documents there are: one per group and version.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.all() {
        let name = name(resource);
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{name}")});
        paths.insert(name, url);
    }
    json!({"paths": paths})
}

fn name(resource: &Resource) -> String {
    let prefix = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", resource.api_version())
}

/// The document of one group and version; none when it is not served.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut paths = Map::new();
    for resource in registry.all().iter().filter(|resource| resource.group == group && resource.version == version) {
        let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{scope}{}/{{name}}", name(resource), resource.plural);
        paths.insert(path, json!({"patch": patch(resource)}));
    }
    let info = json!({"title": "Kubernetes, a stand-in", "version": "v1"});
    let served = !paths.is_empty();
    served.then(|| json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}))
}

fn patch(resource: &Resource) -> Value {
    let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
    json!({
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    })
}
