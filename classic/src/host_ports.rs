//! Ports of the node that lead to its pods (`hostPort`): the table `inet ovenbird-host-ports`.
//!
//! ```text
//! pods that ask, older first --> at_v4:  192.168.1.11 . udp . 53 : 10.244.1.4 . 5353     at one address of the node (hostIP)
//!                                any_v4: tcp . 8080 : 10.244.1.5 . 80                    at all of them
//! prerouting, output -99: to the node itself, but for ::1 --> at_v4, any_v4 --> DNAT
//! prerouting -300: from the link to or from 127.0.0.0/8 --> drop
//! ```
//!
//! It stands apart from Services, for it is there whoever serves them; they come first. The pod sees the client's own address, unless that is the
//! pod's or 127.0.0.1, whose packets leave by the link to pods (`route_localnet` of it). Of two pods that ask for one port the older has it (the
//! master says so to the other). Must not: know the node's addresses; the kernel does.

use std::net::IpAddr;

use ovenbird_api::{HostPort, HostPorts};
use ovenbird_nft::{Chain, Set, Table};

use crate::services::entry::{address_type, family, ip};
use crate::services::{Answers, Changed};

/// The table.
pub const TABLE: &str = "inet ovenbird-host-ports";
/// After those of Services, which are at `dstnat` (nft(8)).
const PRIORITY: i32 = -99;
/// Before connections are known.
const FIRST: i32 = -300;

/// The table for a node's pods, those of older pods first, to which a link leads.
pub fn table(pods: &[HostPorts], link: &str) -> Table {
    let mut table = Table::new(TABLE);
    for (name, hook) in [("prerouting", "prerouting"), ("output", "output")] {
        let mut chain = Chain::base("nat", hook, PRIORITY);
        chain.rule("fib daddr type local jump host_ports");
        table.chains.insert(name.into(), chain);
    }
    // What the link lets pass for the host's own sake is not for others.
    let mut loopback = Chain::base("filter", "prerouting", FIRST);
    for side in ["saddr", "daddr"] {
        loopback.rule(format!("iifname \"{link}\" ip {side} 127.0.0.0/8 drop"));
    }
    table.chains.insert("loopback".into(), loopback);
    let mut postrouting = Chain::base("nat", "postrouting", 100);
    postrouting.rule("ct status dnat ip saddr 127.0.0.0/8 masquerade fully-random");
    table.chain("host_ports").rule("ip6 daddr ::1 return");
    for v4 in [true, false] {
        let (ip, [at, any, hairpin]) = (ip(v4), ["at", "any", "hairpin"].map(|stem| name(stem, v4)));
        let host_ports = table.chain("host_ports");
        host_ports.rule(format!("dnat {ip} to {ip} daddr . meta l4proto . th dport map @{at}"));
        host_ports.rule(format!("dnat {ip} to meta l4proto . th dport map @{any}"));
        postrouting.rule(format!("ct status dnat {ip} saddr . {ip} daddr @{hairpin} masquerade fully-random"));
        let (address, port) = (address_type(v4), "inet_proto . inet_service");
        table.sets.insert(at, Set::map(format!("type {address} . {port} : {address} . inet_service")));
        table.sets.insert(any, Set::map(format!("type {port} : {address} . inet_service")));
        table.sets.insert(hairpin, Set::plain(format!("type {address} . {address}")));
    }
    table.chains.insert("postrouting".into(), postrouting);
    for Served { port, pod } in served(pods) {
        let v4 = pod.is_ipv4();
        let key = format!("{} . {}", port.protocol.name(), port.port);
        let (stem, key) = match at(port) {
            Some(address) => ("at", format!("{address} . {key}")),
            None => ("any", key),
        };
        let mut put = |stem, key, value| {
            let set = table.sets.entry(name(stem, v4)).or_default();
            set.elements.entry(key).or_insert(value);
        };
        put(stem, key, format!("{pod} . {}", port.target));
        put("hairpin", format!("{pod} . {pod}"), String::new());
    }
    table
}

/// Connections of UDP that lead nowhere once these pods have taken the place of those `before`. `own` are the node's addresses.
pub fn changed(before: &[HostPorts], now: &[HostPorts], own: &[IpAddr]) -> Changed {
    let (before, now) = (answers(before), answers(now));
    let gone = before.keys().filter(|key| !now.contains_key(key)).map(|key| (*key, Default::default()));
    let new = now.iter().filter(|(key, to)| before.get(key) != Some(to)).map(|(key, to)| (*key, to.clone()));
    Changed::new(gone.chain(new).collect(), own)
}

fn answers(pods: &[HostPorts]) -> Answers {
    let mut answers = Answers::new();
    for Served { port, pod } in served(pods).filter(|served| served.port.protocol == ovenbird_api::Protocol::Udp) {
        answers.entry((at(port), port.port)).or_default().insert((pod, port.target).into());
    }
    answers
}

/// A port that a pod has got, in one family.
struct Served<'a> {
    port: &'a HostPort,
    pod: IpAddr,
}

fn served(pods: &[HostPorts]) -> impl Iterator<Item = Served<'_>> {
    let got = |i: usize, port: &HostPort| {
        let older = pods.iter().take(i).flat_map(|pod| &pod.ports);
        !older.into_iter().any(|other| other.meets(port))
    };
    pods.iter().enumerate().flat_map(move |(i, pod)| {
        let ports = pod.ports.iter().filter(move |port| got(i, port));
        ports.flat_map(|port| {
            let families =
                pod.addresses.iter().filter(|own| port.address.is_none_or(|at| at.is_ipv4() == own.is_ipv4()));
            families.map(move |own| Served { port, pod: *own })
        })
    })
}

/// The one address at which it is; `None` for all of a family.
fn at(port: &HostPort) -> Option<IpAddr> {
    port.address.filter(|address| !address.is_unspecified())
}

fn name(stem: &str, v4: bool) -> String {
    format!("{stem}_{}", family(v4))
}
