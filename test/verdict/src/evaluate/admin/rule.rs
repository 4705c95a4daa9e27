//! What a rule of an admin policy fits: peers and ports.
//!
//! What cannot be read is told beside what fits, for what it means depends on the rule's action. Unreadable are: no peer at all; a peer or port
//! with none or several of its fields, or one that the API does not have there (nodes and networks of ingress, the other version's ports); a
//! selector with an invalid requirement; a network that is no CIDR, or none in the list; names of domains, which nobody here resolves; an empty
//! list of ports; a transport without a port; an empty name of a port, or one beside nodes or networks, which have no names; a port outside
//! 1-65535, a range whose start is not less than its end, an unknown protocol. Must not: know actions, subjects or the order of rules.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Tiers;
use super::object::{Destination, Kind, Peer, Pods, Port, PortsOf, Range, Rule, Transport};
use crate::evaluate::labels;
use crate::evaluate::rule::calls;
use crate::evaluate::selector::{Judgement, judge};
use crate::packet::{Packet, Protocol};

const NOTHING: Judgement = Judgement { fits: false, valid: true };
const UNREADABLE: Judgement = Judgement { fits: false, valid: false };

/// Whether one of `peers` is at an address; those of ingress are pods.
pub(super) fn peers(tiers: &Tiers<'_>, peers: &[Peer], ingress: bool, address: IpAddr) -> Judgement {
    let is_known = |peer: &Peer| !ingress || !is_outside(peer) && peer.domain_names.is_none();
    any(peers.iter().map(|peer| if is_known(peer) { is_peer(tiers, peer, address) } else { UNREADABLE }))
}

/// Whether a packet is for one of the rule's ports. A name is what the pod at the destination calls it; `peers` are the rule's.
pub(super) fn ports(tiers: &Tiers<'_>, kind: Kind, rule: &Rule, peers: &[Peer], packet: &Packet) -> Judgement {
    let target = tiers.cluster.pod_at(packet.destination);
    let named = !peers.iter().any(is_outside);
    let first = rule.ports.as_ref().map(|ports| {
        any(ports.iter().map(|port| match port.named_port {
            Some(_) if !named => UNREADABLE,
            _ => is_port(port, target, packet),
        }))
    });
    let second = rule.protocols.as_ref().map(|protocols| {
        any(protocols.iter().map(|ports| match ports.destination_named_port {
            Some(_) if !named => UNREADABLE,
            _ => is_of(ports, target, packet),
        }))
    });
    match (kind, first, second) {
        (_, None, None) => Judgement { fits: true, valid: true },
        (Kind::ClusterNetworkPolicy, None, Some(found)) => found,
        (Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy, Some(found), None) => found,
        _ => UNREADABLE,
    }
}

/// A peer that the API has for egress only, and that has no names for its ports.
fn is_outside(peer: &Peer) -> bool {
    peer.nodes.is_some() || peer.networks.is_some()
}

/// Whether a pod is one of those of a peer or subject. What of it cannot be read is not asked.
pub(super) fn is_among(
    tiers: &Tiers<'_>,
    namespaces: Option<&LabelSelector>,
    pods: Option<&Pods>,
    pod: &Pod,
) -> Judgement {
    let home = pod.metadata.namespace.as_deref().and_then(|home| tiers.cluster.namespace_labels(home));
    let home = home.unwrap_or_default();
    match (namespaces, pods) {
        (Some(namespaces), None) => judge(Some(namespaces), &home),
        (None, Some(Pods { namespace_selector, pod_selector })) => {
            let (of_namespace, of_pod) =
                (judge(Some(namespace_selector), &home), judge(Some(pod_selector), labels(pod)));
            Judgement { fits: of_namespace.fits && of_pod.fits, valid: of_namespace.valid && of_pod.valid }
        }
        _ => Judgement { fits: true, valid: false },
    }
}

/// One of several; there must be one.
fn any(several: impl Iterator<Item = Judgement>) -> Judgement {
    let several: Vec<Judgement> = several.collect();
    let fits = several.iter().any(|one| one.fits);
    Judgement { fits, valid: !several.is_empty() && several.iter().all(|one| one.valid) }
}

fn is_peer(tiers: &Tiers<'_>, peer: &Peer, address: IpAddr) -> Judgement {
    let Peer { namespaces, pods, nodes, networks, domain_names } = peer;
    let found = match (namespaces, pods, nodes, networks, domain_names) {
        (Some(_), None, None, None, None) | (None, Some(_), None, None, None) => {
            // Of whoever has the address, if it is a pod; the selectors are read in any case.
            let nobody = Pod::default();
            let pod = tiers.cluster.pod_at(address);
            let found = is_among(tiers, namespaces.as_ref(), pods.as_ref(), pod.unwrap_or(&nobody));
            Judgement { fits: found.fits && pod.is_some(), ..found }
        }
        (None, None, Some(selector), None, None) => any_node(tiers, selector, address),
        (None, None, None, Some(networks), None) => return any(networks.iter().map(|text| is_in(text, address))),
        _ => UNREADABLE,
    };
    if found.valid { found } else { UNREADABLE }
}

/// Whether a node that the selector fits has the address: one of `status.addresses`, or its management port's, by which its pods reach it, too.
fn any_node(tiers: &Tiers<'_>, selector: &LabelSelector, address: IpAddr) -> Judgement {
    let has = |node: &Node| {
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let name = node.metadata.name.as_deref();
        let mut hosts = tiers.cluster.nodes.iter().filter(|host| Some(host.name.as_str()) == name);
        listed.filter_map(|a| a.address.parse().ok()).any(|a: IpAddr| a == address)
            || hosts.any(|host| host.management.contains(&address))
    };
    let none = Default::default();
    let valid = judge(Some(selector), &none).valid;
    let fits = |node: &Node| judge(Some(selector), node.metadata.labels.as_ref().unwrap_or(&none)).fits;
    Judgement { fits: tiers.nodes.iter().any(|node| has(node) && fits(node)), valid }
}

fn is_in(text: &str, address: IpAddr) -> Judgement {
    match text.parse::<IpNet>() {
        Ok(net) => Judgement { fits: net.contains(&address), valid: true },
        Err(_) => UNREADABLE,
    }
}

fn is_port(port: &Port, target: Option<&Pod>, packet: &Packet) -> Judgement {
    match (&port.port_number, &port.named_port, &port.port_range) {
        (Some(one), None, None) => is_between(of(one.protocol.as_deref()), one.port, one.port, packet),
        (None, Some(name), None) => is_called(name, target, packet),
        (None, None, Some(range)) => is_in_range(of(range.protocol.as_deref()), range, packet),
        _ => UNREADABLE,
    }
}

fn is_of(ports: &PortsOf, target: Option<&Pod>, packet: &Packet) -> Judgement {
    let PortsOf { tcp, udp, sctp, destination_named_port } = ports;
    match (tcp, udp, sctp, destination_named_port) {
        (Some(ports), None, None, None) => is_in_transport(Protocol::Tcp, ports, packet),
        (None, Some(ports), None, None) => is_in_transport(Protocol::Udp, ports, packet),
        (None, None, Some(ports), None) => is_in_transport(Protocol::Sctp, ports, packet),
        (None, None, None, Some(name)) => is_called(name, target, packet),
        _ => UNREADABLE,
    }
}

fn is_in_transport(protocol: Protocol, ports: &Transport, packet: &Packet) -> Judgement {
    match &ports.destination_port {
        Some(Destination { number: Some(number), range: None }) => is_between(Some(protocol), *number, *number, packet),
        Some(Destination { number: None, range: Some(range) }) => is_in_range(Some(protocol), range, packet),
        _ => UNREADABLE,
    }
}

fn of(protocol: Option<&str>) -> Option<Protocol> {
    Protocol::from_kubernetes(protocol.unwrap_or("TCP"))
}

fn is_in_range(protocol: Option<Protocol>, range: &Range, packet: &Packet) -> Judgement {
    if range.start < range.end { is_between(protocol, range.start, range.end, packet) } else { UNREADABLE }
}

fn is_between(protocol: Option<Protocol>, first: i32, last: i32, packet: &Packet) -> Judgement {
    let Some(protocol) = protocol else { return UNREADABLE };
    if first < 1 || last < first || last > i32::from(u16::MAX) {
        return UNREADABLE;
    }
    let fits = packet.protocol == protocol && (first..=last).contains(&i32::from(packet.port));
    Judgement { fits, valid: true }
}

/// A name has no protocol: it is the port of whichever the pod has by it.
fn is_called(name: &str, target: Option<&Pod>, packet: &Packet) -> Judgement {
    match target {
        _ if name.is_empty() => UNREADABLE,
        None => NOTHING,
        Some(pod) => Judgement { fits: calls(pod, packet.port, name, packet.protocol), valid: true },
    }
}
