//! What a name is taken for, and what is said of interfaces that must not be taken over.

use super::super::model::{MAC, host, item};
use super::super::words::Unsayable;
use super::*;
use crate::gateway::BridgePort;

/// A host whose `eth0` has an address.
fn plain() -> Host {
    host(&["addr 172.30.0.11/24 dev eth0"])
}

fn bridge(ports: &[&str]) -> Bridge {
    Bridge { ports: ports.iter().map(|p| ((*p).to_owned(), BridgePort::default())).collect(), ..Bridge::default() }
}

fn interface(index: u32, name: &str, kind: &str) -> Interface {
    let (name, kind) = (name.into(), kind.into());
    Interface { index, name, kind, mac: Some(MAC), mtu: 1500, up: true, ..Interface::default() }
}

#[test]
fn bridges_are_used_as_they_are() {
    let mut host = plain();
    host.bridges.insert("br-ex".into(), bridge(&["br-ex", "eth1"]));
    assert_eq!(choose(&host, "br-ex"), Ok(Choice::Bridge("br-ex".into())));
    assert_eq!(choose(&host, "eth1"), Ok(Choice::Bridge("br-ex".into())), "it is inside");
    assert_eq!(choose(&host, "br-other"), Ok(Choice::Absent));
    let Ok(Choice::TakeOver(uplink)) = choose(&host, "eth0") else { panic!() };
    assert_eq!((uplink.bridge.as_str(), uplink.mac.as_str(), uplink.items.len()), ("breth0", "02:00:ac:1e:00:0b", 1));
}

#[test]
fn every_refusal_names_what_is_in_the_way_and_what_to_do() {
    type Change = fn(&mut Host);
    let cases: [(&str, Change, &str); 13] = [
        (
            "enp0s31f6np0d1",
            |h| h.interfaces.push(interface(7, "enp0s31f6np0d1", "")),
            "its bridge would be \"brenp0s31f6np0d1\", and names of interfaces end at 15 bytes; make a bridge with this interface inside and the host's addresses on it, and name that",
        ),
        (
            "eth0",
            |h| {
                h.interfaces.push(interface(7, "bond0", "bond"));
                h.interfaces[0].master = Some(7);
            },
            "it is a port of bond0 (master); name that interface, which has the addresses",
        ),
        (
            "eth0",
            |h| h.interfaces[0].kind = "bridge".into(),
            "it is a bridge of the kernel (kind bridge); name the NIC inside, after moving the bridge's addresses to it, or make a bridge of Open_vSwitch",
        ),
        (
            "eth0",
            |h| h.interfaces[0].kind = "tun".into(),
            "it is made by software (kind tun) and leads to no wire; name the NIC, bond or VLAN that leads to the host's network",
        ),
        (
            "eth0",
            |h| h.interfaces[0].mac = None,
            "it is no Ethernet interface; name the NIC, bond or VLAN that leads to the host's network",
        ),
        ("eth0", |h| h.interfaces[0].up = false, "it is down; set it up (ip link set up) with the host's addresses"),
        (
            "eth0",
            |h| {
                h.interfaces.push(Interface { lower: Some(2), ..interface(7, "eth0.5", "vlan") });
                h.items.push(item("addr 10.5.0.1/24 dev eth0.5"));
            },
            "VLAN eth0.5 on it has addresses, and would lose its packets to the bridge; make a bridge with what both need, and name that",
        ),
        (
            "eth0",
            |h| h.interfaces.push(Interface { lower: Some(2), ..interface(7, "mac0", "macvlan") }),
            "mac0 sits on it (kind macvlan), and would lose its packets to the bridge; make a bridge with what both need, and name that",
        ),
        (
            "eth0",
            |h| {
                let of = item("route default dev eth0");
                h.unsayable.push(Unsayable { of, what: "the nexthop object 7".into() });
            },
            "the nexthop object 7 of \"route default dev eth0\" cannot be moved; remove it, or prepare a bridge with everything on it, and name that",
        ),
        ("eth1", |_| (), "it has no address; name the interface with the host's addresses"),
        (
            "eth0",
            |h| h.items.push(item("addr 10.0.0.1/24 dev eth0 label eth0:eleventh0")),
            "the label of an address would become \"breth0:eleventh0\", longer than 15 bytes; shorten it",
        ),
        (
            "eth0",
            |h| drop(h.bridges.insert("breth0".into(), bridge(&["breth0"]))),
            "Open_vSwitch has a bridge breth0 without it; add the interface to that bridge, or delete the bridge (ovs-vsctl del-br)",
        ),
        (
            "eth0",
            |h| h.interfaces.push(interface(7, "breth0", "bridge")),
            "an interface breth0 is there, which is no bridge of Open_vSwitch; rename it",
        ),
    ];
    for (name, change, want) in cases {
        let mut host = plain();
        change(&mut host);
        let refusal = choose(&host, name).unwrap_err().to_string();
        assert_eq!(refusal, format!("{name}: {want}"));
    }
}

#[test]
fn vlans_without_addresses_are_in_nobodys_way() {
    let mut host = plain();
    host.interfaces.push(Interface { lower: Some(2), ..interface(7, "eth0.5", "vlan") });
    assert!(matches!(choose(&host, "eth0"), Ok(Choice::TakeOver(_))));
}
