//! AdminNetworkPolicy, BaselineAdminNetworkPolicy and ClusterNetworkPolicy.
//!
//! A rule is an ACL for each of its expressions, at the priority that the order of policies gives it. What passes goes on with the next
//! tier: where the database has tiers, that is the action `pass`. Elsewhere a pass is composed: copies of all that comes after its tier, each
//! restricted to what passes, stand at the place of the rule.
//!
//! ```text
//! p        pass && what NetworkPolicies let through   allow-related
//! p - 1    pass && pods that they isolate             drop
//! p - 2 .. pass && rules of the last tier             as they say
//! p - n    pass                                       allow-related
//! ```
//!
//! (The other way, to take what passes out of the rules that follow, OVN does not have: ports cannot be negated.) Must not: choose
//! places (that is `policies`' part).

use ovenbird_api::LogSeverity;
use ovenbird_reconcile::{Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::acl::Action;

use super::acl::{Acl, Gress, TIER_ADMIN, TIER_BASELINE};
use super::expression;
use super::groups::Group;
use super::rule::{Compile, Match};
use super::{add, complaints};
use crate::facts::{AdminAction, AdminPolicyFact, AdminRule, Tier};
use crate::kinds;
use crate::node::check;
use crate::view::View;
use ovenbird_api::annotation::ACL_LOGGING;

/// An admin policy's rows.
pub(crate) fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(policy) = view.own_admin_policy(owner) else { return Output::default() };
    let opens_nothing = "it opens nothing, and what denies or passes denies more";
    let diagnostics = complaints(Severity::Warning, &policy.problems, opens_nothing);
    let mut output = Output { diagnostics, ..Output::default() };
    let logging = check(&policy.acl_logging, ACL_LOGGING, Severity::Warning, &mut output.diagnostics);
    let Some(first) = view.admin_place(policy) else {
        output.diagnostics.push(no_room());
        return output;
    };
    for gress in Gress::ALL {
        let mut priority = first;
        for (index, rule) in rules(policy, gress).iter().enumerate() {
            let compile = compile(view, owner, policy, gress, index, rule);
            compile.add_sets(&mut output);
            let log = logging.and_then(|logging| match rule.action {
                AdminAction::Allow => logging.allow,
                AdminAction::Deny => logging.deny,
                AdminAction::Pass => logging.pass,
            });
            let mut slots = 1;
            let composed = rule.action == AdminAction::Pass && !view.policies().tiers();
            if composed {
                slots = view.policies().slots(rule);
            }
            for found in compile.matches() {
                if composed {
                    let pass = Pass { view, owner, policy, gress, index, found: &found, priority, log };
                    pass.add(priority - slots + 1, &mut output);
                } else {
                    let acl = acl(policy, gress, index, rule.action, priority, found.text.clone(), log);
                    add(view, owner, acl, index, &found, &[], &mut output);
                }
            }
            priority -= slots;
        }
    }
    output
}

/// The rules of a direction.
fn rules(policy: &AdminPolicyFact, gress: Gress) -> &[AdminRule] {
    match gress {
        Gress::Ingress => &policy.ingress,
        Gress::Egress => &policy.egress,
    }
}

fn compile<'a>(
    view: &'a View<'a>,
    owner: &'a Owner,
    policy: &'a AdminPolicyFact,
    gress: Gress,
    index: usize,
    rule: &'a AdminRule,
) -> Compile<'a> {
    Compile { view, owner, subject: &policy.subject, gress, index, rule: &rule.rule }
}

fn acl(
    policy: &AdminPolicyFact,
    gress: Gress,
    index: usize,
    action: AdminAction,
    priority: i64,
    text: String,
    log: Option<LogSeverity>,
) -> Acl {
    let (kind, name) = &policy.key;
    Acl {
        name: format!("{}:{name}:{}:{index}", kind.short(), gress.as_str()),
        gress,
        priority,
        tier: if policy.tier == Tier::Admin { TIER_ADMIN } else { TIER_BASELINE },
        action: match action {
            AdminAction::Allow => Action::AllowRelated,
            AdminAction::Deny => Action::Drop,
            AdminAction::Pass => Action::Pass,
        },
        text,
        log,
    }
}

/// An expression that passes, to be composed.
struct Pass<'a> {
    view: &'a View<'a>,
    owner: &'a Owner,
    policy: &'a AdminPolicyFact,
    gress: Gress,
    index: usize,
    found: &'a Match,
    priority: i64,
    log: Option<LogSeverity>,
}

impl Pass<'_> {
    /// Adds the copies of what comes after the tier, and at `last` what nothing of that decides.
    fn add(&self, last: i64, output: &mut Output) {
        let (policies, namespaces) = self.view.network_policies_in(&self.policy.subject);
        for policy in policies {
            let owner = Owner::new(kinds::NETWORK_POLICY, policy.key.clone());
            let rules = if self.gress == Gress::Ingress { &policy.ingress } else { &policy.egress };
            for (index, rule) in rules.iter().flatten().enumerate() {
                let (view, subject, gress) = (self.view, &policy.subject, self.gress);
                let compile = Compile { view, owner: &owner, subject, gress, index, rule };
                for other in compile.matches() {
                    let to = format!("NP:{}:{index}:{}", policy.key, other.keys.join(":"));
                    self.copy(&to, self.priority, AdminAction::Allow, Some(other.text), output);
                }
            }
        }
        for namespace in namespaces {
            let isolated = self.gress.at(&Group::isolated(namespace, self.gress).name);
            self.copy(&format!("NP:{namespace}"), self.priority - 1, AdminAction::Deny, Some(isolated), output);
        }
        let mut priority = self.priority - 2;
        for policy in self.view.policies().baseline() {
            let owner = Owner::new(kinds::of_admin(policy.key.0), policy.key.1.clone());
            for (index, rule) in rules(policy, self.gress).iter().enumerate() {
                for other in compile(self.view, &owner, policy, self.gress, index, rule).matches() {
                    let to = format!("{}:{}:{index}:{}", policy.key.0.short(), policy.key.1, other.keys.join(":"));
                    self.copy(&to, priority, rule.action, Some(other.text), output);
                }
                priority -= 1;
            }
        }
        self.copy("", last, AdminAction::Allow, None, output);
    }

    fn copy(&self, to: &str, priority: i64, action: AdminAction, other: Option<String>, output: &mut Output) {
        let text = expression::all([Some(self.found.text.clone()), other]);
        let acl = acl(self.policy, self.gress, self.index, action, priority, text, self.log);
        add(self.view, self.owner, acl, self.index, self.found, &[("pass", "pass"), ("passed-to", to)], output);
    }
}

fn no_room() -> Diagnostic {
    let message = "the policies before this one take up all priorities that OVN has for its tier; use fewer rules";
    Diagnostic::error("NoRoom", "spec.priority", message)
}
