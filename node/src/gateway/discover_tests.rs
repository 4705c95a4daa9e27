//! Which bridges make a gateway, and what is said of those that do not.

use super::*;
use crate::config::Settings;
use crate::net::{Hop, Link};

fn host() -> HostNetwork {
    let link = |index, name: &str, addresses: &[&str]| Link {
        index,
        name: name.into(),
        mac: Some("02:00:ac:1e:00:0b".parse().unwrap()),
        mtu: 1500,
        up: true,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let hop = |index, via: &str, metric| Hop { v4: !via.contains(':'), index, via: Some(via.parse().unwrap()), metric };
    HostNetwork {
        links: vec![
            link(2, "eth0", &[]),
            link(3, "br-ex", &["172.30.0.11/24", "172.30.0.99/24", "fd30::11/64", "fd69::2/125"]),
            link(4, "eth1", &["192.0.2.4/24"]),
        ],
        default_hops: vec![
            hop(3, "172.30.0.1", 0),
            hop(3, "172.30.0.2", 0),
            hop(3, "172.30.0.3", 100),
            hop(4, "192.0.2.1", 0),
            hop(3, "fd30::1", 1024),
        ],
    }
}

fn bridges(ports: &[(&str, &str, Option<u16>)]) -> BTreeMap<String, Bridge> {
    let port = |kind: &str, ofport| BridgePort { interfaces: 1, kind: kind.into(), ofport, ..BridgePort::default() };
    let ports = ports.iter().map(|(name, kind, ofport)| ((*name).to_owned(), port(kind, *ofport))).collect();
    BTreeMap::from([("br-ex".to_owned(), Bridge { userspace: true, uplink: None, made_for: None, ports })])
}

fn settings(of: &Settings) -> GatewaySettings {
    GatewaySettings::new(of).unwrap()
}

fn usual() -> BTreeMap<String, Bridge> {
    bridges(&[("br-ex", "internal", Some(65534)), ("eth0", "", Some(1))])
}

#[test]
fn a_prepared_bridge_is_the_gateway() {
    let found = discover(&settings(&Settings::default()), "node1", &host(), &usual()).unwrap().unwrap();
    assert_eq!(
        found.l3.format(),
        concat!(
            r#"{"default":{"mode":"shared","bridge-id":"br-ex","interface-id":"br-ex_node1","#,
            r#""mac-address":"02:00:ac:1e:00:0b","ip-addresses":["172.30.0.11/24","172.30.0.99/24","fd30::11/64"],"#,
            r#""next-hops":["172.30.0.1","172.30.0.2","fd30::1"],"node-port-enable":"true","vlan-id":"0"}}"#
        )
    );
    assert_eq!((found.uplink, found.patch, found.others), (1, None, Vec::new()));
}

#[test]
fn the_patch_port_is_known_by_its_name_and_other_ports_are_noted() {
    let mut all = bridges(&[
        ("br-ex", "internal", Some(65534)),
        ("eth0", "", Some(1)),
        ("patch-br-ex_node1-to-br-int", "patch", Some(7)),
        ("vnet0", "internal", Some(3)),
    ]);
    all.get_mut("br-ex").unwrap().ports.get_mut("br-ex").unwrap().vlan = Some(42);
    let flags = Settings { gateway_nexthop: Some("172.30.0.254".into()), ..Settings::default() };
    let found = discover(&settings(&flags), "node1", &host(), &all).unwrap().unwrap();
    assert_eq!((found.patch, found.others), (Some(7), vec!["vnet0".to_owned()]));
    assert_eq!(found.l3.next_hops, ["172.30.0.254".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(found.l3.vlan, Some(42));
}

#[test]
fn no_gateway_is_asked_for_or_possible() {
    let none = BTreeMap::new();
    let of = |flags: Settings, bridges: &_| discover(&settings(&flags), "node1", &host(), bridges);
    assert_eq!(of(Settings::default(), &none), Ok(None));
    assert_eq!(of(Settings { gateway_mode: Some("none".into()), ..Settings::default() }, &usual()), Ok(None));
    let asked = Settings { gateway_mode: Some("shared".into()), ..Settings::default() };
    assert_eq!(of(asked, &none), Err(Unusable::NoBridge("br-ex".into())));
}

#[test]
fn what_is_wrong_with_a_bridge_is_said() {
    let of = |host: &HostNetwork, bridges: &_| discover(&settings(&Settings::default()), "node1", host, bridges);
    let mut bare = host();
    bare.links[1].addresses = vec!["fd69::2/125".parse().unwrap()];
    assert_eq!(of(&bare, &usual()), Err(Unusable::NoAddress("br-ex".into())));
    bare.links.remove(1);
    assert_eq!(of(&bare, &usual()), Err(Unusable::NoInterface("br-ex".into())));
    let own = ("br-ex", "internal", Some(65534));
    assert_eq!(of(&host(), &bridges(&[own])), Err(Unusable::NoUplink("br-ex".into())));
    let two = bridges(&[own, ("eth0", "", Some(1)), ("eth1", "", Some(2))]);
    assert_eq!(of(&host(), &two), Err(Unusable::ManyUplinks("br-ex".into(), "eth0, eth1".into())));
    let mut named = two;
    named.get_mut("br-ex").unwrap().uplink = Some("eth1".into());
    assert_eq!(of(&host(), &named).unwrap().unwrap().uplink, 2);
    let absent = bridges(&[own, ("eth0", "", None)]);
    assert_eq!(of(&host(), &absent), Err(Unusable::NoNumber("br-ex".into(), "eth0".into())));
    let mut bond = usual();
    bond.get_mut("br-ex").unwrap().ports.get_mut("eth0").unwrap().interfaces = 2;
    assert_eq!(of(&host(), &bond), Err(Unusable::Bond("br-ex".into(), "eth0".into())));
}

#[test]
fn mappings_of_others_stay() {
    for (have, want) in [
        (None, "physnet:br-ex"),
        (Some(""), "physnet:br-ex"),
        (Some("physnet:br-ex"), "physnet:br-ex"),
        (Some("provider:br-p"), "provider:br-p,physnet:br-ex"),
        (Some("physnet:br-old, provider:br-p"), "provider:br-p,physnet:br-ex"),
        (Some("physnet2:br-2,physnet:br-ex"), "physnet2:br-2,physnet:br-ex"),
    ] {
        assert_eq!(mappings(have, "br-ex"), want);
        assert_eq!(mappings(Some(want), "br-ex"), want, "it settles");
    }
}
