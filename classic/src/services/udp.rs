//! Connections of UDP that lead where nobody answers for them any more.
//!
//! A client that goes on sending from one port keeps its connection, and with it the endpoint, for as long as it sends; or none, if it began before
//! the Service had one. The kernel forgets such a connection when it is told to. Connections of other protocols end by themselves. Must not: judge
//! connections that no Service's change concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// A connection, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who began it.
    pub client: SocketAddr,
    /// What it called.
    pub called: SocketAddr,
    /// Who answers: what it called, unless that was translated.
    pub answering: SocketAddr,
}

/// By address (`None` for the node's own) and port of Services: who may answer.
pub(crate) type Answers = BTreeMap<(Option<IpAddr>, u16), BTreeSet<SocketAddr>>;

/// Addresses and ports of Services whose endpoints have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    answers: Answers,
    /// The node's addresses.
    own: Vec<IpAddr>,
}

impl Changed {
    pub(crate) fn new(answers: Answers, own: &[IpAddr]) -> Changed {
        Changed { answers, own: own.to_vec() }
    }

    /// True when nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Takes in what has changed later.
    pub fn extend(&mut self, later: Changed) {
        self.answers.extend(later.answers);
        self.own = later.own;
    }

    /// True for a connection that should be forgotten.
    pub fn is_stale(&self, connection: &Connection) -> bool {
        let (ip, port) = (connection.called.ip(), connection.called.port());
        let by_node_port = || self.answers.get(&(None, port)).filter(|_| self.own.contains(&ip));
        let may_answer = self.answers.get(&(Some(ip), port)).or_else(by_node_port);
        may_answer.is_some_and(|endpoints| !endpoints.contains(&connection.answering))
    }
}
