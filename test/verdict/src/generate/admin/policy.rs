//! Random admin policies.
//!
//! Output: sketches, which become policies by their index. Must not: know pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::evaluate::admin::object::{
    Destination, Kind, Number, Peer, Pods, Policy, Port, PortsOf, Range, Rule, Spec, Subject, Transport,
};
use crate::generate::policy::{self, key, port_name, value};

/// A policy without a name.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    kind: Kind,
    /// Second of its creation, if it says so.
    created: Option<u8>,
    spec: Spec,
}

impl Sketch {
    /// The policy, as the `index`th.
    pub fn build(self, index: usize) -> Policy {
        let created = self.created.map(|second| format!("2026-01-01T00:00:0{second}Z"));
        let metadata: Value = json!({"name": format!("a{index}"), "creationTimestamp": created});
        Policy { kind: self.kind, metadata: serde_json::from_value(metadata).unwrap_or_default(), spec: self.spec }
    }
}

/// A policy of any kind.
pub(super) fn policy() -> impl Strategy<Value = Sketch> {
    let kinds = &[Kind::AdminNetworkPolicy, Kind::ClusterNetworkPolicy, Kind::BaselineAdminNetworkPolicy][..];
    select(kinds).prop_flat_map(|kind| {
        let tier = prop_oneof![
            9 => Just(Some("Admin".to_owned())),
            9 => Just(Some("Baseline".to_owned())),
            // Invalid.
            1 => select(&[None, Some("admin")][..]).prop_map(|tier| tier.map(str::to_owned)),
        ];
        let priority = prop_oneof![
            12 => select(&[0, 1, 99, 100, 1000][..]).prop_map(Some),
            // Invalid.
            1 => select(&[None, Some(-1), Some(1001)][..]),
        ];
        let rules = move |ingress| option::weighted(0.8, vec(rule(kind, ingress), 0..=3));
        let spec = (tier, priority, subject(), rules(true), rules(false));
        (option::weighted(0.8, 0u8..3), spec).prop_map(move |(created, (tier, priority, subject, ingress, egress))| {
            let tier = tier.filter(|_| kind == Kind::ClusterNetworkPolicy);
            let priority = priority.filter(|_| kind != Kind::BaselineAdminNetworkPolicy);
            Sketch { kind, created, spec: Spec { tier, priority, subject, ingress, egress } }
        })
    })
}

/// Few labels, so that policies meet; some by expressions, of which few are invalid.
fn selector() -> impl Strategy<Value = LabelSelector> {
    let pairs = btree_map(key(), value(), 0..=1);
    let of_pairs = pairs.prop_map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None });
    prop_oneof![3 => of_pairs.boxed(), 1 => policy::selector().boxed()]
}

/// As [`selector`], and by the name of the namespace.
fn namespace_selector() -> impl Strategy<Value = LabelSelector> {
    prop_oneof![
        2 => Just(LabelSelector::default()).boxed(),
        3 => selector().boxed(),
        1 => policy::namespace_selector().boxed(),
    ]
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        9 => namespace_selector().prop_map(|n| Subject { namespaces: Some(n), pods: None }).boxed(),
        6 => pods().prop_map(|pods| Subject { namespaces: None, pods: Some(pods) }).boxed(),
        // Invalid.
        1 => option::weighted(0.5, (namespace_selector(), pods()))
            .prop_map(|both| {
                let (namespaces, pods) = both.unzip();
                Subject { namespaces, pods }
            })
            .boxed(),
    ]
}

fn pods() -> impl Strategy<Value = Pods> {
    (namespace_selector(), selector())
        .prop_map(|(namespace_selector, pod_selector)| Pods { namespace_selector, pod_selector })
}

fn rule(kind: Kind, ingress: bool) -> impl Strategy<Value = Rule> {
    let allow = if kind == Kind::ClusterNetworkPolicy { "Accept" } else { "Allow" };
    let action = prop_oneof![
        8 => Just(allow),
        5 => Just("Deny"),
        8 => Just("Pass"),
        // Invalid.
        1 => select(&["", "allow", "Reject"][..]),
    ];
    let ports = move || option::weighted(0.3, vec(port(), 0..=2));
    let protocols = move || option::weighted(0.3, vec(ports_of(), 0..=2));
    let of_first = kind != Kind::ClusterNetworkPolicy;
    (action, option::weighted(0.95, peers()), ports(), protocols()).prop_map(
        move |(action, peers, ports, protocols)| {
            let (from, to) = if ingress { (peers, None) } else { (None, peers) };
            let (ports, protocols) = (ports.filter(|_| of_first), protocols.filter(|_| !of_first));
            Rule { action: action.to_owned(), from, to, ports, protocols }
        },
    )
}

fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let all = ["0.0.0.0/0", "::/0"].map(str::to_owned).to_vec();
    let everybody = vec![Peer { networks: Some(all), ..Peer::default() }];
    prop_oneof![15 => vec(peer(), 1..=2), 4 => Just(everybody), 1 => Just(Vec::new())]
}

fn peer() -> impl Strategy<Value = Peer> {
    let one = prop_oneof![
        5 => namespace_selector().prop_map(|n| Peer { namespaces: Some(n), ..Peer::default() }).boxed(),
        6 => pods().prop_map(|pods| Peer { pods: Some(pods), ..Peer::default() }).boxed(),
        3 => selector().prop_map(|nodes| Peer { nodes: Some(nodes), ..Peer::default() }).boxed(),
        5 => networks().prop_map(|networks| Peer { networks: Some(networks), ..Peer::default() }).boxed(),
    ];
    let several =
        (option::of(namespace_selector()), option::of(pods()), option::of(selector()), option::of(networks()));
    prop_oneof![
        30 => one.boxed(),
        // Invalid but for a few.
        1 => several
            .prop_map(|(namespaces, pods, nodes, networks)| Peer { namespaces, pods, nodes, networks, domain_names: None })
            .boxed(),
        1 => vec(Just("example.org".to_owned()), 0..=1)
            .prop_map(|names| Peer { domain_names: Some(names), ..Peer::default() })
            .boxed(),
    ]
}

fn networks() -> impl Strategy<Value = Vec<String>> {
    let good = [
        "0.0.0.0/0",
        "10.128.0.0/16",
        "10.128.0.10/31",
        "10.128.2.13/32",
        "172.18.0.0/16",
        "192.0.2.77/24",
        "::/0",
        "fd01::/48",
        "fd01:0:0:1::/64",
        "fd01::a/128",
        "2001:db8::/31",
    ];
    let bad = ["10.0.0.0/33", "10.128.0.10", "", "fd01::/129"];
    let network = prop_oneof![20 => select(good.to_vec()), 1 => select(bad.to_vec())];
    prop_oneof![15 => vec(network.prop_map(str::to_owned), 1..=2), 1 => Just(Vec::new())]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![15 => select(&[80, 81, 8080, 65535][..]), 1 => select(&[0, 65536, -1][..])]
}

fn range(protocol: Option<&'static str>) -> impl Strategy<Value = Range> {
    (number(), select(&[80, 81, 100, 8080, 9000, 65535, 65536][..])).prop_map(move |(start, end)| Range {
        protocol: protocol.map(str::to_owned),
        start,
        end,
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![12 => port_name(), 1 => Just(String::new())]
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = || {
        prop_oneof![
            5 => Just(None),
            5 => Just(Some("TCP")),
            4 => Just(Some("UDP")),
            3 => Just(Some("SCTP")),
            1 => select(&["ICMP", "tcp", ""][..]).prop_map(Some),
        ]
    };
    let one = || (protocol(), number()).prop_map(|(p, port)| Number { protocol: p.map(str::to_owned), port });
    let range = || protocol().prop_flat_map(range);
    let several = (one(), option::of(range()), option::of(name())).prop_map(|(one, range, name)| Port {
        port_number: Some(one),
        named_port: name,
        port_range: range,
    });
    prop_oneof![
        6 => one().prop_map(|one| Port { port_number: Some(one), ..Port::default() }).boxed(),
        4 => range().prop_map(|range| Port { port_range: Some(range), ..Port::default() }).boxed(),
        5 => name().prop_map(|name| Port { named_port: Some(name), ..Port::default() }).boxed(),
        // Invalid, some of them.
        1 => several.boxed(),
        1 => Just(Port::default()).boxed(),
    ]
}

fn ports_of() -> impl Strategy<Value = PortsOf> {
    let destination = || {
        prop_oneof![
            8 => number().prop_map(|number| Destination { number: Some(number), range: None }).boxed(),
            5 => range(None).prop_map(|range| Destination { number: None, range: Some(range) }).boxed(),
            // Invalid, some of them.
            1 => (option::of(number()), option::of(range(None)))
                .prop_map(|(number, range)| Destination { number, range })
                .boxed(),
        ]
    };
    let transport = || option::weighted(0.8, destination()).prop_map(|destination_port| Transport { destination_port });
    let several = (option::of(transport()), option::of(transport()), option::of(name())).prop_map(
        |(tcp, sctp, destination_named_port)| PortsOf { tcp, sctp, destination_named_port, ..PortsOf::default() },
    );
    prop_oneof![
        6 => transport().prop_map(|t| PortsOf { tcp: Some(t), ..PortsOf::default() }).boxed(),
        4 => transport().prop_map(|t| PortsOf { udp: Some(t), ..PortsOf::default() }).boxed(),
        3 => transport().prop_map(|t| PortsOf { sctp: Some(t), ..PortsOf::default() }).boxed(),
        5 => name().prop_map(|name| PortsOf { destination_named_port: Some(name), ..PortsOf::default() }).boxed(),
        // Invalid, some of them.
        1 => several.boxed(),
    ]
}
