//! Flows of obr0, as ovs-ofctl(8) writes them.
//!
//! ```text
//! tunnel     --own subnet-->   the Linux bridge       2 for IPv4 (IP, ARP), 1 for IPv6
//! the bridge --peer's subnet-> tunnel to that peer    as many for each peer
//! ```
//!
//! In secure mode nothing else passes: no flooding, and what no node has is dropped. With STP one flow lets the bridge learn.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::fabric::Fabric;
use crate::settings::Variant;

impl Fabric {
    /// All flows of obr0; `tunnel` is the port of the tunnel, `attach` that of the attachment, as OpenFlow has them.
    pub fn flows(&self, tunnel: &str, attach: &str) -> BTreeSet<String> {
        if self.settings.variant != Variant::Flow {
            return BTreeSet::from(["priority=0,actions=NORMAL".to_owned()]);
        }
        let mut flows = BTreeSet::new();
        for what in self.own.subnets.iter().flat_map(matches) {
            flows.insert(format!("priority=100,in_port={tunnel},{what},actions=output:{attach}"));
        }
        for peer in &self.peers {
            let field = if peer.address.is_ipv4() { "tun_dst" } else { "tun_ipv6_dst" };
            let to = format!("set_field:{}->{field},output:{tunnel}", peer.address);
            for what in peer.subnets.iter().flat_map(matches) {
                flows.insert(format!("priority=100,in_port={attach},{what},actions={to}"));
            }
        }
        flows
    }
}

/// What goes to a subnet. There is no neighbour discovery between nodes, see [`Fabric::routes`].
fn matches(subnet: &IpNet) -> Vec<String> {
    let subnet = subnet.trunc();
    match subnet.addr() {
        IpAddr::V4(_) => vec![format!("ip,nw_dst={subnet}"), format!("arp,arp_tpa={subnet}")],
        IpAddr::V6(_) => vec![format!("ipv6,ipv6_dst={subnet}")],
    }
}
