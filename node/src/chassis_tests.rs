//! What a host's network means for a node.

use super::*;
use crate::config::Settings;
use crate::net::Hop;

fn link(index: u32, name: &str, mtu: u32, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Link { index, name: name.into(), mac: None, mtu, up: true, addresses }
}

fn host() -> HostNetwork {
    HostNetwork {
        links: vec![
            link(1, "lo", 65536, &["127.0.0.1/8", "::1/128"]),
            link(2, "eth0", 1500, &["172.18.0.4/16", "fc00::4/64"]),
            link(3, "eth1", 9000, &["192.0.2.4/24"]),
            link(4, "ovn-k8s-mp0", 1442, &["10.128.0.2/24"]),
        ],
        default_hops: vec![Hop { v4: true, index: 2, via: "172.18.0.1".parse().ok(), metric: 0 }],
    }
}

fn config(encap_ip: Option<&str>, mtu: Option<u32>) -> Config {
    let encap_ip = encap_ip.map(str::to_owned);
    Config::new(Settings { node_name: Some("n1".into()), encap_ip, mtu, ..Settings::default() }).unwrap()
}

#[test]
fn the_mtu_follows_from_the_link_with_the_endpoint() {
    let mtu = |ip: Option<&str>, mtu| {
        let config = config(ip, mtu);
        pod_mtu(&config, encap_ip(&config, &host()).unwrap(), &host())
    };
    assert_eq!(mtu(None, None), Ok(1442));
    assert_eq!(mtu(Some("fc00::4"), None), Ok(1422));
    assert_eq!(mtu(Some("192.0.2.4"), None), Ok(8942));
    assert_eq!(mtu(Some("192.0.2.4"), Some(1400)), Ok(1400));
    assert_eq!(mtu(Some("192.0.2.5"), None), Err(HostError::NotOurs("192.0.2.5".parse().unwrap())));
    assert_eq!(encap_ip(&config(None, None), &HostNetwork::default()), Err(HostError::NoEndpoint));
    let mut small = host();
    small.links[1].mtu = 600;
    assert!(matches!(
        pod_mtu(&config(None, None), "172.18.0.4".parse().unwrap(), &small),
        Err(HostError::SmallMtu { mtu: 600, overhead: 58, .. })
    ));
}

#[test]
fn annotations_of_a_node() {
    let subnets = ["10.128.0.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()];
    let all = annotations("sys", "172.18.0.4".parse().unwrap(), &host(), &subnets, true);
    let all: Vec<_> = all.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(
        all,
        [
            ("k8s.ovn.org/host-cidrs", r#"["172.18.0.4/16","192.0.2.4/24","fc00::4/64"]"#),
            ("k8s.ovn.org/node-chassis-id", "sys"),
            ("k8s.ovn.org/node-encap-ips", r#"["172.18.0.4"]"#),
            ("k8s.ovn.org/node-mgmt-port-mac-addresses", r#"{"default":"0a:58:0a:80:00:02"}"#),
            ("k8s.ovn.org/node-primary-ifaddr", r#"{"ipv4":"172.18.0.4/16","ipv6":"fc00::4/64"}"#),
            ("ovenbird.io/datapath-type", "netdev"),
        ]
    );
    assert_eq!(
        management_addresses(&subnets),
        [
            ("10.128.0.2/24".parse().unwrap(), "10.128.0.1".parse().unwrap()),
            ("fd01::2/64".parse().unwrap(), "fd01::1".parse().unwrap()),
        ]
    );
}
