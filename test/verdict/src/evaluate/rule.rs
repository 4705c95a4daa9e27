//! One rule of a policy: peers and ports.
//!
//! A missing or empty list of peers is everybody, of ports everything. A peer or port that is invalid is left out, and a list of which all
//! are left out matches nothing. Invalid are: a peer with nothing, or with an ipBlock and a selector; a selector with an invalid
//! requirement; an ipBlock or exception that is no CIDR, or an exception outside the block; a port outside 1-65535 or with an unknown protocol; an
//! endPort below its port, with a name or without a port. Must not: know which pods a policy selects.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::judge;
use super::{Cluster, labels};
use crate::packet::{Packet, Protocol};

/// A rule of either direction.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

impl<'a> Rule<'a> {
    /// A rule of `spec.ingress`.
    pub fn of_ingress(rule: &'a NetworkPolicyIngressRule) -> Rule<'a> {
        Rule { peers: rule.from.as_deref().unwrap_or_default(), ports: rule.ports.as_deref().unwrap_or_default() }
    }

    /// A rule of `spec.egress`.
    pub fn of_egress(rule: &'a NetworkPolicyEgressRule) -> Rule<'a> {
        Rule { peers: rule.to.as_deref().unwrap_or_default(), ports: rule.ports.as_deref().unwrap_or_default() }
    }

    /// Whether the rule, of a policy in `namespace`, allows a packet whose other end is `peer`.
    pub fn allows(&self, cluster: &Cluster, namespace: &str, peer: IpAddr, packet: &Packet) -> bool {
        // A name is what the pod at the destination calls it: of ingress the selected pod, of egress the peer.
        let target = cluster.pod_at(packet.destination);
        let from_peer = self.peers.iter().any(|p| is_peer(p, cluster, namespace, peer) == Some(true));
        let to_port = self.ports.iter().any(|p| is_port(p, target, packet) == Some(true));
        (self.peers.is_empty() || from_peer) && (self.ports.is_empty() || to_port)
    }
}

/// Whether a peer of a policy in `namespace` is at an address; `None` when it is invalid.
fn is_peer(peer: &NetworkPolicyPeer, cluster: &Cluster, namespace: &str, address: IpAddr) -> Option<bool> {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => is_in_block(block, address),
        (None, None, None) | (Some(_), _, _) => None,
        (None, namespaces, pods) => {
            let none = Default::default();
            let pod = cluster.pod_at(address);
            let home = pod.and_then(|pod| pod.metadata.namespace.as_deref());
            let home_labels = home.and_then(|home| cluster.namespace_labels(home));
            let of_pod = judge(pods.as_ref(), pod.map_or(&none, labels));
            let of_namespace = judge(namespaces.as_ref(), home_labels.as_ref().unwrap_or(&none));
            let in_namespace = match namespaces {
                Some(_) => home_labels.is_some() && of_namespace.fits,
                None => home == Some(namespace),
            };
            (of_pod.valid && of_namespace.valid).then_some(pod.is_some() && in_namespace && of_pod.fits)
        }
    }
}

fn is_in_block(block: &IPBlock, address: IpAddr) -> Option<bool> {
    let cidr: IpNet = block.cidr.parse().ok()?;
    let mut inside = cidr.contains(&address);
    for text in block.except.iter().flatten() {
        let except: IpNet = text.parse().ok()?;
        if !cidr.contains(&except) {
            return None;
        }
        inside &= !except.contains(&address);
    }
    Some(inside)
}

/// Whether a packet is for a port; `None` when the port is invalid. `target` is the pod at its destination.
fn is_port(port: &NetworkPolicyPort, target: Option<&Pod>, packet: &Packet) -> Option<bool> {
    let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"))?;
    let right_protocol = packet.protocol == protocol;
    match (&port.port, port.end_port) {
        (None, None) => Some(right_protocol),
        (Some(IntOrString::Int(first)), last) => {
            let (first, last) = (number(*first)?, number(last.unwrap_or(*first))?);
            (first <= last).then_some(right_protocol && (first..=last).contains(&packet.port))
        }
        (Some(IntOrString::String(name)), None) if !name.is_empty() => {
            Some(right_protocol && target.is_some_and(|pod| calls(pod, packet.port, name, protocol)))
        }
        _ => None,
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// Whether a pod calls a port of a protocol by that name; of two with one name the first counts. Of init containers only those listen that go on
/// running (restartPolicy Always).
pub(super) fn calls(pod: &Pod, number: u16, name: &str, protocol: Protocol) -> bool {
    let spec = pod.spec.iter();
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten().filter(sidecar)));
    let is_called_so = |port: &&ContainerPort| {
        let of = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"));
        port.name.as_deref() == Some(name) && of == Some(protocol)
    };
    let called = containers.flat_map(|c| c.ports.iter().flatten()).find(is_called_so);
    called.is_some_and(|port| port.container_port == i32::from(number))
}
