//! The lab kubelet: a stand-in for kubelet and container runtime, one process per node.
//!
//! It gives each pod a sandbox (a network namespace, no container image), attaches it through the CNI plugins exactly as a runtime does,
//! runs the first container's command inside, and reports status. Real Kubernetes it is not: no probes, volumes, images or cgroups.
//!
//! ```text
//!   watch of this node's pods --> one worker per pod UID (pod.rs) --> sandbox.rs (disk, netns), cni.rs (plugins), status.rs (API)
//!   CNI configuration, STATUS --> node.rs --> Node object, Ready condition
//! ```
//! What it must remember is on disk, so it can be ended and started again under running pods.

mod cni;
mod node;
mod pod;
mod sandbox;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tracing::warn;

use crate::cluster;
use crate::components;
use crate::layout::Layout;

pub use sandbox::{Sandbox, Store};

/// What every worker shares.
struct Kubelet {
    client: Client,
    layout: Layout,
    node: String,
    cni: cni::Plugins,
    store: Store,
}

/// Serves the pods of `node` until the process is ended.
///
/// # Errors
/// When the node is not one of the lab's, or the credentials are unusable.
pub async fn run(layout: Layout, node: String) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    let cni = cni::Plugins::new(components::cni_conf_dir(&layout, &node), layout.bin_dir.clone());
    let store = Store::new(&layout, &node)?;
    let kubelet = Arc::new(Kubelet { client, layout, node, cni, store });
    tokio::spawn(node::serve(kubelet.clone()));
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", kubelet.node));
    let mut events = watcher(Api::<Pod>::all(kubelet.client.clone()), config).default_backoff().boxed();
    let mut workers = Workers { kubelet, by_uid: HashMap::new(), listed: HashSet::new() };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => workers.note(event).await,
            Err(error) => warn!(%error, "watching pods"),
        }
    }
    Ok(())
}

/// The newest state of a pod, `None` once it is gone from the API.
type PodState = Option<Arc<Pod>>;

struct Workers {
    kubelet: Arc<Kubelet>,
    by_uid: HashMap<String, watch::Sender<PodState>>,
    listed: HashSet<String>,
}

impl Workers {
    async fn note(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.insert(pod.uid().unwrap_or_default());
                self.tell(pod);
            }
            watcher::Event::Apply(pod) => self.tell(pod),
            watcher::Event::Delete(pod) => {
                if let Some(worker) = self.by_uid.remove(&pod.uid().unwrap_or_default()) {
                    worker.send_replace(None);
                }
            }
            watcher::Event::InitDone => self.list_complete().await,
        }
    }

    fn tell(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let pod = Some(Arc::new(pod));
        match self.by_uid.get(&uid).filter(|worker| !worker.is_closed()) {
            Some(worker) => drop(worker.send_replace(pod)),
            None => self.start(uid, pod),
        }
    }

    fn start(&mut self, uid: String, pod: PodState) {
        let (sender, receiver) = watch::channel(pod);
        tokio::spawn(pod::work(self.kubelet.clone(), uid.clone(), receiver));
        self.by_uid.insert(uid, sender);
    }

    /// Only now is absence a deletion: of pods that vanished while we were not watching, or not running.
    async fn list_complete(&mut self) {
        let gone: Vec<_> = self.by_uid.keys().filter(|uid| !self.listed.contains(*uid)).cloned().collect();
        for uid in gone {
            if let Some(worker) = self.by_uid.remove(&uid) {
                worker.send_replace(None);
            }
        }
        for sandbox in self.kubelet.store.all() {
            if !self.by_uid.contains_key(&sandbox.pod.uid) && !self.listed.contains(&sandbox.pod.uid) {
                tokio::spawn(pod::discard(self.kubelet.clone(), sandbox));
            }
        }
        if let Err(error) = self.kubelet.cni.gc(&self.kubelet.store.all()).await {
            warn!("CNI GC: {error:#}");
        }
    }
}

/// A message worth an Event: anyhow's chain in one line.
fn in_one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

impl Kubelet {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn node_ips(&self) -> Result<Vec<String>> {
        let index = self.layout.options.node_names().iter().position(|name| *name == self.node);
        let index =
            index.and_then(|index| u16::try_from(index + 1).ok()).with_context(|| format!("no node {}", self.node))?;
        Ok(self.layout.options.node_addresses(index).iter().map(ToString::to_string).collect())
    }
}
