//! What the policies say of a pod's traffic, from the snapshot alone: isolated or not, by which policies, and which rule lets it pass.
//!
//! ```text
//! Query -[ends]-> addresses of both ends -[judge]-> for each pair: egress of the source, ingress of the destination -> Answer
//! ```
//!
//! It reads facts and selections, as the translation does, and no rows: so it can be held against what OVN makes of the rows. Work grows with
//! the policies of one namespace and with the admin policies, and lists are bounded. Must not: change anything, or record what it reads.

mod admin;
pub mod answer;
mod ends;
mod judge;
mod microflow;
pub mod query;
mod traffic;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovsdb::Str;

use crate::Config;
use crate::facts::{AdminKind, PodFact};
use crate::snapshot::Snapshot;
use crate::view::View;

pub use answer::Answer;
use answer::{Decision, Direction, Enforcer, Isolation, Overview, Path, Verdict};
use ends::{Address, Ends, Party, Role};
use judge::{Asked, Judge, Side};
pub use query::Query;
use query::{End, Port};

/// Most problems of policies that are told.
const PROBLEMS: usize = 10;

/// Why a question has no answer, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such pod.
    #[error("there is no pod {pod}; pods of namespace {namespace}: {others}")]
    #[allow(missing_docs, reason = "the text says it")]
    UnknownPod { pod: String, namespace: String, others: String },
    /// There is no such node.
    #[error("there is no node {node}; nodes: {others}")]
    #[allow(missing_docs, reason = "the text says it")]
    UnknownNode { node: String, others: String },
    /// The pod has no logical port.
    #[error("pod {pod} has no network: {why}")]
    #[allow(missing_docs, reason = "the text says it")]
    NoPort { pod: String, why: String },
    /// A node has not told its addresses.
    #[error("{end} has no addresses yet; `ovenbird status` says what it waits for")]
    #[allow(missing_docs, reason = "the text says it")]
    NoAddresses { end: String },
    /// One end has IPv4 only, the other IPv6 only.
    #[error("{source_name} and {destination} have no family of addresses in common")]
    #[allow(missing_docs, reason = "the text says it")]
    NoFamily { source_name: String, destination: String },
    /// Policies are asked after load balancing.
    #[error(
        "{address} is Service {service}: policies see the pods behind it; ask for one of them (`kubectl get endpointslices`)"
    )]
    #[allow(missing_docs, reason = "the text says it")]
    Service { address: IpAddr, service: String },
    /// The destination has no port of that name.
    #[error("{end} has no {port}; named ports: {others}")]
    #[allow(missing_docs, reason = "the text says it")]
    UnknownPort { end: String, port: String, others: String },
    /// A pod was given for both ends.
    #[error("from and to are both given; the pod itself is one of the ends")]
    BothEnds,
}

/// The answer to a question.
///
/// # Errors
/// When it is about something that is not there.
pub(crate) fn check(config: &Config, snapshot: &Snapshot, view: &View<'_>, query: &Query) -> Result<Answer, Refusal> {
    let ends = Ends { view, snapshot };
    let judge = |asked| Judge { config, snapshot, asked };
    let (from, to) = match (&query.from, &query.to) {
        (Some(_), Some(_)) => return Err(Refusal::BothEnds),
        (None, None) => return overview(&ends, &judge(Asked::Anything), query).map(Answer::Overview),
        (Some(from), None) => (from, &End::Pod(query.pod.clone())),
        (None, Some(to)) => (&End::Pod(query.pod.clone()), to),
    };
    let (source, destination) = (ends.find(from, Role::Source)?, ends.find(to, Role::Destination)?);
    let asked = asked(query.port.as_ref(), &destination)?;
    decide(&ends, &judge(asked), source, destination, query).map(Answer::Decision)
}

/// Replaces a name by what the destination means by it.
fn asked(port: Option<&Port>, destination: &Party<'_>) -> Result<Asked, Refusal> {
    Ok(match port {
        None => Asked::Anything,
        Some(Port::Icmp) => Asked::Icmp,
        Some(Port::Number(protocol, number)) => Asked::Port(*protocol, *number),
        Some(Port::Named(protocol, name)) => {
            let pod = destination.addresses.iter().find_map(|address| address.pod);
            let number = pod.and_then(|pod| pod.number(*protocol, name));
            let named = pod.into_iter().flat_map(|pod| &pod.ports);
            let named: Vec<String> = named.map(|p| format!("{}/{}", p.protocol.name(), p.name)).collect();
            let others = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
            let (end, port) = (destination.name.clone(), format!("{}/{name}", protocol.name()));
            Asked::Port(*protocol, number.ok_or(Refusal::UnknownPort { end, port, others })?)
        }
    })
}

fn decide(
    ends: &Ends<'_>,
    judge: &Judge<'_>,
    source: Party<'_>,
    destination: Party<'_>,
    query: &Query,
) -> Result<Decision, Refusal> {
    let mut paths = Vec::new();
    for from in &source.addresses {
        for to in destination.addresses.iter().filter(|to| to.ip.is_ipv4() == from.ip.is_ipv4()) {
            paths.push(path(ends, judge, from, to));
        }
    }
    let verdict = match paths.first().map(|path| path.verdict) {
        None => {
            let (source_name, destination) = (source.name, destination.name);
            return Err(Refusal::NoFamily { source_name, destination });
        }
        Some(first) if paths.iter().all(|path| path.verdict == first) => first,
        Some(_) => Verdict::Partly,
    };
    let mut notes = [&source.notes[..], &destination.notes].concat();
    let [from, to] = [&source, &destination].map(|party| party.addresses.first().and_then(|address| address.pod));
    let sides = [(from, Direction::Egress), (to, Direction::Ingress)];
    let sides = sides.into_iter().filter_map(|(pod, direction)| Some((pod?, direction)));
    notes.extend(policy_notes(judge, &sides.collect::<Vec<_>>()));
    notes.dedup();
    let port = query.port.as_ref().map(ToString::to_string);
    let (source, destination) = (source.name, destination.name);
    Ok(Decision { verdict, source, destination, port, paths, notes, enforced_by: Enforcer::default() })
}

/// From one address to another.
fn path(ends: &Ends<'_>, judge: &Judge<'_>, from: &Address<'_>, to: &Address<'_>) -> Path {
    let side = |direction, pod, other| judge.judge(Side { direction, pod, other, target: to.pod });
    let egress = from.pod.map(|pod| side(Direction::Egress, pod, to));
    let ingress = to.pod.map(|pod| side(Direction::Ingress, pod, from));
    let asked = judge.asked.traffic();
    let mut passes = asked.clone();
    for (_, some) in egress.iter().chain(&ingress) {
        passes = passes.and(some);
    }
    let verdict = match (passes.is_nothing(), passes == asked) {
        (true, _) => Verdict::Denied,
        (false, true) => Verdict::Allowed,
        (false, false) => Verdict::Partly,
    };
    let texts = match judge.asked {
        Asked::Icmp if !passes.is_nothing() => vec!["icmp".to_owned()],
        _ => words::traffic(&passes),
    };
    Path {
        source: from.ip,
        destination: to.ip,
        verdict,
        passes: texts,
        egress: egress.map(|(judgement, _)| judgement),
        ingress: ingress.map(|(judgement, _)| judgement),
        microflow: microflow::of(ends.snapshot, from, to, judge.asked),
    }
}

/// All that isolates a pod, and all rules of admin policies about it.
fn overview(ends: &Ends<'_>, judge: &Judge<'_>, query: &Query) -> Result<Overview, Refusal> {
    let fact = ends.fact(&query.pod)?;
    let (pod, node) = (fact.key.to_string(), fact.node.as_ref().map(ToString::to_string));
    let nothing = || [Isolation::default(), Isolation::default()];
    if let (true, Some(on)) = (fact.host_network, &fact.node) {
        let ([ingress, egress], notes) = (nothing(), vec![ends::on_host(fact, on)]);
        return Ok(Overview { pod, node, addresses: Vec::new(), ingress, egress, notes });
    }
    let (addresses, mut notes) = match ends.pod(&query.pod, Role::Source) {
        Ok(party) => (party.addresses.iter().map(|address| address.ip).collect(), Vec::new()),
        Err(refusal) => (Vec::new(), vec![refusal.to_string()]),
    };
    let directions = [Direction::Ingress, Direction::Egress];
    let [ingress, egress] = directions.map(|direction| judge.isolation(fact, direction));
    notes.extend(policy_notes(judge, &directions.map(|direction| (fact, direction))));
    Ok(Overview { pod, node, addresses, ingress, egress, notes })
}

/// What a reader should know of the policies that are asked: what cannot be read of them, and what is not in effect.
fn policy_notes(judge: &Judge<'_>, sides: &[(&PodFact, Direction)]) -> Vec<String> {
    if !judge.config.network_policy() {
        return vec!["policies are switched off (--enable-network-policy=false)".to_owned()];
    }
    let mut faulty = BTreeMap::new();
    for (pod, direction) in sides {
        for policy in judge.isolating(pod, *direction) {
            faulty.insert((None, &policy.key), (&policy.problems, "it lets nothing pass"));
        }
        for policy in judge.admin_of(pod) {
            let (kind, name) = &policy.key;
            faulty.insert(
                (Some(*kind), name),
                (&policy.problems, "it opens nothing, and what denies or passes denies more"),
            );
        }
    }
    let named = |(kind, name): &(Option<AdminKind>, &Str)| match kind {
        Some(kind) => format!("{} {name}", kind.as_str()),
        None => name.to_string(),
    };
    let problems = faulty.iter().flat_map(|(key, (problems, so))| problems.iter().map(move |p| (key, p, so)));
    let text = problems.map(|(key, p, so)| format!("{}: {}: {}; {so}", named(key), p.field, p.message));
    let placed = |(kind, name): &(Option<AdminKind>, &Str)| {
        kind.is_none_or(|kind| judge.snapshot.policies().place(&(kind, (*name).clone())).is_some())
    };
    let without = faulty.keys().filter(|key| !placed(key));
    let without = without.map(|key| format!("{} is not in effect: OVN has no priorities left for it", named(key)));
    text.take(PROBLEMS).chain(without.take(PROBLEMS)).collect()
}
