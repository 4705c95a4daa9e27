//! The variants of a layer: how its row must differ from node to node, and which switches and routers get which.
//!
//! ```text
//! the same for all                       -> one row in a group
//! hints (zone, node), policy Local       -> a row for each zone or node that differs, attached one by one
//! an endpoint that is the host itself    -> that node's router gets a row in which the host has its masquerade address
//! ```
//!
//! Inputs: the layer, the ports, the places (read only when they can differ). Must not: yield two rows with one address for one place.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::Atom;

use super::endpoints::{Backend, Port, Viewpoint};
use super::layers::{Address, Layer, bracketed};
use crate::cluster::Group;
use crate::places::Place;
use crate::underlay;
use crate::view::View;

/// A row of a layer.
pub(super) struct Variant<'a> {
    /// The row's name after the protocol.
    pub scope: String,
    /// Who answers.
    pub answer: Answer<'a>,
    /// Who uses the row.
    pub attachments: Vec<Attachment<'a>>,
}

/// What refers to a row.
pub(super) enum Attachment<'a> {
    /// A group.
    Group(Group),
    /// The switch of a node.
    Switch(&'a str),
    /// The gateway router of a node.
    Router(&'a str),
    /// The switch of a Network, which is one for all nodes, and in the group of what is everywhere.
    Network(&'a str),
}

/// Who answers in a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer<'a> {
    /// Endpoints regardless of the place.
    Shared,
    /// Endpoints near a zone.
    Zone(&'a str),
    /// Endpoints near a node or, of a local layer, on it; with its zone.
    Node(&'a str, Option<&'a str>),
    /// As `Node`, on the router of a node that is an endpoint itself.
    Host(&'a str, Option<&'a str>),
    /// Nobody.
    Nobody,
}

/// The variants of a layer that are used somewhere.
pub(super) fn of<'a>(view: &View<'a>, layer: &Layer, ports: &[Port<'a>]) -> Vec<Variant<'a>> {
    let hosts = if layer.routers { hosts(view, ports) } else { BTreeSet::new() };
    let near = Near::of(layer, ports);
    let varies = layer.local || !near.nodes.is_empty() || !near.zones.is_empty();
    let mut users: BTreeMap<Answer<'a>, Vec<Attachment<'a>>> = BTreeMap::new();
    let mut attach = |answer, user| users.entry(answer).or_default().push(user);
    let (all_switches, all_routers) = (layer.switches && !varies, layer.routers && !varies && hosts.is_empty());
    // Not every router serves node ports.
    let groups: &[Group] = match (all_switches, all_routers, layer.template) {
        (true, true, None) => &[Group::Everywhere],
        (true, true, Some(_)) => &[Group::Switches, Group::Routers],
        (true, false, _) => &[Group::Switches],
        (false, true, _) => &[Group::Routers],
        (false, false, _) => &[],
    };
    groups.iter().for_each(|group| attach(Answer::Shared, Attachment::Group(*group)));
    let single_routers = layer.routers && !all_routers;
    let everywhere = groups.contains(&Group::Everywhere);
    if layer.switches && !everywhere && !layer.management && layer.template.is_none() {
        // What differs from node to node cannot be on a switch of all of them. Ports of nodes are reached like those of other hosts there: by what
        // comes in from the wire a switch would serve them where its own node is not the pod's.
        let networks = view.networks().into_iter();
        networks.for_each(|network| attach(Answer::Shared, Attachment::Network(&network.name)));
    }
    if varies || single_routers {
        for place in view.places() {
            let answer = near.answer(place);
            if varies && layer.switches {
                attach(answer, Attachment::Switch(&place.node));
            }
            let serves = layer.template.is_none_or(|v4| place.node_addresses[usize::from(!v4)] > 0);
            if single_routers && place.router && serves {
                let is_host = hosts.contains(&*place.node);
                let answer = if is_host { Answer::Host(&place.node, place.zone.as_deref()) } else { answer };
                attach(answer, Attachment::Router(&place.node));
            }
        }
    }
    let variant = |(answer, attachments): (Answer<'a>, Vec<Attachment<'a>>)| Variant {
        scope: scope(layer, answer, &attachments),
        answer,
        attachments,
    };
    users.into_iter().map(variant).collect()
}

/// Which nodes and zones have endpoints of their own.
struct Near<'a> {
    local: bool,
    nodes: BTreeSet<&'a str>,
    zones: BTreeSet<&'a str>,
}

impl<'a> Near<'a> {
    fn of(layer: &Layer, ports: &[Port<'a>]) -> Near<'a> {
        let (nodes, zones) = if layer.local {
            (ports.iter().flat_map(Port::serving_nodes).collect(), BTreeSet::new())
        } else {
            (ports.iter().flat_map(Port::hinted_nodes).collect(), ports.iter().flat_map(Port::hinted_zones).collect())
        };
        Near { local: layer.local, nodes, zones }
    }

    fn answer(&self, place: &'a Place) -> Answer<'a> {
        match &place.zone {
            zone if self.nodes.contains(&*place.node) => Answer::Node(&place.node, zone.as_deref()),
            _ if self.local => Answer::Nobody,
            Some(zone) if self.zones.contains(&**zone) => Answer::Zone(zone),
            _ => Answer::Shared,
        }
    }
}

/// The nodes that are an endpoint themselves, by a pod on the host's network.
fn hosts<'a>(view: &View<'_>, ports: &[Port<'a>]) -> BTreeSet<&'a str> {
    let backends = ports.iter().flat_map(|port| &port.backends).filter(|b| is_outside(view, b));
    backends.filter_map(|b| b.endpoint.node.as_deref()).collect()
}

/// True when the address is no pod's own.
pub(super) fn is_outside(view: &View<'_>, backend: &Backend<'_>) -> bool {
    let address = backend.address();
    !view.config().cluster_subnets().iter().any(|subnet| subnet.net.contains(&address))
        && !underlay::is_inside(view, address)
}

fn scope(layer: &Layer, answer: Answer<'_>, attachments: &[Attachment<'_>]) -> String {
    let stem = layer.stem;
    match answer {
        Answer::Shared => layer.shared.to_owned(),
        Answer::Zone(zone) => format!("{stem}_zone_{zone}"),
        Answer::Nobody => format!("{stem}_none"),
        Answer::Host(node, _) => format!("{stem}_router_{node}"),
        Answer::Node(node, _) => {
            let has = |wanted: fn(&Attachment<'_>) -> bool| attachments.iter().any(wanted);
            let places =
                match (has(|a| matches!(a, Attachment::Switch(_))), has(|a| matches!(a, Attachment::Router(_)))) {
                    (true, true) => "router+switch",
                    (_, true) => "router",
                    _ => "switch",
                };
            format!("{stem}_{places}_{node}")
        }
    }
}

/// The contents of a row.
pub(super) struct Balanced {
    /// Column `vips`.
    pub vips: Vec<(Atom, Atom)>,
    /// `options:reject`: whoever calls an address without endpoints is told so. Not where only this node has none: there, it is silence.
    pub reject: bool,
    /// Nobody answers at any address.
    pub empty: bool,
}

/// What a row of a layer holds for those who answer. `weight` tells how often an endpoint is named.
pub(super) fn balance(
    view: &View<'_>,
    layer: &Layer,
    ports: &[Port<'_>],
    answer: Answer<'_>,
    weight: impl Fn(&Backend<'_>) -> u8,
) -> Balanced {
    let mut balanced = Balanced { vips: Vec::new(), reject: true, empty: true };
    for port in ports {
        let answering = answering(layer, port, answer);
        balanced.empty &= answering.is_empty();
        if answering.is_empty() && port.is_served() {
            balanced.reject = false;
        }
        let mut list = String::new();
        for backend in &answering {
            let address = match answer {
                Answer::Host(node, _) if backend.is_on(node) && is_outside(view, backend) => {
                    view.config().masquerade().host(port.v4)
                }
                _ => backend.address(),
            };
            let text = format!("{}:{}", bracketed(address), backend.port);
            for _ in 0..weight(backend) {
                list.push_str(if list.is_empty() { "" } else { "," });
                list.push_str(&text);
            }
        }
        let list = Atom::from(list);
        let refused = |address: &Address| address.outside.is_some_and(|ip| port.refused.contains(&ip));
        for address in layer.addresses.iter().filter(|address| address.v4 == port.v4 && !refused(address)) {
            let number = if address.node_port { port.service.node_port } else { port.service.port };
            if number != 0 {
                balanced.vips.push((format!("{}:{number}", address.text).into(), list.clone()));
            }
        }
    }
    // Mostly it is one, and kept.
    balanced.vips.shrink_to_fit();
    balanced
}

fn answering<'a>(layer: &Layer, port: &Port<'a>, answer: Answer<'_>) -> Vec<Backend<'a>> {
    match answer {
        Answer::Shared => port.answering(Viewpoint::default()),
        Answer::Zone(zone) => port.answering(Viewpoint { node: None, zone: Some(zone) }),
        Answer::Node(node, _) | Answer::Host(node, _) if layer.local => port.answering_on(node),
        Answer::Node(node, zone) | Answer::Host(node, zone) => port.answering(Viewpoint { node: Some(node), zone }),
        Answer::Nobody => Vec::new(),
    }
}
