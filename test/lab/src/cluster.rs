//! The lab as a client of its API server: credentials, and manifests in and out.
//!
//! In: a kubeconfig, YAML. Out: a client; objects applied or deleted. It must not know any kind by name.

use std::path::Path;

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::{Cluster, Context as ConfigContext, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Config};
use serde_json::Value;

const MANAGER: &str = "ovenbird-lab";

/// Connects with a kubeconfig's current context.
///
/// # Errors
/// When the file is unusable. Nothing is sent yet.
pub async fn connect(kubeconfig: &Path) -> Result<Client> {
    let read = || format!("reading {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(read)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(read)?;
    Client::try_from(config).with_context(read)
}

/// A kubeconfig for a server that asks for no credentials.
pub fn plain_kubeconfig(port: u16) -> Kubeconfig {
    let cluster = Cluster { server: Some(format!("http://127.0.0.1:{port}")), ..Cluster::default() };
    let context = ConfigContext { cluster: "lab".into(), ..ConfigContext::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: "lab".into(), cluster: Some(cluster), ..NamedCluster::default() }],
        contexts: vec![NamedContext { name: "lab".into(), context: Some(context), ..NamedContext::default() }],
        current_context: Some("lab".into()),
        api_version: Some("v1".into()),
        kind: Some("Config".into()),
        ..Kubeconfig::default()
    }
}

/// A given kubeconfig, led through the gate on `port`, and the HOST:PORT that the gate must connect to.
///
/// # Errors
/// When the file's current context has no usable server.
pub fn gated_kubeconfig(path: &Path, port: u16) -> Result<(Kubeconfig, String)> {
    let mut file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let current = file.current_context.clone().unwrap_or_default();
    let context = file.contexts.iter().find(|context| context.name == current).and_then(|named| named.context.clone());
    let name = context.with_context(|| format!("{} has no current context", path.display()))?.cluster;
    let named = file.clusters.iter_mut().find(|cluster| cluster.name == name).and_then(|named| named.cluster.as_mut());
    let cluster = named.with_context(|| format!("{} lacks its cluster {name}", path.display()))?;
    let uri: http::Uri =
        cluster.server.as_deref().unwrap_or_default().parse().context("reading the server's address")?;
    let host = uri.host().context("the server's address has no host")?.to_owned();
    let scheme = uri.scheme_str().unwrap_or("https");
    let upstream = format!("{host}:{}", uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 }));
    cluster.server = Some(format!("{scheme}://127.0.0.1:{port}"));
    // The certificate still names the server, not the gate.
    cluster.tls_server_name.get_or_insert(host.trim_matches(['[', ']']).to_owned());
    Ok((file, upstream))
}

/// Applies every object of a manifest (several YAML documents, Lists too), in order. Returns `kind/name` of each.
///
/// # Errors
/// Names the document that is unusable, or the object the server refused.
pub async fn apply(client: &Client, yaml: &str) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for object in objects(yaml)? {
        let (api, name, label) = target(client, &object).await?;
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(|| format!("applying {label}"))?;
        done.push(label);
    }
    Ok(done)
}

/// Deletes every object of a manifest, last first. Objects that are not there are no error.
///
/// # Errors
/// Names the document that is unusable, or the object the server refused to delete.
pub async fn delete(client: &Client, yaml: &str) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for object in objects(yaml)?.into_iter().rev() {
        let (api, name, label) = target(client, &object).await?;
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => done.push(label),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("deleting {label}")),
        }
    }
    Ok(done)
}

/// The objects of a manifest: documents, with Lists unfolded and empty ones left out.
fn objects(yaml: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("reading YAML")?;
    let unfold = |document: Value| match document.get("items").and_then(Value::as_array) {
        Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
        _ => vec![document],
    };
    let values = documents.into_iter().flat_map(unfold).filter(|value| !value.is_null());
    values
        .enumerate()
        .map(|(index, value)| {
            serde_json::from_value(value).with_context(|| format!("object {}: not a Kubernetes object", index + 1))
        })
        .collect()
}

async fn target(client: &Client, object: &DynamicObject) -> Result<(Api<DynamicObject>, String, String)> {
    let types = object.types.clone().context("an object lacks apiVersion and kind")?;
    let name = object.metadata.name.clone().with_context(|| format!("a {} lacks metadata.name", types.kind))?;
    let label = format!("{}/{name}", types.kind.to_lowercase());
    let kind = GroupVersionKind::try_from(&types).with_context(|| format!("{label}: bad apiVersion"))?;
    let (resource, capabilities) =
        pinned_kind(client, &kind).await.with_context(|| format!("{label}: looking up its kind"))?;
    Ok((api_for(client, object, &resource, &capabilities.scope), name, label))
}

fn api_for(client: &Client, object: &DynamicObject, resource: &ApiResource, scope: &Scope) -> Api<DynamicObject> {
    match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, resource)
        }
    }
}
