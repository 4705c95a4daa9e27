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
            20 => select(&[0, 1, 99, 100, 1000][..]).prop_map(Some),
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
    let of_first = kind != Kind::ClusterNetworkPolicy;
    let (allow, other) = if of_first { ("Allow", "Accept") } else { ("Accept", "Allow") };
    let action = prop_oneof![
        8 => Just(allow),
        5 => Just("Deny"),
        8 => Just("Pass"),
        // Invalid.
        1 => select(vec!["", "allow", "Reject", other]),
    ];
    let peers = option::weighted(0.95, peers(ingress));
    (action, peers).prop_flat_map(move |(action, peers)| {
        // Names of ports are invalid beside nodes and networks.
        let outside = peers.iter().flatten().any(|peer| peer.nodes.is_some() || peer.networks.is_some());
        let named = if outside { 0.02 } else { 0.3 };
        let own = move |right| option::weighted(if right { 0.35 } else { 0.01 }, Just(()));
        (own(of_first), own(!of_first), some(port(named)), some(ports_of(named))).prop_map(
            move |(has_ports, has_protocols, ports, protocols)| {
                let (from, to) = if ingress { (peers.clone(), None) } else { (None, peers.clone()) };
                let (ports, protocols) = (has_ports.map(|()| ports), has_protocols.map(|()| protocols));
                Rule { action: action.to_owned(), from, to, ports, protocols }
            },
        )
    })
}

/// One or two; few are invalid, for there is none.
fn some<T: Clone + std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    (vec(one, 2), prop_oneof![1 => Just(0), 20 => 1..=2usize]).prop_map(|(mut two, len)| {
        two.truncate(len);
        two
    })
}

fn peers(ingress: bool) -> impl Strategy<Value = Vec<Peer>> {
    let all = ["0.0.0.0/0", "::/0"].map(str::to_owned).to_vec();
    let everybody = match ingress {
        true => vec![Peer { namespaces: Some(LabelSelector::default()), ..Peer::default() }],
        false => vec![Peer { networks: Some(all), ..Peer::default() }],
    };
    prop_oneof![25 => vec(peer(ingress), 1..=2), 6 => Just(everybody), 1 => Just(Vec::new())]
}

fn peer(ingress: bool) -> impl Strategy<Value = Peer> {
    let outside = |weight: u32| if ingress { 1 } else { weight * 20 };
    let one = prop_oneof![
        100 => namespace_selector().prop_map(|n| Peer { namespaces: Some(n), ..Peer::default() }).boxed(),
        120 => pods().prop_map(|pods| Peer { pods: Some(pods), ..Peer::default() }).boxed(),
        outside(3) => selector().prop_map(|nodes| Peer { nodes: Some(nodes), ..Peer::default() }).boxed(),
        outside(5) => networks().prop_map(|networks| Peer { networks: Some(networks), ..Peer::default() }).boxed(),
    ];
    let several =
        (option::of(namespace_selector()), option::of(pods()), option::of(selector()), option::of(networks()));
    prop_oneof![
        60 => one.boxed(),
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
    let network = prop_oneof![40 => select(good.to_vec()), 1 => select(bad.to_vec())];
    prop_oneof![30 => vec(network.prop_map(str::to_owned), 1..=2), 1 => Just(Vec::new())]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![30 => select(&[80, 81, 8080, 65535][..]), 1 => select(&[0, 65536, -1][..])]
}

/// Few are invalid: out of bounds, of one port, or the wrong way round.
fn range(protocol: Option<&'static str>) -> impl Strategy<Value = Range> {
    let ends = prop_oneof![
        20 => select(&[(1, 80), (80, 81), (80, 8080), (81, 9000), (82, 65535), (1, 65535), (8080, 8081)][..]),
        1 => select(&[(80, 80), (81, 80), (80, 65536), (0, 81)][..]),
    ];
    ends.prop_map(move |(start, end)| Range { protocol: protocol.map(str::to_owned), start, end })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![25 => port_name(), 1 => Just(String::new())]
}

/// A port; a share of them by name.
fn port(named: f64) -> impl Strategy<Value = Port> {
    let protocol = || {
        prop_oneof![
            10 => Just(None),
            10 => Just(Some("TCP")),
            8 => Just(Some("UDP")),
            6 => Just(Some("SCTP")),
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
    let by_number = prop_oneof![
        30 => one().prop_map(|one| Port { port_number: Some(one), ..Port::default() }).boxed(),
        20 => range().prop_map(|range| Port { port_range: Some(range), ..Port::default() }).boxed(),
        // Invalid, some of them.
        1 => several.boxed(),
        1 => Just(Port::default()).boxed(),
    ];
    let by_name = name().prop_map(|name| Port { named_port: Some(name), ..Port::default() });
    either(named, by_name, by_number)
}

/// The one in a share of cases, the other else.
fn either<T: Clone + std::fmt::Debug>(
    share: f64,
    one: impl Strategy<Value = T>,
    other: impl Strategy<Value = T>,
) -> impl Strategy<Value = T> {
    (option::weighted(share, one), other).prop_map(|(one, other)| one.unwrap_or(other))
}

/// Ports of a protocol; a share of them by name.
fn ports_of(named: f64) -> impl Strategy<Value = PortsOf> {
    let destination = || {
        prop_oneof![
            16 => number().prop_map(|number| Destination { number: Some(number), range: None }).boxed(),
            10 => range(None).prop_map(|range| Destination { number: None, range: Some(range) }).boxed(),
            // Invalid, some of them.
            1 => (option::of(number()), option::of(range(None)))
                .prop_map(|(number, range)| Destination { number, range })
                .boxed(),
        ]
    };
    let transport =
        || option::weighted(0.95, destination()).prop_map(|destination_port| Transport { destination_port });
    let several = (option::of(transport()), option::of(transport()), option::of(name())).prop_map(
        |(tcp, sctp, destination_named_port)| PortsOf { tcp, sctp, destination_named_port, ..PortsOf::default() },
    );
    let by_number = prop_oneof![
        18 => transport().prop_map(|t| PortsOf { tcp: Some(t), ..PortsOf::default() }).boxed(),
        12 => transport().prop_map(|t| PortsOf { udp: Some(t), ..PortsOf::default() }).boxed(),
        9 => transport().prop_map(|t| PortsOf { sctp: Some(t), ..PortsOf::default() }).boxed(),
        // Invalid, some of them.
        1 => several.boxed(),
    ];
    let by_name = name().prop_map(|name| PortsOf { destination_named_port: Some(name), ..PortsOf::default() });
    either(named, by_name, by_number)
}
