//! The host's nftables: one table of ours, `inet ovenbird`. Pure.
//!
//! ```text
//! prerouting:          from the wire, where the host is a Service's endpoint with policy Local --> DNAT to its own address
//! output, prerouting:  a Service's external address or NodePort --> DNAT to its cluster address --> route to OVN
//! postrouting:         Services over the external bridge or the management port --> masquerade; in mode local pods to the outside, too
//! ```
//!
//! From the wire Services are reached by flows before the host sees them; this is for the host's own processes and its other links.
//! Must not: touch another table.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::services::{Protocol, Served, Targets};
use ipnet::IpNet;
use ovenbird_api::Masquerade;
use ovenbird_api::name::MANAGEMENT_INTERFACE;

/// Our table.
pub const TABLE: &str = "inet ovenbird";

/// Where 127.0.0.1 leads to pods, it must not be reached from outside.
const LOOPBACK: &str = "\tchain loopback {\n\t\ttype filter hook prerouting priority -300\n\
    \t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\t}\n";

/// All that the table depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What Services are entered by.
    pub served: &'a Served,
    /// The node serves NodePorts.
    pub node_port: bool,
    /// NodePorts are served on addresses in these; empty for all.
    pub node_port_addresses: &'a [IpNet],
    /// In mode local: networks of this node's pods, who leave with the host's address for anywhere but `unmasked`.
    pub local_pods: &'a [IpNet],
    /// The pod networks, and what the operator excludes.
    pub unmasked: &'a [IpNet],
    /// The way to Services over the external bridge, when there is one.
    pub link: Option<Link<'a>>,
}

/// How the host's packets go to Services over the external bridge.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The bridge.
    pub bridge: &'a str,
    /// Whom the host is taken for.
    pub masquerade: &'a Masquerade,
    /// Service networks.
    pub service_cidrs: &'a [IpNet],
}

/// A file for nft(8) that replaces the table as a whole, in one transaction.
pub fn ruleset(facts: &Facts<'_>) -> String {
    let mut text = format!("{}table {TABLE} {{\n", delete());
    let (mut rules, mut direct, mut but) = (String::new(), String::new(), String::new());
    let Served { vips, node_ports, host_ports, direct: own } = facts.served;
    let vip = |(vip, protocol, port): &(IpAddr, Protocol, u16)| format!("{vip} . {} . {port}", protocol.name());
    let node_port = |(protocol, port): &(Protocol, u16)| format!("{} . {port}", protocol.name());
    for v4 in [true, false] {
        let of_family = |targets: &Targets| Some(SocketAddr::new(targets.of_family(v4)?, targets.port));
        let first = |targets: &Vec<SocketAddr>| targets.iter().find(|to| to.is_ipv4() == v4).copied();
        let ways = Ways { facts, v4, prefix: "" };
        ways.add_vips(
            &mut text,
            &mut rules,
            &elements(vips.iter().filter(|(key, _)| key.0.is_ipv4() == v4), vip, of_family),
        );
        ways.add_node_ports(&mut text, &mut rules, &elements(node_ports, node_port, of_family));
        let ports: Vec<_> = host_ports.iter().filter(|key| key.0.is_ipv4() == v4).map(vip).collect();
        ways.but_pods(&mut text, &mut but, &ports);
        let ways = Ways { prefix: "direct_", ..ways };
        ways.add_vips(&mut text, &mut direct, &elements(&own.vips, vip, first));
        ways.add_node_ports(&mut text, &mut direct, &elements(&own.node_ports, node_port, first));
    }
    if serves_loopback(facts.served) {
        text.push_str(LOOPBACK);
    }
    let direct = match facts.link {
        Some(link) if !direct.is_empty() => {
            let _ = write!(text, "\tchain direct {{\n{direct}\t}}\n");
            format!("\t\tiifname \"{}\" jump direct\n", link.bridge)
        }
        _ => String::new(),
    };
    chains(&mut text, &rules, &(but + &direct), &(as_host(facts.link) + &local_pods(facts)));
    text.push_str("}\n");
    text
}

/// Maps from where packets are addressed to where they go, in one family, and the rules that use them.
#[derive(Clone, Copy)]
struct Ways<'a> {
    facts: &'a Facts<'a>,
    v4: bool,
    prefix: &'static str,
}

impl Ways<'_> {
    fn words(self) -> (&'static str, &'static str, &'static str) {
        if self.v4 { ("ip", "ipv4_addr", "v4") } else { ("ip6", "ipv6_addr", "v6") }
    }

    fn add_vips(self, text: &mut String, rules: &mut String, vips: &[String]) {
        let ((ip, kind, suffix), prefix) = (self.words(), self.prefix);
        if !vips.is_empty() {
            let of = format!("{kind} . inet_proto . inet_service : {kind} . inet_service");
            object(text, "map", &format!("{prefix}vips_{suffix}"), &of, vips);
            let key = format!("{ip} daddr . meta l4proto . th dport");
            rules.push_str(&format!("\t\tdnat {ip} to {key} map @{prefix}vips_{suffix}\n"));
        }
    }

    /// Ports of the node are not for pods that ask it itself, as those on Networks do: they would be taken for the node, which policies let pass.
    fn but_pods(self, text: &mut String, rules: &mut String, ports: &[String]) {
        let (ip, kind, suffix) = self.words();
        if !ports.is_empty() {
            let of = format!("{kind} . inet_proto . inet_service");
            object(text, "set", &format!("host_ports_{suffix}"), &of, ports);
            let key = format!("{ip} daddr . meta l4proto . th dport");
            let _ = writeln!(rules, "\t\tiifname \"{MANAGEMENT_INTERFACE}\" {key} @host_ports_{suffix} return");
        }
    }

    fn add_node_ports(self, text: &mut String, rules: &mut String, ports: &[String]) {
        let ((ip, kind, suffix), prefix) = (self.words(), self.prefix);
        let chosen = self.facts.node_port_addresses;
        let own: Vec<_> = chosen.iter().filter(|net| net.addr().is_ipv4() == self.v4).collect();
        if !self.facts.node_port || ports.is_empty() || (!chosen.is_empty() && own.is_empty()) {
            return;
        }
        let of = format!("inet_proto . inet_service : {kind} . inet_service");
        object(text, "map", &format!("{prefix}node_ports_{suffix}"), &of, ports);
        let which = if own.is_empty() {
            format!("{ip} daddr != {}", if self.v4 { "127.0.0.0/8" } else { "::1" })
        } else {
            format!("{ip} daddr {{ {} }}", own.iter().map(|n| n.trunc().to_string()).collect::<Vec<_>>().join(", "))
        };
        let map = format!("meta l4proto . th dport map @{prefix}node_ports_{suffix}");
        rules.push_str(&format!("\t\tfib daddr type local {which} dnat {ip} to {map}\n"));
    }
}

/// True when a loopback address leads to a pod.
pub fn serves_loopback(served: &Served) -> bool {
    served.vips.keys().any(|(address, ..)| address.is_loopback())
}

/// A file for nft(8) that removes the table, be it there or not.
pub fn delete() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// Elements of a map: key, address and port.
fn elements<'a, K: 'a, T: 'a>(
    entries: impl IntoIterator<Item = (&'a K, &'a T)>,
    key: impl Fn(&K) -> String,
    target: impl Fn(&T) -> Option<SocketAddr>,
) -> Vec<String> {
    let of = |(entry, targets)| {
        let to = target(targets)?;
        Some(format!("{} : {} . {}", key(entry), to.ip(), to.port()))
    };
    entries.into_iter().filter_map(of).collect()
}

/// A set or a map with its elements.
fn object(text: &mut String, what: &str, name: &str, kind: &str, elements: &[String]) {
    // Writing to a String does not fail.
    let _ = write!(text, "\t{what} {name} {{\n\t\ttype {kind}\n\t\telements = {{\n");
    for element in elements {
        let _ = writeln!(text, "\t\t\t{element},");
    }
    text.push_str("\t\t}\n\t}\n");
}

fn chains(text: &mut String, services: &str, direct: &str, masquerade: &str) {
    let _ = write!(
        text,
        "\tchain services {{\n{services}\t}}\n\
         \tchain output {{\n\t\ttype nat hook output priority -100\n\t\tjump services\n\t}}\n\
         \tchain prerouting {{\n\t\ttype nat hook prerouting priority -100\n{direct}\t\tjump services\n\t}}\n\
         \tchain postrouting {{\n\t\ttype nat hook postrouting priority 100\n\
         \t\toifname \"{MANAGEMENT_INTERFACE}\" ct status dnat masquerade\n{masquerade}\t}}\n",
    );
}

/// What does not have the host's masquerade address yet gets it: a socket that was bound to another, or what is forwarded here.
fn as_host(link: Option<Link<'_>>) -> String {
    let mut rules = String::new();
    for (Link { bridge, masquerade, service_cidrs }, v4) in
        link.into_iter().flat_map(|link| [(link, true), (link, false)])
    {
        let ip = if v4 { "ip" } else { "ip6" };
        let services = service_cidrs.iter().filter(|net| net.addr().is_ipv4() == v4).map(|net| net.trunc().to_string());
        let to: Vec<_> = services.chain([masquerade.host_etp_local(v4).to_string()]).collect();
        let (to, host) = (to.join(", "), masquerade.host(v4));
        let _ =
            writeln!(rules, "\t\toifname \"{bridge}\" {ip} daddr {{ {to} }} {ip} saddr != {host} snat {ip} to {host}");
    }
    rules
}

fn local_pods(facts: &Facts<'_>) -> String {
    let mut rules = String::new();
    for subnet in facts.local_pods {
        let v4 = subnet.addr().is_ipv4();
        let ip = if v4 { "ip" } else { "ip6" };
        let unmasked = facts.unmasked.iter().filter(|net| net.addr().is_ipv4() == v4);
        let unmasked = unmasked.map(|net| net.trunc().to_string()).collect::<Vec<_>>().join(", ");
        let but = if unmasked.is_empty() { String::new() } else { format!("{ip} daddr != {{ {unmasked} }} ") };
        let subnet = subnet.trunc();
        let _ = writeln!(rules, "\t\t{ip} saddr {subnet} {but}oifname != \"{MANAGEMENT_INTERFACE}\" masquerade");
    }
    rules
}

#[cfg(test)]
#[path = "nft_tests.rs"]
mod tests;
