//! What policies say of this node's pods, as a table of nftables.
//!
//! ```text
//! forward: replies, related, neighbour discovery, a pod to itself: accept
//!          source      in egress_v4   10.128.0.5 -> chain egress_HASH     return (allowed) or drop, by priority
//!          destination in ingress_v4  10.128.0.6 -> chain ingress_HASH
//! input:   the same for what pods send to the node itself
//! ```
//!
//! Addresses of this node's networks that no known pod has are closed in both directions: what is judged before its pod is known could wait for
//! it, where the kernel asks for its MAC, and arrive after all.
//!
//! A chain is for all pods that are in the same groups, as far as ACLs name these: so which ACLs concern a pod is decided here, and a packet meets
//! no rule of another. A pod that comes is an element or two; texts of rules stay. The chains are there without any policy, too, so that
//! connections are known when the first one comes. Must not: know Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use ovenbird_api::Mac;
use ovenbird_nft::{Chain, Set, Table, Text};

use super::TABLE;
use super::expression::{All, Ports, SetMatch};
use super::rows::{Acl, Port, Rows};

/// What passes without being asked: packets of the other direction of a connection, errors about one, neighbour discovery (RFC 4861), and what a
/// pod sends to itself. Everything else is judged, packet by packet: so what a new policy denies stops.
const PASSES: [&str; 5] = [
    "ct direction reply accept",
    "ct state related accept",
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
    "ip saddr . ip daddr @itself_v4 accept",
    "ip6 saddr . ip6 daddr @itself_v6 accept",
];

/// The table. `subnets` are of this node's pods, `rate` is how many packets a second each logged ACL tells of.
pub(super) fn table(rows: &Rows, subnets: &[IpNet], rate: i64) -> Table {
    let mut building = Building { rows, rate, table: Table::new(TABLE), chains: BTreeMap::new() };
    building.add_base_chains(subnets);
    for port in rows.ports().values() {
        building.add(port);
    }
    building.table
}

struct Building<'a> {
    rows: &'a Rows,
    rate: i64,
    table: Table,
    /// Chains that are made: by direction and groups, the name; `None` where nothing is judged.
    chains: BTreeMap<(bool, BTreeSet<&'a str>), Option<String>>,
}

impl<'a> Building<'a> {
    fn add_base_chains(&mut self, subnets: &[IpNet]) {
        for (family, of) in [("v4", "ipv4_addr"), ("v6", "ipv6_addr")] {
            self.table.sets.insert(format!("itself_{family}"), Set::plain(format!("type {of} . {of}")));
            self.table.sets.insert(format!("known_{family}"), Set::plain(format!("type {of}")));
            for direction in ["egress", "ingress"] {
                self.table.sets.insert(format!("{direction}_{family}"), Set::map(format!("type {of} : verdict")));
            }
        }
        for hook in ["forward", "input"] {
            let mut chain = Chain::base("filter", hook, 0);
            chain.rules.extend(PASSES.map(Text::from));
            if hook == "forward" {
                chain.rules.extend(subnets.iter().flat_map(unknown));
            }
            chain.rule("ip saddr vmap @egress_v4").rule("ip6 saddr vmap @egress_v6");
            // The node may do to its pods what it likes, but here is no pod but as a source.
            if hook == "forward" {
                chain.rule("ip daddr vmap @ingress_v4").rule("ip6 daddr vmap @ingress_v6");
            }
            self.table.chains.insert(hook.to_owned(), chain);
        }
    }

    /// Adds a pod's elements, and the chains that they lead to.
    fn add(&mut self, port: &'a Port) {
        for ip in &port.addresses {
            self.element(&format!("known_{}", family(ip.is_ipv4())), ip.to_string(), String::new());
        }
        let rows: &'a Rows = self.rows;
        let groups: BTreeSet<&'a str> = rows.groups_of(port).collect();
        for ingress in [false, true] {
            let Some(chain) = self.chain(ingress, &groups) else { continue };
            let direction = if ingress { "ingress" } else { "egress" };
            for ip in port.addresses.iter().copied().chain(port.mac.map(link_local)) {
                let (family, itself) = (family(ip.is_ipv4()), format!("{ip} . {ip}"));
                self.element(&format!("{direction}_{family}"), ip.to_string(), format!("jump {chain}"));
                self.element(&format!("itself_{family}"), itself, String::new());
            }
        }
    }

    fn element(&mut self, set: &str, key: String, value: String) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value);
        }
    }

    /// The chain for pods that are in these groups; `None` when no ACL is about them.
    fn chain(&mut self, ingress: bool, groups: &BTreeSet<&'a str>) -> Option<String> {
        let rows: &'a Rows = self.rows;
        let acls = groups.iter().flat_map(|group| rows.acls_of(group)).filter(|acl| acl.ingress == ingress);
        let mut acls: Vec<&'a Acl> = acls.collect();
        let named = acls.iter().flat_map(|acl| acl.alternatives.iter().flat_map(|all| &all.groups));
        let named: BTreeSet<&str> = named.map(String::as_str).filter(|group| groups.contains(group)).collect();
        let key = (ingress, named);
        if let Some(name) = self.chains.get(&key) {
            return name.clone();
        }
        acls.sort_by(|a, b| (b.priority, a.allows, &a.text).cmp(&(a.priority, b.allows, &b.text)));
        let mut rules = Chain::default();
        for acl in acls {
            if self.add_rules(acl, &key.1, &mut rules) {
                break;
            }
        }
        let name = (!rules.rules.is_empty()).then(|| name(ingress, &key.1));
        if let Some(name) = &name {
            self.table.chains.insert(name.clone(), rules);
        }
        self.chains.insert(key, name.clone());
        name
    }

    /// Adds an ACL's rules, for pods in these groups. True when nothing can come after them.
    fn add_rules(&mut self, acl: &Acl, groups: &BTreeSet<&str>, chain: &mut Chain) -> bool {
        let verdict = if acl.allows { "return" } else { "drop" };
        for all in &acl.alternatives {
            if !all.groups.iter().all(|group| groups.contains(group.as_str())) {
                continue;
            }
            let matches = conditions(all);
            all.sets.iter().for_each(|set| self.add_set(set));
            if let Some((name, severity)) = &acl.log {
                let level = if &**severity == "warning" { "warn" } else { severity };
                // What passes is told when it begins; what is stopped always, for it may have begun before.
                let (verdict, state) = if acl.allows { ("allow", "ct state new ") } else { ("drop", "") };
                let rate = self.rate;
                chain.rule(format!(
                    "{matches}{state}limit rate {rate}/second log prefix \"{name} {verdict}: \" level {level}"
                ));
            }
            let always = matches.is_empty();
            chain.rule(matches + verdict);
            if always {
                return true;
            }
        }
        false
    }

    /// Declares a set that a rule names, with what is in it.
    fn add_set(&mut self, used: &SetMatch) {
        if self.table.sets.contains_key(&used.name) {
            return;
        }
        let of = if used.v4 { "ipv4_addr" } else { "ipv6_addr" };
        // Nobody is in a set that is not there.
        let (networks, members) = self.rows.set_of(&used.name).unwrap_or_default();
        let spec = if networks { format!("type {of}; flags interval") } else { format!("type {of}") };
        // As nft lists them: a network of one address without its length.
        let whole = if used.v4 { "/32" } else { "/128" };
        let element = |member: &str| member.strip_suffix(whole).unwrap_or(member).to_owned();
        let elements = members.into_iter().map(|member| (element(member), String::new())).collect();
        self.table.sets.insert(used.name.clone(), Set { elements, ..Set::plain(spec) });
    }
}

/// The conditions but for those on groups, each followed by a blank.
fn conditions(all: &All) -> String {
    let mut text = String::new();
    for SetMatch { v4, source, name } in &all.sets {
        let (ip, side) = (if *v4 { "ip" } else { "ip6" }, if *source { "saddr" } else { "daddr" });
        // Writing to a String does not fail.
        let _ = write!(text, "{ip} {side} @{name} ");
    }
    for Ports { protocol, ranges } in &all.ports {
        let range = |(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let ranges: Vec<_> = ranges.iter().map(range).collect();
        let name = protocol.name();
        let _ = match &ranges[..] {
            [] => write!(text, "meta l4proto {name} "),
            [one] => write!(text, "{name} dport {one} "),
            many => write!(text, "{name} dport {{ {} }} ", many.join(", ")),
        };
    }
    text
}

/// The name of a chain: equal groups, equal names.
fn name(ingress: bool, groups: &BTreeSet<&str>) -> String {
    // FNV-1a of 128 bits: two sets of groups with one hash are not to be expected, even if somebody looks for them a while.
    let bytes = groups.iter().flat_map(|group| group.bytes().chain([0]));
    let hash = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, hash);
    format!("{}_{hash:032x}", if ingress { "ingress" } else { "egress" })
}

/// Rules for what comes from, and what goes to, no pod in a network of this node's. (The node's own address there has no business here.)
fn unknown(net: &IpNet) -> [Text; 2] {
    let v4 = net.addr().is_ipv4();
    let (ip, known, net) = (if v4 { "ip" } else { "ip6" }, family(v4), net.trunc());
    ["saddr", "daddr"].map(|side| format!("{ip} {side} {net} {ip} {side} != @known_{known} drop").into())
}

fn family(v4: bool) -> &'static str {
    if v4 { "v4" } else { "v6" }
}

/// The address that the kernel gives a link by itself (RFC 4291, appendix A): without it pods would have a way around.
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> IpAddr {
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f)).into()
}
