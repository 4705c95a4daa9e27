//! The pods of this node as the API has them: what ADD waits for. Fed by a watch (`cluster`); a waiter is woken by the event it
//! waits for and polls nothing.
//!
//! Must not: talk to the API itself, but for one question asked through [`Lookup`]: does a pod exist that the watch has not shown?

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;
use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_api::name::key;
use ovenbird_api::{AnnotationError, HostPort, HostPorts, Lease, PodNetwork, annotation};
use ovenbird_cni_server::{CniError, Code, PodRef};
use tokio::sync::watch;

/// A pod, slim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// Of a static pod's mirror: the UID that the kubelet gives to the runtime.
    pub static_uid: Option<String>,
    /// `spec.nodeName`.
    pub node: String,
    /// Annotation `k8s.ovn.org/pod-networks`.
    pub network: Option<String>,
    /// Annotation `ovenbird.io/network`: the Network that it is on.
    pub on: Option<String>,
    /// Annotation `ovenbird.io/lease`.
    pub lease: Option<String>,
    /// Annotations of bandwidth: ingress, egress.
    pub limits: [Option<String>; 2],
    /// Ports of the node that it asks for; none on the host's network, and when it is done.
    pub host_ports: Vec<HostPort>,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
}

/// A pod that can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyPod {
    /// UID of what runs: of a static pod the kubelet's, which outlives its mirrors.
    pub uid: String,
    /// Addresses, gateways, routes.
    pub network: PodNetwork,
    /// The Network that it is on, unless that is the node's.
    pub on: Option<String>,
    /// What a DHCP server gave it before, unless that cannot be read.
    pub lease: Option<Lease>,
    /// Limits, or why they cannot be read.
    pub bandwidth: Result<Bandwidth, AnnotationError>,
}

/// Asks the API for a pod (namespace, name): `None` when it does not exist.
pub type Lookup = Box<dyn Fn(&str, &str) -> BoxFuture<'static, Result<Option<Pod>, String>> + Send + Sync>;

#[derive(Default)]
struct Inner {
    complete: bool,
    pods: HashMap<String, Arc<Pod>>,
    /// The list under way.
    listing: HashMap<String, Arc<Pod>>,
}

/// The pods. Shared.
pub struct PodBook {
    node: String,
    inner: watch::Sender<Inner>,
    host_ports: watch::Sender<Vec<HostPorts>>,
    lookup: Lookup,
}

impl Pod {
    /// True when a sandbox for this UID is one of this pod. Runtimes that send no UID are believed.
    pub fn is(&self, uid: Option<&str>) -> bool {
        uid.is_none_or(|uid| self.uid == uid || self.static_uid.as_deref() == Some(uid))
    }

    fn ready(&self) -> Option<Result<ReadyPod, AnnotationError>> {
        let network = match PodNetwork::parse(self.network.as_deref()?) {
            Ok(network) => network,
            Err(e) => return Some(Err(e)),
        };
        let [ingress, egress] = &self.limits;
        let bandwidth = Bandwidth::parse(|key| match key {
            annotation::INGRESS_BANDWIDTH => ingress.as_deref(),
            _ => egress.as_deref(),
        });
        let uid = self.static_uid.as_ref().unwrap_or(&self.uid).clone();
        let lease = self.lease.as_deref().and_then(|text| Lease::parse(text).ok());
        Some(Ok(ReadyPod { uid, network, on: self.on.clone(), lease, bandwidth }))
    }
}

impl PodBook {
    /// An empty book of a node.
    pub fn new(node: impl Into<String>, lookup: Lookup) -> PodBook {
        PodBook { node: node.into(), inner: watch::Sender::default(), host_ports: watch::Sender::default(), lookup }
    }

    /// A list begins.
    pub fn begin(&self) {
        self.inner.send_if_modified(|inner| {
            inner.listing.clear();
            false
        });
    }

    /// A pod of the list.
    pub fn listed(&self, key: String, pod: Pod) {
        self.inner.send_if_modified(|inner| {
            inner.listing.insert(key, Arc::new(pod));
            false
        });
    }

    /// The list is complete: pods that it did not name are gone.
    pub fn complete(&self) {
        self.inner.send_modify(|inner| {
            inner.pods = std::mem::take(&mut inner.listing);
            inner.complete = true;
        });
        self.tell_host_ports();
    }

    /// A pod is new or changed.
    pub fn apply(&self, key: String, pod: Pod) {
        self.inner.send_modify(|inner| drop(inner.pods.insert(key, Arc::new(pod))));
        self.tell_host_ports();
    }

    /// A pod is gone.
    pub fn delete(&self, key: &str) {
        self.inner.send_modify(|inner| drop(inner.pods.remove(key)));
        self.tell_host_ports();
    }

    /// The ports of the node that pods ask for, those of older pods first.
    pub fn host_ports(&self) -> watch::Receiver<Vec<HostPorts>> {
        self.host_ports.subscribe()
    }

    fn tell_host_ports(&self) {
        let inner = self.inner.borrow();
        let mut asking: Vec<_> = inner.pods.iter().filter(|(_, pod)| !pod.host_ports.is_empty()).collect();
        asking.sort_by_key(|(key, pod)| (pod.created, *key));
        let ports = |pod: &Pod| {
            let Some(Ok(ready)) = pod.ready() else { return None };
            let addresses = ready.network.addresses.iter().map(IpNet::addr).collect();
            Some(HostPorts { ports: pod.host_ports.clone(), addresses })
        };
        let now: Vec<HostPorts> = asking.into_iter().filter_map(|(_, pod)| ports(pod)).collect();
        self.host_ports.send_if_modified(|old| {
            *old != now && {
                *old = now;
                true
            }
        });
    }

    /// Waits for the first complete list.
    pub async fn until_complete(&self) {
        // The sender lives as long as self, so this cannot fail.
        drop(self.inner.subscribe().wait_for(|inner| inner.complete).await);
    }

    /// A pod that is known.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.inner.borrow().pods.get(&key(namespace, name)).cloned()
    }

    /// Waits until a pod has its network.
    ///
    /// # Errors
    /// When the pod does not exist, was replaced, runs elsewhere, or its annotation cannot be used.
    pub async fn until_ready(&self, pod: &PodRef) -> Result<ReadyPod, CniError> {
        let PodRef { namespace, name, uid } = pod;
        if !self.get(namespace, name).is_some_and(|p| p.is(uid.as_deref())) {
            self.ask(pod).await?;
        }
        let key = key(namespace, name);
        let mut found = None;
        let known = self
            .inner
            .subscribe()
            .wait_for(|inner| {
                found = inner.pods.get(&key).filter(|p| p.is(uid.as_deref())).and_then(|p| p.ready());
                found.is_some()
            })
            .await
            .is_ok();
        match found.filter(|_| known) {
            Some(Ok(ready)) => Ok(ready),
            Some(Err(e)) => {
                Err(CniError::new(Code::InvalidConfig, format!("pod {namespace}/{name} has an unusable annotation"))
                    .details(e.to_string()))
            }
            None => Err(CniError::new(Code::TryAgainLater, "the daemon is stopping")),
        }
    }

    /// The kubelet may know a pod before our watch does, so the API is asked once.
    async fn ask(&self, pod: &PodRef) -> Result<(), CniError> {
        let PodRef { namespace, name, uid } = pod;
        let missing = |code, msg: String| Err(CniError::new(code, msg));
        match (self.lookup)(namespace, name).await {
            Ok(None) => missing(Code::UnknownContainer, format!("pod {namespace}/{name} does not exist")),
            Ok(Some(found)) if !found.is(uid.as_deref()) => missing(
                Code::UnknownContainer,
                format!(
                    "pod {namespace}/{name} has UID {}: the sandbox is for an earlier pod of this name ({})",
                    found.uid,
                    uid.as_deref().unwrap_or_default()
                ),
            ),
            Ok(Some(found)) if found.node != self.node => missing(
                Code::UnknownContainer,
                format!("pod {namespace}/{name} is bound to node {:?}, not to {:?}", found.node, self.node),
            ),
            Ok(Some(_)) => Ok(()),
            Err(e) => {
                Err(CniError::new(Code::TryAgainLater, format!("asking the API for pod {namespace}/{name}")).details(e))
            }
        }
    }
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
