//! The fact of an admin policy: AdminNetworkPolicy, BaselineAdminNetworkPolicy or ClusterNetworkPolicy.
//!
//! What cannot be used never opens anything: in a rule that allows it is left out, in one that denies it counts as everything, and one
//! that passes then denies, for after it something may allow. Source: network-policy-api, "fail closed". Must not: know which pods there are,
//! or its place among others.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as K8sSelector, ObjectMeta};
use ovenbird_api::{AclLogging, Protocol, annotation};
use ovsdb::Str;

use super::blocks::{Block, Blocks};
use super::rule::{Numbers, Peers, PortMatch, Rule, cut, port_number, told};
use super::{Annotated, annotated, created};
use crate::intern::Interner;
use crate::selection::{LabelSelector, Namespaces, Problem, Selection, Use};

mod wire;

pub use wire::*;

/// Largest `priority`.
const LARGEST_PRIORITY: u16 = 1000;

/// The kinds of admin policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminKind {
    /// v1alpha1, before NetworkPolicies.
    AdminNetworkPolicy,
    /// v1alpha2, before or after NetworkPolicies.
    ClusterNetworkPolicy,
    /// v1alpha1, after NetworkPolicies, and after all others.
    BaselineAdminNetworkPolicy,
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After them: for pods that none of them isolates.
    Baseline,
}

/// Kind and name.
pub type AdminKey = (AdminKind, Str);

/// An admin policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminPolicyFact {
    /// Kind and `metadata.name`.
    pub key: AdminKey,
    /// `metadata.creationTimestamp`, seconds since 1970; of two with one priority the older is asked first.
    pub created: i64,
    /// `metadata.generation`, for its conditions.
    pub generation: Option<i64>,
    /// `spec.tier`, or what the kind says.
    pub tier: Tier,
    /// `spec.priority`; the lower is asked first.
    pub priority: u16,
    /// `spec.subject`.
    pub subject: Selection,
    /// `spec.ingress`, at their index.
    pub ingress: Box<[AdminRule]>,
    /// `spec.egress`, at their index.
    pub egress: Box<[AdminRule]>,
    /// Annotation `acl-logging`.
    pub acl_logging: Annotated<AclLogging>,
    /// What was left out.
    pub problems: Box<[Problem]>,
}

/// A rule, and what becomes of traffic that fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminRule {
    /// `action`.
    pub action: AdminAction,
    /// What fits.
    pub rule: Rule,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// Let through.
    Allow,
    /// Stopped.
    Deny,
    /// Left to what comes after this tier.
    Pass,
}

impl AdminKind {
    /// All there are.
    pub const ALL: [AdminKind; 3] =
        [AdminKind::AdminNetworkPolicy, AdminKind::BaselineAdminNetworkPolicy, AdminKind::ClusterNetworkPolicy];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            AdminKind::AdminNetworkPolicy => "AdminNetworkPolicy",
            AdminKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            AdminKind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }

    /// As names of ACLs begin.
    pub const fn short(self) -> &'static str {
        match self {
            AdminKind::AdminNetworkPolicy => "ANP",
            AdminKind::ClusterNetworkPolicy => "CNP",
            AdminKind::BaselineAdminNetworkPolicy => "BANP",
        }
    }
}

impl AdminPolicyFact {
    /// The fact of an admin policy from its kind, `metadata` (name, creationTimestamp, generation, annotations) and `spec`.
    pub fn new(kind: AdminKind, meta: &ObjectMeta, spec: &AdminPolicySpec, interner: &mut Interner) -> AdminPolicyFact {
        let mut reader = Reader { interner, problems: Vec::new(), kind, tier: Tier::Admin, sound: true };
        let subject = reader.subject(&spec.subject);
        reader.tier = match (kind, spec.tier.as_deref()) {
            (AdminKind::AdminNetworkPolicy, _) | (AdminKind::ClusterNetworkPolicy, Some("Admin")) => Tier::Admin,
            (AdminKind::BaselineAdminNetworkPolicy, _) | (_, Some("Baseline")) => Tier::Baseline,
            (AdminKind::ClusterNetworkPolicy, other) => {
                let text = format!("{:?} is no tier; use Admin or Baseline", cut(other.unwrap_or_default()));
                reader.problem("spec.tier", text);
                Tier::Admin
            }
        };
        reader.sound = reader.problems.is_empty();
        let priority = match (kind, spec.priority) {
            (AdminKind::BaselineAdminNetworkPolicy, _) => LARGEST_PRIORITY,
            (_, priority) => {
                let known = priority.and_then(|p| u16::try_from(p).ok()).filter(|p| *p <= LARGEST_PRIORITY);
                known.unwrap_or_else(|| {
                    reader.problem("spec.priority", format!("is no number from 0 to {LARGEST_PRIORITY}"));
                    LARGEST_PRIORITY
                })
            }
        };
        let ingress = reader.rules("spec.ingress", "from", spec.ingress.as_deref());
        let egress = reader.rules("spec.egress", "to", spec.egress.as_deref());
        AdminPolicyFact {
            key: (kind, meta.name.as_deref().unwrap_or_default().into()),
            created: created(meta),
            generation: meta.generation,
            tier: reader.tier,
            priority,
            subject,
            ingress,
            egress,
            acl_logging: annotated(meta, annotation::ACL_LOGGING, AclLogging::parse),
            problems: told(reader.problems),
        }
    }

    /// The selections that the policy needs, each with what for; sorted.
    pub(crate) fn uses(&self) -> Vec<(Selection, Use)> {
        let mut uses = vec![(self.subject.clone(), Use::Subject)];
        self.ingress.iter().for_each(|rule| rule.rule.add_uses(&self.subject, true, &mut uses));
        self.egress.iter().for_each(|rule| rule.rule.add_uses(&self.subject, false, &mut uses));
        uses.sort_unstable();
        uses.dedup();
        uses
    }

    /// The order in which policies are asked: tier, priority, age, kind and name.
    pub(crate) fn order(&self) -> impl Ord + use<'_> {
        let last = self.key.0 == AdminKind::BaselineAdminNetworkPolicy;
        (self.tier, last, self.priority, self.created, &self.key)
    }
}

/// Reads one policy.
struct Reader<'a> {
    interner: &'a mut Interner,
    problems: Vec<Problem>,
    kind: AdminKind,
    tier: Tier,
    /// What concerns all rules could be read.
    sound: bool,
}

impl Reader<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), message: message.into() });
    }

    fn selector(&mut self, object: &K8sSelector, field: &str) -> LabelSelector {
        LabelSelector::from_k8s(object, field, self.interner, &mut self.problems)
    }

    /// What can be read of the subject: with a part left out it is wider.
    fn subject(&mut self, peer: &PodsPeer) -> Selection {
        match (&peer.namespaces, &peer.pods) {
            (None, Some(_)) | (Some(_), None) => {}
            _ => {
                self.problem("spec.subject", "does not say which pods; give it either namespaces or pods");
                return Selection::everything();
            }
        }
        self.pods("spec.subject", peer).unwrap_or_else(Selection::everything)
    }

    fn pods(&mut self, field: &str, peer: &PodsPeer) -> Option<Selection> {
        if let Some(pods) = &peer.pods {
            let namespaces = self.selector(&pods.namespace_selector, &format!("{field}.pods.namespaceSelector"));
            let pods = self.selector(&pods.pod_selector, &format!("{field}.pods.podSelector"));
            return Some(Selection { namespaces: Namespaces::Matching(namespaces), pods });
        }
        let namespaces = self.selector(peer.namespaces.as_ref()?, &format!("{field}.namespaces"));
        Some(Selection { namespaces: Namespaces::Matching(namespaces), pods: LabelSelector::default() })
    }

    fn rules(&mut self, field: &str, peers_field: &str, rules: Option<&[AdminRuleSpec]>) -> Box<[AdminRule]> {
        let rules = rules.unwrap_or_default().iter().enumerate();
        rules.map(|(index, rule)| self.rule(&format!("{field}[{index}]"), peers_field, rule)).collect()
    }

    fn rule(&mut self, field: &str, peers_field: &str, spec: &AdminRuleSpec) -> AdminRule {
        let action = self.action(field, &spec.action);
        let before = self.problems.len();
        let peers = if peers_field == "from" { &spec.from } else { &spec.to };
        let peers = self.peers(&format!("{field}.{peers_field}"), peers.as_deref().unwrap_or_default());
        let between = self.problems.len();
        let ports = self.ports(field, spec);
        let (peers_sound, ports_sound) = (between == before, self.problems.len() == between);
        let sound = self.sound && peers_sound && ports_sound;
        let nothing = Peers::Some { selections: Box::default(), blocks: Box::default(), nodes: Box::default() };
        match action {
            AdminAction::Allow if !self.sound => AdminRule { action, rule: Rule { peers: nothing, ports } },
            // After the last tier there is what is without any policy.
            AdminAction::Pass if sound && self.tier == Tier::Baseline => {
                AdminRule { action: AdminAction::Allow, rule: Rule { peers, ports } }
            }
            AdminAction::Pass if sound => AdminRule { action, rule: Rule { peers, ports } },
            AdminAction::Allow => AdminRule { action, rule: Rule { peers, ports } },
            AdminAction::Pass | AdminAction::Deny => {
                let peers = if peers_sound { peers } else { Peers::Anybody };
                AdminRule { action: AdminAction::Deny, rule: Rule { peers, ports: ports.filter(|_| ports_sound) } }
            }
        }
    }

    fn action(&mut self, field: &str, text: &str) -> AdminAction {
        let passes = self.kind != AdminKind::BaselineAdminNetworkPolicy;
        match text {
            "Allow" | "Accept" => AdminAction::Allow,
            "Deny" => AdminAction::Deny,
            "Pass" if passes => AdminAction::Pass,
            other => {
                let actions = if passes { "Allow, Deny or Pass" } else { "Allow or Deny" };
                self.problem(format!("{field}.action"), format!("{:?} is no action here; use {actions}", cut(other)));
                AdminAction::Deny
            }
        }
    }

    fn peers(&mut self, field: &str, peers: &[AdminPeer]) -> Peers {
        if peers.is_empty() {
            self.problem(field, "is empty; name at least one peer");
        }
        let (mut selections, mut nodes, mut blocks) = (Vec::new(), Vec::new(), Blocks::default());
        for (index, peer) in peers.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let before = self.problems.len();
            let AdminPeer { pods: PodsPeer { namespaces, pods }, nodes: by_node, networks, domain_names } = peer;
            let others = [by_node.is_some(), networks.is_some(), domain_names.is_some()];
            let given = [namespaces.is_some(), pods.is_some()].into_iter().chain(others);
            if given.filter(|given| *given).count() > 1 {
                self.problem(field, "names several kinds of peers; make a peer of each");
            } else if let Some(selection) = self.pods(&field, &peer.pods) {
                selections.extend((self.problems.len() == before).then_some(selection));
            } else if let Some(selector) = &peer.nodes {
                let selector = self.selector(selector, &format!("{field}.nodes"));
                nodes.extend((self.problems.len() == before).then_some(selector));
            } else if let Some(networks) = &peer.networks {
                if networks.is_empty() {
                    self.problem(format!("{field}.networks"), "is empty; name at least one network");
                }
                networks
                    .iter()
                    .enumerate()
                    .for_each(|(i, text)| self.network(&format!("{field}.networks[{i}]"), text, &mut blocks));
            } else if peer.domain_names.is_some() {
                self.problem(format!("{field}.domainNames"), "names of domains are not supported; use networks");
            } else {
                self.problem(field, "names nobody; give it namespaces, pods, nodes or networks");
            }
        }
        selections.sort_unstable();
        selections.dedup();
        nodes.sort_unstable();
        nodes.dedup();
        Peers::Some { selections: selections.into(), blocks: blocks.into_nets(), nodes: nodes.into() }
    }

    fn network(&mut self, field: &str, text: &str, blocks: &mut Blocks) {
        let Ok(net) = text.parse::<IpNet>() else {
            return self.problem(field, format!("{:?} is no CIDR; write e.g. 10.0.0.0/8", cut(text)));
        };
        if let Err(error) = blocks.add(&Block { cidr: net.trunc(), except: Vec::new() }) {
            self.problem(field, error.to_string());
        }
    }

    fn ports(&mut self, field: &str, spec: &AdminRuleSpec) -> Option<Box<[PortMatch]>> {
        let mut all: Vec<PortMatch> = Vec::new();
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let field = format!("{field}.ports[{index}]");
            match port {
                AdminPort { port_number: Some(one), named_port: None, port_range: None } => {
                    all.extend(self.range(&field, one.protocol.as_deref(), one.port, one.port));
                }
                AdminPort { port_number: None, named_port: None, port_range: Some(range) } => {
                    all.extend(self.range(&field, range.protocol.as_deref(), range.start, range.end));
                }
                AdminPort { port_number: None, named_port: Some(name), port_range: None } => {
                    self.named(&format!("{field}.namedPort"), name, &mut all);
                }
                _ => self.problem(field, "does not say which port; give it one of portNumber, portRange and namedPort"),
            }
        }
        for (index, protocol) in spec.protocols.iter().flatten().enumerate() {
            let field = format!("{field}.protocols[{index}]");
            let AdminProtocol { tcp, udp, sctp, destination_named_port } = protocol;
            match (tcp, udp, sctp, destination_named_port) {
                (Some(ports), None, None, None) => all.extend(self.transport(&field, Protocol::Tcp, ports)),
                (None, Some(ports), None, None) => all.extend(self.transport(&field, Protocol::Udp, ports)),
                (None, None, Some(ports), None) => all.extend(self.transport(&field, Protocol::Sctp, ports)),
                (None, None, None, Some(name)) => {
                    self.named(&format!("{field}.destinationNamedPort"), name, &mut all);
                }
                _ => self.problem(
                    field,
                    "does not say which protocol; give it one of tcp, udp, sctp and destinationNamedPort",
                ),
            }
        }
        let any = spec.ports.as_ref().is_none_or(Vec::is_empty) && spec.protocols.as_ref().is_none_or(Vec::is_empty);
        all.sort_unstable();
        all.dedup();
        (!any).then(|| all.into())
    }

    /// A name without a protocol means the port of whatever protocol.
    fn named(&mut self, field: &str, name: &str, all: &mut Vec<PortMatch>) {
        if name.is_empty() {
            return self.problem(field, "is an empty name; write the name of a container's port");
        }
        let name = self.interner.intern(name);
        all.extend(Protocol::ALL.map(|protocol| PortMatch { protocol, numbers: Numbers::Named(name.clone()) }));
    }

    fn transport(&mut self, field: &str, protocol: Protocol, transport: &Transport) -> Option<PortMatch> {
        let text = Some(protocol.as_str());
        match &transport.destination_port {
            None => Some(PortMatch { protocol, numbers: Numbers::All }),
            Some(DestinationPort { number: Some(number), range: None }) => self.range(field, text, *number, *number),
            Some(DestinationPort { number: None, range: Some(range) }) => {
                self.range(field, text, range.start, range.end)
            }
            Some(_) => {
                self.problem(format!("{field}.destinationPort"), "says no port, or two; give it number or range");
                None
            }
        }
    }

    fn range(&mut self, field: &str, protocol: Option<&str>, first: i32, last: i32) -> Option<PortMatch> {
        let Some(protocol) = Protocol::parse(protocol) else {
            let text = cut(protocol.unwrap_or_default());
            self.problem(field, format!("{text:?} is no protocol; use TCP, UDP or SCTP"));
            return None;
        };
        match (port_number(first), port_number(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some(PortMatch { protocol, numbers: Numbers::Range(first, last) })
            }
            _ => {
                self.problem(field, format!("{first} to {last} are no ports; use 1 to 65535, the lower first"));
                None
            }
        }
    }
}
