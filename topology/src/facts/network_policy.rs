//! The fact of a NetworkPolicy: whom it isolates in which directions, and what it lets through.
//!
//! Source: networking.k8s.io/v1 `NetworkPolicySpec`. Empty, missing and null lists are told apart here, defaults are filled in, names
//! of selectors and ports are shared. What cannot be used is left out and told, so that it opens nothing: a rule all of whose peers
//! (or ports) are left out matches nothing; with a wrong `podSelector` nothing is let through to the pods that fit the rest of it. Must not: know
//! which pods there are.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ovenbird_api::Protocol;
use ovsdb::Str;

use super::blocks::{Block, Blocks};
use super::key;
use super::rule::{Numbers, Peers, PortMatch, Rule, cut, port_number, told};
use crate::intern::Interner;
use crate::selection::{LabelSelector, Namespaces, Problem, Selection, Use};

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicyFact {
    /// `namespace/name`.
    pub key: Str,
    /// `spec.podSelector`: the pods that are isolated.
    pub subject: Selection,
    /// What may come in, `None` when that is not restricted. Rules stand at their index in `spec.ingress`.
    pub ingress: Option<Box<[Rule]>>,
    /// What may go out, `None` when that is not restricted. Rules stand at their index in `spec.egress`.
    pub egress: Option<Box<[Rule]>>,
    /// What was left out.
    pub problems: Box<[Problem]>,
}

impl NetworkPolicyFact {
    /// The fact of a NetworkPolicy.
    pub fn from_k8s(object: &NetworkPolicy, interner: &mut Interner) -> NetworkPolicyFact {
        match &object.spec {
            Some(spec) => NetworkPolicyFact::new(&object.metadata, spec, interner),
            None => NetworkPolicyFact::new(&object.metadata, &NetworkPolicySpec::default(), interner),
        }
    }

    /// The fact of a NetworkPolicy from its `metadata` (namespace, name) and `spec`.
    pub fn new(meta: &ObjectMeta, spec: &NetworkPolicySpec, interner: &mut Interner) -> NetworkPolicyFact {
        let namespace = interner.intern(meta.namespace.as_deref().unwrap_or_default());
        let mut reader = Reader { namespace: namespace.clone(), interner, problems: Vec::new() };
        let pods = reader.selector(spec.pod_selector.as_ref(), "spec.podSelector");
        let sound = reader.problems.is_empty();
        let (ingress, egress) = reader.directions(spec);
        let rules =
            |isolated: bool, rules: Vec<Rule>| isolated.then(|| if sound { rules.into() } else { Box::default() });
        let from = spec.ingress.iter().flatten().enumerate();
        let from = from.map(|(i, rule)| {
            reader.rule(&format!("spec.ingress[{i}]"), "from", rule.from.as_deref(), rule.ports.as_deref())
        });
        let from = rules(ingress, if ingress { from.collect() } else { Vec::new() });
        let to = spec.egress.iter().flatten().enumerate();
        let to = to.map(|(i, rule)| {
            reader.rule(&format!("spec.egress[{i}]"), "to", rule.to.as_deref(), rule.ports.as_deref())
        });
        let to = rules(egress, if egress { to.collect() } else { Vec::new() });
        NetworkPolicyFact {
            key: key(meta),
            subject: Selection { namespaces: Namespaces::Only(namespace), pods },
            ingress: from,
            egress: to,
            problems: told(reader.problems),
        }
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or("", |(_, name)| name)
    }

    /// False when the object has no effect as it was meant: its `podSelector` is wrong.
    pub fn is_sound(&self) -> bool {
        !self.problems.iter().any(|problem| problem.field.starts_with("spec.podSelector"))
    }

    /// The selections that the policy needs, each with what for; sorted.
    pub(crate) fn uses(&self) -> Vec<(Selection, Use)> {
        let mut uses = Vec::new();
        for (rules, isolated, ingress) in [(&self.ingress, Use::Ingress, true), (&self.egress, Use::Egress, false)] {
            let Some(rules) = rules else { continue };
            uses.push((self.subject.clone(), isolated));
            rules.iter().for_each(|rule| rule.add_uses(&self.subject, ingress, &mut uses));
        }
        uses.sort_unstable();
        uses.dedup();
        uses
    }
}

/// Reads one policy.
struct Reader<'a> {
    namespace: Str,
    interner: &'a mut Interner,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), message: message.into() });
    }

    fn selector(
        &mut self,
        object: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
        field: &str,
    ) -> LabelSelector {
        let Some(object) = object else { return LabelSelector::default() };
        LabelSelector::from_k8s(object, field, self.interner, &mut self.problems)
    }

    /// `policyTypes`: whether what comes in and what goes out is restricted. Absent, it is what comes in, and what goes out if there are
    /// rules for it.
    fn directions(&mut self, spec: &NetworkPolicySpec) -> (bool, bool) {
        let (mut ingress, mut egress) = (false, false);
        for (i, text) in spec.policy_types.iter().flatten().enumerate() {
            match text.as_str() {
                "Ingress" => ingress = true,
                "Egress" => egress = true,
                _ => self.problem(
                    format!("spec.policyTypes[{i}]"),
                    format!("{text:?} is no type of policy; use Ingress or Egress"),
                ),
            }
        }
        if ingress || egress {
            return (ingress, egress);
        }
        (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()))
    }

    fn rule(
        &mut self,
        field: &str,
        peers_field: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Rule {
        let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
            let read = |(i, port)| self.port(&format!("{field}.ports[{i}]"), port);
            let mut ports: Vec<PortMatch> = ports.iter().enumerate().filter_map(read).collect();
            ports.sort_unstable();
            ports.dedup();
            ports.into()
        });
        let Some(peers) = peers.filter(|peers| !peers.is_empty()) else { return Rule { peers: Peers::Anybody, ports } };
        let (mut selections, mut blocks) = (Vec::new(), Blocks::default());
        for (i, peer) in peers.iter().enumerate() {
            let field = format!("{field}.{peers_field}[{i}]");
            match &peer.ip_block {
                Some(_) if peer.pod_selector.is_some() || peer.namespace_selector.is_some() => {
                    self.problem(field, "ipBlock stands beside a selector; make two peers of them");
                }
                Some(block) => {
                    if let Some(block) = self.block(&format!("{field}.ipBlock"), block)
                        && let Err(error) = blocks.add(&block)
                    {
                        self.problem(format!("{field}.ipBlock"), error.to_string());
                    }
                }
                None => selections.extend(self.peer(&field, peer)),
            }
        }
        selections.sort_unstable();
        selections.dedup();
        Rule {
            peers: Peers::Some { selections: selections.into(), blocks: blocks.into_nets(), nodes: Box::default() },
            ports,
        }
    }

    fn peer(&mut self, field: &str, peer: &NetworkPolicyPeer) -> Option<Selection> {
        if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
            self.problem(field, "is empty; give it a podSelector, a namespaceSelector or an ipBlock");
            return None;
        }
        let before = self.problems.len();
        let pods = self.selector(peer.pod_selector.as_ref(), &format!("{field}.podSelector"));
        let namespaces = match &peer.namespace_selector {
            None => Namespaces::Only(self.namespace.clone()),
            some => Namespaces::Matching(self.selector(some.as_ref(), &format!("{field}.namespaceSelector"))),
        };
        (self.problems.len() == before).then_some(Selection { namespaces, pods })
    }

    fn block(&mut self, field: &str, block: &IPBlock) -> Option<Block> {
        let net = |text: &str| text.parse::<IpNet>().map(|net| net.trunc()).ok();
        let Some(cidr) = net(&block.cidr) else {
            self.problem(format!("{field}.cidr"), format!("{:?} is no CIDR; write e.g. 10.0.0.0/8", cut(&block.cidr)));
            return None;
        };
        let mut except = Vec::new();
        for (i, text) in block.except.iter().flatten().enumerate() {
            let field = format!("{field}.except[{i}]");
            match net(text) {
                None => {
                    self.problem(field, format!("{:?} is no CIDR; write e.g. 10.1.0.0/16", cut(text)));
                    return None;
                }
                Some(inner) if !(cidr.contains(&inner) && cidr != inner) => {
                    self.problem(field, format!("{inner} is not a part of {cidr}; the whole peer is left out"));
                    return None;
                }
                Some(inner) => except.push(inner),
            }
        }
        Some(Block { cidr, except })
    }

    fn port(&mut self, field: &str, port: &NetworkPolicyPort) -> Option<PortMatch> {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
            let text = port.protocol.as_deref().unwrap_or_default();
            self.problem(format!("{field}.protocol"), format!("{:?} is no protocol; use TCP, UDP or SCTP", cut(text)));
            return None;
        };
        let numbers = match (&port.port, port.end_port) {
            (None, None) => Numbers::All,
            (Some(IntOrString::String(name)), None) if !name.is_empty() => Numbers::Named(self.interner.intern(name)),
            (Some(IntOrString::String(_)), None) => {
                self.problem(format!("{field}.port"), "is an empty name; write a number or a name");
                return None;
            }
            (Some(IntOrString::Int(first)), last) => {
                let (first_number, last_number) = (port_number(*first), port_number(last.unwrap_or(*first)));
                match (first_number, last_number) {
                    (Some(first), Some(last)) if first <= last => Numbers::Range(first, last),
                    (None, _) => {
                        self.problem(format!("{field}.port"), format!("{first} is no port; use 1 to 65535"));
                        return None;
                    }
                    (Some(first), _) => {
                        let last = last.unwrap_or_default();
                        let text = format!("{last} is no port from {first} up; use {first} to 65535");
                        self.problem(format!("{field}.endPort"), text);
                        return None;
                    }
                }
            }
            (Some(IntOrString::String(_)), Some(_)) => {
                self.problem(format!("{field}.endPort"), "stands beside a port by name; give the port as a number");
                return None;
            }
            (None, Some(_)) => {
                self.problem(format!("{field}.endPort"), "stands without a port; give the first port, too");
                return None;
            }
        };
        Some(PortMatch { protocol, numbers })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rule::TOLD;
    use super::*;

    fn read(spec: impl Into<Value>) -> NetworkPolicyFact {
        let object = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": spec.into()});
        NetworkPolicyFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut Interner::default())
    }

    fn problems(spec: impl Into<Value>) -> Vec<String> {
        read(spec).problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect()
    }

    #[test]
    fn directions_follow_types_and_rules() {
        let directions = |spec| {
            let fact = read(spec);
            (fact.ingress.map(|r| r.len()), fact.egress.map(|r| r.len()))
        };
        assert_eq!(directions(json!({})), (Some(0), None));
        assert_eq!(directions(json!({"egress": []})), (Some(0), None));
        assert_eq!(directions(json!({"egress": [{}]})), (Some(0), Some(1)));
        assert_eq!(directions(json!({"egress": [{}], "policyTypes": []})), (Some(0), Some(1)));
        assert_eq!(directions(json!({"ingress": [{}], "policyTypes": ["Egress"]})), (None, Some(0)));
        assert_eq!(directions(json!({"ingress": null, "policyTypes": ["Ingress", "Egress"]})), (Some(0), Some(0)));
    }

    #[test]
    fn empty_lists_are_everything_and_left_out_ones_nothing() {
        let rule = |rule: Value| read(json!({"ingress": [rule]})).ingress.unwrap()[0].clone();
        for everything in [json!({}), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})] {
            assert_eq!(rule(everything), Rule { peers: Peers::Anybody, ports: None });
        }
        let nobody = rule(json!({"from": [{"ipBlock": {"cidr": "nowhere"}}]}));
        assert!(!nobody.matches_something());
        let no_port = rule(json!({"ports": [{"port": 0}]}));
        assert!(!no_port.matches_something());
    }

    #[test]
    fn every_kind_of_bad_input_is_told() {
        let port = |port: Value| problems(json!({"ingress": [{"ports": [port]}]}));
        let at = "spec.ingress[0].ports[0]";
        assert_eq!(port(json!({"port": 70000})), [format!("{at}.port: 70000 is no port; use 1 to 65535")]);
        assert_eq!(
            port(json!({"port": 80, "endPort": 79})),
            [format!("{at}.endPort: 79 is no port from 80 up; use 80 to 65535")]
        );
        assert_eq!(
            port(json!({"port": "web", "endPort": 79})),
            [format!("{at}.endPort: stands beside a port by name; give the port as a number")]
        );
        assert_eq!(
            port(json!({"endPort": 79})),
            [format!("{at}.endPort: stands without a port; give the first port, too")]
        );
        assert_eq!(
            port(json!({"protocol": "ICMP"})),
            [format!("{at}.protocol: \"ICMP\" is no protocol; use TCP, UDP or SCTP")]
        );
        let peer = |peer: Value| problems(json!({"egress": [{"to": [peer]}]}));
        let at = "spec.egress[0].to[0]";
        assert_eq!(
            peer(json!({})),
            [format!("{at}: is empty; give it a podSelector, a namespaceSelector or an ipBlock")]
        );
        assert_eq!(
            peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            [format!("{at}: ipBlock stands beside a selector; make two peers of them")]
        );
        assert_eq!(
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            [format!("{at}.ipBlock.except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8; the whole peer is left out")]
        );
        assert_eq!(
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/40"}})),
            [format!("{at}.ipBlock.cidr: \"10.0.0.0/40\" is no CIDR; write e.g. 10.0.0.0/8")]
        );
    }

    #[test]
    fn a_wrong_subject_opens_nothing() {
        let fact = read(json!({"ingress": [{}], "podSelector": {"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "x", "operator": "Like", "values": ["y"]}]}}));
        assert_eq!(fact.subject.to_string(), "ns/a=b");
        assert_eq!(fact.ingress, Some(Box::default()));
        assert!(!fact.is_sound());
    }

    #[test]
    fn many_problems_are_counted() {
        let peers: Vec<Value> = (0..100).map(|i| json!({"ipBlock": {"cidr": format!("x{i}")}})).collect();
        let told = problems(json!({"ingress": [{"from": peers}]}));
        assert_eq!(told.len(), TOLD);
        assert!(told[TOLD - 1].ends_with("(92 more problems in this object)"), "{}", told[TOLD - 1]);
    }
}
