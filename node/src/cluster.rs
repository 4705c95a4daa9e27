//! The rim to Kubernetes: watches of this Node and its pods, annotations of the Node, Events on pods.
//!
//! ```text
//! watch Node --> NodeFact (subnets, annotations)       watch Pods of the node --> PodBook
//! wanted annotations --> PATCH, only when different     Diagnostic --> Event
//! ```
//!
//! Must not: decide what an annotation holds (`chassis`), or keep a pod's full object.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod as KubePod};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use ovenbird_api::{HostPort, annotation, name, node};
use ovenbird_daemon::{access, rights};
use ovenbird_reconcile::{Diagnostic, Severity};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::capability;
use crate::dhcp::Write;
use crate::plug::Tell;
use crate::pods::{Lookup, Pod, PodBook};

/// Manager name of our writes and Events.
const MANAGER: &str = "ovenbird-node";

/// What the API says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFact {
    /// Its annotations of ours (`k8s.ovn.org/`, `ovenbird.io/`).
    pub annotations: BTreeMap<String, String>,
    /// `node-subnets`, once the master has written it.
    pub subnets: Vec<IpNet>,
    /// What its condition says that Open vSwitch lacks (`capability`).
    pub missing: Option<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// It was seen.
    pub known: bool,
}

/// Watches this Node. The receiver holds what was seen last.
pub fn watch_node(client: Client, node: &str) -> watch::Receiver<NodeFact> {
    let (tx, rx) = watch::channel(NodeFact::default());
    let settings = watcher::Config::default().fields(&format!("metadata.name={node}"));
    tokio::spawn(async move {
        let mut nodes = std::pin::pin!(watcher(Api::<Node>::all(client), settings).backoff(access::watch_backoff()));
        while let Some(event) = nodes.next().await {
            match event {
                Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                    let fact = node_fact(&node);
                    tx.send_if_modified(|old| std::mem::replace(old, fact.clone()) != fact);
                }
                Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(e) if rights::was_told(&e) => {}
                Err(e) => warn!("watching the Node: {e}"),
            }
        }
    });
    rx
}

fn node_fact(node: &Node) -> NodeFact {
    let annotations = node.annotations();
    let subnets = match annotations.get(annotation::NODE_SUBNETS).map(|text| node::parse_subnets(text)) {
        Some(Ok(subnets)) => subnets,
        Some(Err(e)) => {
            error!("{e}");
            Vec::new()
        }
        None => Vec::new(),
    };
    let is_ours = |key: &str| key.starts_with("k8s.ovn.org/") || key.starts_with("ovenbird.io/");
    let ours = annotations.iter().filter(|(key, _)| is_ours(key));
    let annotations = ours.map(|(k, v)| (k.clone(), v.clone())).collect();
    NodeFact { annotations, subnets, labels: node.labels().clone(), known: true, missing: capability::told(node) }
}

/// Watches the pods of a node into a book.
pub fn watch_pods(client: Client, node: &str, book: Arc<PodBook>) {
    let settings = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    tokio::spawn(async move {
        let mut pods = std::pin::pin!(watcher(Api::<KubePod>::all(client), settings).backoff(access::watch_backoff()));
        while let Some(event) = pods.next().await {
            match event {
                Ok(watcher::Event::Init) => book.begin(),
                Ok(watcher::Event::InitApply(pod)) => book.listed(key(&pod), slim(&pod)),
                Ok(watcher::Event::InitDone) => book.complete(),
                Ok(watcher::Event::Apply(pod)) => book.apply(key(&pod), slim(&pod)),
                Ok(watcher::Event::Delete(pod)) => book.delete(&key(&pod)),
                Err(e) if rights::was_told(&e) => {}
                Err(e) => warn!("watching pods: {e}"),
            }
        }
    });
}

fn key(pod: &KubePod) -> String {
    name::key(&pod.namespace().unwrap_or_default(), &pod.name_any())
}

fn slim(pod: &KubePod) -> Pod {
    let text = |key| pod.annotations().get(key).cloned();
    Pod {
        uid: pod.uid().unwrap_or_default(),
        static_uid: text(annotation::STATIC_POD_UID),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
        network: text(annotation::POD_NETWORKS),
        on: text(annotation::NETWORK),
        lease: text(annotation::LEASE),
        limits: [text(annotation::INGRESS_BANDWIDTH), text(annotation::EGRESS_BANDWIDTH)],
        host_ports: host_ports(pod),
        created: pod.creation_timestamp().map_or(0, |time| time.0.as_second()),
    }
}

/// The ports of the node that a pod asks for: those of containers that run beside each other, of init containers only when they stay.
fn host_ports(pod: &KubePod) -> Vec<HostPort> {
    let done =
        pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| ["Succeeded", "Failed"].contains(&p));
    let Some(spec) = pod.spec.as_ref().filter(|spec| !done && spec.host_network != Some(true)) else {
        return Vec::new();
    };
    let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|p| HostPort::new(p.host_ip.as_deref(), p.host_port, p.protocol.as_deref(), p.container_port))
        .collect()
}

/// Asks the API for one pod.
pub fn lookup(client: Client) -> Lookup {
    Box::new(move |namespace, name| {
        let (pods, name) = (Api::<KubePod>::namespaced(client.clone(), namespace), name.to_owned());
        Box::pin(async move {
            let found = pods.get_opt(&name).await.map_err(|e| e.to_string())?;
            Ok(found.as_ref().map(slim))
        })
    })
}

/// Writes the annotations that differ from what the Node has; true when there was something to write.
///
/// # Errors
/// Those of the API.
pub async fn annotate(
    client: &Client,
    node: &str,
    have: &BTreeMap<String, String>,
    want: &BTreeMap<&'static str, String>,
) -> Result<bool, kube::Error> {
    let changed: BTreeMap<_, _> = want.iter().filter(|(key, value)| have.get(**key) != Some(*value)).collect();
    if changed.is_empty() {
        return Ok(false);
    }
    let patch = serde_json::json!({"metadata": {"annotations": changed}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    Api::<Node>::all(client.clone()).patch_metadata(node, &params, &Patch::Merge(patch)).await?;
    Ok(true)
}

/// A way to write the lease of a pod, by its status: a node may change neither what a pod runs nor where.
pub fn leases(client: Client, book: Arc<PodBook>) -> Write {
    Box::new(move |namespace, name, uid, text| {
        let pods = Api::<KubePod>::namespaced(client.clone(), namespace);
        let (pod, name) = (book.get(namespace, name).filter(|pod| pod.is(Some(uid))), name.to_owned());
        Box::pin(async move {
            // Of one that is gone, nobody asks.
            let Some(pod) = pod else { return Ok(()) };
            let patch = serde_json::json!({"metadata": {"uid": pod.uid, "annotations": {annotation::LEASE: text}}});
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match pods.patch_status(&name, &params, &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
                done => done.map(drop).map_err(|e| (!rights::was_told(&e)).then(|| e.to_string())),
            }
        })
    })
}

/// Turns diagnostics into Events on pods, in the background.
pub fn events(client: Client, node: &str) -> Tell {
    let recorder = Recorder::new(client, Reporter { controller: MANAGER.into(), instance: Some(node.into()) });
    Arc::new(move |namespace, name, uid, diagnostic: Diagnostic| {
        let recorder = recorder.clone();
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        };
        tokio::spawn(async move {
            let event = Event {
                type_: match diagnostic.severity {
                    Severity::Note => EventType::Normal,
                    Severity::Warning | Severity::Error => EventType::Warning,
                },
                reason: diagnostic.reason.into(),
                note: Some(format!("{}: {}", diagnostic.field, diagnostic.message)),
                action: "Attach".into(),
                secondary: None,
            };
            if let Err(e) = access::insist(|| recorder.publish(&event, &reference)).await
                && !rights::was_told(&e)
            {
                warn!("Event {} cannot be published: {e}", event.reason);
            }
        });
    })
}
