//! Where a real pod's network is: asked of the runtimes, as CRI tells it.
//!
//! In: a pod's name. Out: a place. It must not change anything.

use anyhow::{Context, Result};
use ovenbird_kube::Cache;
use serde_json::Value;

use crate::layout::Layout;
use crate::place::Place;

const ENDPOINT: &str = "--runtime-endpoint=unix:///run/containerd/containerd.sock";

/// The network namespace of a pod that runs on any node.
///
/// # Errors
/// When none has it.
pub fn sandbox(layout: &Layout, namespace: &str, name: &str) -> Result<Place> {
    let crictl = Cache::ready()?.bin().join("crictl").display().to_string();
    for node in layout.options.node_names() {
        let inside = layout.inside(&node);
        let exactly = format!("^{name}$");
        let found = inside.output(&[
            &crictl,
            ENDPOINT,
            "pods",
            "--quiet",
            "--state=ready",
            "--namespace",
            namespace,
            "--name",
            &exactly,
        ])?;
        let Some(id) = found.lines().next() else { continue };
        let shown: Value = serde_json::from_str(&inside.output(&[&crictl, ENDPOINT, "inspectp", id])?)
            .with_context(|| format!("reading what the runtime of {node} says about {namespace}/{name}"))?;
        let namespaces = shown["info"]["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let path = namespaces.iter().find(|one| one["type"] == "network").and_then(|one| one["path"].as_str());
        // A pod of the host's network has none of its own.
        let netns = path.and_then(|path| path.rsplit('/').next()).map(str::to_owned);
        return Ok(Place { netns, ..inside });
    }
    anyhow::bail!("no pod {namespace}/{name} runs here (NAMESPACE/POD)")
}
