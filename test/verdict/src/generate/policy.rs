//! Random policies: every field, most of them valid.
//!
//! Output: policies without name and namespace, with the index of their namespace. Must not: know pods.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A policy, and the index of its namespace.
pub(super) fn policy() -> impl Strategy<Value = (usize, NetworkPolicy)> {
    let types = prop_oneof![
        3 => Just(None),
        2 => Just(Some(vec!["Ingress"])),
        2 => Just(Some(vec!["Egress"])),
        4 => Just(Some(vec!["Ingress", "Egress"])),
        1 => Just(Some(vec![])),
        // Invalid.
        1 => select(&["Egress", "Ingress", "both"][..]).prop_map(|valid| Some(vec!["Both", valid])),
    ];
    let rule = || (option::weighted(0.8, vec(peer(), 0..=2)), option::weighted(0.6, vec(port(), 0..=3)));
    let rules = || option::weighted(0.8, vec(rule(), 0..=3));
    let spec = (option::weighted(0.95, selector()), types, rules(), rules());
    (0usize..4, spec).prop_map(|(namespace, (pod_selector, types, ingress, egress))| {
        let ingress = ingress
            .map(|rules| rules.into_iter().map(|(from, ports)| NetworkPolicyIngressRule { from, ports }).collect());
        let egress =
            egress.map(|rules| rules.into_iter().map(|(to, ports)| NetworkPolicyEgressRule { ports, to }).collect());
        let policy_types = types.map(|types| types.into_iter().map(str::to_owned).collect());
        let spec = NetworkPolicySpec { egress, ingress, pod_selector, policy_types };
        (namespace, NetworkPolicy { spec: Some(spec), ..Default::default() })
    })
}

/// Key of a label.
pub(super) fn key() -> impl Strategy<Value = String> {
    select(&["a", "b"][..]).prop_map(str::to_owned)
}

/// Value of a label.
pub(super) fn value() -> impl Strategy<Value = String> {
    select(&["x", "y", ""][..]).prop_map(str::to_owned)
}

/// Name of a port.
pub(super) fn port_name() -> impl Strategy<Value = String> {
    select(&["web", "dns"][..]).prop_map(str::to_owned)
}

/// Number of a port, of packets and of pods.
pub(super) fn port_number() -> impl Strategy<Value = u16> {
    select(&[80, 81, 8080, 65535][..])
}

pub(super) fn selector() -> impl Strategy<Value = LabelSelector> {
    let pairs = option::weighted(0.4, btree_map(key(), value(), 0..=1));
    (pairs, option::weighted(0.4, vec(requirement(), 0..=2)))
        .prop_map(|(match_labels, match_expressions)| LabelSelector { match_expressions, match_labels })
}

fn requirement() -> impl Strategy<Value = LabelSelectorRequirement> {
    let some = || vec(value(), 1..=2).prop_map(Some);
    let none = || prop_oneof![Just(None), Just(Some(vec![]))];
    let operator = prop_oneof![
        6 => (Just("In"), some()).boxed(),
        6 => (Just("NotIn"), some()).boxed(),
        6 => (Just("Exists"), none()).boxed(),
        6 => (Just("DoesNotExist"), none()).boxed(),
        // Invalid from here.
        1 => (select(&["In", "NotIn", "Like"][..]), none()).boxed(),
        1 => (select(&["Exists", "DoesNotExist", ""][..]), some()).boxed(),
    ];
    (key(), operator).prop_map(|(key, (operator, values))| LabelSelectorRequirement {
        key,
        operator: operator.to_owned(),
        values,
    })
}

/// As [`selector`], and by the name of the namespace.
pub(super) fn namespace_selector() -> impl Strategy<Value = LabelSelector> {
    let by_name = select(&["s0", "s1"][..]).prop_map(|name| LabelSelector {
        match_labels: Some(BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())])),
        match_expressions: None,
    });
    prop_oneof![4 => selector().boxed(), 1 => by_name.boxed()]
}

fn peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let none = NetworkPolicyPeer::default;
    prop_oneof![
        6 => selector().prop_map(move |s| NetworkPolicyPeer { pod_selector: Some(s), ..none() }).boxed(),
        5 => namespace_selector().prop_map(move |s| NetworkPolicyPeer { namespace_selector: Some(s), ..none() }).boxed(),
        5 => (selector(), namespace_selector())
            .prop_map(|(pods, namespaces)| NetworkPolicyPeer {
                ip_block: None,
                namespace_selector: Some(namespaces),
                pod_selector: Some(pods),
            })
            .boxed(),
        6 => block().prop_map(move |block| NetworkPolicyPeer { ip_block: Some(block), ..none() }).boxed(),
        // Invalid.
        1 => Just(none()).boxed(),
        1 => (block(), selector())
            .prop_map(move |(block, s)| NetworkPolicyPeer { ip_block: Some(block), pod_selector: Some(s), ..none() })
            .boxed(),
    ]
}

fn block() -> impl Strategy<Value = IPBlock> {
    let of = |cidrs: &'static [&'static str], excepts: &'static [&'static str]| {
        (select(cidrs), option::weighted(0.5, vec(select(excepts), 0..=2)))
    };
    let v4 = &["0.0.0.0/0", "10.128.0.0/16", "10.128.0.10/31", "10.128.2.13/32", "172.18.0.0/16", "192.0.2.77/24"][..];
    let not_v4 = &["192.0.2.128/25", "10.128.0.10/32", "10.128.2.0/24", "10.128.0.2/32"][..];
    let v6 = &["::/0", "fd01::/48", "fd01:0:0:1::/64", "fd01::a/128", "2001:db8::/31"][..];
    let not_v6 = &["fd01:0:0:1::/64", "2001:db8:1::/48", "fd01::b/128", "fd01::2/128"][..];
    let bad = &["10.0.0.0/33", "10.128.0.10", "nonsense", "", "fd01::/129"][..];
    let block = prop_oneof![10 => of(v4, not_v4), 8 => of(v6, not_v6), 1 => of(bad, not_v4), 1 => of(v4, not_v6), 1 => of(v4, bad)];
    block.prop_map(|(cidr, except)| IPBlock {
        cidr: cidr.to_owned(),
        except: except.map(|list| list.into_iter().map(str::to_owned).collect()),
    })
}

fn port() -> impl Strategy<Value = NetworkPolicyPort> {
    let protocol = prop_oneof![
        5 => Just(None),
        5 => Just(Some("TCP")),
        4 => Just(Some("UDP")),
        3 => Just(Some("SCTP")),
        1 => select(&["ICMP", "tcp", ""][..]).prop_map(Some),
    ];
    let number = || select(&[80, 81, 8080, 65535][..]).prop_map(IntOrString::Int);
    let name = || port_name().prop_map(IntOrString::String);
    let numbers = prop_oneof![
        3 => Just((None, None)).boxed(),
        8 => number().prop_map(|first| (Some(first), None)).boxed(),
        // From a number; below it is invalid.
        4 => (number(), select(&[80, 81, 100, 8080, 9000, 65535][..])).prop_map(|(n, last)| (Some(n), Some(last))).boxed(),
        8 => name().prop_map(|name| (Some(name), None)).boxed(),
        // Invalid.
        1 => name().prop_map(|name| (Some(name), Some(9000))).boxed(),
        1 => select(&[0, 65536, -1][..]).prop_map(|n| (Some(IntOrString::Int(n)), None)).boxed(),
        1 => Just((None, Some(9000))).boxed(),
        1 => Just((Some(IntOrString::Int(80)), Some(65536))).boxed(),
    ];
    (protocol, numbers).prop_map(|(protocol, (port, end_port))| NetworkPolicyPort {
        end_port,
        port,
        protocol: protocol.map(str::to_owned),
    })
}
