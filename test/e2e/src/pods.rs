//! Pods for tests: manifests, and waiting for what becomes of them.
//!
//! In: names and nodes. Out: YAML; conditions met. It must not know what a test proves with them.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use ovenbird_lab::Lab;
use serde_json::json;
use tokio::time::timeout;

use crate::LIMIT;

/// Pods that come, and go, in each round of `churn`.
const PODS_PER_ROUND: usize = 6;

/// A pod that answers probes.
pub fn pod(namespace: &str, name: &str, node: &str) -> String {
    let spec = json!({
        "nodeName": node, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"]}],
    });
    format!(
        "---\n{}\n",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    )
}

/// A namespace.
pub fn namespace(name: &str) -> String {
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

/// Pods of a namespace.
///
/// # Errors
/// When the API server's credentials are unusable.
pub async fn api(lab: &Lab, namespace: &str) -> Result<Api<Pod>> {
    Ok(Api::namespaced(lab.client().await?, namespace))
}

/// Waits until a pod is gone from the API.
///
/// # Errors
/// When it never goes.
pub async fn await_gone(api: &Api<Pod>, name: &str) -> Result<()> {
    let gone = await_condition(api.clone(), name, |pod: Option<&Pod>| pod.is_none());
    timeout(LIMIT, gone).await.map_err(|_| anyhow!("{name} does not go"))?.context("watching a pod")?;
    Ok(())
}

/// Deletes all pods of a namespace and waits until they are gone.
///
/// # Errors
/// When one stays.
pub async fn delete_all(api: &Api<Pod>) -> Result<()> {
    let pods = api.list(&ListParams::default()).await.context("listing pods")?;
    let names: Vec<_> = pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &names {
        api.delete(name, &DeleteParams::default()).await.with_context(|| format!("deleting {name}"))?;
    }
    for name in &names {
        await_gone(api, name).await?;
    }
    Ok(())
}

/// A burst of requests: creates pods `pROUND-INDEX` on two nodes and deletes those of the round before. `fault` strikes between two of
/// the requests; between which differs from round to round.
///
/// # Errors
/// When a request is refused, or what `fault` returns.
pub async fn churn(lab: &Lab, namespace: &str, round: usize, fault: impl Fn() -> Result<()>) -> Result<()> {
    let api = api(lab, namespace).await?;
    for index in 0..PODS_PER_ROUND {
        if index == (round * 2) % PODS_PER_ROUND {
            fault()?;
        }
        let node = if index % 2 == 0 { "node1" } else { "node2" };
        lab.apply(&pod(namespace, &format!("p{round}-{index}"), node)).await?;
        if let Some(before) = round.checked_sub(1) {
            api.delete(&format!("p{before}-{index}"), &DeleteParams::default()).await.context("deleting a pod")?;
        }
    }
    Ok(())
}

/// Why a pod waits, as its status says.
pub fn waiting_message(pod: &Pod) -> Option<&str> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.waiting.as_ref()?.message.as_deref()
}

/// The addresses of a running pod.
///
/// # Errors
/// When there is no such pod.
pub async fn ips(api: &Api<Pod>, name: &str) -> Result<Vec<IpAddr>> {
    let pod = api.get(name).await.with_context(|| format!("reading {name}"))?;
    let ips = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
    Ok(ips.iter().filter_map(|entry| entry.ip.parse().ok()).collect())
}
