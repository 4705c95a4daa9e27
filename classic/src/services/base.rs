//! Hooks, and what is the same whatever Services there are.
//!
//! ```text
//! prerouting, output  -110: load-balancer addresses, source ranges --> drop
//!                     -100: [entry] vips, node_ports --> DNAT
//! input, forward, output -10: addresses of Services that led nowhere --> reject
//! postrouting          100: marked, or to itself --> masquerade
//! ```
//!
//! Must not: name a Service.

use ipnet::IpNet;
use ovenbird_nft::{Chain, Set, Table};

use super::Settings;
use super::entry::{MASQUERADE, Way, address_type, family, ip};

/// Sets beside those of [`Way`], each with elements of Services. Names are followed by the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `clusterIPs`: ports that are no Service's are refused there.
    ClusterIps,
    /// Addresses and ports outside the cluster that have no endpoints.
    NoEndpoints,
    /// NodePorts that have none.
    NoEndpointPorts,
    /// Load-balancer addresses that only some may use.
    Restricted,
    /// Who may use them.
    Allowed,
    /// Endpoints of this node, twice: a pod that calls itself by a Service.
    Hairpin,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::ClusterIps, Kind::NoEndpoints, Kind::NoEndpointPorts, Kind::Restricted, Kind::Allowed, Kind::Hairpin];

    fn name(self, v4: bool) -> String {
        let stem = match self {
            Kind::ClusterIps => "cluster_ips",
            Kind::NoEndpoints => "no_endpoints",
            Kind::NoEndpointPorts => "no_endpoint_ports",
            Kind::Restricted => "restricted",
            Kind::Allowed => "allowed",
            Kind::Hairpin => "hairpin",
        };
        format!("{stem}_{}", family(v4))
    }

    fn spec(self, v4: bool) -> String {
        let address = address_type(v4);
        match self {
            Kind::ClusterIps => format!("type {address}"),
            Kind::NoEndpoints | Kind::Restricted => format!("type {address} . inet_proto . inet_service"),
            Kind::NoEndpointPorts => "type inet_proto . inet_service".to_owned(),
            Kind::Allowed => format!("type {address} . inet_proto . inet_service . {address}; flags interval"),
            Kind::Hairpin => format!("type {address} . {address}"),
        }
    }

    /// Adds an element to the set of a family.
    pub fn add(self, table: &mut Table, v4: bool, element: String) {
        let set = table.sets.entry(self.name(v4)).or_insert_with(|| Set::plain(self.spec(v4)));
        set.elements.insert(element, String::new());
    }
}

/// The table without Services.
pub(super) fn table(settings: &Settings) -> Table {
    let mut table = Table::default();
    let families: Vec<bool> = [true, false].into_iter().filter(|v4| settings.pods(*v4).is_some()).collect();
    hooks(&mut table, settings);
    for v4 in families {
        for way in Way::all(v4) {
            table.sets.insert(way.entrance(), Set::map(way.entrance_spec()));
        }
        for kind in Kind::ALL {
            table.sets.insert(kind.name(v4), Set::plain(kind.spec(v4)));
        }
        entrances(&mut table, settings, v4);
        source_ranges(&mut table, v4);
        refusals(&mut table, settings, v4);
        let (name, ip) = (Kind::Hairpin.name(v4), ip(v4));
        let rule = format!("ct status dnat {ip} saddr . {ip} daddr @{name} masquerade fully-random");
        table.chain("postrouting").rule(rule);
    }
    table
}

fn hooks(table: &mut Table, settings: &Settings) {
    // Only the first packet of a connection comes here, and only it has to pass the others.
    for (name, kind, hook, priority, rule) in [
        ("prerouting", "nat", "prerouting", -100, "jump services"),
        ("output", "nat", "output", -100, "jump services"),
        ("filter_prerouting", "filter", "prerouting", -110, "ct state new jump source_ranges"),
        ("filter_output", "filter", "output", -110, "ct state new jump source_ranges"),
        ("refuse_input", "filter", "input", -10, "ct state new jump unserved"),
        ("refuse_forward", "filter", "forward", -10, "ct state new jump unserved"),
        ("refuse_output", "filter", "output", -10, "ct state new jump unserved"),
    ] {
        let mut chain = Chain::base(kind, hook, priority);
        chain.rule(rule);
        table.chains.insert(name.to_owned(), chain);
    }
    let mut postrouting = Chain::base("nat", "postrouting", 100);
    postrouting.rule(format!("meta mark & {MASQUERADE} == {MASQUERADE} jump as_node"));
    table.chains.insert("postrouting".to_owned(), postrouting);
    // What the host sends to itself has the right address.
    let as_node = table.chain("as_node");
    as_node.rule("meta mark set meta mark & 0xffffbfff").rule("oifname \"lo\" return");
    for address in settings.behind.iter().flat_map(|behind| &behind.for_others) {
        let (interface, ip) = (settings.behind.as_ref().map_or("", |behind| &behind.interface), ip(address.is_ipv4()));
        let family = family(address.is_ipv4());
        let rule = format!("meta nfproto ip{family} oifname \"{interface}\" fib saddr type != local");
        as_node.rule(format!("{rule} snat {ip} to {address} fully-random"));
    }
    as_node.rule("masquerade fully-random");
    // A reset is not held back as many ICMP messages are.
    table
        .chain("refuse")
        .rule("meta l4proto tcp reject with tcp reset")
        .rule("reject with icmpx type port-unreachable");
    for name in ["services", "source_ranges", "unserved"] {
        table.chain(name);
    }
}

/// Which packets are looked up where.
fn entrances(table: &mut Table, settings: &Settings, v4: bool) {
    let Some(pods) = settings.pods(v4) else { return };
    let (ip, family, inside, outside) =
        (ip(v4), family(v4), format!("services_{}", family(v4)), format!("outside_{}", family(v4)));
    table.chain("services").rule(format!("meta nfproto ip{family} jump {inside}"));
    // Pods and the node itself are no outside: for them policy Local is as Cluster.
    table.chain(&inside).rule(format!("{ip} saddr != {pods} fib saddr type != local jump {outside}"));
    for (chain, is_outside) in [(&outside, true), (&inside, false)] {
        for way in Way::all(v4).filter(|way| way.outside == is_outside) {
            let local = if way.node_port { node_port_addresses(settings, v4) } else { Some(String::new()) };
            if let Some(local) = local {
                table.chain(chain).rule(format!("{local}{} vmap @{}", way.key(), way.entrance()));
            }
        }
    }
}

/// What is said of addresses at which NodePorts are served; `None` for nowhere.
fn node_port_addresses(settings: &Settings, v4: bool) -> Option<String> {
    let chosen = &settings.node_port_addresses;
    let own: Vec<_> = chosen.iter().filter(|net| net.addr().is_ipv4() == v4).map(net).collect();
    if !settings.node_ports || (own.is_empty() && !chosen.is_empty()) {
        return None;
    }
    let which = match own.join(", ") {
        all if all.is_empty() => format!("!= {}", if v4 { "127.0.0.0/8" } else { "::1" }),
        some => format!("{{ {some} }}"),
    };
    Some(format!("fib daddr type local {} daddr {which} ", ip(v4)))
}

fn source_ranges(table: &mut Table, v4: bool) {
    let (ip, restricted, allowed) = (ip(v4), Kind::Restricted.name(v4), Kind::Allowed.name(v4));
    let key = format!("{ip} daddr . meta l4proto . th dport");
    table.chain("source_ranges").rule(format!("{key} @{restricted} {key} . {ip} saddr != @{allowed} drop"));
}

fn refusals(table: &mut Table, settings: &Settings, v4: bool) {
    let ip = ip(v4);
    let chain = table.chain("unserved");
    chain.rule(format!("{ip} daddr . meta l4proto . th dport @{} goto refuse", Kind::NoEndpoints.name(v4)));
    if let Some(local) = node_port_addresses(settings, v4) {
        chain.rule(format!("{local}meta l4proto . th dport @{} goto refuse", Kind::NoEndpointPorts.name(v4)));
    }
    chain.rule(format!("{ip} daddr @{} goto refuse", Kind::ClusterIps.name(v4)));
    let cidrs: Vec<_> = settings.service_cidrs.iter().filter(|net| net.addr().is_ipv4() == v4).map(net).collect();
    if !cidrs.is_empty() {
        chain.rule(format!("{ip} daddr {{ {} }} drop", cidrs.join(", ")));
    }
}

fn net(net: &IpNet) -> String {
    net.trunc().to_string()
}
