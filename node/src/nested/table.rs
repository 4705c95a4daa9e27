//! How the VM forwards for its pods: the table `inet ovenbird-nested`. Pure.
//!
//! ```text
//! postrouting 100:  what a port of the node leads to ovn-k8s-mp0: from pods --> the address for others, from the host --> masquerade
//!                   from pods, not back to ovn-k8s-mp0, to none of the networks where they keep their address --> masquerade
//! forward 0:        from ovn-k8s-mp0 back to it, but for what a Service leads there --> drop: OVN's router has no way to it, and would send it again
//! ```
//!
//! Of clients outside a port of the node leads to a pod that sees them, for the pod's way to them is the way out. Must not: judge traffic; policies are
//! OVN's.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::name::MANAGEMENT_INTERFACE;
use ovenbird_nft::{Chain, Table};

/// The table.
pub const TABLE: &str = "inet ovenbird-nested";

/// What the table follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Networks of the node's pods.
    pub pods: &'a [IpNet],
    /// With these addresses the VM speaks for others towards pods.
    pub for_others: &'a [IpAddr],
    /// Pods leave with the VM's address.
    pub snat: bool,
    /// Networks towards which they keep their own.
    pub unmasked: &'a [IpNet],
}

/// The table.
pub fn table(facts: &Facts<'_>) -> Table {
    let Facts { pods, for_others, snat, unmasked } = facts;
    let mut postrouting = Chain::base("nat", "postrouting", 100);
    let led = format!("oifname \"{MANAGEMENT_INTERFACE}\" ct status dnat");
    // First, for the host's own address there is of its pods' networks.
    postrouting.rule(format!("{led} fib saddr type local masquerade fully-random"));
    for net in *pods {
        let v4 = net.addr().is_ipv4();
        let (ip, net) = (if v4 { "ip" } else { "ip6" }, net.trunc());
        for own in for_others.iter().filter(|own| own.is_ipv4() == v4) {
            postrouting.rule(format!("{ip} saddr {net} {led} snat {ip} to {own} fully-random"));
        }
    }
    for net in pods.iter().filter(|_| *snat) {
        let v4 = net.addr().is_ipv4();
        let but: Vec<_> = unmasked.iter().filter(|but| but.addr().is_ipv4() == v4).map(|but| but.trunc()).collect();
        // Intervals that overlap would be refused.
        let but: Vec<_> = IpNet::aggregate(&but).iter().map(ToString::to_string).collect();
        let (ip, net, but) = (if v4 { "ip" } else { "ip6" }, net.trunc(), but.join(", "));
        let but = if but.is_empty() { String::new() } else { format!("{ip} daddr != {{ {but} }} ") };
        postrouting.rule(format!("{ip} saddr {net} {but}oifname != \"{MANAGEMENT_INTERFACE}\" masquerade"));
    }
    let mut forward = Chain::base("filter", "forward", 0);
    let back = format!("iifname \"{MANAGEMENT_INTERFACE}\" oifname \"{MANAGEMENT_INTERFACE}\"");
    forward.rule(format!("{back} ct status & dnat != dnat drop"));
    let mut table = Table::new(TABLE);
    table.chains.insert("postrouting".into(), postrouting);
    table.chains.insert("forward".into(), forward);
    table
}

#[cfg(test)]
mod tests {
    use ovenbird_nft::{delete, script};

    use super::*;
    use crate::nft::{apply, replace};

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(' ').map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn pods_keep_their_address_in_the_cluster_alone() {
        let unmasked = nets("10.128.0.0/14 fd01::/48 10.0.0.0/8");
        let (pods, for_others) = (nets("10.128.1.1/24 fd01:0:0:1::/64"), ["100.64.0.5".parse().unwrap()]);
        let facts = Facts { pods: &pods, for_others: &for_others, snat: true, unmasked: &unmasked };
        let text = table(&facts).to_string();
        assert!(text.find("type local") < text.find("100.64.0.5"), "{text}");
        assert!(!table(&Facts { snat: false, ..facts }).to_string().contains("daddr"));
        for rule in [
            "ip saddr 10.128.1.0/24 oifname \"ovn-k8s-mp0\" ct status dnat snat ip to 100.64.0.5 fully-random",
            "oifname \"ovn-k8s-mp0\" ct status dnat fib saddr type local masquerade fully-random",
            "ip saddr 10.128.1.0/24 ip daddr != { 10.0.0.0/8 } oifname != \"ovn-k8s-mp0\" masquerade",
            "ip6 saddr fd01:0:0:1::/64 ip6 daddr != { fd01::/48 } oifname != \"ovn-k8s-mp0\" masquerade",
            "iifname \"ovn-k8s-mp0\" oifname \"ovn-k8s-mp0\" ct status & dnat != dnat drop",
        ] {
            assert!(text.contains(rule), "{text}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nft_takes_it_and_a_second_run_changes_nothing() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "no root in CI");
            return eprintln!("SKIP: needs root");
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let (pods, for_others) = (nets("10.128.1.0/24 fd01:0:0:1::/64"), ["fd98::5".parse().unwrap()]);
        let unmasked = nets("10.128.0.0/14");
        let table = table(&Facts { pods: &pods, for_others: &for_others, snat: true, unmasked: &unmasked });
        assert!(replace(&table).await.unwrap(), "{}", script(&Table::new(TABLE), &table));
        assert!(!replace(&table).await.unwrap());
        apply(&delete(TABLE)).await.unwrap();
    }
}
