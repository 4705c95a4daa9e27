//! The translation agrees with the reference: on random clusters the rows say of every packet what the API promises.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::path::Path;

use ovenbird_verdict::evaluate::Decision;
use ovenbird_verdict::generate::{self, Case};
use ovenbird_verdict::rows::{Action, Outcome, Step};
use ovenbird_verdict::{Packet, Rows, Verdict, translate};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// What is wrong with the rows of a case, in words; on servers with tiers of ACLs and without.
fn faults(case: &Case) -> Result<(), String> {
    let read = |tiers| {
        let rows = translate::rows(case, tiers).map_err(|e| e.to_string())?;
        Rows::read(&rows).map_err(|e| format!("{e}: {:?}", e.source()))
    };
    let (tiered, flat) = (read(true)?, read(false)?);
    mute(case, &tiered)?;
    for packet in &case.packets {
        let verdict = case.cluster.verdict(packet);
        for (rows, servers) in [(&tiered, "with tiers"), (&flat, "without tiers")] {
            compare(packet, &verdict, rows).map_err(|fault| format!("{packet}, {servers}: {fault}\n  {verdict:?}"))?;
        }
    }
    Ok(())
}

fn compare(packet: &Packet, verdict: &Verdict, rows: &Rows) -> Result<(), String> {
    let outcome = rows.judge(packet).map_err(|e| e.to_string())?;
    if verdict.allowed != outcome.allowed {
        let steps: Vec<_> = outcome.steps.iter().map(|s| (&s.switch, s.rule.stage, &s.rule.name)).collect();
        return Err(format!("allowed {} by {steps:?}", outcome.allowed));
    }
    explained("Egress", &verdict.egress, &outcome)?;
    explained("Ingress", &verdict.ingress, &outcome)
}

/// The rows that decided lead back to what the reference names: to a rule that allows, or to the default of what is isolated.
fn explained(direction: &str, decision: &Decision, outcome: &Outcome) -> Result<(), String> {
    let of_direction = |step: &&Step| step.rule.external_ids.get("direction").is_some_and(|d| d == direction);
    // Of what was refused before it got there, the rows say nothing.
    let Some(step) = outcome.steps.iter().find(of_direction) else {
        let silent = !outcome.allowed || matches!(decision, Decision::Open | Decision::Exempt);
        return if silent { Ok(()) } else { Err(format!("no row speaks of {direction}")) };
    };
    let id = |key: &str| step.rule.external_ids.get(key).cloned().unwrap_or_default();
    let (policy, index) = (id("k8s.ovn.org/name").replace(':', "/"), id("gress-index").parse::<usize>().ok());
    let fits = match decision {
        Decision::Open | Decision::Exempt => step.rule.action != Action::Deny && index.is_none(),
        Decision::Denied(_) => step.rule.action == Action::Deny && index.is_none(),
        Decision::Allowed(rules) => rules.iter().any(|rule| rule.policy == policy && Some(rule.index) == index),
    };
    if fits { Ok(()) } else { Err(format!("{direction} was decided by {:?}", step.rule)) }
}

/// Nobody is kept from learning a MAC, in either family.
fn mute(case: &Case, rows: &Rows) -> Result<(), String> {
    [false, true].into_iter().try_for_each(|v6| rows.resolve_all(&generate::ends(&case.cluster, v6)))
}

/// The property is not vacuous: cases of all families have packets of which every decision is made, in each direction.
#[test]
fn cases_lead_to_every_decision() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..300 {
        let case = generate::case().new_tree(&mut runner).unwrap().current();
        for verdict in case.packets.iter().map(|packet| case.cluster.verdict(packet)) {
            for (direction, decision) in [("egress", &verdict.egress), ("ingress", &verdict.ingress)] {
                let kind = match decision {
                    Decision::Open => "open",
                    Decision::Exempt => "exempt",
                    Decision::Allowed(_) => "allowed",
                    Decision::Denied(_) => "denied",
                };
                *seen.entry(format!("{:?} {direction} {kind}", case.families)).or_default() += 1;
            }
        }
    }
    assert_eq!(seen.len(), 3 * 2 * 4, "{seen:?}");
    assert!(seen.values().all(|count| *count >= 10), "{seen:?}");
}

/// Cases that once failed, each as the property printed it.
#[test]
fn what_was_wrong_once_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agree");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert!(!case.packets.is_empty());
        faults(&case).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    }
}

/// `PROPTEST_CASES` asks for more. What fails is to become a file in `agree/`, not a seed.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases, ..default } }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn rows_say_what_the_reference_says(case in generate::case()) {
        if let Err(fault) = faults(&case) {
            return Err(TestCaseError::fail(fault));
        }
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// Whatever there was before leaves no trace.
    #[test]
    fn rows_follow_from_the_objects_alone((before, case) in generate::pair(), tiers in any::<bool>()) {
        let (after, fresh) = (translate::rows_after(&before, &case, tiers).unwrap(), translate::rows(&case, tiers).unwrap());
        prop_assert_eq!(after, fresh);
    }
}
