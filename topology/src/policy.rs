//! Feature: NetworkPolicy as Northbound rows.
//!
//! ```text
//! owner           rows
//! PodSelector     Port_Group of its pods' ports (as those that are isolated), Address_Sets of their addresses (as the other end)
//! NetpolNamespace Port_Groups of the pods that some policy isolates, one for each direction, each with a drop (priority 1000)
//! Peer            a pod's addresses in Address_Sets
//! NetworkPolicy   ACLs that let through (priority 1001), on the Port_Group of its podSelector; Address_Sets of its ipBlocks
//! Pod             its port in Port_Groups, in the transaction that makes the port
//! Cluster, Node   what no policy may stop: ARP and ND, a node to its own pods, a pod to itself through a Service
//! ```
//!
//! The text of an ACL says groups and sets by name, so it is constant while pods come and go. What lets through is written before
//! what isolates, by the ranks of these owners. What goes in is judged at the pod's port, `to-lport`; what goes out likewise, `from-lport`
//! after load balancing, so that it is the endpoint of a Service that counts. Must not: match pods (that is `selection`'s part).

mod acl;
mod always;
mod expression;
mod groups;

use ipnet::IpNet;
use ovenbird_reconcile::{Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::address_set;
use ovsdb::{Str, Uuid};

use crate::build::{self, RowBuilder};
use crate::config::is_v4;
use crate::facts::{NetworkPolicyFact, Peers, PortMatch, Protocol, Rule};
use crate::selection::{Problem, Use};
use crate::view::View;

use acl::{Acl, Gress, TIER_POLICY, Verdict};
use groups::Group;

pub(crate) use always::{add_to_cluster, add_to_node};
pub(crate) use groups::{add_to_pod, translate_namespace, translate_peer, translate_selection};

/// Priority of what a policy lets through; the default of the pods that it isolates is one below.
const ALLOW: i64 = 1001;

/// A NetworkPolicy's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(policy) = view.own_network_policy(owner) else { return Output::default() };
    let mut output = Output { diagnostics: complaints(policy), ..Output::default() };
    let target = Group::of(&policy.subject);
    for (gress, rules) in [(Gress::Ingress, &policy.ingress), (Gress::Egress, &policy.egress)] {
        for (index, rule) in rules.iter().flatten().enumerate().filter(|(_, rule)| rule.matches_something()) {
            Translation { view, owner, policy, target: &target, gress, index, rule }.add(&mut output);
        }
    }
    output
}

fn complaints(policy: &NetworkPolicyFact) -> Vec<Diagnostic> {
    let severity = if policy.is_sound() { Severity::Warning } else { Severity::Error };
    let complaint = |problem: &Problem| Diagnostic {
        severity,
        reason: "InvalidPolicy",
        field: problem.field.clone(),
        message: format!("{}; until then it lets nothing through", problem.message),
    };
    policy.problems.iter().map(complaint).collect()
}

/// One rule on its way to rows.
struct Translation<'a> {
    view: &'a View<'a>,
    owner: &'a Owner,
    policy: &'a NetworkPolicyFact,
    target: &'a Group,
    gress: Gress,
    index: usize,
    rule: &'a Rule,
}

/// Who is at the other end, as part of an expression.
struct End {
    /// `ip-block-index`: -1 for pods (and anybody), -2 for addresses.
    index: &'static str,
    /// `None` for anybody.
    text: Option<String>,
}

impl Translation<'_> {
    fn add(&self, output: &mut Output) {
        for end in self.ends(output) {
            for (protocol, text) in self.plain_ports() {
                let keys = [protocol, end.index];
                self.add_acl(self.target, &keys, [end.text.clone(), text], output);
            }
            if self.gress == Gress::Ingress {
                self.add_named_targets(&end, output);
            }
        }
        if self.gress == Gress::Egress {
            self.add_named_peers(output);
        }
    }

    /// The other ends, each with rows of its own.
    fn ends(&self, output: &mut Output) -> Vec<End> {
        let Peers::Some { selections, blocks } = &self.rule.peers else {
            return vec![End { index: "-1", text: None }];
        };
        let side = self.gress.other_end();
        let sets = |v4| selections.iter().map(|selection| groups::address_set(selection, v4).name).collect();
        let pods = (!selections.is_empty()).then(|| expression::addresses(self.view.config(), side, sets)).flatten();
        let mut ends: Vec<End> = pods.map(|text| End { index: "-1", text: Some(text) }).into_iter().collect();
        let sets = |v4| self.block_set(blocks, v4, output).into_iter().collect();
        let blocks = expression::addresses(self.view.config(), side, sets);
        ends.extend(blocks.map(|text| End { index: "-2", text: Some(text) }));
        ends
    }

    /// Adds the set of the rule's blocks of one family and returns its name.
    fn block_set(&self, blocks: &[IpNet], v4: bool, output: &mut Output) -> Option<String> {
        let nets: Vec<String> = blocks.iter().filter(|net| is_v4(net) == v4).map(IpNet::to_string).collect();
        if nets.is_empty() {
            return None;
        }
        let family = if v4 { "v4" } else { "v6" };
        let (gress, index) = (self.gress.as_str(), self.index.to_string());
        let role = format!("{gress}_{index}_{family}");
        let readable = format!("{}_{role}", self.owner.key);
        let name = groups::name(&readable, build::id(&address_set::TABLE, self.owner, &role));
        let extra = [("direction", gress.into()), ("gress-index", (&*index).into()), ("ip-family", family.into())];
        let keys = [gress, &index, family];
        let row = RowBuilder::keyed(
            self.view,
            &address_set::TABLE,
            self.owner,
            &role,
            &keys,
            address_set::EXTERNAL_IDS,
            &extra,
        )
        .exactly(address_set::name(&*name))
        .exactly(address_set::addresses(nets))
        .build();
        output.rows.push(row);
        Some(name)
    }

    /// The ports that are given by number, as parts of expressions, by protocol; of everything when there is no `ports`.
    fn plain_ports(&self) -> Vec<(&'static str, Option<String>)> {
        let Some(ports) = &self.rule.ports else { return vec![("None", None)] };
        let by_protocol = ports.chunk_by(|a, b| a.protocol == b.protocol);
        let text = |ports: &[PortMatch]| Some((ports.first()?.protocol.name(), Some(expression::ports(ports)?)));
        by_protocol.filter_map(text).collect()
    }

    /// A name that stands for ports of the pods that are isolated: an ACL for each number that it means, on those pods that mean it.
    fn add_named_targets(&self, end: &End, output: &mut Output) {
        for (protocol, name) in self.rule.names() {
            for number in self.view.port_numbers(&self.policy.subject, protocol, &name) {
                let group = Group::of_port(&self.policy.subject, protocol, &name, number);
                let keys = [protocol.name(), end.index, &name, &number.to_string()];
                let text = expression::port(protocol, number);
                self.add_acl(&group, &keys, [end.text.clone(), Some(text)], output);
            }
        }
    }

    /// A name that stands for ports of the other end: an ACL for each number that it means, towards those pods that mean it.
    fn add_named_peers(&self, output: &mut Output) {
        for (protocol, name) in self.rule.names() {
            let peers = self.rule.peers.named();
            let mut numbers: Vec<u16> =
                peers.iter().flat_map(|peer| self.view.port_numbers(peer, protocol, &name)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            for number in numbers {
                let meaning =
                    peers.iter().filter(|peer| self.view.port_numbers(peer, protocol, &name).contains(&number));
                let sets =
                    |v4| meaning.clone().map(|p| groups::port_set(p, protocol, &name, number, v4).name).collect();
                let Some(end) = expression::addresses(self.view.config(), self.gress.other_end(), sets) else {
                    continue;
                };
                let keys = [protocol.name(), "-1", &name, &number.to_string()];
                self.add_acl(self.target, &keys, [Some(end), Some(expression::port(protocol, number))], output);
            }
        }
    }

    fn add_acl(&self, group: &Group, keys: &[&str], parts: [Option<String>; 2], output: &mut Output) {
        let [namespace, name] = [self.policy.namespace(), self.policy.name()];
        let index = self.index.to_string();
        let mut extra = vec![("direction", self.gress.as_str()), ("gress-index", &*index)];
        let named = ["port-policy-protocol", "ip-block-index", "port-name", "port"];
        extra.extend(named.into_iter().zip(keys.iter().copied()));
        // A text that cannot be read is the Namespace's complaint.
        let logging = self.view.acl_logging(namespace).as_ref().and_then(|logging| logging.as_ref().ok());
        let acl = Acl {
            name: format!("NP:{namespace}:{name}:{}:{index}", self.gress.as_str()),
            gress: self.gress,
            priority: ALLOW,
            tier: TIER_POLICY,
            verdict: Verdict::AllowRelated,
            text: expression::all([Some(self.gress.at(&group.name))].into_iter().chain(parts)),
            log: logging.and_then(|logging| logging.allow),
        };
        // With its group in the role, rows for another podSelector are new ones, and are there before the old ones go.
        let role = [&[self.gress.as_str(), &index][..], keys, &[&group.id.to_string()]].concat().join(":");
        acl.add(self.view, self.owner, &role, &extra, group, output);
    }
}

/// Group or set as rows name it.
fn port_use(port: &Use) -> Option<(Protocol, &Str)> {
    match port {
        Use::TargetPort(protocol, name) | Use::PeerPort(protocol, name) => Some((*protocol, name)),
        _ => None,
    }
}

/// Identity and name of a row that others refer to by name.
struct Named {
    id: Uuid,
    name: String,
}
