//! The reference against verdicts that were worked out by hand: `by_hand/cluster.txt` is the cluster, `by_hand/NN-*.txt` are policies and verdicts.
//!
//! A verdict is a packet, and after ` = ` what decides at the source and at the destination: `open`, `exempt`; of NetworkPolicies
//! `policy.index` of each rule that allows or `!policy` of each policy that isolates without one, both without namespace; of admin policies
//! `name.index` of the rule, `!name.index` if it denies. Before it stands `name.index>` if the Admin tier passed by that rule.

use std::fs;
use std::path::Path;

use ovenbird_verdict::evaluate::Decision as NetworkDecision;
use ovenbird_verdict::evaluate::admin::{Action, By, Decision, RuleRef};
use ovenbird_verdict::generate::admin::Case;

fn short(decision: &Decision) -> String {
    let bare = |policy: &str| policy.split_once('/').unwrap().1.to_owned();
    let of = |RuleRef { name, index, .. }: &RuleRef| format!("{name}.{index}");
    let by = match &decision.by {
        By::Network(NetworkDecision::Open) => "open".to_owned(),
        By::Network(NetworkDecision::Exempt) => "exempt".to_owned(),
        By::Network(NetworkDecision::Allowed(rules)) => {
            let rules: Vec<String> = rules.iter().map(|r| format!("{}.{}", bare(&r.policy), r.index)).collect();
            rules.join(",")
        }
        By::Network(NetworkDecision::Denied(policies)) => {
            let policies: Vec<String> = policies.iter().map(|p| format!("!{}", bare(p))).collect();
            policies.join(",")
        }
        By::Rule(rule, Action::Deny) => format!("!{}", of(rule)),
        By::Rule(rule, _) => of(rule),
    };
    decision.passed.as_ref().map_or(by.clone(), |passed| format!("{}>{by}", of(passed)))
}

#[test]
fn verdicts_are_those_worked_out_by_hand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin/by_hand");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "cluster.txt");
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let text = read(&name);
        let expected: Vec<&str> = text.lines().filter_map(|line| Some(line.rsplit_once(" = ")?.1)).collect();
        let bare: Vec<&str> =
            text.lines().map(|line| line.rsplit_once(" = ").map_or(line, |(packet, _)| packet)).collect();
        let case: Case = format!("{}{}", read("cluster.txt"), bare.join("\n")).parse().unwrap();
        assert_eq!(case.base.packets.len(), expected.len(), "{name}");
        for (packet, expected) in case.base.packets.iter().zip(expected) {
            let verdict = case.tiers().verdict(packet);
            let found = format!("{} {}", short(&verdict.egress), short(&verdict.ingress));
            assert_eq!(verdict.allowed, !found.contains('!'));
            if found != expected {
                wrong.push(format!("{name}: {packet} = {found}, not {expected}"));
            }
        }
        wrong.extend(super::faults(&case).err().map(|fault| format!("{name}: {fault}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
