//! Placements on hosts of all sorts.

use super::*;
use crate::gateway::bridge::BridgePort;

fn spec(text: &str) -> ProviderNetworkSpec {
    serde_json::from_str(text).unwrap()
}

fn bridge(ports: &[&str], userspace: bool, made_for: Option<&str>) -> Bridge {
    let port =
        |name: &&str| ((*name).to_owned(), BridgePort { ofport: Some(1), interfaces: 1, ..BridgePort::default() });
    Bridge { userspace, ports: ports.iter().map(port).collect(), made_for: made_for.map(str::to_owned), uplink: None }
}

fn link(name: &str, mtu: u32, address: Option<&str>) -> Link {
    let addresses = address.into_iter().map(|a| a.parse().unwrap()).collect();
    Link { name: name.into(), mtu, addresses, ..Link::default() }
}

/// `bridge nic reason`, with `-` for what is not there.
fn told(name: &str, text: &str) -> String {
    let bridges = BTreeMap::from([
        ("br-ex".to_owned(), bridge(&["br-ex", "eth0"], false, None)),
        ("br-data".to_owned(), bridge(&["br-data", "eth2"], false, None)),
        ("breth3".to_owned(), bridge(&["breth3", "eth3"], false, Some("eth3"))),
        ("br-user".to_owned(), bridge(&["br-user"], true, None)),
    ]);
    let links = vec![
        link("eth0", 1500, None),
        link("eth1", 1500, None),
        link("eth2", 9000, None),
        link("eth3", 9000, None),
        link("eth4", 1500, Some("192.0.2.1/24")),
        link("eth5", 1500, Some("192.0.2.2/24")),
        link("eth6", 1500, None),
        link("enp0s31f6d1np1", 1500, None),
    ];
    let network = HostNetwork { links, ..HostNetwork::default() };
    let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    let segment = |provider: &str, vlan| Segment { provider: provider.into(), vlan, ..Segment::default() };
    let segments = BTreeMap::from([
        ("a".to_owned(), segment("fabric", Some(100))),
        ("b".to_owned(), segment("fabric", None)),
        ("c".to_owned(), segment("other", None)),
    ]);
    let host = Host {
        labels: &labels,
        bridges: &bridges,
        network: &network,
        gateway: Some(("br-ex", None)),
        segments: &segments,
        taken: &BTreeSet::from(["eth6".to_owned()]),
        refused: &BTreeMap::from([("eth5".to_owned(), "no answer".to_owned())]),
        userspace: false,
    };
    match place(name, &spec(text), &host) {
        None => "not here".into(),
        Some(placement) => {
            let Placement { bridge, nic, take_over, .. } = &placement;
            let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            let nic = if take_over.is_some() { word(take_over) + "!" } else { word(nic) };
            let status = placement.status();
            format!("{} {nic} {}{}", word(bridge), word(&status.reason), if status.ready { "" } else { " not ready" })
        }
    }
}

#[test]
fn a_network_is_where_its_object_says_or_what_is_in_the_way_is_told() {
    for (text, want) in [
        (r#"{"nodes":[{"bridge":"br-data"}]}"#, "br-data - -"),
        (r#"{"nodes":[{"nodeSelector":{"rack":"b"},"bridge":"br-data"}]}"#, "not here"),
        (r#"{"nodes":[{"nodeSelector":{"rack":"a"},"bridge":"br-data"},{"interface":"eth1"}]}"#, "br-data - -"),
        (r#"{"nodes":[{}]}"#, "- - NothingNamed not ready"),
        (r#"{"nodes":[{"bridge":"br-none"}]}"#, "- - NoBridge not ready"),
        (r#"{"nodes":[{"bridge":"br-ex"}]}"#, "br-ex - VlanIsTheHosts"),
        (r#"{"nodes":[{"bridge":"br-int"}]}"#, "- - BridgeInUse not ready"),
        (r#"{"nodes":[{"bridge":"br-user"}]}"#, "- - DatapathDiffers not ready"),
        (r#"{"nodes":[{"interface":"eth0"}]}"#, "br-ex - VlanIsTheHosts"),
        (r#"{"nodes":[{"interface":"eth1"}]}"#, "- eth1 NotOpenYet not ready"),
        (r#"{"nodes":[{"interface":"eth1"}],"mtu":9000}"#, "- - MtuTooSmall not ready"),
        (r#"{"nodes":[{"interface":"eth2"}],"mtu":9000}"#, "br-data - -"),
        (r#"{"nodes":[{"interface":"eth3"}],"mtu":9000}"#, "breth3 eth3 -"),
        (r#"{"nodes":[{"interface":"eth3"}],"mtu":9001}"#, "breth3 eth3 MtuTooSmall not ready"),
        (r#"{"nodes":[{"interface":"eth4"}]}"#, "- eth4! TakingOver not ready"),
        (r#"{"nodes":[{"interface":"eth4"}],"mtu":9000}"#, "- - MtuTooSmall not ready"),
        (r#"{"nodes":[{"interface":"eth5"}]}"#, "- eth5! NotTakenOver not ready"),
        (r#"{"nodes":[{"interface":"eth6"}]}"#, "- - NotOpenYet not ready"),
        (r#"{"nodes":[{"interface":"eth9"}]}"#, "- - NoInterface not ready"),
        (r#"{"nodes":[{"interface":"enp0s31f6d1np1"}]}"#, "- - NameTooLong not ready"),
    ] {
        assert_eq!(told("fabric", text), want, "{text}");
    }
    assert_eq!(told("physnet", r#"{"nodes":[{"bridge":"br-data"}]}"#), "- - NameReserved not ready");
    assert_eq!(told("fabric2", r#"{"nodes":[{"interface":"eth0"}]}"#), "br-ex - -", "all its Networks are tagged");
}
