//! What the policies of a pod say of traffic between it and one address.
//!
//! ```text
//! policies that isolate the pod -> their rules -> does the peer fit? -> which ports? -> union
//! ```
//!
//! Inputs: facts, and which selections the index has each pod in: what the rows are made of. Output: a judgement, and the traffic that passes.
//! Must not: read rows.

use ovenbird_api::Protocol;
use rustc_hash::FxHashSet;

use super::answer::{Direction, Isolation, Judgement, Miss, Other, Rule, State};
use super::ends::Address;
use super::traffic::{self, Traffic};
use super::words;
use crate::Config;
use crate::facts::{self, NetworkPolicyFact, Numbers, Peers, PodFact, PortMatch};
use crate::selection::{LabelSelector, Selection};
use crate::snapshot::Snapshot;

/// Most policies, and rules of each kind, that are told.
const TOLD: usize = 100;

/// What is asked for, with names replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whatever may be.
    Anything,
    /// What has no ports.
    Icmp,
    /// A destination port.
    Port(Protocol, u16),
}

/// Who judges.
pub(super) struct Judge<'a> {
    pub config: &'a Config,
    pub snapshot: &'a Snapshot,
    pub asked: Asked,
}

/// One end of a path, and the other.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub direction: Direction,
    /// Whose policies are asked.
    pub pod: &'a PodFact,
    /// The address at the other end.
    pub other: &'a Address<'a>,
    /// The pod that the traffic goes to, if it is one: port names are its own.
    pub target: Option<&'a PodFact>,
}

impl Asked {
    fn is_of(self, traffic: &Traffic) -> bool {
        match self {
            Asked::Anything => !traffic.is_nothing(),
            Asked::Icmp => traffic.is_everything(),
            Asked::Port(protocol, number) => !traffic.and(&Traffic::port(protocol, number)).is_nothing(),
        }
    }

    /// What of a set is asked for.
    pub fn of(self, traffic: &Traffic) -> Traffic {
        match self {
            Asked::Anything => traffic.clone(),
            Asked::Icmp if traffic.is_everything() => traffic.clone(),
            Asked::Icmp => Traffic::default(),
            Asked::Port(protocol, number) => traffic.and(&Traffic::port(protocol, number)),
        }
    }
}

impl Judge<'_> {
    /// What the policies of a side's pod say, and what they let pass.
    pub fn judge(&self, side: Side<'_>) -> (Judgement, Traffic) {
        let policies = self.isolating(side.pod, side.direction);
        let mut judgement = Judgement {
            pod: side.pod.key.to_string(),
            state: State::Open,
            isolated_by: Vec::new(),
            rules: Vec::new(),
            others: Vec::new(),
            left_out: 0,
        };
        if let Some(state) = self.exemption(side).filter(|_| !policies.is_empty()) {
            judgement.state = state;
            return (judgement, Traffic::everything());
        }
        (judgement.isolated_by, judgement.left_out) = names(&policies);
        if policies.is_empty() {
            return (judgement, Traffic::everything());
        }
        let peer = self.selections(side.other.pod);
        let mut passes = Vec::new();
        for policy in policies {
            for (index, rule) in rules(policy, side.direction).iter().enumerate() {
                passes.push(self.rule(side, &peer, policy, index, rule, &mut judgement));
            }
        }
        let passes: Traffic = passes.into_iter().collect();
        judgement.state = match (passes.is_everything(), passes.is_nothing()) {
            (_, true) => State::Denied,
            (false, false) if self.asked == Asked::Anything => State::Partly,
            _ => State::Allowed,
        };
        (judgement, passes)
    }

    /// Tells of one rule, and returns what it lets pass of what is asked for.
    fn rule(
        &self,
        side: Side<'_>,
        peer: &FxHashSet<&Selection>,
        policy: &NetworkPolicyFact,
        index: usize,
        rule: &facts::Rule,
        judgement: &mut Judgement,
    ) -> Traffic {
        let told =
            |peers, ports| Rule { policy: policy.key.to_string(), direction: side.direction, index, peers, ports };
        let fitting = self.fitting(&rule.peers, side.other, peer);
        let traffic = traffic(rule, side.target);
        if fitting.is_empty() || !self.asked.is_of(&traffic) {
            let misses = if fitting.is_empty() { Miss::Peer } else { Miss::Port };
            if judgement.others.len() < TOLD {
                let rule = told(words::peers(&rule.peers), words::ports(rule));
                judgement.others.push(Other { rule, misses });
            } else {
                judgement.left_out += 1;
            }
            return Traffic::default();
        }
        if judgement.rules.len() < TOLD {
            let texts = traffic.texts();
            let len = texts.len();
            judgement.rules.push(told(fitting, words::cut(texts.into_iter(), len)));
        } else {
            judgement.left_out += 1;
        }
        self.asked.of(&traffic)
    }

    /// Why no policy can stop the traffic, if that is so. What a pod sends to itself through a Service turns round before it is judged, and
    /// comes back from the address for that.
    fn exemption(&self, side: Side<'_>) -> Option<State> {
        let other = side.other;
        if other.pod.is_some_and(|pod| pod.key == side.pod.key) {
            return Some(State::Itself);
        }
        if side.direction == Direction::Egress {
            return None;
        }
        if other.ip == self.config.masquerade().hairpin(other.ip.is_ipv4()) {
            return Some(State::Itself);
        }
        (other.management_of.is_some() && other.management_of == side.pod.node.as_ref()).then_some(State::OwnNode)
    }

    /// All that isolates a pod in a direction.
    pub fn isolation(&self, pod: &PodFact, direction: Direction) -> Isolation {
        let policies = self.isolating(pod, direction);
        let (isolated_by, mut left_out) = names(&policies);
        let all = policies.iter().flat_map(|policy| {
            rules(policy, direction).iter().enumerate().map(move |(index, rule)| (policy, index, rule))
        });
        let mut told = Vec::new();
        for (policy, index, rule) in all {
            if told.len() == TOLD {
                left_out += 1;
                continue;
            }
            let (peers, ports) = (words::peers(&rule.peers), words::ports(rule));
            told.push(Rule { policy: policy.key.to_string(), direction, index, peers, ports });
        }
        Isolation { isolated_by, rules: told, left_out }
    }

    /// The policies that isolate a pod in a direction, by name.
    pub fn isolating(&self, pod: &PodFact, direction: Direction) -> Vec<&NetworkPolicyFact> {
        let selections = self.selections(Some(pod));
        let mut policies = self.snapshot.policies().network_in(pod.namespace());
        let isolates = |policy: &NetworkPolicyFact| match direction {
            Direction::Ingress => policy.ingress.is_some(),
            Direction::Egress => policy.egress.is_some(),
        };
        policies.retain(|policy| isolates(policy) && selections.contains(&policy.subject));
        policies
    }

    /// The peers that an address, whose pod is in these selections, is among; in words.
    fn fitting(&self, peers: &Peers, address: &Address<'_>, selections: &FxHashSet<&Selection>) -> Vec<String> {
        let Peers::Some { selections: wanted, blocks, nodes } = peers else { return words::peers(peers) };
        let pods = wanted.iter().filter(|one| selections.contains(one)).map(words::selection);
        let has = |selector: &&LabelSelector| {
            self.snapshot.addresses_of_nodes(std::slice::from_ref(*selector)).contains(&address.ip)
        };
        let hosts = nodes.iter().filter(has).map(words::nodes);
        let block = blocks.iter().find(|block| block.contains(&address.ip)).map(ToString::to_string);
        let all: Vec<String> = pods.chain(hosts).chain(block).collect();
        let len = all.len();
        words::cut(all.into_iter(), len)
    }

    /// The selections that a pod is in.
    fn selections(&self, pod: Option<&PodFact>) -> FxHashSet<&Selection> {
        let selected = pod.into_iter().flat_map(|pod| self.snapshot.selections().of_pod(&pod.key));
        selected.map(|selected| &selected.selection).collect()
    }
}

/// The first names, and how many are left out.
fn names(policies: &[&NetworkPolicyFact]) -> (Vec<String>, usize) {
    let told = policies.iter().take(TOLD).map(|policy| policy.key.to_string()).collect();
    (told, policies.len().saturating_sub(TOLD))
}

fn rules(policy: &NetworkPolicyFact, direction: Direction) -> &[facts::Rule] {
    match direction {
        Direction::Ingress => policy.ingress.as_deref().unwrap_or_default(),
        Direction::Egress => policy.egress.as_deref().unwrap_or_default(),
    }
}

/// What a rule lets pass to those whom it lets through; a name means what the pod that the traffic goes to means by it.
fn traffic(rule: &facts::Rule, target: Option<&PodFact>) -> Traffic {
    let Some(ports) = &rule.ports else { return Traffic::everything() };
    let range = |port: &PortMatch| match &port.numbers {
        Numbers::All => Some(traffic::all(port.protocol)),
        Numbers::Range(first, last) => Some((port.protocol, *first, *last)),
        Numbers::Named(name) => target?.number(port.protocol, name).map(|number| (port.protocol, number, number)),
    };
    ports.iter().filter_map(range).collect()
}
