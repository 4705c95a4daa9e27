//! The admin policies as the API has them, as far as we read them: what three kinds of policy.networking.k8s.io write in two versions
//! is one shape.
//!
//! Source: network-policy-api, v1alpha1 (AdminNetworkPolicy, BaselineAdminNetworkPolicy) and v1alpha2 (ClusterNetworkPolicy). Must not: judge
//! values, or whether a version has a field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AdminPolicySpec {
    /// `Admin` or `Baseline`, of a ClusterNetworkPolicy.
    pub tier: Option<String>,
    /// The lower, the earlier; a BaselineAdminNetworkPolicy has none.
    pub priority: Option<i32>,
    /// The pods that it is about.
    pub subject: PodsPeer,
    /// Rules for what comes in.
    pub ingress: Option<Vec<AdminRuleSpec>>,
    /// Rules for what goes out.
    pub egress: Option<Vec<AdminRuleSpec>>,
}

/// A rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AdminRuleSpec {
    /// For people.
    pub name: Option<String>,
    /// v1alpha1: `Allow`, `Deny` or `Pass`; v1alpha2: `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// The other ends of what comes in.
    pub from: Option<Vec<AdminPeer>>,
    /// The other ends of what goes out.
    pub to: Option<Vec<AdminPeer>>,
    /// v1alpha1: ports; absent for all traffic.
    pub ports: Option<Vec<AdminPort>>,
    /// v1alpha2: protocols; absent for all traffic.
    pub protocols: Option<Vec<AdminProtocol>>,
}

/// Pods, by namespaces or one by one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodsPeer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<NamespacedPods>,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacedPods {
    /// Which namespaces.
    pub namespace_selector: LabelSelector,
    /// Which of their pods.
    pub pod_selector: LabelSelector,
}

/// The other end.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdminPeer {
    /// `namespaces` or `pods`.
    #[serde(flatten)]
    pub pods: PodsPeer,
    /// Nodes; of egress only.
    pub nodes: Option<LabelSelector>,
    /// Blocks of addresses; of egress only.
    pub networks: Option<Vec<String>>,
    /// Names; not supported.
    pub domain_names: Option<Vec<String>>,
}

/// v1alpha1: a port; one of the three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdminPort {
    /// One port.
    pub port_number: Option<PortNumber>,
    /// What each pod means by the name, of whatever protocol.
    pub named_port: Option<String>,
    /// Several ports.
    pub port_range: Option<PortRange>,
}

/// v1alpha1: a port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PortNumber {
    /// `TCP` when absent.
    pub protocol: Option<String>,
    /// Its number.
    pub port: i32,
}

/// Ports from `start` to `end`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// v1alpha1 only: `TCP` when absent.
    pub protocol: Option<String>,
    /// The first.
    pub start: i32,
    /// The last.
    pub end: i32,
}

/// v1alpha2: a protocol; one of the four.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdminProtocol {
    /// TCP.
    pub tcp: Option<Transport>,
    /// UDP.
    pub udp: Option<Transport>,
    /// SCTP.
    pub sctp: Option<Transport>,
    /// What each pod means by the name, of whatever protocol.
    pub destination_named_port: Option<String>,
}

/// v1alpha2: ports of a protocol; the API wants some.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Transport {
    /// Which ports.
    pub destination_port: Option<DestinationPort>,
}

/// v1alpha2: one port, or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DestinationPort {
    /// One.
    pub number: Option<i32>,
    /// Several.
    pub range: Option<PortRange>,
}
