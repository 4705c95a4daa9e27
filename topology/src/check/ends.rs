//! Who is at either end: pods, nodes and addresses as the snapshot has them.
//!
//! ```text
//! web/a, node:n1, 10.0.0.7 -> name, addresses -> for each its pod, its node, its logical port
//! ```
//!
//! A pod on its node's network is its node. Inputs: facts. Outputs: ends, or why there is none and what to do. Must not: judge.

use std::net::IpAddr;

use ovenbird_api::{Mac, address, name};
use ovsdb::Str;

use super::Refusal;
use super::query::{End, PodName};
use crate::facts::{NodeFact, PodFact};
use crate::snapshot::Snapshot;
use crate::view::View;
use crate::{node, pod};

/// Most names that an error tells.
const NAMES: usize = 10;

/// One end.
pub(super) struct Party<'a> {
    /// `web/a`, `node n1`, `10.0.0.7`.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Address<'a>>,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// An address, and whose it is.
#[derive(Clone)]
pub(super) struct Address<'a> {
    pub ip: IpAddr,
    /// The pod that has it.
    pub pod: Option<&'a PodFact>,
    /// The node whose management port has it.
    pub management_of: Option<&'a Str>,
    /// Where it is on a logical switch; `None` outside of all switches.
    pub port: Option<LogicalPort<'a>>,
}

/// A port of a switch of a node, or of a Network.
#[derive(Clone)]
pub(super) struct LogicalPort<'a> {
    /// Name of the node.
    pub node: &'a Str,
    /// The Network on whose switch it is, if it is not that of the node.
    pub network: Option<&'a Str>,
    /// `name` of the Logical_Switch_Port.
    pub name: String,
    pub mac: Mac,
}

/// Which end is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Destination,
}

/// Looks ends up.
pub(super) struct Ends<'a> {
    pub view: &'a View<'a>,
    pub snapshot: &'a Snapshot,
}

impl<'a> Ends<'a> {
    /// Whoever is asked for.
    pub fn find(&self, end: &End, role: Role) -> Result<Party<'a>, Refusal> {
        match end {
            End::Pod(name) => self.pod(name, role),
            End::Node(name) => self.node(name, role),
            End::Address(ip) => self.address(*ip, role),
        }
    }

    /// A pod by name; when it is on its node's network, the node.
    pub fn pod(&self, name: &PodName, role: Role) -> Result<Party<'a>, Refusal> {
        let fact = self.fact(name)?;
        if let (true, Some(node)) = (fact.host_network, &fact.node) {
            let mut party = self.node(node, role)?;
            party.name = name.to_string();
            party.notes.insert(0, on_host(fact, node));
            return Ok(party);
        }
        let addresses = self.addresses_of(fact)?;
        Ok(Party { name: name.to_string(), addresses, notes: Vec::new() })
    }

    /// A pod that is there.
    pub fn fact(&self, name: &PodName) -> Result<&'a PodFact, Refusal> {
        let Some(fact) = self.snapshot.pod(name.as_str()) else {
            let others = self.snapshot.selections().pods_in(name.namespace());
            let (namespace, pod) = (name.namespace().to_owned(), name.to_string());
            return Err(Refusal::UnknownPod { pod, namespace, others: list(others) });
        };
        let refuse = |why: &str| Err(Refusal::NoPort { pod: name.to_string(), why: why.to_owned() });
        if fact.finished {
            return refuse("it is done (phase Succeeded or Failed), and its addresses are free for others");
        }
        if fact.node.is_none() {
            return refuse("it is bound to no node; `kubectl describe pod` says what the scheduler waits for");
        }
        Ok(fact)
    }

    fn addresses_of(&self, fact: &'a PodFact) -> Result<Vec<Address<'a>>, Refusal> {
        let refuse = |why: String| Refusal::NoPort { pod: fact.key.to_string(), why };
        let pod::Place { node, addresses, .. } = match pod::place(self.view, fact) {
            Ok(Some(place)) => place,
            Ok(None) => {
                return Err(refuse("it has no addresses yet; `ovenbird status` says what it waits for".to_owned()));
            }
            Err(output) => {
                let told = output.diagnostics.first().map(|d| d.message.clone());
                return Err(refuse(told.unwrap_or_else(|| "its addresses cannot be used".to_owned())));
            }
        };
        let name = name::lsp_name(fact.namespace(), fact.name());
        let port = LogicalPort { node, network: fact.on.as_ref(), name, mac: addresses.mac };
        let of = |ip| Address { ip, pod: Some(fact), management_of: None, port: Some(port.clone()) };
        Ok(addresses.iter().map(of).collect())
    }

    /// A node by name: as a source the addresses by which its own processes talk to pods, as a destination
    /// those by which others reach it.
    fn node(&self, name: &str, role: Role) -> Result<Party<'a>, Refusal> {
        let Some(fact) = self.snapshot.node(name) else {
            let others = self.snapshot.nodes().map(|node| &node.name);
            return Err(Refusal::UnknownNode { node: name.to_owned(), others: list(others) });
        };
        let mut addresses = self.management(fact);
        if role == Role::Destination {
            let host = self.host_addresses(fact);
            addresses.retain(|own| !host.iter().any(|ip| ip.is_ipv4() == own.ip.is_ipv4()));
            addresses.extend(host.into_iter().map(|ip| Address { ip, pod: None, management_of: None, port: None }));
        }
        if addresses.is_empty() {
            return Err(Refusal::NoAddresses { end: format!("node {name}") });
        }
        Ok(Party { name: format!("node {name}"), addresses, notes: Vec::new() })
    }

    /// What a node's management port has.
    fn management(&self, fact: &'a NodeFact) -> Vec<Address<'a>> {
        let Some(subnets) = self.snapshot.subnets(&fact.name) else { return Vec::new() };
        let Some(mac) = node::management_mac(fact, &subnets.usable) else { return Vec::new() };
        let port = LogicalPort { node: &fact.name, network: None, name: name::management_port(&fact.name), mac };
        let of = |ip| Address { ip, pod: None, management_of: Some(&fact.name), port: Some(port.clone()) };
        subnets.usable.iter().filter_map(|subnet| address::management(*subnet)).map(of).collect()
    }

    /// The addresses by which others reach a node, sorted.
    fn host_addresses(&self, fact: &NodeFact) -> Vec<IpAddr> {
        let told = fact.host_cidrs.as_ref().and_then(|told| told.as_ref().ok());
        let told = told.into_iter().flatten().map(ipnet::IpNet::addr);
        let mut all: Vec<IpAddr> = self.snapshot.host_addresses(&fact.name).iter().copied().chain(told).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whoever has an address.
    fn address(&self, ip: IpAddr, role: Role) -> Result<Party<'a>, Refusal> {
        let mut party = Party {
            name: ip.to_string(),
            addresses: vec![Address { ip, pod: None, management_of: None, port: None }],
            notes: Vec::new(),
        };
        let has = |fact: &&NodeFact| {
            let subnets = self.snapshot.subnets(&fact.name).map_or(&[][..], |subnets| &subnets.usable);
            subnets.iter().any(|subnet| subnet.contains(&ip))
        };
        if let Some(fact) = self.snapshot.nodes().find(has) {
            let own = self.management(fact).into_iter().find(|address| address.ip == ip);
            let pod = self.snapshot.holder(&fact.name, ip).and_then(|key| self.snapshot.pod(key));
            // An address with which its pod has no port is nobody's.
            let of_pod = pod.and_then(|pod| self.addresses_of(pod).ok()).into_iter().flatten();
            let of_pod = of_pod.into_iter().find(|address| address.ip == ip);
            match (own, of_pod) {
                (Some(own), _) => {
                    party.notes.push(format!("{ip} is node {} towards pods", fact.name));
                    party.addresses = vec![own];
                }
                (None, Some(of_pod)) => {
                    let key = of_pod.pod.map_or_else(String::new, |pod| pod.key.to_string());
                    party.notes.push(format!("{ip} is pod {key}"));
                    party.addresses = vec![of_pod];
                }
                (None, None) => {
                    party.notes.push(format!("{ip} is of node {}'s subnet, but no pod has it", fact.name));
                }
            }
        } else if let Some(fact) = self.snapshot.nodes().find(|fact| self.host_addresses(fact).contains(&ip)) {
            let own: Vec<String> = self.management(fact).iter().map(|address| address.ip.to_string()).collect();
            let name = &fact.name;
            party.notes.push(match own.is_empty() {
                true => format!("{ip} is node {name}"),
                false => format!("{ip} is node {name}, which talks to pods from {}", own.join(" and ")),
            });
        } else if let Some(service) = self.snapshot.service_at(ip).filter(|_| role == Role::Destination) {
            return Err(Refusal::Service { address: ip, service: service.to_string() });
        }
        Ok(party)
    }
}

/// Why policies do not apply to a pod.
pub(super) fn on_host(fact: &PodFact, node: &str) -> String {
    format!(
        "{} is on the network of node {node}: no policy applies to it, and only blocks of addresses or nodes can name it",
        fact.key
    )
}

/// The first names, for an error.
fn list<'a>(names: impl Iterator<Item = &'a Str>) -> String {
    let mut names: Vec<&str> = names.take(NAMES + 1).map(|name| &**name).collect();
    let more = names.len() > NAMES;
    names.truncate(NAMES);
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ") + if more { ", ..." } else { "" }
}
