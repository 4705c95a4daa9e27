//! What passes a pod's port: nobody speaks for another, as OVN's port security has it, and nobody sends or gets more than its limits.
//!
//! ```text
//! links of pods with their addresses --> table bridge ovenbird-ports: prerouting, "ov*": ARP and IP of (link, address) pass, the rest is dropped
//!                   and their limits --> ... what is more than a link's rate is dropped, on its way in and on its way out
//! ```
//!
//! A link that is not known is silent. Must not: know the other end of a link.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_nft::{Chain, Set, Table};

/// The table.
pub const TABLE: &str = "bridge ovenbird-ports";
/// Before anything else looks at a frame.
const FIRST: i32 = -300;
/// After everything else has.
const LAST: i32 = 300;
/// Bits per second from which on there is no limit: the kernel's arithmetic of rates ends at 147 G, and no veth is faster.
const UNLIMITED: u64 = 100_000_000_000;
/// Bytes that may come at once beside what a second's rate is: two of the largest packets that the kernel hands on whole, and a pause of 100 ms
/// at the rate, so that TCP fills it.
const BURST: u64 = 2 << 16;

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Addresses that may come from it.
    pub addresses: Vec<IpAddr>,
    /// Limits, as the pod sees them.
    pub bandwidth: Bandwidth,
}

/// Links by name.
pub type Links = BTreeMap<String, Link>;

/// The table for these links.
pub fn table(links: &Links) -> Table {
    let mut table = Table::new(TABLE);
    for (name, kind, v4) in [("v4", "ipv4_addr", true), ("v6", "ipv6_addr", false)] {
        let mut set = Set::plain(format!("type ifname . {kind}"));
        let all = links.iter().flat_map(|(name, link)| link.addresses.iter().map(move |address| (name, address)));
        for (link, address) in all.filter(|(_, address)| address.is_ipv4() == v4) {
            set.elements.insert(format!("{link} . {address}"), String::new());
        }
        table.sets.insert(name.into(), set);
    }
    let mut pods = Chain::default();
    for rule in [
        // The bridge would take it, for the host's own sake (`host_ports`).
        "ether type ip ip daddr 127.0.0.0/8 drop",
        "ether type arp arp saddr ip 0.0.0.0 accept",
        "ether type arp iifname . arp saddr ip @v4 accept",
        "ether type ip iifname . ip saddr @v4 accept",
        // Who looks for a neighbour or for itself (RFC 4861, RFC 4862).
        "ether type ip6 ip6 saddr { ::, fe80::/10 } accept",
        "ether type ip6 iifname . ip6 saddr @v6 accept",
        "drop",
    ] {
        pods.rule(rule);
    }
    table.chains.insert("pods".into(), pods);
    let mut prerouting = Chain::base("filter", "prerouting", FIRST);
    prerouting.rule("iifname vmap @from").rule("iifname \"ov*\" jump pods");
    let mut postrouting = Chain::base("filter", "postrouting", LAST);
    postrouting.rule("oifname vmap @to");
    table.chains.insert("prerouting".into(), prerouting);
    table.chains.insert("postrouting".into(), postrouting);
    for way in ["from", "to"] {
        table.sets.insert(way.into(), Set::map("type ifname : verdict"));
    }
    for (name, Link { bandwidth, .. }) in links {
        for (way, bits) in [("from", bandwidth.egress), ("to", bandwidth.ingress)] {
            if let Some(bits) = bits.filter(|bits| *bits < UNLIMITED) {
                limit(&mut table, way, name, bits);
            }
        }
    }
    table
}

/// What is more than a rate ends; what is not goes on where it came from.
fn limit(table: &mut Table, way: &str, link: &str, bits: u64) {
    let chain = format!("{way}/{link}");
    let (rate, burst) = (bits.div_ceil(8), BURST + bits / 80);
    table.chain(&chain).rule(format!("limit rate over {rate} bytes/second burst {burst} bytes drop"));
    if let Some(links) = table.sets.get_mut(way) {
        links.elements.insert(link.to_owned(), format!("jump {chain}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(ingress: Option<u64>, egress: Option<u64>) -> Links {
        let addresses = ["10.244.0.3", "fd00::3"].map(|ip| ip.parse().unwrap()).into();
        Links::from([("ov0123456789ab".into(), Link { addresses, bandwidth: Bandwidth { ingress, egress } })])
    }

    #[test]
    fn a_link_speaks_by_its_own_addresses() {
        let table = table(&links(None, None));
        let keys = |set: &str| table.sets[set].elements.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("v4"), ["ov0123456789ab . 10.244.0.3"]);
        assert_eq!(keys("v6"), ["ov0123456789ab . fd00::3"]);
        assert_eq!(table.chains["pods"].rules.last().map(|rule| rule.as_str()), Some("drop"));
        assert_eq!((keys("from").len(), keys("to").len()), (0, 0));
    }

    #[test]
    fn a_link_has_its_limits_each_way() {
        let table = table(&links(Some(1_000_001), Some(1_000_000_000_000)));
        assert_eq!(table.sets["to"].elements["ov0123456789ab"], "jump to/ov0123456789ab");
        let rule = table.chains["to/ov0123456789ab"].rules[0].as_str();
        assert_eq!(rule, "limit rate over 125001 bytes/second burst 143572 bytes drop");
        assert!(table.sets["from"].elements.is_empty(), "faster than any veth");
    }
}
