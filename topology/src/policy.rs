//! Feature: NetworkPolicy as Northbound rows.
//!
//! ```text
//! owner           rows
//! PodSelector     Port_Group of its pods' ports (as those that are isolated), Address_Sets of their addresses (as the other end)
//! NetpolNamespace Port_Groups of the pods that some policy isolates, one for each direction, each with a drop (priority 1000)
//! Peer            a pod's addresses in Address_Sets
//! admin policies  ACLs that let through, stop or pass, on the Port_Group of their subject, before or after those of NetworkPolicies
//! NetworkPolicy   ACLs that let through (priority 1001), on the Port_Group of its podSelector; Address_Sets of its ipBlocks
//! Pod             its port in Port_Groups, in the transaction that makes the port
//! Cluster, Node   what no policy may stop: ARP and ND, a node to its own pods, a pod to itself through a Service
//! ```
//!
//! The text of an ACL says groups and sets by name, so it is constant while pods come and go. What lets through is written before
//! what isolates, by the ranks of these owners. What goes in is judged at the pod's port, `to-lport`; what goes out likewise, `from-lport`
//! after load balancing, so that it is the endpoint of a Service that counts. Must not: match pods (that is `selection`'s part).

mod acl;
pub(crate) mod admin;
mod always;
mod expression;
mod groups;
mod rule;

use ovenbird_reconcile::{Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::acl::Action;
use ovsdb::Str;

use crate::facts::Protocol;
use crate::selection::{Problem, Use};
use crate::view::View;

use acl::{Acl, Gress, TIER_POLICY};
use rule::{Compile, KEYS, Match};

pub(crate) use always::{add_dhcp_guard, add_to_cluster, add_to_network, add_to_node, add_to_node_group};
pub(crate) use groups::{add_to_pod, translate_namespace, translate_peer, translate_selection};

/// Priority of what a policy lets through; the default of the pods that it isolates is one below.
const ALLOW: i64 = 1001;

/// A NetworkPolicy's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(policy) = view.own_network_policy(owner) else { return Output::default() };
    let severity = if policy.is_sound() { Severity::Warning } else { Severity::Error };
    let diagnostics = complaints(severity, &policy.problems, "it lets nothing through");
    let mut output = Output { diagnostics, ..Output::default() };
    let [namespace, name] = [policy.namespace(), policy.name()];
    // A text that cannot be read is the Namespace's complaint.
    let logging = view.acl_logging(namespace).as_ref().and_then(|logging| logging.as_ref().ok());
    for (gress, rules) in [(Gress::Ingress, &policy.ingress), (Gress::Egress, &policy.egress)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            let compile = Compile { view, owner, subject: &policy.subject, gress, index, rule };
            compile.add_sets(&mut output);
            for found in compile.matches() {
                let acl = Acl {
                    name: format!("NP:{namespace}:{name}:{}:{index}", gress.as_str()),
                    gress,
                    priority: ALLOW,
                    tier: TIER_POLICY,
                    action: Action::AllowRelated,
                    text: found.text.clone(),
                    log: logging.and_then(|logging| logging.allow),
                };
                add(view, owner, acl, index, &found, &[], &mut output);
            }
        }
    }
    output
}

/// Adds the ACL for an expression of a rule; `further` keys tell it from others for the same expression.
fn add(
    view: &View<'_>,
    owner: &Owner,
    acl: Acl,
    index: usize,
    found: &Match,
    further: &[(&str, &str)],
    output: &mut Output,
) {
    let index = index.to_string();
    let mut extra = vec![("direction", acl.gress.as_str()), ("gress-index", &*index)];
    extra.extend(KEYS.into_iter().zip(found.keys.iter().map(String::as_str)));
    extra.extend(further);
    // With its group in the role, rows for another podSelector are new ones, and are there before the old ones go.
    let group = found.group.id.to_string();
    let role: Vec<&str> = extra.iter().map(|(_, value)| *value).chain([&*group]).collect();
    acl.add(view, owner, &role.join(":"), &extra, &found.group, output);
}

/// What was left out of a policy, each with what follows from it.
fn complaints(severity: Severity, problems: &[Problem], until_then: &str) -> Vec<Diagnostic> {
    let complaint = |problem: &Problem| Diagnostic {
        severity,
        reason: "InvalidPolicy",
        field: problem.field.clone(),
        message: format!("{}; until then {until_then}", problem.message),
    };
    problems.iter().map(complaint).collect()
}

/// The port name that a use is about.
fn port_use(what: &Use) -> Option<(Protocol, &Str)> {
    match what {
        Use::TargetPort(protocol, name) | Use::PeerPort(protocol, name) => Some((*protocol, name)),
        _ => None,
    }
}
