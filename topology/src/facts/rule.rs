//! Rules of policies: who is at the other end, which ports, and the selections that this needs. NetworkPolicies and admin policies are
//! made of them.
//!
//! Must not: know what becomes of traffic that fits, or which pods there are.

use ipnet::IpNet;
use ovenbird_api::Protocol;
use ovsdb::Str;

use crate::selection::{LabelSelector, Problem, Selection, Use};

/// Problems of one object that are told one by one.
pub(super) const TOLD: usize = 8;

/// A rule: traffic that fits one of the peers and one of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `from` or `to`.
    pub peers: Peers,
    /// `ports`; `None` for all traffic, whatever its protocol. Sorted.
    pub ports: Option<Box<[PortMatch]>>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Everybody, in the cluster and outside.
    Anybody,
    /// Pods, and addresses; both empty for nobody.
    Some {
        /// `podSelector` and `namespaceSelector`. Sorted.
        selections: Box<[Selection]>,
        /// `ipBlock`: the union of all blocks, each less its own exceptions. Sorted.
        blocks: Box<[IpNet]>,
        /// `nodes` of admin policies. Sorted.
        nodes: Box<[LabelSelector]>,
    },
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    /// `protocol`.
    pub protocol: Protocol,
    /// Which of them.
    pub numbers: Numbers,
}

/// Numbers of ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Numbers {
    /// All.
    All,
    /// From `port` to `endPort`, both included.
    Range(u16, u16),
    /// What each pod means by this name.
    Named(Str),
}

impl Rule {
    /// False when nothing can fit.
    pub fn matches_something(&self) -> bool {
        self.ports.as_ref().is_none_or(|ports| !ports.is_empty())
            && !matches!(&self.peers, Peers::Some { selections, blocks, nodes }
                if selections.is_empty() && blocks.is_empty() && nodes.is_empty())
    }

    /// Adds the selections that the rule needs for pods of `subject`.
    pub(crate) fn add_uses(&self, subject: &Selection, ingress: bool, uses: &mut Vec<(Selection, Use)>) {
        if !self.matches_something() {
            return;
        }
        uses.extend(self.peers.selections().iter().map(|peer| (peer.clone(), Use::Peer)));
        for (protocol, name) in self.names() {
            if ingress {
                uses.push((subject.clone(), Use::TargetPort(protocol, name)));
                continue;
            }
            let anywhere = matches!(&self.peers, Peers::Some { blocks, .. } if !blocks.is_empty());
            let peers = self.peers.named().into_iter().chain(anywhere.then(Selection::everything));
            uses.extend(peers.map(|peer| (peer, Use::PeerPort(protocol, name.clone()))));
        }
    }

    /// The named ports.
    pub fn names(&self) -> impl Iterator<Item = (Protocol, Str)> {
        self.ports.iter().flatten().filter_map(|port| match &port.numbers {
            Numbers::Named(name) => Some((port.protocol, name.clone())),
            _ => None,
        })
    }
}

impl Peers {
    /// Pods that are named by selectors.
    pub fn selections(&self) -> &[Selection] {
        match self {
            Peers::Anybody => &[],
            Peers::Some { selections, .. } => selections,
        }
    }

    /// The selections in which an outgoing named port is looked up: of anybody it is all pods.
    pub fn named(&self) -> Vec<Selection> {
        match self {
            Peers::Anybody => vec![Selection::everything()],
            Peers::Some { selections, .. } => selections.to_vec(),
        }
    }
}

/// A port, from a field of the API.
pub(super) fn port_number(value: i32) -> Option<u16> {
    u16::try_from(value).ok().filter(|number| *number > 0)
}

/// The first problems, and how many more there are.
pub(super) fn told(mut problems: Vec<Problem>) -> Box<[Problem]> {
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    if more > 0
        && let Some(last) = problems.last_mut()
    {
        last.message.push_str(&format!(" ({more} more problems in this object)"));
    }
    problems.into()
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
