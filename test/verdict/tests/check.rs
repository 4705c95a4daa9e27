//! What `ovenbird check policy` answers agrees with the reference: on random clusters the verdict on every packet is the same, and so are the
//! policies and rules that it names.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;

use ovenbird_topology::Engine;
use ovenbird_topology::check::Query;
use ovenbird_topology::check::answer::{Answer, Judgement, Path, State, Verdict};
use ovenbird_verdict::evaluate::Decision;
use ovenbird_verdict::generate::{self, Case};
use ovenbird_verdict::{Packet, Protocol, translate};
use proptest::prelude::*;
use serde_json::json;

/// What is wrong with the answers about a case, in words.
fn faults(case: &Case) -> Result<(), String> {
    let mut engine = translate::engine(case).map_err(|e| e.to_string())?;
    for packet in &case.packets {
        for path in paths(case, &mut engine, packet, Some(&port(packet)))? {
            compare(case, packet, &path).map_err(|fault| format!("{packet}: {fault}\n  {path:?}"))?;
        }
        let allowed = case.cluster.verdict(packet).allowed;
        for path in paths(case, &mut engine, packet, None)? {
            let passes = path.passes.iter().any(|text| has(text, packet));
            if passes != allowed {
                return Err(format!("{packet}: {allowed}, but what passes is {:?}", path.passes));
            }
        }
    }
    Ok(())
}

/// The answers about a packet, asked from either end that is a pod.
fn paths(case: &Case, engine: &mut Engine, packet: &Packet, port: Option<&str>) -> Result<Vec<Path>, String> {
    let (source, destination) = (packet.source, packet.destination);
    let mut found = Vec::new();
    for (own, side, other) in [(destination, "from", source), (source, "to", destination)] {
        let Some(pod) = case.cluster.pod_at(own) else { continue };
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

/// Whether a text such as `tcp/1-3`, `udp` or `everything` has a packet.
fn has(text: &str, packet: &Packet) -> bool {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, "0-65535"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let fits = || (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&packet.port);
    protocol == "everything" || Some(protocol) == name(packet.protocol) && fits()
}

fn compare(case: &Case, packet: &Packet, path: &Path) -> Result<(), String> {
    let verdict = case.cluster.verdict(packet);
    let wanted = if verdict.allowed { Verdict::Allowed } else { Verdict::Denied };
    let same = same(&verdict.egress, path.egress.as_ref()) && same(&verdict.ingress, path.ingress.as_ref());
    if same && path.verdict == wanted { Ok(()) } else { Err(format!("the reference says {verdict:?}")) }
}

fn same(decision: &Decision, judgement: Option<&Judgement>) -> bool {
    let Some(of) = judgement else { return *decision == Decision::Open };
    match decision {
        Decision::Open => of.state == State::Open,
        // Where no policy isolates, nothing needs to be exempt.
        Decision::Exempt => matches!(of.state, State::Open | State::OwnNode | State::Itself),
        Decision::Allowed(rules) => {
            let wanted: BTreeSet<(&str, usize)> = rules.iter().map(|rule| (&*rule.policy, rule.index)).collect();
            let told: BTreeSet<(&str, usize)> = of.rules.iter().map(|rule| (&*rule.policy, rule.index)).collect();
            of.state == State::Allowed && told == wanted
        }
        Decision::Denied(policies) => {
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
}
