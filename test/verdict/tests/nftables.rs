//! The table of nftables that a node of the classic network has of policies agrees with the reference: on random clusters it says of every packet
//! what the API promises. Each transaction between two of them leads to the table that is made at once.
//!
//! The interpreter knows the words that such tables are written in, and fails on any other. Not modelled: replies, which are no packets here, and what a
//! node sends to its own pods, which no table sees.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_classic::policy::Policies;
use ovenbird_nft::Table;
use ovenbird_topology::{Change, Config, Fact, FactKey};
use ovenbird_verdict::generate::{self, Case, Families, admin};
use ovenbird_verdict::packet::{self, Packet, Protocol};
use ovenbird_verdict::translate;
use proptest::prelude::*;

/// What a rule does with a packet.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Next,
    Accept,
    Return,
    Drop,
}

/// True when a chain lets a packet go on.
fn passes(table: &Table, chain: &str, packet: &Packet) -> bool {
    for rule in &table.chains[chain].rules {
        match step(table, rule.as_str(), packet) {
            Step::Next => {}
            Step::Accept | Step::Return => return true,
            Step::Drop => return false,
        }
    }
    true
}

fn step(table: &Table, rule: &str, packet: &Packet) -> Step {
    let rule = rule.replace("{ ", "{").replace(" }", "}").replace(", ", ",");
    let mut words = rule.split(' ');
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_else(|| panic!("{rule} ends"));
        let matches = match word {
            "accept" => return Step::Accept,
            "return" => return Step::Return,
            "drop" => return Step::Drop,
            // A line in a log.
            "limit" => return Step::Next,
            "ip" | "ip6" => {
                let mut keys = vec![address(word, next(), packet)];
                let mut set = next();
                while set == "." {
                    keys.push(address(next(), next(), packet));
                    set = next();
                }
                let map = set == "vmap";
                let keys: Option<Vec<IpAddr>> = keys.into_iter().collect();
                // A network, or what is not in a set.
                if let Ok(net) = set.parse::<IpNet>() {
                    if keys.is_some_and(|keys| net.contains(&keys[0])) { continue } else { return Step::Next }
                }
                let not = set == "!=";
                let set = &table.sets[if map || not { next() } else { set }.strip_prefix('@').unwrap()];
                assert_eq!(set.map, map, "{rule}");
                let found = keys.and_then(|keys| {
                    set.elements.iter().find(|(key, _)| holds(key, &keys)).map(|(_, verdict)| verdict.clone())
                });
                match found {
                    Some(verdict) if map => {
                        if !passes(table, verdict.strip_prefix("jump ").unwrap(), packet) {
                            return Step::Drop;
                        }
                        true
                    }
                    found => found.is_some() != not,
                }
            }
            "tcp" | "udp" | "sctp" => {
                assert_eq!(next(), "dport", "{rule}");
                let ranges = next();
                let within = |range: &str| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    (first.parse().unwrap()..=last.parse().unwrap()).contains(&packet.port)
                };
                is(packet.protocol, word) && ranges.trim_matches(['{', '}']).split(',').any(within)
            }
            "meta" => {
                assert_eq!(next(), "l4proto", "{rule}");
                is(packet.protocol, next())
            }
            // The first packet of a connection, and no neighbour discovery.
            "ct" => match (next(), next()) {
                ("state", "new") => true,
                ("state", "related") | ("direction", "reply") => false,
                other => panic!("{other:?} in {rule}"),
            },
            "icmpv6" => false,
            other => panic!("{other} in {rule}"),
        };
        if !matches {
            return Step::Next;
        }
    }
    Step::Next
}

/// An address of the packet, if it is of the family.
fn address(ip: &str, side: &str, packet: &Packet) -> Option<IpAddr> {
    let address = match side {
        "saddr" => packet.source,
        "daddr" => packet.destination,
        other => panic!("{other}"),
    };
    Some(address).filter(|address| address.is_ipv4() == (ip == "ip"))
}

/// An element holds these addresses.
fn holds(element: &str, keys: &[IpAddr]) -> bool {
    let net = |text: &str| text.parse::<IpNet>().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into());
    let parts: Vec<IpNet> = element.split(" . ").map(net).collect();
    assert_eq!(parts.len(), keys.len());
    parts.iter().zip(keys).all(|(net, key)| net.contains(key))
}

fn is(protocol: Protocol, name: &str) -> bool {
    format!("{protocol:?}").to_lowercase() == name
}

/// The policies of both nodes.
fn nodes(families: Families) -> [Policies; 2] {
    let networks: &[&str] = match families {
        Families::Both => &["10.128.0.0/14", "fd01::/48"],
        Families::V4 => &["10.128.0.0/14"],
        Families::V6 => &["fd01::/48"],
    };
    let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
    ["n0", "n1"].map(|node| Policies::new(node, Config::of_pods(&networks, true, 20).unwrap()))
}

/// Tells facts; what was told before and is not among them is gone.
fn tell(nodes: &mut [Policies; 2], before: &[Fact], facts: &[Fact]) {
    let gone = before.iter().map(Fact::key).filter(|key: &FactKey| facts.iter().all(|fact| fact.key() != *key));
    let gone = gone.map(Change::Delete);
    for change in facts.iter().cloned().map(Change::Upsert).chain(gone) {
        for policies in &mut *nodes {
            policies.apply(change.clone());
            // What is told one by one and what is told at once come to the same.
            if matches!(change, Change::Upsert(Fact::Pod(_))) {
                policies.settle();
            }
        }
    }
    for policies in nodes {
        policies.settle();
        assert_eq!(policies.unreadable().next(), None);
    }
}

/// What is wrong with the tables, in words.
fn faults(nodes: &[Policies; 2], case: &Case, allowed: impl Fn(&Packet) -> bool) -> Result<usize, String> {
    let tables = nodes.each_ref().map(Policies::table);
    let at = |ip: IpAddr| nodes.iter().position(|node| node.pods().any(|pod| pod.addresses.contains(&ip)));
    let mut judged = 0;
    for packet in &case.packets {
        let own_node = |index: usize| {
            let management = case.cluster.nodes[index].management.contains(&packet.source);
            let host_cidrs = format!("{:?}", case.nodes[index].metadata.annotations);
            management || host_cidrs.contains(&format!("\"{}/", packet.source))
        };
        let to = at(packet.destination);
        let is_management = |ip: &IpAddr| case.cluster.nodes.iter().position(|node| node.management.contains(ip));
        // Addresses of pods that nobody has are closed.
        let nobody = |ip: IpAddr| {
            let pods = nodes.iter().any(|node| node.subnets().iter().any(|net| net.contains(&ip)));
            pods && at(ip).is_none() && is_management(&ip).is_none()
        };
        // What a node sends to its own pods is not judged; by that address no pod meets itself here.
        let itself = packet.source == packet::hairpin(packet.source);
        if to.is_some_and(own_node) || itself || nobody(packet.source) || nobody(packet.destination) {
            continue;
        }
        let hook = |index| if is_management(&packet.destination) == Some(index) { "input" } else { "forward" };
        judged += 1;
        let places: std::collections::BTreeSet<usize> = [at(packet.source), to].into_iter().flatten().collect();
        let passes = places.iter().all(|index| passes(&tables[*index], hook(*index), packet));
        if passes != allowed(packet) {
            return Err(format!("{packet}: passes {passes}, at nodes {places:?}"));
        }
    }
    Ok(judged)
}

fn check(outcome: Result<usize, String>) -> Result<(), TestCaseError> {
    outcome.map(drop).map_err(TestCaseError::fail)
}

/// `PROPTEST_CASES` asks for more.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases, ..default } }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn tables_say_what_the_reference_says((before, case) in generate::pair()) {
        let (old, new) = (translate::facts(&before), translate::facts(&case));
        let mut nodes = nodes(case.families);
        tell(&mut nodes, &[], &old);
        tell(&mut nodes, &old, &new);
        check(faults(&nodes, &case, |packet| case.cluster.verdict(packet).allowed))?;
        let mut fresh = self::nodes(case.families);
        tell(&mut fresh, &[], &new);
        prop_assert_eq!(fresh.map(|node| node.table()), nodes.map(|node| node.table()));
    }

    #[test]
    fn tables_say_so_of_admin_policies((before, case) in admin::pair()) {
        let (old, new) = (translate::admin_facts(&before).unwrap(), translate::admin_facts(&case).unwrap());
        let mut nodes = nodes(case.base.families);
        tell(&mut nodes, &[], &old);
        tell(&mut nodes, &old, &new);
        check(faults(&nodes, &case.base, |packet| case.tiers().verdict(packet).allowed))?;
    }
}
