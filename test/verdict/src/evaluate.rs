//! The reference: what NetworkPolicy (networking.k8s.io/v1) says of a packet, written from the API's documentation alone.
//!
//! ```text
//! source is a pod  -> policies of its namespace that select it, type Egress  -> any rule matches? -+- and -> allowed
//! destination is a pod -> policies of its namespace that select it, Ingress  -> any rule matches? -+
//! ```
//!
//! Inputs: the objects and a packet. Output: the verdict and what decided. Slow and plain on purpose: nothing is indexed, so that one can
//! read it against the documentation. Beyond the API, what cannot be valid (an API server would have refused it) is left out, and
//! never opens anything: see [`rule`] and [`selector`]. Must not: know OVN, or share code with the translation.

pub mod admin;
pub mod rule;
pub mod selector;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};

use crate::packet::{self, Packet};
use rule::Rule;

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Pods, with their addresses in `status.podIPs`.
    pub pods: Vec<Pod>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Nodes.
    pub nodes: Vec<Host>,
}

/// What a node is to its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `metadata.name` of the Node.
    pub name: String,
    /// Addresses from which the node talks to its own pods (the management port's).
    pub management: Vec<IpAddr>,
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It arrives.
    pub allowed: bool,
    /// What the source's policies say.
    pub egress: Decision,
    /// What the destination's policies say.
    pub ingress: Decision,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This end is no pod, or no policy isolates it in this direction.
    Open,
    /// No policy can forbid it: a pod to itself, or its own node to it.
    Exempt,
    /// The rules that allow it, at least one.
    Allowed(Vec<RuleRef>),
    /// The policies that isolate the pod (`namespace/name`); none has a rule that allows it.
    Denied(Vec<String>),
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// Index in `spec.ingress` or `spec.egress`.
    pub index: usize,
}

/// Which of a policy's lists counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Decision {
    /// This end lets the packet pass.
    pub fn allows(&self) -> bool {
        !matches!(self, Decision::Denied(_))
    }
}

impl Cluster {
    /// What becomes of a packet.
    pub fn verdict(&self, packet: &Packet) -> Verdict {
        let (egress, ingress) = (self.egress(packet), self.ingress(packet));
        Verdict { allowed: egress.allows() && ingress.allows(), egress, ingress }
    }

    /// The pod whose traffic is from or to an address. A pod on its node's network has the node's addresses: its traffic is
    /// the node's. A finished pod is not there, whoever has its address now.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods
            .iter()
            .filter(|pod| is_there(pod) && !on_host_network(pod))
            .find(|pod| addresses(pod).contains(&address))
    }

    /// Labels of a namespace, with the one that every namespace has.
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let namespace = self.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(name))?;
        let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        Some(labels)
    }

    fn egress(&self, packet: &Packet) -> Decision {
        let Some(pod) = self.pod_at(packet.source) else { return Decision::Open };
        if addresses(pod).contains(&packet.destination) {
            return Decision::Exempt;
        }
        self.decide(Direction::Egress, pod, packet)
    }

    fn ingress(&self, packet: &Packet) -> Decision {
        let Some(pod) = self.pod_at(packet.destination) else { return Decision::Open };
        let itself = packet.source == packet::hairpin(packet.source) || addresses(pod).contains(&packet.source);
        if itself || self.is_own_node(pod, packet.source) {
            return Decision::Exempt;
        }
        self.decide(Direction::Ingress, pod, packet)
    }

    fn is_own_node(&self, pod: &Pod, address: IpAddr) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        self.nodes.iter().any(|host| Some(host.name.as_str()) == node && host.management.contains(&address))
    }

    /// What the policies that select `pod` say of a packet from it (egress) or to it (ingress).
    fn decide(&self, direction: Direction, pod: &Pod, packet: &Packet) -> Decision {
        let peer = match direction {
            Direction::Ingress => packet.source,
            Direction::Egress => packet.destination,
        };
        let (mut isolating, mut allowing) = (Vec::new(), Vec::new());
        let namespace = pod.metadata.namespace.as_deref();
        for policy in self.policies.iter().filter(|policy| policy.metadata.namespace.as_deref() == namespace) {
            let spec = policy.spec.clone().unwrap_or_default();
            let subject = selector::judge(spec.pod_selector.as_ref(), labels(pod));
            if !is_of_type(&spec, direction) || !subject.fits {
                continue;
            }
            let name =
                format!("{}/{}", namespace.unwrap_or_default(), policy.metadata.name.as_deref().unwrap_or_default());
            for (index, rule) in rules(&spec, direction).iter().enumerate() {
                if subject.valid && rule.allows(self, namespace.unwrap_or_default(), peer, packet) {
                    allowing.push(RuleRef { policy: name.clone(), index });
                }
            }
            isolating.push(name);
        }
        match (isolating.is_empty(), allowing.is_empty()) {
            (true, _) => Decision::Open,
            (false, false) => Decision::Allowed(allowing),
            (false, true) => Decision::Denied(isolating),
        }
    }
}

/// Whether a policy isolates in a direction: what `policyTypes` says; without it always ingress, and egress when there are rules
/// of egress. A type that does not exist is left out.
fn is_of_type(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let named = |name: &str| spec.policy_types.iter().flatten().any(|t| t == name);
    let (ingress, egress) = (named("Ingress"), named("Egress"));
    match direction {
        Direction::Ingress if ingress || egress => ingress,
        Direction::Ingress => true,
        Direction::Egress if ingress || egress => egress,
        Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

fn rules(spec: &NetworkPolicySpec, direction: Direction) -> Vec<Rule<'_>> {
    match direction {
        Direction::Ingress => spec.ingress.iter().flatten().map(Rule::of_ingress).collect(),
        Direction::Egress => spec.egress.iter().flatten().map(Rule::of_egress).collect(),
    }
}

/// Labels of a pod.
pub(crate) fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}

fn is_there(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let listed = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    listed.filter_map(|ip| ip.ip.parse().ok()).collect()
}
