//! Which endpoints answer for a port of a Service, seen from a place: what kube-proxy decides in pkg/proxy/topology.go.
//!
//! Inputs: slices, and the place's names. Outputs: endpoints in a fixed order. Must not: know rows.

use std::net::IpAddr;

use ovsdb::Str;

use crate::facts::{Endpoint, EndpointSliceFact, ServicePort};

/// A port of the Service with its endpoints of one address family. Families know nothing of each other.
pub struct Port<'a> {
    /// The Service's side.
    pub service: &'a ServicePort,
    /// The family: IPv4.
    pub v4: bool,
    /// Addresses outside the cluster at which another has the port.
    pub refused: Vec<IpAddr>,
    /// The other side: each address and port once, sorted.
    pub backends: Vec<Backend<'a>>,
}

/// An endpoint at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Its port, which may differ from one slice to the next.
    pub port: u16,
}

/// From where a Service is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Viewpoint<'a> {
    /// The node; `None` when only what all nodes share counts.
    pub node: Option<&'a str>,
    /// The node's zone.
    pub zone: Option<&'a str>,
}

/// How far traffic may go (KEP-2433, KEP-4444).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To all endpoints.
    Anywhere,
    /// To those that are hinted for the zone.
    Zone,
    /// To those that are hinted for the node.
    Node,
}

impl<'a> Port<'a> {
    /// Merges the slices: where two name one address and port, that which is more fit to serve counts.
    pub fn new(service: &'a ServicePort, v4: bool, slices: &[&'a EndpointSliceFact]) -> Port<'a> {
        let mut backends = Vec::new();
        for slice in slices {
            let same = slice.ports.iter().filter(|p| p.name == service.name && p.protocol == service.protocol);
            for port in same {
                let endpoints = slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == v4);
                backends.extend(endpoints.map(|endpoint| Backend { endpoint, port: port.port }));
            }
        }
        backends.sort_by_key(|b: &Backend<'_>| {
            (b.endpoint.address, b.port, !b.is_ready(), !b.endpoint.conditions.serving, b.endpoint.node.is_none())
        });
        backends.dedup_by_key(|b| (b.endpoint.address, b.port));
        Port { service, v4, refused: Vec::new(), backends }
    }

    /// Those that answer where all endpoints may: the ready ones within reach, or when none is ready anywhere, those that still serve while
    /// they terminate (KEP-1669).
    pub fn answering(&self, at: Viewpoint<'_>) -> Vec<Backend<'a>> {
        let reach = self.reach(at);
        let ready = self.pick(|b| b.is_ready() && b.is_within(reach, at));
        if ready.is_empty() { self.pick(Backend::is_last_resort) } else { ready }
    }

    /// Those that answer where only a node's own may.
    pub fn answering_on(&self, node: &str) -> Vec<Backend<'a>> {
        let ready = self.pick(|b| b.is_ready() && b.is_on(node));
        if ready.is_empty() { self.pick(|b| b.is_last_resort() && b.is_on(node)) } else { ready }
    }

    /// True when some endpoint answers, wherever it may be.
    pub fn is_served(&self) -> bool {
        self.backends.iter().any(|b| b.is_ready() || b.is_last_resort())
    }

    /// The nodes on which an endpoint answers.
    pub fn serving_nodes(&self) -> impl Iterator<Item = &'a str> {
        self.backends.iter().filter(|b| b.is_ready() || b.is_last_resort()).filter_map(|b| b.endpoint.node.as_deref())
    }

    /// The nodes that have endpoints of their own by hints.
    pub fn hinted_nodes(&self) -> Vec<&'a str> {
        self.hinted(nodes)
    }

    /// The zones that have endpoints of their own by hints.
    pub fn hinted_zones(&self) -> Vec<&'a str> {
        self.hinted(zones)
    }

    /// The nearest reach with an endpoint in it.
    fn reach(&self, at: Viewpoint<'_>) -> Reach {
        let names =
            |names: fn(&Endpoint) -> &[Str], name: Option<&str>| name.is_some_and(|n| self.hinted(names).contains(&n));
        if names(nodes, at.node) {
            Reach::Node
        } else if names(zones, at.zone) {
            Reach::Zone
        } else {
            Reach::Anywhere
        }
    }

    /// The names in the hints of ready endpoints: none unless all have some, for those without would get no traffic.
    fn hinted(&self, names: fn(&Endpoint) -> &[Str]) -> Vec<&'a str> {
        let ready = || self.backends.iter().filter(|b| b.is_ready()).map(|b| b.endpoint);
        let usable = ready().all(|endpoint| !names(endpoint).is_empty());
        if usable { ready().flat_map(names).map(|name| &**name).collect() } else { Vec::new() }
    }

    fn pick(&self, wanted: impl Fn(&Backend<'a>) -> bool) -> Vec<Backend<'a>> {
        self.backends.iter().filter(|b| wanted(b)).copied().collect()
    }
}

impl Backend<'_> {
    /// The endpoint's address.
    pub fn address(&self) -> IpAddr {
        self.endpoint.address
    }

    /// True for an endpoint of the node.
    pub fn is_on(&self, node: &str) -> bool {
        self.endpoint.node.as_deref() == Some(node)
    }

    fn is_ready(&self) -> bool {
        self.endpoint.conditions.ready
    }

    fn is_last_resort(&self) -> bool {
        let conditions = self.endpoint.conditions;
        !conditions.ready && conditions.serving && conditions.terminating
    }

    fn is_within(&self, reach: Reach, at: Viewpoint<'_>) -> bool {
        let names = |names: &[Str], name: Option<&str>| name.is_some_and(|n| names.iter().any(|own| **own == *n));
        match reach {
            Reach::Anywhere => true,
            Reach::Zone => names(zones(self.endpoint), at.zone),
            Reach::Node => names(nodes(self.endpoint), at.node),
        }
    }
}

fn zones(endpoint: &Endpoint) -> &[Str] {
    endpoint.hints.as_ref().map_or(&[], |hints| &hints.zones)
}

fn nodes(endpoint: &Endpoint) -> &[Str] {
    endpoint.hints.as_ref().map_or(&[], |hints| &hints.nodes)
}
