//! What the policies of a pod say of traffic between it and one address.
//!
//! ```text
//! asked -[Admin tier]-> NetworkPolicies that isolate the pod -> their rules -> does the peer fit? -> which ports? -> union
//!                    `-> none isolates it: -[Baseline tier]-> what no rule decides passes
//! ```
//!
//! Who is at the other end is known, so what is left to judge is a set of protocols and ports: each tier takes away what it decides (`admin`).
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
use crate::facts::{self, NetworkPolicyFact, Numbers, Peers, PodFact, PortMatch, Tier};
use crate::selection::{LabelSelector, Selection};
use crate::snapshot::Snapshot;

/// Most policies, and rules of each kind, that are told.
pub(super) const TOLD: usize = 100;

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
    /// All that is asked for.
    pub fn traffic(self) -> Traffic {
        match self {
            Asked::Anything => Traffic::everything(),
            Asked::Icmp => Traffic::without_ports(),
            Asked::Port(protocol, number) => Traffic::port(protocol, number),
        }
    }
}

impl Judge<'_> {
    /// What the policies of a side's pod say, and what they let pass of what is asked for.
    pub fn judge(&self, side: Side<'_>) -> (Judgement, Traffic) {
        let asked = self.asked.traffic();
        let (policies, admin) = (self.isolating(side.pod, side.direction), self.admin(side.pod));
        let mut judgement = Judgement {
            pod: side.pod.key.to_string(),
            state: State::Open,
            admin: Vec::new(),
            isolated_by: Vec::new(),
            rules: Vec::new(),
            others: Vec::new(),
            undecided: Vec::new(),
            left_out: 0,
        };
        if let Some(state) = self.exemption(side).filter(|_| !policies.is_empty() || !admin.is_empty()) {
            judgement.state = state;
            return (judgement, asked);
        }
        let peer = self.selections(side.other.pod);
        let first = self.tier(side, &peer, &admin, Tier::Admin, asked.clone(), &mut judgement);
        let passes: Traffic = if policies.is_empty() {
            let last = self.tier(side, &peer, &admin, Tier::Baseline, first.goes_on, &mut judgement);
            judgement.undecided = words::traffic(&last.goes_on);
            [first.allowed, last.allowed, last.goes_on].into_iter().collect()
        } else if first.goes_on.is_nothing() {
            first.allowed
        } else {
            let through = self.network(side, &peer, &policies, &first.goes_on, &mut judgement);
            [first.allowed, through].into_iter().collect()
        };
        judgement.state = match (passes.is_nothing(), passes == asked) {
            (true, _) => State::Denied,
            (false, false) => State::Partly,
            (false, true) if judgement.admin.is_empty() && policies.is_empty() => State::Open,
            (false, true) => State::Allowed,
        };
        (judgement, passes)
    }

    /// What NetworkPolicies that isolate the pod let pass of the traffic that gets to them.
    fn network(
        &self,
        side: Side<'_>,
        peer: &FxHashSet<&Selection>,
        policies: &[&NetworkPolicyFact],
        arrives: &Traffic,
        judgement: &mut Judgement,
    ) -> Traffic {
        let (isolated_by, left_out) = names(policies);
        judgement.isolated_by = isolated_by;
        judgement.left_out += left_out;
        let mut passes = Vec::new();
        for policy in policies {
            for (index, rule) in rules(policy, side.direction).iter().enumerate() {
                let told = |peers, ports| Rule {
                    policy: policy.key.to_string(),
                    direction: side.direction,
                    index,
                    peers,
                    ports,
                };
                let fitting = self.fitting(&rule.peers, side.other, peer);
                let of_rule = traffic(rule, side.target);
                let some = arrives.and(&of_rule);
                if fitting.is_empty() || some.is_nothing() {
                    let misses = if fitting.is_empty() { Miss::Peer } else { Miss::Port };
                    let rule = || told(words::peers(&rule.peers), words::ports(rule));
                    tell(&mut judgement.others, || Other { rule: rule(), misses }, &mut judgement.left_out);
                    continue;
                }
                tell(&mut judgement.rules, || told(fitting, words::traffic(&of_rule)), &mut judgement.left_out);
                passes.push(some);
            }
        }
        passes.into_iter().collect()
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
            let (peers, ports) = (words::peers(&rule.peers), words::ports(rule));
            let one = || Rule { policy: policy.key.to_string(), direction, index, peers, ports };
            tell(&mut told, one, &mut left_out);
        }
        let admin = self.admin_rules(pod, direction, &mut left_out);
        Isolation { isolated_by, rules: told, admin, left_out }
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
    pub fn fitting(&self, peers: &Peers, address: &Address<'_>, selections: &FxHashSet<&Selection>) -> Vec<String> {
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
    pub fn selections(&self, pod: Option<&PodFact>) -> FxHashSet<&Selection> {
        let selected = pod.into_iter().flat_map(|pod| self.snapshot.selections().of_pod(&pod.key));
        selected.map(|selected| &selected.selection).collect()
    }
}

/// Adds to a list, unless it is long.
pub(super) fn tell<T>(list: &mut Vec<T>, one: impl FnOnce() -> T, left_out: &mut usize) {
    if list.len() < TOLD {
        list.push(one());
    } else {
        *left_out += 1;
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

/// The traffic that a rule is about; a name means what the pod that the traffic goes to means by it.
pub(super) fn traffic(rule: &facts::Rule, target: Option<&PodFact>) -> Traffic {
    let Some(ports) = &rule.ports else { return Traffic::everything() };
    let range = |port: &PortMatch| match &port.numbers {
        Numbers::All => Some(traffic::all(port.protocol)),
        Numbers::Range(first, last) => Some((port.protocol, *first, *last)),
        Numbers::Named(name) => target?.number(port.protocol, name).map(|number| (port.protocol, number, number)),
    };
    ports.iter().filter_map(range).collect()
}
