//! Admin policies as the API has them: AdminNetworkPolicy and BaselineAdminNetworkPolicy of v1alpha1, ClusterNetworkPolicy of v1alpha2.
//!
//! One shape for the three: `ports` are of v1alpha1, `protocols` of v1alpha2, `tier` is of ClusterNetworkPolicy. Source: network-policy-api,
//! `apis/v1alpha1`, `apis/v1alpha2`. Must not: judge values.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Kinds, in the order in which they are asked when nothing else says who is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the API")]
pub enum Kind {
    AdminNetworkPolicy,
    ClusterNetworkPolicy,
    BaselineAdminNetworkPolicy,
}

/// An admin policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// `kind`.
    pub kind: Kind,
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// `spec`.
    pub spec: Spec,
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// `Admin` or `Baseline`.
    pub tier: Option<String>,
    /// 0 to 1000, the lower is asked first.
    pub priority: Option<i32>,
    /// The pods that it is about.
    pub subject: Subject,
    /// Rules for what comes in.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for what goes out.
    pub egress: Option<Vec<Rule>>,
}

/// `subject`; one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<Pods>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// `Allow` (v1alpha1) or `Accept` (v1alpha2), `Deny`, `Pass`.
    pub action: String,
    /// The other ends of what comes in.
    pub from: Option<Vec<Peer>>,
    /// The other ends of what goes out.
    pub to: Option<Vec<Peer>>,
    /// Of v1alpha1; all traffic without.
    pub ports: Option<Vec<Port>>,
    /// Of v1alpha2; all traffic without.
    pub protocols: Option<Vec<PortsOf>>,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pods {
    /// Which namespaces; empty for all.
    pub namespace_selector: LabelSelector,
    /// Which of their pods; empty for all.
    pub pod_selector: LabelSelector,
}

/// The other end; one of the five. The API has the last three for egress only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Peer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<Pods>,
    /// Nodes.
    pub nodes: Option<LabelSelector>,
    /// CIDRs.
    pub networks: Option<Vec<String>>,
    /// Names of domains.
    pub domain_names: Option<Vec<String>>,
}

/// v1alpha1: ports; one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// One port.
    pub port_number: Option<Number>,
    /// The port that a pod's container calls so.
    pub named_port: Option<String>,
    /// Several ports.
    pub port_range: Option<Range>,
}

/// v1alpha1: one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Number {
    /// `TCP` without.
    pub protocol: Option<String>,
    /// 1 to 65535.
    pub port: i32,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Range {
    /// v1alpha1 only; `TCP` without.
    pub protocol: Option<String>,
    /// 1 to 65535.
    pub start: i32,
    /// More than `start`, to 65535.
    pub end: i32,
}

/// v1alpha2: ports; one of the four.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortsOf {
    /// Ports of TCP.
    pub tcp: Option<Transport>,
    /// Ports of UDP.
    pub udp: Option<Transport>,
    /// Ports of SCTP.
    pub sctp: Option<Transport>,
    /// The port that a pod's container calls so.
    pub destination_named_port: Option<String>,
}

/// v1alpha2: ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Transport {
    /// The API wants one.
    pub destination_port: Option<Destination>,
}

/// v1alpha2: one port, or several; one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// 1 to 65535.
    pub number: Option<i32>,
    /// Several.
    pub range: Option<Range>,
}
