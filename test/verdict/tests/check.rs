//! What `ovenbird check policy` answers agrees with the reference: on random clusters the verdict on every packet is the same, and so are the
//! policies and rules that it names.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;

use ovenbird_topology::Engine;
use ovenbird_topology::check::Query;
use ovenbird_topology::check::answer::{Action, AdminRule, Answer, Judgement, Path, State, Verdict};
use ovenbird_verdict::evaluate::Decision as NetworkDecision;
use ovenbird_verdict::evaluate::admin::{self as reference, By, Decision, RuleRef};
use ovenbird_verdict::generate::{self, Case, admin};
use ovenbird_verdict::{Cluster, Packet, Protocol, translate};
use proptest::prelude::*;
use serde_json::json;

/// A cluster, what answers about it, and what the reference says.
trait Judged {
    fn engine(&self) -> Engine;
    fn packets(&self) -> &[Packet];
    fn cluster(&self) -> &Cluster;
    fn verdict(&self, packet: &Packet) -> reference::Verdict;
}

impl Judged for Case {
    fn engine(&self) -> Engine {
        translate::engine(self).unwrap()
    }

    fn packets(&self) -> &[Packet] {
        &self.packets
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn verdict(&self, packet: &Packet) -> reference::Verdict {
        let verdict = self.cluster.verdict(packet);
        let of = |decision| Decision { passed: None, by: By::Network(decision) };
        reference::Verdict { allowed: verdict.allowed, egress: of(verdict.egress), ingress: of(verdict.ingress) }
    }
}

impl Judged for admin::Case {
    fn engine(&self) -> Engine {
        translate::admin_engine(self).unwrap()
    }

    fn packets(&self) -> &[Packet] {
        &self.base.packets
    }

    fn cluster(&self) -> &Cluster {
        &self.base.cluster
    }

    fn verdict(&self, packet: &Packet) -> reference::Verdict {
        self.tiers().verdict(packet)
    }
}

/// What is wrong with the answers about a case, in words.
fn faults(case: &impl Judged) -> Result<(), String> {
    let mut engine = case.engine();
    for packet in case.packets() {
        let verdict = case.verdict(packet);
        for path in paths(case.cluster(), &mut engine, packet, Some(&port(packet)))? {
            compare(&verdict, &path).map_err(|fault| format!("{packet}: {fault}\n  {path:?}"))?;
        }
        for path in paths(case.cluster(), &mut engine, packet, None)? {
            let passes = path.passes.iter().any(|text| has(text, packet));
            if passes != verdict.allowed {
                return Err(format!("{packet}: {verdict:?}, but what passes is {:?}", path.passes));
            }
            sums_up(packet, &path).map_err(|fault| format!("{packet}: {fault}\n  {path:?}"))?;
        }
    }
    Ok(())
}

/// Of whatever may be sent, too, a rule is named that decides each packet, and one alone.
fn sums_up(packet: &Packet, path: &Path) -> Result<(), String> {
    for of in path.egress.iter().chain(&path.ingress) {
        let has = |texts: &[String]| texts.iter().any(|text| has(text, packet));
        let deciding = of.admin.iter().filter(|one| one.action != Action::Pass && has(&one.rule.ports)).count();
        let exempt = matches!(of.state, State::OwnNode | State::Itself);
        let last = exempt || !of.isolated_by.is_empty() || has(&of.undecided);
        if deciding > 1 || deciding == 0 && !last || deciding == 1 && has(&of.undecided) {
            return Err(format!("{deciding} rules decide, undecided {:?}", of.undecided));
        }
    }
    Ok(())
}

/// The answers about a packet, asked from either end that is a pod.
fn paths(cluster: &Cluster, engine: &mut Engine, packet: &Packet, port: Option<&str>) -> Result<Vec<Path>, String> {
    let (source, destination) = (packet.source, packet.destination);
    let mut found = Vec::new();
    for (own, side, other) in [(destination, "from", source), (source, "to", destination)] {
        let Some(pod) = cluster.pod_at(own) else { continue };
        let meta = &pod.metadata;
        let name = [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap).join("/");
        let query: Query = serde_json::from_value(json!({"pod": name, side: other, "port": port})).unwrap();
        match engine.check(&query) {
            Ok(Answer::Decision(decision)) => {
                let ends = |path: &Path| (path.source, path.destination) == (source, destination);
                found.extend(Some(decision.paths.into_iter().find(ends).ok_or(format!("{packet}: no such path"))?));
            }
            other => return Err(format!("{packet}: {other:?}")),
        }
    }
    Ok(found)
}

fn port(packet: &Packet) -> String {
    match name(packet.protocol) {
        Some(name) => format!("{name}/{}", packet.port),
        None => "icmp".to_owned(),
    }
}

fn name(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Tcp => Some("tcp"),
        Protocol::Udp => Some("udp"),
        Protocol::Sctp => Some("sctp"),
        Protocol::Icmp => None,
    }
}

/// Whether a text such as `tcp/1-3`, `udp`, `other` or `everything` has a packet.
fn has(text: &str, packet: &Packet) -> bool {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, "0-65535"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let fits = || (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&packet.port);
    let other = protocol == "other" && packet.protocol == Protocol::Icmp;
    protocol == "everything" || other || Some(protocol) == name(packet.protocol) && fits()
}

fn compare(verdict: &reference::Verdict, path: &Path) -> Result<(), String> {
    let wanted = if verdict.allowed { Verdict::Allowed } else { Verdict::Denied };
    let same = same(&verdict.egress, path.egress.as_ref()) && same(&verdict.ingress, path.ingress.as_ref());
    if same && path.verdict == wanted { Ok(()) } else { Err(format!("the reference says {verdict:?}")) }
}

fn same(decision: &Decision, judgement: Option<&Judgement>) -> bool {
    let Decision { passed, by } = decision;
    let Some(of) = judgement else { return passed.is_none() && *by == By::Network(NetworkDecision::Open) };
    let mut admin = of.admin.iter();
    let passed = passed.as_ref().is_none_or(|rule| admin.next().is_some_and(|one| is(one, rule, Action::Pass)));
    let fits = match by {
        // After the last tier there is nothing to pass to.
        By::Rule(rule, action) => {
            let action = if *action == reference::Action::Deny { Action::Deny } else { Action::Allow };
            let state = if action == Action::Deny { State::Denied } else { State::Allowed };
            of.isolated_by.is_empty() && of.state == state && admin.next().is_some_and(|one| is(one, rule, action))
        }
        By::Network(network) => same_network(network, of),
    };
    passed && fits && admin.next().is_none()
}

fn is(told: &AdminRule, rule: &RuleRef, action: Action) -> bool {
    let AdminRule { kind, action: does, rule: of, .. } = told;
    *kind == format!("{:?}", rule.kind) && *does == action && of.policy == rule.name && of.index == rule.index
}

fn same_network(decision: &NetworkDecision, of: &Judgement) -> bool {
    match decision {
        NetworkDecision::Open => of.state == if of.admin.is_empty() { State::Open } else { State::Allowed },
        // Where there is no policy, nothing needs to be exempt.
        NetworkDecision::Exempt => matches!(of.state, State::Open | State::OwnNode | State::Itself),
        NetworkDecision::Allowed(rules) => {
            let wanted: BTreeSet<(&str, usize)> = rules.iter().map(|rule| (&*rule.policy, rule.index)).collect();
            let told: BTreeSet<(&str, usize)> = of.rules.iter().map(|rule| (&*rule.policy, rule.index)).collect();
            of.state == State::Allowed && told == wanted
        }
        NetworkDecision::Denied(policies) => {
            let wanted: BTreeSet<&String> = policies.iter().collect();
            of.state == State::Denied && of.isolated_by.iter().collect::<BTreeSet<_>>() == wanted
        }
    }
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases: 300, ..default } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn answers_say_what_the_reference_says(case in generate::case()) {
        if let Err(fault) = faults(&case) {
            return Err(TestCaseError::fail(fault));
        }
    }

    #[test]
    fn answers_about_admin_policies_say_what_the_reference_says(case in admin::case()) {
        if let Err(fault) = faults(&case) {
            return Err(TestCaseError::fail(fault));
        }
    }
}
