//! Peers and ports of rules, in words.
//!
//! Lists that may be long are cut, and say so. Must not: judge.

use super::traffic::Traffic;
use crate::facts::{Numbers, Peers, PortMatch, Rule};
use crate::selection::{LabelSelector, Namespaces, Selection};

/// Most peers or ports of a rule that are told.
const TOLD: usize = 32;

/// `pods app=a of namespace web`, `all pods of namespaces team=x`.
pub(super) fn selection(selection: &Selection) -> String {
    let pods = some("pods", &selection.pods);
    match &selection.namespaces {
        Namespaces::Only(name) => format!("{pods} of namespace {name}"),
        Namespaces::Matching(selector) => format!("{pods} of {}", some("namespaces", selector)),
    }
}

/// `nodes zone=a`.
pub(super) fn nodes(selector: &LabelSelector) -> String {
    some("nodes", selector)
}

fn some(what: &str, selector: &LabelSelector) -> String {
    if selector.requirements().is_empty() { format!("all {what}") } else { format!("{what} {selector}") }
}

/// Who is at the other end of a rule's traffic.
pub(super) fn peers(peers: &Peers) -> Vec<String> {
    let Peers::Some { selections, blocks, nodes: hosts } = peers else { return vec!["anybody".to_owned()] };
    let len = selections.len() + blocks.len() + hosts.len();
    if len == 0 {
        return vec!["nobody".to_owned()];
    }
    let texts = selections.iter().map(selection).chain(hosts.iter().map(nodes));
    cut(texts.chain(blocks.iter().map(ToString::to_string)), len)
}

/// Traffic that a rule is about.
pub(super) fn ports(rule: &Rule) -> Vec<String> {
    match rule.ports.as_deref() {
        None => vec!["everything".to_owned()],
        Some([]) => vec!["nothing".to_owned()],
        Some(ports) => cut(ports.iter().map(port), ports.len()),
    }
}

/// A set of traffic.
pub(super) fn traffic(set: &Traffic) -> Vec<String> {
    let texts = set.texts();
    let len = texts.len();
    cut(texts.into_iter(), len)
}

fn port(port: &PortMatch) -> String {
    let protocol = port.protocol.name();
    match &port.numbers {
        Numbers::All => protocol.to_owned(),
        Numbers::Range(first, last) if first == last => format!("{protocol}/{first}"),
        Numbers::Range(first, last) => format!("{protocol}/{first}-{last}"),
        Numbers::Named(name) => format!("{protocol}/{name}"),
    }
}

/// The first of a list, and how many more there are.
pub(super) fn cut(items: impl Iterator<Item = String>, len: usize) -> Vec<String> {
    let mut told: Vec<String> = items.take(TOLD).collect();
    if len > TOLD {
        told.push(format!("and {} more", len - TOLD));
    }
    told
}
