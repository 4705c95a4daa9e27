//! Nobody speaks for another: from a pod's port the bridge takes only the pod's own addresses, as OVN's port security does.
//!
//! ```text
//! links of pods with their addresses --> table bridge ovenbird-ports: prerouting, "ov*": ARP and IP of (link, address) pass, the rest is dropped
//! ```
//!
//! A link that is not known is silent. Must not: know the other end of a link.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovenbird_nft::{Chain, Set, Table};

/// The table.
pub const TABLE: &str = "bridge ovenbird-ports";
/// Before anything else looks at a frame.
const PRIORITY: i32 = -300;

/// Links with the addresses that may come from them.
pub type Links = BTreeMap<String, Vec<IpAddr>>;

/// The table for these links.
pub fn table(links: &Links) -> Table {
    let mut table = Table::new(TABLE);
    for (name, kind, v4) in [("v4", "ipv4_addr", true), ("v6", "ipv6_addr", false)] {
        let mut set = Set::plain(format!("type ifname . {kind}"));
        let all = links.iter().flat_map(|(link, addresses)| addresses.iter().map(move |address| (link, address)));
        for (link, address) in all.filter(|(_, address)| address.is_ipv4() == v4) {
            set.elements.insert(format!("{link} . {address}"), String::new());
        }
        table.sets.insert(name.into(), set);
    }
    let mut pods = Chain::default();
    for rule in [
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
    let mut base = Chain::base("filter", "prerouting", PRIORITY);
    base.rule("iifname \"ov*\" jump pods");
    table.chains.insert("prerouting".into(), base);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_speaks_by_its_own_addresses() {
        let addresses = ["10.244.0.3", "fd00::3"].map(|ip| ip.parse().unwrap());
        let table = table(&Links::from([("ov0123456789ab".into(), addresses.into())]));
        let keys = |set: &str| table.sets[set].elements.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("v4"), ["ov0123456789ab . 10.244.0.3"]);
        assert_eq!(keys("v6"), ["ov0123456789ab . fd00::3"]);
        assert_eq!(table.chains["pods"].rules.last().map(|rule| rule.as_str()), Some("drop"));
    }
}
