//! Meshes, flows, routes and names of small networks.

use super::*;
use crate::settings::{Settings, Variant};

fn member(place: usize) -> Member {
    let subnets = [format!("10.128.{place}.0/24"), format!("fd00:10:128:{place}::/64")];
    let subnets = subnets.iter().map(|text| text.parse().unwrap()).collect();
    Member { name: format!("n{place}"), address: format!("172.30.0.{}", 10 + place).parse().unwrap(), subnets }
}

fn fabric(own: usize, nodes: usize, settings: Settings) -> Fabric {
    let peers = (1..=nodes).filter(|place| *place != own).map(member).collect();
    let cluster = ["10.128.0.0/14", "fd00:10:128::/48"].map(|text| text.parse().unwrap()).into();
    Fabric { settings, own: member(own), peers, cluster, userspace: true, mtu: 1400 }
}

/// Every link is seen from both ends, and each mesh has as many as it should.
#[test]
fn meshes_are_symmetric_and_connected() {
    for (mesh, links) in [(Mesh::Full, [0, 1, 3, 6, 10]), (Mesh::Ring, [0, 1, 3, 4, 5]), (Mesh::Hub, [0, 1, 2, 3, 4])] {
        for (nodes, links) in (1..).zip(links) {
            let settings = Settings { mesh, variant: Variant::Stp, ..Settings::default() };
            let mut ends: Vec<(String, String)> = Vec::new();
            for own in 1..=nodes {
                let fabric = fabric(own, nodes, settings.clone());
                ends.extend(fabric.links().iter().map(|peer| (fabric.own.name.clone(), peer.name.clone())));
            }
            assert_eq!(ends.len(), 2 * links, "{mesh:?} of {nodes}: {ends:?}");
            assert!(ends.iter().all(|(a, b)| ends.contains(&(b.clone(), a.clone()))), "{mesh:?}: {ends:?}");
        }
    }
}

#[test]
fn flows_are_as_many_as_the_formula_says() {
    for nodes in 1..8 {
        let mut fabric = fabric(1, nodes, Settings::default());
        assert_eq!(fabric.flows("10", "9").len(), 3 + 3 * (nodes - 1));
        for member in fabric.peers.iter_mut().chain([&mut fabric.own]) {
            member.subnets.truncate(1);
        }
        assert_eq!(fabric.flows("10", "9").len(), 2 + 2 * (nodes - 1));
    }
}

#[test]
fn flows_lead_each_subnet_to_its_node() {
    let flows: Vec<String> = fabric(2, 2, Settings::default()).flows("10", "9").into_iter().collect();
    assert_eq!(
        flows,
        [
            "priority=100,in_port=10,arp,arp_tpa=10.128.2.0/24,actions=output:9",
            "priority=100,in_port=10,ip,nw_dst=10.128.2.0/24,actions=output:9",
            "priority=100,in_port=10,ipv6,ipv6_dst=fd00:10:128:2::/64,actions=output:9",
            "priority=100,in_port=9,arp,arp_tpa=10.128.1.0/24,actions=set_field:172.30.0.11->tun_dst,output:10",
            "priority=100,in_port=9,ip,nw_dst=10.128.1.0/24,actions=set_field:172.30.0.11->tun_dst,output:10",
            "priority=100,in_port=9,ipv6,ipv6_dst=fd00:10:128:1::/64,actions=set_field:172.30.0.11->tun_dst,output:10",
        ]
    );
}

#[test]
fn ipv6_goes_by_the_gateway_of_the_peer() {
    let fabric = fabric(2, 2, Settings::default());
    let routes: Vec<_> = fabric.routes().iter().map(|(net, via)| format!("{net} {via:?}")).collect();
    assert_eq!(
        routes,
        [
            "10.128.0.0/14 None",
            "fd00:10:128::/48 None",
            "fd00:10:128:1::1/128 None",
            "fd00:10:128:1::/64 Some(fd00:10:128:1::1)"
        ]
    );
    let neighbours: Vec<_> = fabric.neighbours().iter().map(|(ip, mac)| format!("{ip} {mac}")).collect();
    assert_eq!(neighbours, ["fd00:10:128:1::1 0a:58:0a:80:01:01"]);
}

/// A hand-made port towards a peer keeps its name; the root of the tree is the first node.
#[test]
fn tunnels_of_the_tree() {
    let settings = Settings { variant: Variant::Stp, key: Some(7), ..Settings::default() };
    let fabric = fabric(2, 3, settings);
    let existing = Existing::from([(Some("172.30.0.13".parse().unwrap()), "gre2".to_owned())]);
    let names: Vec<String> = fabric.tunnels(&existing).into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].starts_with("gre-") && names[0].len() == 12, "{names:?}");
    assert_eq!(names[1], "gre2");
    let other = fabric.tunnels(&Existing::new()).remove(1).1;
    assert_ne!(names[0], other);
    let text = format!("{:?}", fabric.rows());
    assert!(text.contains("stp-priority") && text.contains("8192") && text.contains("0e:58:0a:80:02:01"), "{text}");
}
