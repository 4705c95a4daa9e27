//! The reference of admin policies: what they say of a packet, before and after NetworkPolicy, written from the API's documentation alone.
//!
//! ```text
//! each end that is a pod:  Admin tier --no rule, or Pass--> NetworkPolicy --not isolated--> Baseline tier --no rule, or Pass--> allowed
//!                            | Allow, Deny                    | allowed, denied               | Allow, Deny
//! ```
//!
//! In a tier policies are asked by priority, in a policy rules by their index, and the first rule that fits decides. Where the API leaves
//! open who of equal priority is first it is the older, then the kind (see [`Kind`]), then the name; BaselineAdminNetworkPolicy comes last of all.
//!
//! What cannot be read never opens ("fail closed"): a rule that allows fits nothing when a peer or port of it cannot be read; one that denies or
//! passes is "deny all" when a peer cannot be read, and denies its peers all ports when a port cannot be. A subject that cannot be read is as
//! wide as the rest of it, a tier is the first, a priority comes before all others; then no rule of the policy allows, and those that pass
//! deny. An unknown action denies. Inputs: objects and a packet. Must not: know OVN, or share code with the translation.

pub mod object;
mod rule;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Cluster, Decision as NetworkDecision};
use crate::packet::Packet;
use object::{Kind, Policy, Rule, Spec, Subject};

/// The last priority.
const LAST: i32 = 1000;

/// A cluster with admin policies.
#[derive(Clone, Copy, Debug)]
pub struct Tiers<'a> {
    /// Pods, namespaces, NetworkPolicies.
    pub cluster: &'a Cluster,
    /// Nodes, with their labels and addresses.
    pub nodes: &'a [Node],
    /// Admin policies.
    pub policies: &'a [Policy],
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It arrives.
    pub allowed: bool,
    /// What decides at the source.
    pub egress: Decision,
    /// What decides at the destination.
    pub ingress: Decision,
}

/// What decides at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule by which the Admin tier passed, if it did.
    pub passed: Option<RuleRef>,
    /// What has the last word.
    pub by: By,
}

/// What has the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// NetworkPolicies, or nothing at all.
    Network(NetworkDecision),
    /// A rule of an admin policy.
    Rule(RuleRef, Action),
}

/// A rule of an admin policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Kind of the policy.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Index in `spec.ingress` or `spec.egress`.
    pub index: usize,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets through, whatever comes after.
    Allow,
    /// Stops.
    Deny,
    /// Leaves to the next tier; after the last one there is nothing, and it goes through.
    Pass,
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Admin,
    Baseline,
}

/// An end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Decision {
    /// This end lets the packet pass.
    pub fn allows(&self) -> bool {
        match &self.by {
            By::Network(decision) => decision.allows(),
            By::Rule(_, action) => *action != Action::Deny,
        }
    }
}

impl Tiers<'_> {
    /// What becomes of a packet.
    pub fn verdict(&self, packet: &Packet) -> Verdict {
        let network = self.cluster.verdict(packet);
        let source = self.cluster.pod_at(packet.source);
        let destination = self.cluster.pod_at(packet.destination);
        let egress = self.decide(Direction::Egress, source, packet, network.egress);
        let ingress = self.decide(Direction::Ingress, destination, packet, network.ingress);
        Verdict { allowed: egress.allows() && ingress.allows(), egress, ingress }
    }

    fn decide(&self, end: Direction, pod: Option<&Pod>, packet: &Packet, network: NetworkDecision) -> Decision {
        let by_network = |passed, network| Decision { passed, by: By::Network(network) };
        let Some(pod) = pod.filter(|_| network != NetworkDecision::Exempt) else { return by_network(None, network) };
        let passed = match self.first(Tier::Admin, end, pod, packet) {
            Some((rule, Action::Pass)) => Some(rule),
            Some((rule, action)) => return Decision { passed: None, by: By::Rule(rule, action) },
            None => None,
        };
        // A pod that is isolated has had its last word.
        if network != NetworkDecision::Open {
            return by_network(passed, network);
        }
        match self.first(Tier::Baseline, end, pod, packet) {
            Some((rule, action)) => Decision { passed, by: By::Rule(rule, action) },
            None => by_network(passed, network),
        }
    }

    /// The first rule of a tier that fits.
    fn first(&self, tier: Tier, end: Direction, pod: &Pod, packet: &Packet) -> Option<(RuleRef, Action)> {
        let mut policies: Vec<&Policy> = self.policies.iter().filter(|policy| policy.tier() == tier).collect();
        policies.sort_by_key(|policy| policy.order());
        policies.into_iter().find_map(|policy| self.first_of(policy, end, pod, packet))
    }

    fn first_of(&self, policy: &Policy, end: Direction, pod: &Pod, packet: &Packet) -> Option<(RuleRef, Action)> {
        let Subject { namespaces, pods } = &policy.spec.subject;
        let subject = rule::is_among(self, namespaces.as_ref(), pods.as_ref(), pod);
        if !subject.fits {
            return None;
        }
        let readable = subject.valid && policy.is_of_a_tier() && policy.has_priority();
        let found = rules(&policy.spec, end).iter().enumerate();
        let mut found =
            found.filter_map(|(index, rule)| Some((index, self.effect(policy.kind, rule, end, readable, packet)?)));
        let (index, action) = found.next()?;
        Some((RuleRef { kind: policy.kind, name: policy.name().to_owned(), index }, action))
    }

    /// What a rule does with a packet, if it fits. `readable` says that its policy could be read.
    fn effect(&self, kind: Kind, rule: &Rule, end: Direction, readable: bool, packet: &Packet) -> Option<Action> {
        let (list, address) = match end {
            Direction::Ingress => (&rule.from, packet.source),
            Direction::Egress => (&rule.to, packet.destination),
        };
        let list = list.as_deref().unwrap_or_default();
        let peers = rule::peers(self, list, end == Direction::Ingress, address);
        let ports = rule::ports(self, kind, rule, list, packet);
        let readable = readable && peers.valid && ports.valid;
        let fits = peers.fits && ports.fits;
        match (rule.action.as_str(), kind) {
            ("Allow", Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy)
            | ("Accept", Kind::ClusterNetworkPolicy) => (readable && fits).then_some(Action::Allow),
            // v1alpha1 has nothing to pass to after the last tier.
            ("Pass", Kind::AdminNetworkPolicy | Kind::ClusterNetworkPolicy) if readable => fits.then_some(Action::Pass),
            _ if !peers.valid => Some(Action::Deny),
            _ => (peers.fits && (ports.fits || !ports.valid)).then_some(Action::Deny),
        }
    }
}

impl Policy {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// What the kind or `spec.tier` says; one that cannot be read is asked first.
    fn tier(&self) -> Tier {
        let is_last = self.kind == Kind::ClusterNetworkPolicy && self.spec.tier.as_deref() == Some("Baseline");
        if is_last || self.kind == Kind::BaselineAdminNetworkPolicy { Tier::Baseline } else { Tier::Admin }
    }

    fn is_of_a_tier(&self) -> bool {
        self.kind != Kind::ClusterNetworkPolicy || matches!(self.spec.tier.as_deref(), Some("Admin" | "Baseline"))
    }

    /// What the API has by way of `spec.priority`, if it can be read.
    fn priority(&self) -> Option<i32> {
        self.spec.priority.filter(|priority| (0..=LAST).contains(priority))
    }

    /// Its priority can be read, or its kind has none.
    fn has_priority(&self) -> bool {
        self.kind == Kind::BaselineAdminNetworkPolicy || self.priority().is_some()
    }

    /// Its place within its tier. Without a creationTimestamp it is the oldest.
    fn order(&self) -> (bool, Option<i32>, i64, Kind, &str) {
        let last = self.kind == Kind::BaselineAdminNetworkPolicy;
        let created = self.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        (last, self.priority().filter(|_| !last), created, self.kind, self.name())
    }
}

fn rules(spec: &Spec, end: Direction) -> &[Rule] {
    match end {
        Direction::Ingress => spec.ingress.as_deref().unwrap_or_default(),
        Direction::Egress => spec.egress.as_deref().unwrap_or_default(),
    }
}
