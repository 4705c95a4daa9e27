//! Plans as a person sees them, and on a model of the host: from everywhere in between there is a way on and a way back.

use proptest::prelude::*;

use super::super::model::{apply, host, item, uplink};
use super::*;

/// The host with all in one order but the addresses, whose order tells which one the kernel prefers.
fn sorted(host: &Host) -> Host {
    let mut host = host.clone();
    let words = |i: &Item| if i.kind == Kind::Address { String::new() } else { i.words.clone() };
    host.items.sort_by_key(|i| (i.kind, !i.v4, i.devices().next().unwrap_or_default().to_owned(), words(i)));
    host
}

const DUAL: &[&str] = &[
    "addr 172.30.0.11/24 brd 172.30.0.255 dev eth0",
    "addr 172.30.0.99/24 dev eth0 label eth0:1",
    "addr fd30::11/64 dev eth0",
    "addr fd30::99/64 dev eth0 nodad",
    "addr 192.0.2.4/24 dev eth1",
    "route default proto static metric 100 nexthop via 172.30.0.1 dev eth0 weight 1 nexthop via 172.30.0.2 dev eth0 weight 2",
    "route default via 192.0.2.1 dev eth1 metric 200",
    "route 10.9.0.0/16 dev eth0 scope link src 172.30.0.99",
    "route default via 172.30.0.1 dev eth0 table 100 onlink",
    "route ::/0 via fd30::1 dev eth0 metric 1024",
    "neigh 172.30.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
    "rule pref 100 from all iif eth0 lookup 100",
];

#[test]
fn a_host_of_one_address() {
    let host =
        host(&["addr 172.30.0.11/24 brd 172.30.0.255 dev eth0", "route default via 172.30.0.1 dev eth0 proto static"]);
    let steps = to_bridge(&host, &uplink(&host));
    assert_eq!(
        list(&steps),
        "\
1. ovs-vsctl --may-exist add-br breth0 -- set bridge breth0 fail_mode=standalone other_config:hwaddr=02:00:ac:1e:00:0b external_ids:bridge-uplink=eth0 -- set interface breth0 mtu_request=1500
2. ip link set breth0 up
3. ovs-vsctl --may-exist add-port breth0 eth0
4. ip route del default via 172.30.0.1 dev eth0 proto static
5. ip addr del 172.30.0.11/24 brd 172.30.0.255 dev eth0
6. ip addr add 172.30.0.11/24 brd 172.30.0.255 dev breth0
7. ip route add default via 172.30.0.1 dev breth0 proto static
"
    );
}

#[test]
fn a_host_of_both_families_with_several_hops_and_a_policy_table() {
    let host = Host { userspace: true, ..host(DUAL) };
    let uplink = uplink(&host);
    let mut after = host.clone();
    let there = to_bridge(&host, &uplink);
    assert_eq!(
        list(&there),
        "
 1. ovs-vsctl --may-exist add-br breth0 -- set bridge breth0 fail_mode=standalone other_config:hwaddr=02:00:ac:1e:00:0b external_ids:bridge-uplink=eth0 datapath_type=netdev -- set interface breth0 mtu_request=1500
 2. ip link set breth0 up
 3. ovs-vsctl --may-exist add-port breth0 eth0
 4. ip route del ::/0 via fd30::1 dev eth0 metric 1024
 5. ip route del default via 172.30.0.1 dev eth0 table 100 onlink
 6. ip route del default proto static metric 100 nexthop via 172.30.0.1 dev eth0 weight 1 nexthop via 172.30.0.2 dev eth0 weight 2
 7. ip route del 10.9.0.0/16 dev eth0 scope link src 172.30.0.99
 8. ip neigh del 172.30.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
 9. ip addr del fd30::11/64 dev eth0
10. ip addr del fd30::99/64 dev eth0 nodad
11. ip addr del 172.30.0.99/24 dev eth0 label eth0:1
12. ip addr del 172.30.0.11/24 brd 172.30.0.255 dev eth0
13. ip addr add 172.30.0.11/24 brd 172.30.0.255 dev breth0
14. ip addr add 172.30.0.99/24 dev breth0 label breth0:1
15. ip addr add fd30::99/64 dev breth0 nodad
16. ip addr add fd30::11/64 dev breth0 nodad
17. ip route add 10.9.0.0/16 dev breth0 scope link src 172.30.0.99
18. ip route append default proto static metric 100 nexthop via 172.30.0.1 dev breth0 weight 1 nexthop via 172.30.0.2 dev breth0 weight 2
19. ip route append default via 172.30.0.1 dev breth0 table 100 onlink
20. ip route add ::/0 via fd30::1 dev breth0 metric 1024
21. ip neigh add 172.30.0.1 lladdr 02:00:00:00:00:01 dev breth0 nud permanent
22. ip rule add pref 100 from all iif breth0 lookup 100
23. ip rule del pref 100 from all iif eth0 lookup 100
24. ip addr change fd30::11/64 dev breth0
25. nft 'table netdev ovenbird-uplink-eth0 { chain ingress { type filter hook ingress device \"eth0\" priority 0; policy drop; }; }'
"
        .trim_start_matches('\n')
    );
    there.iter().for_each(|step| apply(&mut after, step));
    let back = list(&to_nic(&after, &uplink));
    assert!(back.starts_with(" 1. nft 'delete table netdev ovenbird-uplink-eth0'\n 2. ip route del "), "{back}");
    assert!(back.ends_with("ip addr change fd30::11/64 dev eth0\n23. ovs-vsctl --if-exists del-br breth0\n"), "{back}");
}

#[test]
fn a_lease_moves_with_the_time_that_is_left() {
    let mut host = host(&["addr 172.30.0.11/24 dev eth0"]);
    host.items[0].lasts = "valid_lft 3600 preferred_lft 1800".into();
    let steps = list(&to_bridge(&host, &uplink(&host)));
    assert!(steps.contains("ip addr add 172.30.0.11/24 dev breth0 valid_lft 3600 preferred_lft 1800\n"), "{steps}");
}

#[test]
fn what_stands_on_the_bridge() {
    let before = host(DUAL);
    let taken = uplink(&before);
    let mut whole = before.clone();
    to_bridge(&before, &taken).iter().for_each(|step| apply(&mut whole, step));
    let ours = |item: &Item| item.words.contains("fd69::");
    let of = |host: &Host| {
        let items = standing(host, &taken, false, ours);
        (list(&to_bridge(host, &Uplink { items: items.clone(), ..taken.clone() })), items.len())
    };
    let kept = taken.items.len();
    assert_eq!(of(&whole), (String::new(), kept), "nothing to do");
    // What the operator has changed on the bridge stands.
    let mut changed = whole.clone();
    changed.items.retain(|i| !i.words.contains("172.30.0.99"));
    changed.items.push(item("addr 172.30.0.77/24 dev breth0"));
    changed.items.push(item("addr fd69::2/125 dev breth0"));
    assert_eq!(of(&changed), (String::new(), kept - 1), "the address, its route, and one that is new");
    // After a boot nothing is there.
    let mut empty = whole.clone();
    empty.items.retain(|i| !i.is_on("breth0"));
    assert_eq!(of(&empty).1, kept);
    // The distribution has begun to configure the NIC as before.
    let mut begun = empty.clone();
    begun.items.push(item("addr 172.30.0.11/24 brd 172.30.0.255 dev eth0"));
    assert_eq!(of(&begun).1, kept);
    assert!(of(&begun).0.contains("ip addr del 172.30.0.11/24 brd 172.30.0.255 dev eth0\n"));
    // It has configured other addresses of one family.
    let mut other = empty;
    other.items.push(item("addr 198.51.100.7/24 dev eth0"));
    other.items.push(item("route default via 198.51.100.1 dev eth0"));
    let v6 = taken.items.iter().filter(|i| !i.v4).count();
    assert_eq!(of(&other).1, 2 + v6);
}

proptest! {
    #[test]
    fn from_every_step_there_is_a_way_on_and_a_way_back(
        pick in proptest::collection::vec(any::<bool>(), DUAL.len()), userspace in any::<bool>(), at in 0usize..40,
    ) {
        let mut lines: Vec<_> = DUAL.iter().zip(&pick).skip(1).filter(|(_, p)| **p).map(|(l, _)| *l).collect();
        // Gateways need addresses.
        lines.splice(0..0, [DUAL[0]]);
        lines.retain(|l| !l.contains("src 172.30.0.99") || pick[1]);
        lines.retain(|l| !l.contains("via fd30") || pick[2] || pick[3]);
        lines.retain(|l| !l.contains("via 192.0.2") || pick[4]);
        let before = Host { userspace, ..host(&lines) };
        let uplink = uplink(&before);
        let run = |host: &Host, steps: &[Step]| {
            let mut host = host.clone();
            steps.iter().for_each(|step| apply(&mut host, step));
            host
        };
        let there = to_bridge(&before, &uplink);
        let after = run(&before, &there);
        prop_assert_eq!(to_bridge(&after, &uplink), []);
        prop_assert!(!after.items.iter().any(|i| i.is_on("eth0")));
        let half = run(&before, &there[..at.min(there.len())]);
        prop_assert_eq!(sorted(&run(&half, &to_bridge(&half, &uplink))), sorted(&after));
        let back = to_nic(&half, &uplink);
        prop_assert_eq!(sorted(&run(&half, &back)), sorted(&before));
        let half = run(&half, &back[..(at / 2).min(back.len())]);
        prop_assert_eq!(sorted(&run(&half, &to_nic(&half, &uplink))), sorted(&before));
        prop_assert_eq!(to_nic(&before, &uplink), []);
    }
}
