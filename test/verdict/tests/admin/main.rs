//! The translation of admin policies agrees with the reference, with tiers of ACLs and composed of priorities: on random clusters the rows say of
//! every packet what the API promises, and lead back to the rule that decides.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod by_hand;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::path::Path;

use ovenbird_verdict::evaluate::Decision as NetworkDecision;
use ovenbird_verdict::evaluate::admin::object::Kind;
use ovenbird_verdict::evaluate::admin::{self, By, Decision, RuleRef, Verdict};
use ovenbird_verdict::generate::admin::{Case, case, pair};
use ovenbird_verdict::generate::ends;
use ovenbird_verdict::rows::{self, Outcome, Step};
use ovenbird_verdict::{Packet, Rows, translate};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// What is wrong with the rows of a case, in words.
fn faults(case: &Case) -> Result<(), String> {
    for (tiers, servers) in [(true, "with tiers"), (false, "without tiers")] {
        let rows = translate::admin_rows(case, tiers).map_err(|e| e.to_string())?;
        let rows = Rows::read(&rows).map_err(|e| format!("{servers}: {e}: {:?}", e.source()))?;
        mute(case, &rows)?;
        for packet in &case.base.packets {
            let verdict = case.tiers().verdict(packet);
            let fault = compare(packet, &verdict, &rows, tiers);
            fault.map_err(|fault| format!("{packet}, {servers}: {fault}\n  {verdict:?}"))?;
        }
    }
    Ok(())
}

fn compare(packet: &Packet, verdict: &Verdict, rows: &Rows, tiers: bool) -> Result<(), String> {
    let outcome = rows.judge(packet).map_err(|e| e.to_string())?;
    if verdict.allowed != outcome.allowed {
        let steps: Vec<_> = outcome.steps.iter().map(|s| (&s.switch, s.rule.stage, &s.rule.name)).collect();
        return Err(format!("allowed {} by {steps:?}", outcome.allowed));
    }
    explained("Egress", &verdict.egress, &outcome, tiers)?;
    explained("Ingress", &verdict.ingress, &outcome, tiers)
}

/// What the row that decided leads back to: an object and the index of its rule, and the object and rule of which it is the copy, if it is one.
struct Origin {
    kind: String,
    name: String,
    index: Option<usize>,
    passed_to: Option<String>,
    denies: bool,
}

impl Origin {
    fn of(step: &Step) -> Origin {
        let id = |key: &str| step.rule.external_ids.get(key).cloned();
        Origin {
            kind: id("k8s.ovn.org/owner-type").unwrap_or_default(),
            name: id("k8s.ovn.org/name").unwrap_or_default().replace(':', "/"),
            index: id("gress-index").and_then(|index| index.parse().ok()),
            passed_to: id("passed-to"),
            denies: step.rule.action == rows::Action::Deny,
        }
    }

    fn is_of(&self, rule: &RuleRef) -> bool {
        self.kind == format!("{:?}", rule.kind) && self.name == rule.name && self.index == Some(rule.index)
    }

    /// The row is of the rule that has the last word, no copy.
    fn is_own(&self, decision: &NetworkDecision) -> bool {
        match decision {
            NetworkDecision::Open | NetworkDecision::Exempt => !self.denies && self.index.is_none(),
            NetworkDecision::Denied(_) => self.denies && self.index.is_none(),
            NetworkDecision::Allowed(rules) => {
                rules.iter().any(|rule| rule.policy == self.name && Some(rule.index) == self.index)
            }
        }
    }

    /// The row is of the rule that passed, a copy of the one that has the last word.
    fn is_copy(&self, by: &By) -> bool {
        let Some(to) = &self.passed_to else { return false };
        match by {
            By::Network(NetworkDecision::Open | NetworkDecision::Exempt) => to.is_empty(),
            By::Network(NetworkDecision::Denied(policies)) => {
                let home = policies.iter().find_map(|policy| policy.split_once('/')).map(|(home, _)| home);
                self.denies && home.is_some_and(|home| *to == format!("NP:{home}"))
            }
            By::Network(NetworkDecision::Allowed(rules)) => {
                rules.iter().any(|rule| to.starts_with(&format!("NP:{}:{}:", rule.policy, rule.index)))
            }
            By::Rule(RuleRef { kind, name, index }, _) => to.starts_with(&format!("{}:{name}:{index}:", short(*kind))),
        }
    }
}

fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::AdminNetworkPolicy => "ANP",
        Kind::ClusterNetworkPolicy => "CNP",
        Kind::BaselineAdminNetworkPolicy => "BANP",
    }
}

/// The row that decided leads back to what the reference names.
fn explained(direction: &str, decision: &Decision, outcome: &Outcome, tiers: bool) -> Result<(), String> {
    let of_direction = |step: &&Step| step.rule.external_ids.get("direction").is_some_and(|d| d == direction);
    // Of what was refused before it got there, the rows say nothing.
    let Some(step) = outcome.steps.iter().find(of_direction) else {
        let open = matches!(decision.by, By::Network(NetworkDecision::Open | NetworkDecision::Exempt));
        let silent = !outcome.allowed || open && (tiers || decision.passed.is_none());
        return if silent { Ok(()) } else { Err(format!("no row speaks of {direction}")) };
    };
    let origin = Origin::of(step);
    let fits = match (&decision.passed, &decision.by) {
        (Some(passed), by) if !tiers => origin.is_of(passed) && origin.is_copy(by),
        (_, By::Network(network)) => origin.is_own(network),
        (_, By::Rule(rule, action)) => origin.is_of(rule) && origin.denies == (*action == admin::Action::Deny),
    };
    if fits { Ok(()) } else { Err(format!("{direction} was decided by {:?}", step.rule)) }
}

/// Nobody is kept from learning a MAC, in either family.
fn mute(case: &Case, rows: &Rows) -> Result<(), String> {
    [false, true].into_iter().try_for_each(|v6| rows.resolve_all(&ends(&case.base.cluster, v6)))
}

/// The property is not vacuous: every decision is made, in each direction, both with a pass before it and without.
#[test]
fn cases_lead_to_every_decision() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..500 {
        let case = case().new_tree(&mut runner).unwrap().current();
        for verdict in case.base.packets.iter().map(|packet| case.tiers().verdict(packet)) {
            for (direction, decision) in [("egress", &verdict.egress), ("ingress", &verdict.ingress)] {
                let kind = match &decision.by {
                    By::Network(NetworkDecision::Exempt) => "exempt".to_owned(),
                    By::Network(NetworkDecision::Open) => "open".to_owned(),
                    By::Network(NetworkDecision::Allowed(_)) => "allowed".to_owned(),
                    By::Network(NetworkDecision::Denied(_)) => "denied".to_owned(),
                    By::Rule(rule, action) => format!("{:?} {action:?}", rule.kind),
                };
                let passed = if decision.passed.is_some() { "passed, " } else { "" };
                *seen.entry(format!("{direction}: {passed}{kind}")).or_default() += 1;
            }
        }
    }
    // Without a pass: exempt, open, two of NetworkPolicies, two of two kinds, three of ClusterNetworkPolicy. With it: without exempt and the kind
    // that is of the Admin tier only.
    assert_eq!(seen.len(), 2 * (4 + 2 * 2 + 3 + 3 + 2 + 3), "{seen:#?}");
    assert!(seen.values().all(|count| *count >= 3), "{seen:#?}");
}

/// Cases that once failed, each as the property printed it.
#[test]
fn what_was_wrong_once_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin/agree");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert!(!case.base.packets.is_empty());
        wrong.extend(faults(&case).err().map(|fault| format!("{}: {fault}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules of the last priority have room, however many there are, as long as all rules together have.
#[test]
fn many_rules_of_the_last_priority_have_room() {
    let text = include_str!("agree/pass-with-an-unreadable-peer.txt");
    let mut case: Case = text.parse().unwrap();
    let Some(policy) = case.policies.first_mut() else { panic!("no policy") };
    policy.spec.priority = Some(1000);
    let rules = policy.spec.ingress.as_mut().unwrap();
    *rules = [vec![rules[1].clone(); 100]].concat();
    rules[0].action = "Deny".to_owned();
    let mut second = case.policies[0].clone();
    second.metadata.name = Some("a1".to_owned());
    second.spec.egress = second.spec.ingress.clone().map(|mut rules| {
        rules.iter_mut().for_each(|rule| rule.to = rule.from.take());
        rules
    });
    case.policies.push(second);
    faults(&case).unwrap();
}

/// `PROPTEST_CASES` asks for more. What fails is to become a file in `agree/`, not a seed.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases, ..default } }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn rows_say_what_the_reference_says(case in case()) {
        if let Err(fault) = faults(&case) {
            return Err(TestCaseError::fail(fault));
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    /// Whatever there was before leaves no trace.
    #[test]
    fn rows_follow_from_the_objects_alone((before, case) in pair(), tiers in any::<bool>()) {
        let after = translate::admin_rows_after(&before, &case, tiers).unwrap();
        prop_assert_eq!(after, translate::admin_rows(&case, tiers).unwrap());
    }
}
