//! The ways into Services: which maps they are entered by, and the chains that choose an endpoint.
//!
//! | way | key | for |
//! |---|---|---|
//! | `vip` | address, protocol, port | cluster, external and load-balancer addresses |
//! | `node_port` | protocol, port | the node's own addresses |
//! | `outside_vip`, `outside_node_port` | the same | clients outside, where externalTrafficPolicy Local keeps their address |
//!
//! ```text
//! vips_v4: 10.96.0.7 . tcp . 80 : goto vip_pick_2_v4          (2 endpoints)
//! vip_pick_2_v4: by lot 0 or 1 --> vip_endpoint_0_v4, vip_endpoint_1_v4: chains, each with a map of its name
//! vip_endpoint_1_v4: 10.96.0.7 . tcp . 80 : 10.244.3.4 . 8080
//! ```
//!
//! Must not: know Services.

use std::net::{IpAddr, SocketAddr};

use ovenbird_api::Protocol;
use ovenbird_nft::{Set, Table};

use super::Settings;

/// Bit of the mark of packets that leave with the node's address: the one that kubelet and kube-proxy use for it.
pub(super) const MASQUERADE: &str = "0x00004000";

/// See the file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// IPv4.
    pub v4: bool,
    /// By NodePort.
    pub node_port: bool,
    /// Clients are outside and keep their address.
    pub outside: bool,
}

/// How one of several endpoints is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// By lot.
    Random,
    /// By the client's address.
    BySource,
}

/// What a way leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered<'a> {
    /// Address; of no meaning to a NodePort.
    pub address: IpAddr,
    /// Transport.
    pub protocol: Protocol,
    /// Port, or NodePort.
    pub port: u16,
    /// Who may answer.
    pub endpoints: &'a [SocketAddr],
}

impl Way {
    /// All of a family.
    pub fn all(v4: bool) -> impl Iterator<Item = Way> {
        [(false, false), (true, false), (false, true), (true, true)].into_iter().map(move |(node_port, outside)| Way {
            v4,
            node_port,
            outside,
        })
    }

    /// The map by which it is entered.
    pub fn entrance(self) -> String {
        format!("{}s_{}", self.stem(), family(self.v4))
    }

    /// What is looked up there.
    pub fn key(self) -> String {
        let port = "meta l4proto . th dport";
        if self.node_port { port.to_owned() } else { format!("{} daddr . {port}", ip(self.v4)) }
    }

    /// Type of the map by which it is entered.
    pub fn entrance_spec(self) -> String {
        format!("type {} : verdict", self.key_type())
    }

    /// Adds a chosen verdict.
    pub fn enter(self, table: &mut Table, at: Entered<'_>, verdict: String) {
        let set = table.sets.entry(self.entrance()).or_insert_with(|| Set::map(self.entrance_spec()));
        set.elements.insert(self.element(at), verdict);
    }

    /// Adds what leads to one of the endpoints, of which there are some.
    pub fn balance(self, table: &mut Table, at: Entered<'_>, choice: Choice, settings: &Settings) {
        for (i, endpoint) in at.endpoints.iter().enumerate() {
            let name = self.endpoint(i);
            let of = || Set::map(format!("type {} : {} . inet_service", self.key_type(), address_type(self.v4)));
            let set = table.sets.entry(name.clone()).or_insert_with(of);
            set.elements.insert(self.element(at), format!("{} . {}", endpoint.ip(), endpoint.port()));
            if !table.chains.contains_key(&name) {
                self.add_endpoint_chain(table, i, settings);
            }
        }
        let verdict = match at.endpoints.len() {
            1 => format!("goto {}", self.endpoint(0)),
            n => format!("goto {}", self.add_pick_chain(table, n, choice)),
        };
        self.enter(table, at, verdict);
    }

    fn stem(self) -> &'static str {
        match (self.outside, self.node_port) {
            (false, false) => "vip",
            (false, true) => "node_port",
            (true, false) => "outside_vip",
            (true, true) => "outside_node_port",
        }
    }

    fn key_type(self) -> String {
        let port = "inet_proto . inet_service";
        if self.node_port { port.to_owned() } else { format!("{} . {port}", address_type(self.v4)) }
    }

    fn element(self, at: Entered<'_>) -> String {
        let port = format!("{} . {}", at.protocol.name(), at.port);
        if self.node_port { port } else { format!("{} . {port}", at.address) }
    }

    /// Map and chain of the n-th endpoints.
    fn endpoint(self, n: usize) -> String {
        format!("{}_endpoint_{n}_{}", self.stem(), family(self.v4))
    }

    fn add_endpoint_chain(self, table: &mut Table, n: usize, settings: &Settings) {
        let (name, ip, key) = (self.endpoint(n), ip(self.v4), self.key());
        let chain = table.chain(&name);
        if !self.outside {
            chain.rules.extend(masquerade_others(settings, self.v4).map(Into::into));
        }
        chain.rule(format!("dnat {ip} to {key} map @{name}"));
        if n > 0 {
            // The endpoint went between the two look-ups.
            chain.rule(format!("dnat {ip} to {key} map @{}", self.endpoint(0)));
        }
    }

    fn add_pick_chain(self, table: &mut Table, n: usize, choice: Choice) -> String {
        let word = if choice == Choice::BySource { "hash" } else { "pick" };
        let name = format!("{}_{word}_{n}_{}", self.stem(), family(self.v4));
        let targets = (0..n).map(|i| self.endpoint(i));
        let rule = choose(choice, self.v4, n, targets);
        if !table.chains.contains_key(&name) {
            table.chain(&name).rule(rule);
        }
        name
    }
}

/// A rule that goes to one of n chains.
pub(super) fn choose(choice: Choice, v4: bool, n: usize, mut targets: impl Iterator<Item = String>) -> String {
    if n == 1 {
        return format!("goto {}", targets.next().unwrap_or_default());
    }
    let by = match choice {
        Choice::Random => format!("numgen random mod {n}"),
        // The same seed on all nodes, so that a client finds its endpoint on every way.
        Choice::BySource => format!("jhash {} saddr mod {n} seed 0x1", ip(v4)),
    };
    let cases: Vec<String> = targets.enumerate().map(|(i, target)| format!("{i} : goto {target}")).collect();
    format!("{by} vmap {{ {} }}", cases.join(", "))
}

/// A rule that marks whoever is no pod of this node: an endpoint elsewhere would answer past this node, and the client would not know it.
pub(super) fn masquerade_others(settings: &Settings, v4: bool) -> Option<String> {
    let pods = settings.pods(v4)?;
    let others = if settings.behind.is_none() { format!("{} saddr != {pods} ", ip(v4)) } else { String::new() };
    Some(format!("{others}meta mark set meta mark | {MASQUERADE}"))
}

/// `ip` or `ip6`.
pub(crate) fn ip(v4: bool) -> &'static str {
    if v4 { "ip" } else { "ip6" }
}

/// End of names.
pub(crate) fn family(v4: bool) -> &'static str {
    if v4 { "v4" } else { "v6" }
}

/// nft's name of the type of addresses.
pub(crate) fn address_type(v4: bool) -> &'static str {
    if v4 { "ipv4_addr" } else { "ipv6_addr" }
}
