//! What admin policies say of a pod's traffic.
//!
//! Of the traffic that gets to a tier, the first rule that fits decides: it is allowed, stopped, or goes on, and so does what no rule fits. Must
//! not: know what comes after a tier.

use rustc_hash::FxHashSet;

use super::answer::{self, Direction, Judgement, Rule};
use super::judge::{Judge, Side, tell, traffic};
use super::traffic::Traffic;
use super::words;
use crate::facts::{AdminAction, AdminPolicyFact, AdminRule, PodFact, Tier};
use crate::selection::Selection;

/// What a tier makes of traffic; the rest it stops.
pub(super) struct Judged {
    pub allowed: Traffic,
    /// To what comes after the tier.
    pub goes_on: Traffic,
}

impl Judge<'_> {
    /// The admin policies whose subject a pod is, in the order in which they are asked; without those that are not in effect.
    pub fn admin(&self, pod: &PodFact) -> Vec<&AdminPolicyFact> {
        let policies = self.snapshot.policies();
        let mut of_pod = self.admin_of(pod);
        of_pod.retain(|policy| policies.place(&policy.key).is_some());
        of_pod
    }

    /// All admin policies whose subject a pod is.
    pub fn admin_of(&self, pod: &PodFact) -> Vec<&AdminPolicyFact> {
        let selections = self.selections(Some(pod));
        let mut policies = self.snapshot.policies().admin_in_order();
        policies.retain(|policy| selections.contains(&policy.subject));
        policies
    }

    /// What a tier makes of traffic; `peer` is the selections that the other end is in. Tells the rules that decide some of it.
    pub fn tier(
        &self,
        side: Side<'_>,
        peer: &FxHashSet<&Selection>,
        policies: &[&AdminPolicyFact],
        tier: Tier,
        arrives: Traffic,
        judgement: &mut Judgement,
    ) -> Judged {
        let (mut left, mut allowed, mut passed) = (arrives, Vec::new(), Vec::new());
        for policy in policies.iter().filter(|policy| policy.tier == tier) {
            for (index, rule) in rules(policy, side.direction).iter().enumerate() {
                let some = left.and(&traffic(&rule.rule, side.target));
                if some.is_nothing() {
                    continue;
                }
                let fitting = self.fitting(&rule.rule.peers, side.other, peer);
                if fitting.is_empty() {
                    continue;
                }
                left = left.less(&some);
                let one = || told(policy, side.direction, index, rule, fitting, words::traffic(&some));
                tell(&mut judgement.admin, one, &mut judgement.left_out);
                match rule.action {
                    AdminAction::Allow => allowed.push(some),
                    AdminAction::Pass => passed.push(some),
                    AdminAction::Deny => {}
                }
            }
        }
        passed.push(left);
        Judged { allowed: allowed.into_iter().collect(), goes_on: passed.into_iter().collect() }
    }

    /// All rules of admin policies whose subject a pod is, in words.
    pub fn admin_rules(&self, pod: &PodFact, direction: Direction, left_out: &mut usize) -> Vec<answer::AdminRule> {
        let mut list = Vec::new();
        for policy in self.admin(pod) {
            for (index, rule) in rules(policy, direction).iter().enumerate() {
                let (peers, ports) = (words::peers(&rule.rule.peers), words::ports(&rule.rule));
                tell(&mut list, || told(policy, direction, index, rule, peers, ports), left_out);
            }
        }
        list
    }
}

fn rules(policy: &AdminPolicyFact, direction: Direction) -> &[AdminRule] {
    match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    }
}

fn told(
    policy: &AdminPolicyFact,
    direction: Direction,
    index: usize,
    rule: &AdminRule,
    peers: Vec<String>,
    ports: Vec<String>,
) -> answer::AdminRule {
    let (kind, name) = &policy.key;
    answer::AdminRule {
        kind: kind.as_str().to_owned(),
        tier: match policy.tier {
            Tier::Admin => answer::Tier::Admin,
            Tier::Baseline => answer::Tier::Baseline,
        },
        name: rule.name.as_ref().map(ToString::to_string),
        action: match rule.action {
            AdminAction::Allow => answer::Action::Allow,
            AdminAction::Deny => answer::Action::Deny,
            AdminAction::Pass => answer::Action::Pass,
        },
        rule: Rule { policy: name.to_string(), direction, index, peers, ports },
    }
}
