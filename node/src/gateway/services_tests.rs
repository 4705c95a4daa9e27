//! What a node keeps of Services.

use serde_json::json;

use super::super::endpoints::{Here, Local};
use super::*;

fn service(spec: &serde_json::Value, ingress: &serde_json::Value) -> KubeService {
    let status = json!({"loadBalancer": {"ingress": ingress}});
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec, "status": status}))
        .unwrap()
}

#[test]
fn ports_addresses_and_policies_are_kept() {
    let slim = slim(&service(
        &json!({
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd96::7"], "externalIPs": ["192.0.2.1", "nonsense"],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}, {"port": 1, "protocol": "ODD"}],
        }),
        &json!([{"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb.example"}]),
    ))
    .unwrap();
    let port = |protocol, port, node_port| Port { name: String::new(), protocol, port, node_port };
    assert_eq!(slim.ports, [port(Protocol::Tcp, 80, Some(30080)), port(Protocol::Udp, 53, None)]);
    assert_eq!(slim.cluster_ips.len(), 2);
    let vips: Vec<_> = slim.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["192.0.2.1", "198.51.100.1"]);
    assert!(slim.local && !slim.internal_local);
    assert_eq!(slim.health_port, Some(31000));
}

#[test]
fn services_of_others_and_without_address_are_none() {
    assert_eq!(slim(&service(&json!({"clusterIP": "None", "clusterIPs": ["None"]}), &json!([]))), None);
    assert_eq!(slim(&service(&json!({"type": "ExternalName", "externalName": "x.example"}), &json!([]))), None);
    let mut labelled = service(&json!({"clusterIP": "10.96.0.7"}), &json!([]));
    assert!(slim(&labelled).is_some());
    labelled.metadata.labels = Some([("service.kubernetes.io/service-proxy-name".into(), "other".into())].into());
    assert_eq!(slim(&labelled), None);
}

#[test]
fn two_services_on_one_external_address_are_served_by_name() {
    let of = |ip: &str| Service {
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        cluster_ips: vec![ip.parse().unwrap()],
        vips: ["192.0.2.1".parse().unwrap()].into(),
        ..Service::default()
    };
    let services = [("b/b".to_owned(), of("10.96.0.2")), ("a/a".to_owned(), of("10.96.0.1"))].into();
    let served = Served::of(&services, None, &Hosts::new(&Local::new(), &[]));
    let targets = &served.vips[&("192.0.2.1".parse().unwrap(), Protocol::Tcp, 80)];
    assert_eq!(targets.of_family(true), Some("10.96.0.1".parse().unwrap()));
    assert_eq!(targets.of_family(false), None);
}

#[test]
fn what_comes_from_the_wire_is_the_hosts_where_it_is_the_endpoint() {
    let service = Service {
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: Some(30080) }],
        cluster_ips: vec!["10.96.0.2".parse().unwrap()],
        vips: ["192.0.2.1", "2001:db8::1"].map(|vip| vip.parse().unwrap()).into(),
        local: true,
        ..Service::default()
    };
    let here = Here {
        service: "a/a".into(),
        addresses: vec!["172.30.0.11".parse().unwrap()],
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
        ..Here::default()
    };
    let local = Local::from([("a/a-1".to_owned(), here)]);
    let direct = |service: &Service| {
        let services = [("a/a".to_owned(), service.clone())].into();
        Served::of(&services, None, &Hosts::new(&local, &[])).direct
    };
    let found = direct(&service);
    let host = vec!["172.30.0.11:8080".parse().unwrap()];
    assert_eq!(found.node_ports, [((Protocol::Tcp, 30080), host.clone())].into());
    assert_eq!(found.vips, [(("192.0.2.1".parse().unwrap(), Protocol::Tcp, 80), host)].into());
    assert!(found.has_node_port(Protocol::Tcp, 30080, true) && !found.has_node_port(Protocol::Tcp, 30080, false));
    // The gateway router sees to source ranges; without policy Local it balances.
    assert_eq!(direct(&Service { restricted: true, ..service.clone() }), Direct::default());
    assert_eq!(direct(&Service { local: false, ..service }), Direct::default());
}

#[test]
fn internal_traffic_policy_is_not_about_the_ways_from_outside() {
    let service = Service {
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: Some(30080) }],
        cluster_ips: vec!["10.96.0.2".parse().unwrap(), "fd96::2".parse().unwrap()],
        vips: ["192.0.2.1".parse().unwrap()].into(),
        internal_local: true,
        ..Service::default()
    };
    let without_port = Service { ports: vec![Port { node_port: None, ..service.ports[0].clone() }], ..service.clone() };
    let target = |service: &Service, masquerade: Option<&Masquerade>| {
        let served =
            Served::of(&[("a/a".to_owned(), service.clone())].into(), masquerade, &Hosts::new(&Local::new(), &[]));
        let targets = &served.vips[&("192.0.2.1".parse().unwrap(), Protocol::Tcp, 80)];
        assert!(served.node_ports.values().all(|at_node_port| at_node_port == targets));
        (targets.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), targets.port)
    };
    let masquerade = Masquerade::default();
    assert_eq!(target(&service, Some(&masquerade)), ("169.254.169.3 fd69::3".into(), 30080));
    assert_eq!(target(&service, None), ("10.96.0.2 fd96::2".into(), 80));
    assert_eq!(target(&without_port, Some(&masquerade)), ("10.96.0.2 fd96::2".into(), 80));
}
