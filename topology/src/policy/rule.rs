//! A rule of any policy as match expressions: who is at the other end, and which ports.
//!
//! ```text
//! Rule -> [matches] -> (group of the pods, keys, text) for each kind of other end and protocol, and for each number of a named port
//!      -> [add_sets] -> Address_Sets of its own: blocks, and nodes
//! ```
//!
//! Texts name groups and sets only, so they stay while pods come and go. Must not: decide what happens to what matches.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::northbound::address_set;
use ovsdb::Str;

use super::acl::Gress;
use super::expression;
use super::groups::{self, Group};
use crate::build::{self, RowBuilder};
use crate::config::is_v4;
use crate::facts::{Peers, PortMatch, Protocol, Rule};
use crate::selection::Selection;
use crate::view::View;

/// `ip-block-index` of pods, and of anybody.
const PODS: &str = "-1";
/// `ip-block-index` of addresses.
const BLOCKS: &str = "-2";
/// `ip-block-index` of nodes.
const NODES: &str = "-3";

/// A rule and what it stands in.
pub(super) struct Compile<'a> {
    /// The facts.
    pub view: &'a View<'a>,
    /// Whose rule it is: the owner of its sets.
    pub owner: &'a Owner,
    /// The pods for which the rule is.
    pub subject: &'a Selection,
    /// Its direction.
    pub gress: Gress,
    /// Its index in the list of that direction.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// One expression.
pub(super) struct Match {
    /// The group that it names, to which the ACL belongs.
    pub group: Group,
    /// Protocol and `ip-block-index`; of a named port also its name and number.
    pub keys: Vec<String>,
    /// The expression.
    pub text: String,
}

/// Names of the keys of a [`Match`], as external_ids have them.
pub(super) const KEYS: [&str; 4] = ["port-policy-protocol", "ip-block-index", "port-name", "port"];

/// Who is at the other end, as part of an expression.
struct End {
    index: &'static str,
    /// `None` for anybody.
    text: Option<String>,
}

impl Compile<'_> {
    /// The expressions; a packet that fits one of them fits the rule.
    pub fn matches(&self) -> Vec<Match> {
        let mut matches = Vec::new();
        if !self.rule.matches_something() {
            return matches;
        }
        for end in self.ends() {
            for (protocol, text) in self.plain_ports() {
                matches.push(self.one(Group::of(self.subject), &[protocol, end.index], [end.text.clone(), text]));
            }
            if self.gress == Gress::Ingress {
                self.add_named_targets(&end, &mut matches);
            }
        }
        if self.gress == Gress::Egress {
            self.add_named_peers(&mut matches);
        }
        matches
    }

    /// Adds the sets of addresses that only this rule has.
    pub fn add_sets(&self, output: &mut Output) {
        let Peers::Some { blocks, nodes, .. } = &self.rule.peers else { return };
        let mut add = |what, v4, addresses: Vec<String>| {
            if addresses.is_empty() && what == BLOCKS {
                return;
            }
            let (role, name) = self.own_set(what, v4);
            let (gress, index) = (self.gress.as_str(), self.index.to_string());
            let family = groups::family(v4);
            let keys = [gress, &index, what, family];
            let extra = [("direction", gress.into()), ("gress-index", (&*index).into()), ("ip-family", family.into())];
            let external_ids = address_set::EXTERNAL_IDS;
            let row = RowBuilder::keyed(self.view, &address_set::TABLE, self.owner, &role, &keys, external_ids, &extra);
            output.rows.push(row.exactly(address_set::name(name)).exactly(address_set::addresses(addresses)).build());
        };
        for v4 in self.view.config().families() {
            add(BLOCKS, v4, blocks.iter().filter(|net| is_v4(net) == v4).map(IpNet::to_string).collect());
            if !nodes.is_empty() {
                let own = |ip: &IpAddr| ip.is_ipv4() == v4;
                add(
                    NODES,
                    v4,
                    self.view.addresses_of_nodes(nodes).iter().filter(|ip| own(ip)).map(IpAddr::to_string).collect(),
                );
            }
        }
    }

    fn one(&self, group: Group, keys: &[&str], parts: [Option<String>; 2]) -> Match {
        let text = expression::all([Some(self.gress.at(&group.name))].into_iter().chain(parts));
        Match { group, keys: keys.iter().map(|key| (*key).to_owned()).collect(), text }
    }

    /// The other ends, each with expressions of its own.
    fn ends(&self) -> Vec<End> {
        let Peers::Some { selections, blocks, nodes } = &self.rule.peers else {
            return vec![End { index: PODS, text: None }];
        };
        let pods = |v4| vec![selections.iter().map(|selection| groups::address_set(selection, v4)).collect()];
        let nodes_set = |v4| vec![(!nodes.is_empty()).then(|| self.own_set(NODES, v4).1).into_iter().collect()];
        let ends = [
            (PODS, self.addresses(pods)),
            (BLOCKS, self.addresses(|v4| vec![self.block_sets(blocks, v4)])),
            (NODES, self.addresses(nodes_set)),
        ];
        ends.into_iter().filter(|(_, text)| text.is_some()).map(|(index, text)| End { index, text }).collect()
    }

    fn addresses(&self, sets: impl FnMut(bool) -> Vec<Vec<String>>) -> Option<String> {
        expression::addresses(self.view.config(), self.gress.other_end(), sets)
    }

    /// The set of the rule's blocks of a family, if it has any.
    fn block_sets(&self, blocks: &[IpNet], v4: bool) -> Vec<String> {
        let any = blocks.iter().any(|net| is_v4(net) == v4);
        any.then(|| self.own_set(BLOCKS, v4).1).into_iter().collect()
    }

    /// Role and name of a set of its own.
    fn own_set(&self, what: &str, v4: bool) -> (String, String) {
        let word = if what == BLOCKS { "" } else { "_nodes" };
        let role = format!("{}_{}{word}_{}", self.gress.as_str(), self.index, groups::family(v4));
        let name =
            groups::name(&format!("{}_{role}", self.owner.key), build::id(&address_set::TABLE, self.owner, &role));
        (role, name)
    }

    /// The ports that are given by number, as parts of expressions, by protocol; of everything when there is no `ports`.
    fn plain_ports(&self) -> Vec<(&'static str, Option<String>)> {
        let Some(ports) = &self.rule.ports else { return vec![("None", None)] };
        let by_protocol = ports.chunk_by(|a, b| a.protocol == b.protocol);
        let text = |ports: &[PortMatch]| Some((ports.first()?.protocol.name(), Some(expression::ports(ports)?)));
        by_protocol.filter_map(text).collect()
    }

    /// A name that stands for ports of the subject's pods: an expression for each number that it means, on those pods that mean it.
    fn add_named_targets(&self, end: &End, matches: &mut Vec<Match>) {
        for (protocol, name) in self.rule.names() {
            for number in self.view.port_numbers(self.subject, protocol, &name) {
                let group = Group::of_port(self.subject, protocol, &name, number);
                let keys = [protocol.name(), end.index, &name, &number.to_string()];
                let port = Some(expression::port(protocol, number));
                matches.push(self.one(group, &keys, [end.text.clone(), port]));
            }
        }
    }

    /// A name that stands for ports of the other end: an expression for each number that it means, towards those pods that mean it.
    fn add_named_peers(&self, matches: &mut Vec<Match>) {
        for (protocol, name) in self.rule.names() {
            self.add_named(PODS, &self.rule.peers.named(), &[], protocol, &name, matches);
            if let Peers::Some { blocks, .. } = &self.rule.peers
                && !blocks.is_empty()
            {
                self.add_named(BLOCKS, &[Selection::everything()], blocks, protocol, &name, matches);
            }
        }
    }

    /// Towards pods of `peers` to which a name means something, and if there are `within`, whose address is in them.
    fn add_named(
        &self,
        index: &str,
        peers: &[Selection],
        within: &[IpNet],
        protocol: Protocol,
        name: &Str,
        matches: &mut Vec<Match>,
    ) {
        let meanings: Vec<Vec<u16>> = peers.iter().map(|peer| self.view.port_numbers(peer, protocol, name)).collect();
        let mut numbers = meanings.concat();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let meaning = peers.iter().zip(&meanings).filter(|(_, numbers)| numbers.contains(&number));
            let meaning: Vec<&Selection> = meaning.map(|(peer, _)| peer).collect();
            let sets = |v4| {
                let pods = meaning.iter().map(|peer| groups::port_set(peer, protocol, name, number, v4)).collect();
                if within.is_empty() { vec![pods] } else { vec![self.block_sets(within, v4), pods] }
            };
            let Some(end) = self.addresses(sets) else { continue };
            let keys = [protocol.name(), index, name, &number.to_string()];
            let port = Some(expression::port(protocol, number));
            matches.push(self.one(Group::of(self.subject), &keys, [Some(end), port]));
        }
    }
}
