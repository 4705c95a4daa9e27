//! Golden flows: each file in `golden/` is what one set of facts yields. `UPDATE_GOLDEN=1` rewrites them.

use std::path::Path;

use ovenbird_api::{GatewayMode, L3Gateway};

use super::super::services::{Direct, Targets};
use super::*;

pub(in crate::gateway) fn gateway(addresses: &[&str], vlan: Option<u16>) -> Gateway {
    Gateway {
        l3: L3Gateway {
            mode: GatewayMode::Shared,
            bridge: "br-ex".into(),
            interface: "br-ex_node1".into(),
            mac: "02:00:ac:1e:00:0b".parse().unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            next_hops: vec!["172.30.0.1".parse().unwrap()],
            node_port: true,
            vlan,
        },
        uplink: 1,
        patch: Some(2),
        others: Vec::new(),
    }
}

pub(in crate::gateway) fn served() -> Served {
    let targets = || Targets { addresses: vec!["10.96.0.7".parse().unwrap()], port: 80 };
    Served {
        node_ports: [((Protocol::Tcp, 30080), targets()), ((Protocol::Udp, 30053), targets())].into(),
        vips: ["192.0.2.1", "2001:db8::9"].map(|vip| ((vip.parse().unwrap(), Protocol::Sctp, 132), targets())).into(),
        direct: Direct::default(),
        ..Served::default()
    }
}

fn of(gateway: &Gateway, served: &Served, node_port_addresses: &[IpNet]) -> BTreeSet<String> {
    beside(gateway, served, node_port_addresses, &Physical::default())
}

fn beside(gateway: &Gateway, served: &Served, node_port_addresses: &[IpNet], physical: &Physical) -> BTreeSet<String> {
    flows(&Facts {
        gateway,
        masquerade: &Masquerade::default(),
        service_cidrs: &["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()],
        node_subnets: &["10.128.0.0/23".parse().unwrap(), "fd01::/64".parse().unwrap()],
        tunnel_port: 6081,
        node_port_addresses,
        answer_external: true,
        served,
        physical,
    })
}

/// Compares with the golden file.
pub(in crate::gateway) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}: UPDATE_GOLDEN=1 accepts this");
}

fn lines(flows: BTreeSet<String>) -> String {
    flows.into_iter().map(|flow| flow + "\n").collect()
}

#[test]
fn golden() {
    let v4 = gateway(&["172.30.0.11/24"], None);
    check("v4.flows", &lines(of(&v4, &Served::default(), &[])));
    let dual = gateway(&["172.30.0.11/24", "172.30.0.99/24", "fd30::11/64"], None);
    check("dual-services.flows", &lines(of(&dual, &served(), &[])));
    let physical = Physical { vlans: [100, 200].into(), shut: [7].into() };
    let [with, without] =
        [physical.clone(), Physical::default()].map(|physical| beside(&v4, &Served::default(), &[], &physical));
    check("physical.flows", &lines(&with - &without));
    assert!(without.is_subset(&with), "nothing else changes");
    check("vlan.flows", &lines(of(&gateway(&["fd30::11/64"], Some(42)), &Served::default(), &[])));
}

#[test]
fn before_the_patch_port_is_known_the_shared_mac_is_the_hosts() {
    for (vlan, guard) in [
        (None, "in_port=1,dl_dst=02:00:ac:1e:00:0b actions=LOCAL"),
        (Some(42), "in_port=1,dl_vlan=42,dl_dst=02:00:ac:1e:00:0b actions=pop_vlan,LOCAL"),
    ] {
        let alone = Gateway { patch: None, ..gateway(&["172.30.0.11/24"], vlan) };
        let only: Vec<_> = of(&alone, &served(), &[]).into_iter().collect();
        let guard = format!("cookie=0xdeff105,table=0,priority=10,{guard}");
        assert_eq!(only, ["cookie=0xdeff105,table=0,priority=0 actions=NORMAL", &guard]);
    }
}

#[test]
fn pods_are_entered_as_they_are_left() {
    let mut gateway = gateway(&["172.30.0.11/24", "fd30::11/64"], None);
    let to_pods = |gateway: &Gateway| {
        let flows = of(gateway, &Served::default(), &[]);
        flows.iter().filter(|f| f.contains("dst=10.128.0.0/23") || f.contains("dst=fd01::/64")).count()
    };
    assert_eq!(to_pods(&gateway), 2);
    gateway.l3.mode = GatewayMode::Local;
    assert_eq!(to_pods(&gateway), 0);
}

#[test]
fn node_ports_are_served_where_the_operator_wants() {
    let dual = gateway(&["172.30.0.11/24", "172.30.0.99/24", "fd30::11/64"], None);
    let served = Served { vips: Default::default(), ..served() };
    let count = |flows: &BTreeSet<String>| flows.iter().filter(|f| f.contains("tp_dst=30080")).count();
    assert_eq!(count(&of(&dual, &served, &[])), 3);
    assert_eq!(count(&of(&dual, &served, &["172.30.0.11/32".parse().unwrap()])), 1);
    let mut off = dual;
    off.l3.node_port = false;
    assert_eq!(count(&of(&off, &served, &[])), 0);
}

#[test]
fn what_the_host_answers_itself_is_not_for_the_gateway_router() {
    let dual = gateway(&["172.30.0.11/24", "fd30::11/64"], None);
    let mut served = served();
    served.direct.node_ports.insert((Protocol::Tcp, 30080), vec!["172.30.0.11:8080".parse().unwrap()]);
    served
        .direct
        .vips
        .insert(("192.0.2.1".parse().unwrap(), Protocol::Sctp, 132), vec!["172.30.0.11:1".parse().unwrap()]);
    let flows = of(&dual, &served, &[]);
    let has = |text: &str| flows.iter().any(|flow| flow.contains(text));
    assert!(has("tcp6,ipv6_dst=fd30::11,tp_dst=30080") && !has("tcp,nw_dst=172.30.0.11,tp_dst=30080"));
    assert!(has("sctp6,ipv6_dst=2001:db8::9,tp_dst=132") && !has("sctp,nw_dst=192.0.2.1,tp_dst=132"));
}

#[test]
fn no_two_flows_match_the_same() {
    let dual = gateway(&["172.30.0.11/24", "fd30::11/64"], None);
    let mut all = served();
    // Host ports at the node's own addresses.
    for address in ["172.30.0.11", "fd30::11", "127.0.0.1"] {
        let targets = Targets { addresses: vec!["10.128.0.3".parse().unwrap()], port: 80 };
        all.vips.insert((address.parse().unwrap(), Protocol::Tcp, 8080), targets);
    }
    let flows = of(&dual, &all, &[]);
    let matches: BTreeSet<_> = flows.iter().map(|flow| flow.split(" actions=").next().unwrap()).collect();
    assert_eq!(matches.len(), flows.len());
}
