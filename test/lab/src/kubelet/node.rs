//! The Node object: registers it, and keeps its Ready condition true to the network.
//!
//! In: the CNI plugins' STATUS. Out: the Node and its status. It must not set podCIDRs: the master allocates.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{Kubelet, in_one_line};
use crate::kubelet::status::now;

/// How soon a configuration is noticed.
const UNREADY_PERIOD: Duration = Duration::from_millis(50);
/// How often a serving network is asked (containerd: about every 5 s).
const READY_PERIOD: Duration = Duration::from_secs(5);

/// Registers the node, then asks the plugins again and again and reports what changes.
pub async fn serve(kubelet: Arc<Kubelet>) {
    while let Err(error) = register(&kubelet).await {
        warn!("registering the node: {}", in_one_line(&error));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut reported = None;
    loop {
        let state = kubelet.cni.status().await.map_err(|error| in_one_line(&error));
        if reported.as_ref() != Some(&state) {
            match report(&kubelet, &state).await {
                Ok(()) => reported = Some(state.clone()),
                Err(error) => warn!("reporting the node's condition: {}", in_one_line(&error)),
            }
        }
        tokio::time::sleep(if state.is_ok() { READY_PERIOD } else { UNREADY_PERIOD }).await;
    }
}

async fn register(kubelet: &Kubelet) -> Result<()> {
    let labels = json!({"kubernetes.io/hostname": kubelet.node, "kubernetes.io/os": "linux"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": kubelet.node, "labels": labels}});
    let api = Api::<Node>::all(kubelet.client.clone());
    api.patch(&kubelet.node, &PatchParams::apply("ovenbird-lab-kubelet").force(), &Patch::Apply(node)).await?;
    let mut addresses: Vec<Value> =
        kubelet.node_ips()?.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    addresses.push(json!({"type": "Hostname", "address": kubelet.node}));
    let status = json!({"status": {
        "addresses": addresses,
        "capacity": {"pods": "250"},
        "allocatable": {"pods": "250"},
        "nodeInfo": {
            "kubeletVersion": "ovenbird-lab (a stand-in)", "containerRuntimeVersion": "ovenbird-lab://netns", "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": std::env::consts::ARCH, "osImage": "", "kernelVersion": "",
            "bootID": "", "machineID": kubelet.node, "systemUUID": kubelet.node,
        },
    }});
    api.patch_status(&kubelet.node, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

async fn report(kubelet: &Kubelet, state: &Result<(), String>) -> Result<()> {
    let (status, reason, message) = match state {
        Ok(()) => ("True", "KubeletReady", "the network can serve".to_owned()),
        Err(error) => ("False", "NetworkNotReady", error.clone()),
    };
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now(), "lastHeartbeatTime": now(),
    });
    let patch = json!({"status": {"conditions": [condition]}});
    Api::<Node>::all(kubelet.client.clone())
        .patch_status(&kubelet.node, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    info!(status, reason, message, "node condition");
    Ok(())
}
