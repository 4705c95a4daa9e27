//! The interpreter: what OVN does with a packet, by the Northbound rows alone.
//!
//! ```text
//! source at a port:      switch of the source       from-lport, from-lport after load balancing, to-lport (towards the router)
//! destination at a port: switch of the destination  from-lport, ... (from the router), to-lport
//! ```
//!
//! On one switch there is one passage. In each stage the tiers are asked in order; in a tier the matching rule of the highest priority decides; `pass`
//! and a tier where nothing matches go on to the next; after the last the packet goes on. Source: ovn-nb(5) ACL, ovn-northd(8). Addresses
//! that no port has are outside: they reach switches through their router ports. Not modelled: switches between routers, load balancing (the packet is
//! as it stands after), `default_acl_drop`, connections that exist already. Inputs: rows as `Desired::rows` lists them. Must not: know Kubernetes.

mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ovsdb::Uuid;

use crate::expression::{Expression, ParseError};
use crate::frame::{Content, Frame};
use crate::packet::{self, Packet};

/// The rows that matter, read.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    switches: Vec<Switch>,
    ports: Vec<Port>,
}

#[derive(Clone, Debug)]
struct Switch {
    name: String,
    rules: Vec<Arc<Rule>>,
    /// Something on the switch tracks connections.
    stateful: bool,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    /// Index of its switch.
    switch: usize,
    mac: u64,
    addresses: Vec<IpAddr>,
    is_router: bool,
}

/// An ACL.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its row.
    pub uuid: Uuid,
    /// Column `name`.
    pub name: Option<String>,
    /// Column `external_ids`.
    pub external_ids: BTreeMap<String, String>,
    /// Columns `direction` and `options:apply-after-lb`.
    pub stage: Stage,
    /// Column `tier`.
    pub tier: i64,
    /// Column `priority`.
    pub priority: i64,
    /// Column `action`.
    pub action: Action,
    /// Column `match`.
    pub expression: Expression,
}

/// Where a rule is asked, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What a port sends, before load balancing.
    FromPort,
    /// What a port sends, after load balancing.
    FromPortAfterLb,
    /// What a port is about to receive.
    ToPort,
}

/// Column `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `allow` and `allow-related`: replies pass, too.
    Allow,
    /// `allow-stateless`: replies need a rule of their own.
    AllowStateless,
    /// `drop` and `reject`.
    Deny,
    /// `pass`.
    Pass,
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// It arrives.
    pub allowed: bool,
    /// The stages in which a rule decided, in the packet's order; the last one is a refusal if it does not arrive.
    pub steps: Vec<Step>,
}

/// A stage in which a rule decided.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the Logical_Switch.
    pub switch: String,
    /// Rule that decided.
    pub rule: Arc<Rule>,
}

/// Where a packet enters the first switch on its way, and where it leaves the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    /// Name of the first Logical_Switch.
    pub switch: &'a str,
    /// Name of the Logical_Switch_Port by which it enters.
    pub inport: &'a str,
    /// Source MAC there.
    pub eth_src: u64,
    /// Destination MAC there.
    pub eth_dst: u64,
    /// Name of the Logical_Switch_Port by which it leaves the last switch: the destination's, or one towards a router.
    pub outport: &'a str,
}

/// Why rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// A match that OVN could not read either.
    #[error("ACL {uuid}: match {text:?}")]
    Match {
        /// The row.
        uuid: Uuid,
        /// Column `match`.
        text: String,
        /// What is wrong.
        source: ParseError,
    },
    /// A member of an Address_Set that is no address.
    #[error("Address_Set {set}: {problem}")]
    Address {
        /// Name of the set.
        set: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that the column does not have.
    #[error("ACL {uuid}: {column} {value:?}")]
    Value {
        /// The row.
        uuid: Uuid,
        /// Column.
        column: &'static str,
        /// Value.
        value: String,
    },
    /// A name that two rows have.
    #[error("{table} {name}: two rows have this name")]
    Name {
        /// Table.
        table: &'static str,
        /// Name.
        name: String,
    },
}

/// Two rules of one priority match and want different things: OVN does as it likes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("of equal priority, both match: {:?} {:?} and {:?} {:?}", .0.name, .0.action, .1.name, .1.action)]
pub struct Undefined(pub Arc<Rule>, pub Arc<Rule>);

/// A way through one switch.
struct Passage<'a> {
    switch: &'a Switch,
    inport: Option<&'a Port>,
    outport: Option<&'a Port>,
}

impl Rows {
    /// What becomes of a packet.
    pub fn judge(&self, packet: &Packet) -> Result<Outcome, Undefined> {
        // What a pod sends to itself goes by way of a Service. It turns round before the stage after load balancing, and comes back under another
        // address.
        let itself = packet.source == packet.destination;
        self.follow(packet.source, packet.destination, &|stage| match stage {
            Stage::FromPortAfterLb if itself => None,
            Stage::ToPort if itself => Some(Content::Ip(Packet { source: packet::hairpin(packet.source), ..*packet })),
            _ => Some(Content::Ip(*packet)),
        })
    }

    /// What becomes of the question for a MAC that stands before every connection, ARP or neighbour discovery: none that fails may.
    pub fn resolve(&self, source: IpAddr, destination: IpAddr) -> Result<Outcome, Undefined> {
        let packet = Packet { source, destination, protocol: packet::Protocol::Icmp, source_port: 0, port: 0 };
        let content = if source.is_ipv4() { Content::Arp } else { Content::Solicitation(packet) };
        self.follow(source, destination, &|_| Some(content))
    }

    /// Nobody is kept from learning the MAC of another, or nothing else would work; the error says who is.
    pub fn resolve_all(&self, ends: &[IpAddr]) -> Result<(), String> {
        for (source, destination) in ends.iter().flat_map(|a| ends.iter().map(move |b| (*a, *b))) {
            let outcome = self.resolve(source, destination).map_err(|e| e.to_string())?;
            if !outcome.allowed {
                let name = outcome.steps.last().and_then(|step| step.rule.name.clone());
                return Err(format!("{source} asks for {destination}: refused by {name:?}"));
            }
        }
        Ok(())
    }

    /// The way of a packet, if a port has one of its addresses.
    pub fn way(&self, source: IpAddr, destination: IpAddr) -> Option<Way<'_>> {
        let passages = self.passages(source, destination);
        let (first, last) = (passages.first()?, passages.last()?);
        let (inport, towards) = (first.inport?, first.outport?);
        Some(Way {
            switch: &first.switch.name,
            inport: &inport.name,
            eth_src: inport.mac,
            eth_dst: towards.mac,
            outport: &last.outport?.name,
        })
    }

    fn follow(
        &self,
        source: IpAddr,
        destination: IpAddr,
        content: &dyn Fn(Stage) -> Option<Content>,
    ) -> Result<Outcome, Undefined> {
        let mut outcome = Outcome { allowed: true, steps: Vec::new() };
        for passage in self.passages(source, destination) {
            for stage in [Stage::FromPort, Stage::FromPortAfterLb, Stage::ToPort] {
                let Some(frame) = content(stage).map(|content| passage.frame(stage, content)) else { continue };
                let Some(rule) = passage.switch.decide(stage, &frame)? else { continue };
                outcome.allowed = rule.action != Action::Deny;
                outcome.steps.push(Step { switch: passage.switch.name.clone(), rule });
                if !outcome.allowed {
                    return Ok(outcome);
                }
            }
        }
        Ok(outcome)
    }

    fn passages(&self, source: IpAddr, destination: IpAddr) -> Vec<Passage<'_>> {
        let (from, to) = (self.port_at(source), self.port_at(destination));
        let first = from.map(|port| {
            let local = to.filter(|to| to.switch == port.switch);
            let outport = local.or_else(|| self.router_port(port.switch));
            Passage { switch: &self.switches[port.switch], inport: Some(port), outport }
        });
        let second = to.filter(|to| from.is_none_or(|from| from.switch != to.switch)).map(|port| Passage {
            switch: &self.switches[port.switch],
            inport: self.router_port(port.switch),
            outport: Some(port),
        });
        first.into_iter().chain(second).collect()
    }

    fn port_at(&self, address: IpAddr) -> Option<&Port> {
        self.ports.iter().find(|port| port.addresses.contains(&address))
    }

    fn router_port(&self, switch: usize) -> Option<&Port> {
        self.ports.iter().find(|port| port.switch == switch && port.is_router)
    }
}

impl Passage<'_> {
    fn frame(&self, stage: Stage, content: Content) -> Frame<'_> {
        Frame {
            inport: self.inport.map_or("", |port| &port.name),
            outport: self.outport.filter(|_| stage == Stage::ToPort).map_or("", |port| &port.name),
            eth_src: self.inport.map_or(0, |port| port.mac),
            eth_dst: self.outport.map_or(0, |port| port.mac),
            content,
        }
    }
}

impl Switch {
    /// The rule that decides in a stage.
    fn decide(&self, stage: Stage, frame: &Frame<'_>) -> Result<Option<Arc<Rule>>, Undefined> {
        // ovn-northd(8): where connections are tracked, neighbour discovery passes, but not the stage after load balancing.
        let is_solicitation = matches!(frame.content, Content::Solicitation(_));
        if is_solicitation && self.stateful && stage != Stage::FromPortAfterLb {
            return Ok(None);
        }
        let matching = self.rules.iter().filter(|rule| rule.stage == stage && rule.expression.matches(frame));
        let mut matching: Vec<&Arc<Rule>> = matching.collect();
        matching.sort_by_key(|rule| (rule.tier, -rule.priority));
        for tier in matching.chunk_by(|a, b| a.tier == b.tier) {
            let [first, rest @ ..] = tier else { continue };
            let rival = rest.iter().find(|r| r.priority == first.priority && r.action != first.action);
            if let Some(rival) = rival {
                return Err(Undefined(Arc::clone(first), Arc::clone(rival)));
            }
            if first.action != Action::Pass {
                return Ok(Some(Arc::clone(first)));
            }
        }
        Ok(None)
    }
}
