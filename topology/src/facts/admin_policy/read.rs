//! Reads an admin policy from what the API has.
//!
//! ```text
//! cannot be read                  Allow fits    Deny                      Pass
//! a peer, the list of peers       nothing       everything                denies everything
//! a port, the list of ports       nothing       all ports of its peers    denies all ports of its peers
//! subject, tier, priority         nothing       what it says              denies what it says
//! action                          (denies what it says)
//! ```
//!
//! The first line is the API's own ("fail closed"), the others follow it. A field that the API does not have there cannot be read: `nodes` and
//! `networks` of ingress, the ports of the other version, a port's name beside peers that have no names. Inputs: wire types. Outputs: parts of
//! the fact, and problems. Must not: order policies.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as K8sSelector;
use ovenbird_api::Protocol;

use super::wire::{AdminPeer, AdminPort, AdminProtocol, AdminRuleSpec, DestinationPort, PodsPeer, Transport};
use super::{AdminAction, AdminKind, AdminRule, Tier};
use crate::facts::blocks::{Block, Blocks};
use crate::facts::rule::{Numbers, Peers, PortMatch, Rule, cut, port_number};
use crate::intern::Interner;
use crate::selection::{LabelSelector, Namespaces, Problem, Selection};

/// Largest `priority`.
const LARGEST_PRIORITY: u16 = 1000;
/// Longest `name` of a rule, in characters.
const LONGEST_NAME: usize = 100;

/// What the API has for some rules only, and what it has instead.
const PODS_ONLY: &str = "is for egress only; what comes in is named by namespaces or pods";

/// Reads one policy: subject, tier and priority first.
pub(super) struct Reader<'a> {
    interner: &'a mut Interner,
    problems: Vec<Problem>,
    kind: AdminKind,
    tier: Tier,
    /// What concerns all rules could be read.
    sound: bool,
}

/// Ports of a rule: `None` for all traffic.
type Ports = Option<Box<[PortMatch]>>;

impl<'a> Reader<'a> {
    pub fn new(kind: AdminKind, interner: &'a mut Interner) -> Reader<'a> {
        Reader { interner, problems: Vec::new(), kind, tier: Tier::Admin, sound: true }
    }

    /// All that could not be read.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), message: message.into() });
    }

    /// What `read` yields, if it could read all of it.
    fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let before = self.problems.len();
        let value = read(self);
        (self.problems.len() == before).then_some(value)
    }

    /// What can be read of the subject: with a part left out it is wider.
    pub fn subject(&mut self, peer: &PodsPeer) -> Selection {
        if peer.namespaces.is_some() == peer.pods.is_some() {
            self.problem("spec.subject", "does not say which pods; give it either namespaces or pods");
            self.sound = false;
            return Selection::everything();
        }
        let before = self.problems.len();
        let selection = self.pods("spec.subject", peer).unwrap_or_else(Selection::everything);
        self.sound &= self.problems.len() == before;
        selection
    }

    /// What the kind or `spec.tier` says; one that cannot be read is the first.
    pub fn tier(&mut self, text: Option<&str>) -> Tier {
        self.tier = match (self.kind, text) {
            (AdminKind::AdminNetworkPolicy, _) | (AdminKind::ClusterNetworkPolicy, Some("Admin")) => Tier::Admin,
            (AdminKind::BaselineAdminNetworkPolicy, _) | (_, Some("Baseline")) => Tier::Baseline,
            (AdminKind::ClusterNetworkPolicy, other) => {
                let text = format!("{:?} is no tier; use Admin or Baseline", cut(other.unwrap_or_default()));
                self.problem("spec.tier", text);
                self.sound = false;
                Tier::Admin
            }
        };
        self.tier
    }

    /// `None` when it cannot be read, or when the kind has none.
    pub fn priority(&mut self, number: Option<i32>) -> Option<u16> {
        if self.kind == AdminKind::BaselineAdminNetworkPolicy {
            return None;
        }
        let known = number.and_then(|p| u16::try_from(p).ok()).filter(|p| *p <= LARGEST_PRIORITY);
        if known.is_none() {
            let text =
                format!("is no number from 0 to {LARGEST_PRIORITY}; what the policy denies comes before all others");
            self.problem("spec.priority", text);
            self.sound = false;
        }
        known
    }

    /// `spec.ingress` or `spec.egress`, as `field` says.
    pub fn rules(&mut self, field: &str, rules: Option<&[AdminRuleSpec]>) -> Box<[AdminRule]> {
        let ingress = field.ends_with("ingress");
        let rules = rules.unwrap_or_default().iter().enumerate();
        rules.map(|(index, rule)| self.rule(&format!("{field}[{index}]"), ingress, rule)).collect()
    }

    fn rule(&mut self, field: &str, ingress: bool, spec: &AdminRuleSpec) -> AdminRule {
        let asked = self.action(field, &spec.action);
        let (peers_field, peers) = if ingress { ("from", &spec.from) } else { ("to", &spec.to) };
        let peers_field = format!("{field}.{peers_field}");
        let peers = peers.as_deref().unwrap_or_default();
        let named = !peers.iter().any(|peer| peer.nodes.is_some() || peer.networks.is_some());
        let peers = self.whole(|this| this.peers(&peers_field, ingress, peers));
        let ports = self.whole(|this| this.ports(field, named, spec));
        let nothing = Peers::Some { selections: Box::default(), blocks: Box::default(), nodes: Box::default() };
        let (action, rule) = match (asked, peers, ports) {
            (AdminAction::Allow, Some(peers), Some(ports)) if self.sound => (asked, Rule { peers, ports }),
            (AdminAction::Allow, ..) => (asked, Rule { peers: nothing, ports: None }),
            (AdminAction::Pass, Some(peers), Some(ports)) if self.sound => {
                // After the last tier there is what is without any policy.
                let last = self.tier == Tier::Baseline;
                (if last { AdminAction::Allow } else { asked }, Rule { peers, ports })
            }
            (_, None, _) => (AdminAction::Deny, Rule { peers: Peers::Anybody, ports: None }),
            (_, Some(peers), ports) => (AdminAction::Deny, Rule { peers, ports: ports.flatten() }),
        };
        let name = spec.name.as_deref().unwrap_or_default().chars().take(LONGEST_NAME).collect::<String>();
        AdminRule { name: (!name.is_empty()).then(|| name.as_str().into()), action, rule }
    }

    fn action(&mut self, field: &str, text: &str) -> AdminAction {
        let allow = if self.kind == AdminKind::ClusterNetworkPolicy { "Accept" } else { "Allow" };
        let passes = self.kind != AdminKind::BaselineAdminNetworkPolicy;
        match text {
            "Deny" => AdminAction::Deny,
            "Pass" if passes => AdminAction::Pass,
            _ if text == allow => AdminAction::Allow,
            _ => {
                let actions = if passes { format!("{allow}, Deny or Pass") } else { format!("{allow} or Deny") };
                self.problem(format!("{field}.action"), format!("{:?} is no action here; use {actions}", cut(text)));
                AdminAction::Deny
            }
        }
    }

    fn selector(&mut self, object: &K8sSelector, field: &str) -> LabelSelector {
        LabelSelector::from_k8s(object, field, self.interner, &mut self.problems)
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

    fn peers(&mut self, field: &str, ingress: bool, peers: &[AdminPeer]) -> Peers {
        if peers.is_empty() {
            self.problem(field, "is empty; name at least one peer");
        }
        let (mut selections, mut nodes, mut blocks) = (Vec::new(), Vec::new(), Blocks::default());
        for (index, peer) in peers.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let AdminPeer { pods: PodsPeer { namespaces, pods }, nodes: by_node, networks, domain_names } = peer;
            let others = [by_node.is_some(), networks.is_some(), domain_names.is_some()];
            let given = [namespaces.is_some(), pods.is_some()].into_iter().chain(others);
            match (by_node, networks, domain_names) {
                _ if given.filter(|given| *given).count() > 1 => {
                    self.problem(field, "names several kinds of peers; make a peer of each");
                }
                (Some(_), _, _) if ingress => self.problem(format!("{field}.nodes"), PODS_ONLY),
                (_, Some(_), _) if ingress => self.problem(format!("{field}.networks"), PODS_ONLY),
                (Some(selector), _, _) => nodes.push(self.selector(selector, &format!("{field}.nodes"))),
                (_, Some(networks), _) => self.networks(&format!("{field}.networks"), networks, &mut blocks),
                (_, _, Some(_)) => {
                    self.problem(format!("{field}.domainNames"), "names of domains are not supported; use networks");
                }
                (None, None, None) => match self.pods(&field, &peer.pods) {
                    Some(selection) => selections.push(selection),
                    None if ingress => self.problem(field, "names nobody; give it namespaces or pods"),
                    None => self.problem(field, "names nobody; give it namespaces, pods, nodes or networks"),
                },
            }
        }
        selections.sort_unstable();
        selections.dedup();
        nodes.sort_unstable();
        nodes.dedup();
        Peers::Some { selections: selections.into(), blocks: blocks.into_nets(), nodes: nodes.into() }
    }

    fn networks(&mut self, field: &str, texts: &[String], blocks: &mut Blocks) {
        if texts.is_empty() {
            self.problem(field, "is empty; name at least one network");
        }
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            match text.parse::<IpNet>() {
                Err(_) => self.problem(field, format!("{:?} is no CIDR; write e.g. 10.0.0.0/8", cut(text))),
                Ok(net) => {
                    if let Err(error) = blocks.add(&Block { cidr: net.trunc(), except: Vec::new() }) {
                        self.problem(field, error.to_string());
                    }
                }
            }
        }
    }

    /// The ports of a rule; `named` when all its peers may have names for them.
    fn ports(&mut self, field: &str, named: bool, spec: &AdminRuleSpec) -> Ports {
        let second = self.kind == AdminKind::ClusterNetworkPolicy;
        let (own, len, foreign) = if second {
            ("protocols", spec.protocols.as_ref().map(Vec::len), spec.ports.as_ref().map(|_| "ports"))
        } else {
            ("ports", spec.ports.as_ref().map(Vec::len), spec.protocols.as_ref().map(|_| "protocols"))
        };
        if let Some(foreign) = foreign {
            self.problem(format!("{field}.{foreign}"), format!("is of another version of the API; use {own}"));
        }
        let field = format!("{field}.{own}");
        if len? == 0 {
            self.problem(field, "is empty; leave it out for all traffic");
            return None;
        }
        let mut all: Vec<PortMatch> = Vec::new();
        for (index, port) in spec.ports.iter().flatten().enumerate().filter(|_| !second) {
            self.port(&format!("{field}[{index}]"), named, port, &mut all);
        }
        for (index, protocol) in spec.protocols.iter().flatten().enumerate().filter(|_| second) {
            self.protocol(&format!("{field}[{index}]"), named, protocol, &mut all);
        }
        all.sort_unstable();
        all.dedup();
        Some(all.into())
    }

    fn port(&mut self, field: &str, named: bool, port: &AdminPort, all: &mut Vec<PortMatch>) {
        match port {
            AdminPort { port_number: Some(one), named_port: None, port_range: None } => {
                all.extend(self.number(field, one.protocol.as_deref(), one.port));
            }
            AdminPort { port_number: None, named_port: None, port_range: Some(range) } => {
                all.extend(self.range(field, range.protocol.as_deref(), range.start, range.end));
            }
            AdminPort { port_number: None, named_port: Some(name), port_range: None } => {
                self.named(&format!("{field}.namedPort"), named, name, all);
            }
            _ => self.problem(field, "does not say which port; give it one of portNumber, portRange and namedPort"),
        }
    }

    fn protocol(&mut self, field: &str, named: bool, protocol: &AdminProtocol, all: &mut Vec<PortMatch>) {
        let AdminProtocol { tcp, udp, sctp, destination_named_port } = protocol;
        match (tcp, udp, sctp, destination_named_port) {
            (Some(ports), None, None, None) => all.extend(self.transport(field, Protocol::Tcp, ports)),
            (None, Some(ports), None, None) => all.extend(self.transport(field, Protocol::Udp, ports)),
            (None, None, Some(ports), None) => all.extend(self.transport(field, Protocol::Sctp, ports)),
            (None, None, None, Some(name)) => {
                self.named(&format!("{field}.destinationNamedPort"), named, name, all);
            }
            _ => self
                .problem(field, "does not say which protocol; give it one of tcp, udp, sctp and destinationNamedPort"),
        }
    }

    /// A name without a protocol means the port of whatever protocol.
    fn named(&mut self, field: &str, named: bool, name: &str, all: &mut Vec<PortMatch>) {
        if name.is_empty() {
            return self.problem(field, "is an empty name; write the name of a container's port");
        }
        if !named {
            return self.problem(field, "has no meaning to nodes and networks; give them a rule with numbers of ports");
        }
        let name = self.interner.intern(name);
        all.extend(Protocol::ALL.map(|protocol| PortMatch { protocol, numbers: Numbers::Named(name.clone()) }));
    }

    fn transport(&mut self, field: &str, protocol: Protocol, transport: &Transport) -> Option<PortMatch> {
        let text = Some(protocol.as_str());
        match &transport.destination_port {
            Some(DestinationPort { number: Some(number), range: None }) => self.number(field, text, *number),
            Some(DestinationPort { number: None, range: Some(range) }) => {
                self.range(field, text, range.start, range.end)
            }
            _ => {
                self.problem(format!("{field}.destinationPort"), "says no port, or two; give it number or range");
                None
            }
        }
    }

    fn number(&mut self, field: &str, protocol: Option<&str>, number: i32) -> Option<PortMatch> {
        let protocol = self.transport_protocol(field, protocol)?;
        let Some(number) = port_number(number) else {
            self.problem(field, format!("{number} is no port; use 1 to 65535"));
            return None;
        };
        Some(PortMatch { protocol, numbers: Numbers::Range(number, number) })
    }

    fn range(&mut self, field: &str, protocol: Option<&str>, first: i32, last: i32) -> Option<PortMatch> {
        let protocol = self.transport_protocol(field, protocol)?;
        match (port_number(first), port_number(last)) {
            (Some(first), Some(last)) if first < last => {
                Some(PortMatch { protocol, numbers: Numbers::Range(first, last) })
            }
            _ => {
                self.problem(field, format!("{first} to {last} is no range of ports; use 1 to 65535, the lower first"));
                None
            }
        }
    }

    fn transport_protocol(&mut self, field: &str, text: Option<&str>) -> Option<Protocol> {
        let protocol = Protocol::parse(text);
        if protocol.is_none() {
            let text = cut(text.unwrap_or_default());
            self.problem(field, format!("{text:?} is no protocol; use TCP, UDP or SCTP"));
        }
        protocol
    }
}
