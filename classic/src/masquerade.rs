//! What leaves the cluster's networks has the node's address: the table `inet ovenbird-classic`.
//!
//! Must not: judge traffic (policies have tables of their own).

use ipnet::IpNet;
use ovenbird_nft::{Chain, Table};

use crate::fabric::Fabric;

/// The table.
pub const TABLE: &str = "inet ovenbird-classic";
/// Priority of source NAT (nft(8), `srcnat`).
const PRIORITY: i32 = 100;

impl Fabric {
    /// The table. Towards `unmasked` networks pods keep their own addresses, as they do within the cluster; with `snat` false, everywhere.
    pub fn masquerade(&self, snat: bool, unmasked: &[IpNet]) -> Table {
        let mut chain = Chain::base("nat", "postrouting", PRIORITY);
        for net in self.cluster.iter().filter(|_| snat) {
            let v4 = net.addr().is_ipv4();
            let but = self.cluster.iter().chain(unmasked).filter(|net| net.addr().is_ipv4() == v4);
            let but = but.map(|net| net.trunc().to_string()).collect::<Vec<_>>().join(", ");
            let (ip, net, bridge) = (if v4 { "ip" } else { "ip6" }, net.trunc(), &self.settings.bridge);
            chain.rule(format!("{ip} saddr {net} {ip} daddr != {{ {but} }} oifname != \"{bridge}\" masquerade"));
        }
        let mut table = Table::new(TABLE);
        table.chains.insert("postrouting".into(), chain);
        table
    }
}
