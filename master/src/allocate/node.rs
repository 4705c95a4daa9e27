//! Nodes: subnets and ids.

use ipnet::IpNet;
use ovenbird_api::annotation::{NODE_ID, NODE_SUBNETS};
use ovenbird_api::node::{format_id, format_subnets};
use ovenbird_topology::allocate::AddressPool;
use ovenbird_topology::{Fact, NetworkFact, NodeFact};
use ovsdb::Str;
use rustc_hash::FxHashSet;

use super::{Allocator, Effects, complaint};
use crate::annotate::{Outcome, Request, Target};
use crate::event::Subject;
use crate::object::{Guard, Told};

/// A node that exists, or that pods are bound to; or a Network, which is no `known` node.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Its Node object was seen.
    pub known: bool,
    pub created: i64,
    pod_cidrs: Vec<IpNet>,
    /// As annotated; `None` when absent or not readable.
    subnets: Option<Vec<IpNet>>,
    /// As annotated; `None` when absent or not readable.
    pub id: Option<u16>,
    /// An annotation is there that cannot be read; it is not overwritten.
    unreadable: bool,
    guard: Guard,
    write: Write,
    /// Why it has not all it needs.
    problem: Option<String>,
    /// Of a Network: as it was when the pool was opened.
    pub network: Option<Box<NetworkFact>>,
    /// Addresses; there once the subnets are annotated and reserved.
    pub pool: Option<AddressPool>,
    /// Pods at home here that must have a port.
    pub pods: FxHashSet<Str>,
    /// Pods that wait until an address is free.
    pub blocked: Vec<Str>,
}

/// How far the write of a choice is. The choice stays reserved until it is known not to be written.
#[derive(Debug, Default, PartialEq)]
enum Write {
    /// None is under way.
    #[default]
    Idle,
    /// In flight, based on this version.
    Sent(Str),
    /// Done, or failed in a way that leaves it open whether it was done; the watch will tell.
    Open,
}

impl Node {
    /// Why it waits.
    pub fn why(&self) -> Option<String> {
        match &self.problem {
            _ if !self.known => None,
            Some(problem) => Some(problem.clone()),
            None if self.unreadable => Some("an annotation cannot be read; see the Event on it".into()),
            None if self.subnets.is_none() || self.id.is_none() => {
                Some("its subnets and id are not written yet".into())
            }
            None => None,
        }
    }

    /// Subnets as annotated.
    pub fn subnets(&self) -> &[IpNet] {
        self.subnets.as_deref().unwrap_or_default()
    }
}

impl Allocator {
    /// A node is there, new or changed.
    pub fn upsert_node(&mut self, told: Told<NodeFact>, fx: &mut Effects) {
        let Told { fact, guard } = told;
        let node = self.nodes.entry(fact.name.clone()).or_default();
        node.known = true;
        node.created = fact.created;
        node.pod_cidrs.clone_from(&fact.pod_cidrs);
        node.unreadable = matches!(fact.subnets, Some(Err(_))) || matches!(fact.id, Some(Err(_)));
        let subnets = fact.subnets.as_ref().and_then(|s| s.as_ref().ok());
        let id = fact.id.as_ref().and_then(|i| i.as_ref().ok().copied());
        let same = node.subnets.as_ref() == subnets && node.id == id;
        node.subnets = subnets.cloned();
        node.id = id;
        let newer = node.guard != guard;
        node.guard = guard;
        if node.subnets.is_some() && node.id.is_some() {
            node.write = Write::Idle;
        }
        let name = fact.name.clone();
        self.tags.node(&fact);
        fx.facts.push(Fact::Node(fact));
        if self.settled && !same {
            self.place_node(&name, fx);
        }
        if newer {
            self.fill_node(&name, fx);
        }
    }

    pub(super) fn delete_node(&mut self, name: &str, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let pods = std::mem::take(&mut node.pods);
        let had_problem = node.problem.is_some();
        for key in &pods {
            if let Some(pod) = self.pods.get_mut(key) {
                pod.held = false;
            }
        }
        if pods.is_empty() {
            self.nodes.remove(name);
        } else {
            *node = Node { pods, ..Node::default() };
        }
        if had_problem {
            fx.complaints.push((subject(name), Vec::new()));
        }
        self.subnets.release(name);
        self.ids.release(name);
        self.tags.delete_node(name);
        self.refused.remove(name);
        self.reconsider(fx);
    }

    /// Reserves what the node's annotations say, and opens its pool.
    pub(super) fn place_node(&mut self, name: &Str, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(name).filter(|n| n.known) else { return };
        // What contradicts another node is complained of by the engine, which judges by age too.
        let mut refusal = None;
        match node.id.map(|id| self.ids.reserve(name, id)) {
            Some(Err(error)) => refusal = Some(error.to_string()),
            Some(Ok(())) => {}
            // While a choice is being written it stays reserved.
            None if node.write == Write::Idle => self.ids.release(name),
            None => {}
        }
        let mut open = false;
        match node.subnets.as_ref().map(|subnets| self.subnets.reserve(name, subnets)) {
            Some(Err(error)) => refusal = Some(error.to_string()),
            Some(Ok(())) => open = true,
            None if node.write == Write::Idle => self.subnets.release(name),
            None => {}
        }
        if refusal.is_some() {
            self.refused.insert(name.clone());
        } else {
            self.refused.remove(name);
        }
        if std::mem::replace(&mut node.problem, refusal).is_some() {
            fx.complaints.push((subject(name), Vec::new()));
        }
        let subnets = if open { node.subnets().to_vec() } else { Vec::new() };
        let current: Vec<IpNet> = node.pool.iter().flat_map(AddressPool::subnets).collect();
        if current != subnets {
            node.pool = open.then(|| AddressPool::new(&subnets));
            self.reopen(name, fx);
        }
    }

    /// The node's pool is another one: its pods take their addresses in it, the oldest first, and the rest is filled.
    pub(super) fn reopen(&mut self, name: &Str, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.blocked.clear();
        let mut keys: Vec<(i64, Str)> = Vec::with_capacity(node.pods.len());
        for key in &node.pods {
            if let Some(pod) = self.pods.get_mut(key) {
                pod.held = false;
                keys.push((pod.created, key.clone()));
            }
        }
        keys.sort_unstable();
        for (_, key) in &keys {
            self.hold(key, fx);
        }
        self.fill_pods(name, fx);
    }

    /// Nodes that were refused may fit now that something was released.
    fn reconsider(&mut self, fx: &mut Effects) {
        let mut names: Vec<Str> = self.refused.iter().cloned().collect();
        names.sort_unstable();
        for name in names {
            self.place_node(&name, fx);
        }
        if self.active {
            let starved = self.nodes.iter().filter(|(_, n)| n.problem.is_some()).map(|(name, _)| name.clone());
            let mut starved: Vec<Str> = starved.collect();
            starved.sort_unstable();
            for name in starved {
                self.fill_node(&name, fx);
            }
        }
    }

    /// Chooses what the node lacks, and has it written.
    pub(super) fn fill_node(&mut self, name: &Str, fx: &mut Effects) {
        let refused = self.refused.contains(name);
        let Some(node) = self.nodes.get_mut(name) else { return };
        let complete = node.subnets.is_some() && node.id.is_some();
        if !self.active || !node.known || node.unreadable || matches!(node.write, Write::Sent(_)) || complete || refused
        {
            return;
        }
        let mut annotations = Vec::new();
        let mut complaints = Vec::new();
        if node.subnets.is_none() {
            match self.subnets.allocate(name, &node.pod_cidrs) {
                Ok(subnets) => annotations.push((NODE_SUBNETS, format_subnets(&subnets))),
                Err(error) => complaints.extend(complaint("NoFreeSubnet", NODE_SUBNETS, error.to_string())),
            }
        }
        if node.id.is_none() {
            match self.ids.allocate(name) {
                Ok(id) => annotations.push((NODE_ID, format_id(id))),
                Err(error) => complaints.extend(complaint("NoFreeNodeId", NODE_ID, error.to_string())),
            }
        }
        let before = std::mem::replace(&mut node.problem, complaints.first().map(|d| d.message.clone()));
        if before != node.problem {
            fx.complaints.push((subject(name), complaints));
        }
        if !annotations.is_empty() {
            node.write = Write::Sent(node.guard.version.clone());
            fx.requests.push(Request {
                target: Target::Node(name.clone()),
                guard: node.guard.clone(),
                annotations,
                removed: &[],
            });
        }
    }

    pub(super) fn node_outcome(&mut self, name: Str, version: &Str, outcome: Outcome, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(&name) else { return };
        if node.write != Write::Sent(version.clone()) {
            return;
        }
        node.write = Write::Idle;
        match outcome {
            Outcome::Written => node.write = Write::Open,
            Outcome::Gone => {}
            // Chosen again when the newer version comes by watch, or now if it has.
            Outcome::Conflict if node.guard.version == *version => {}
            Outcome::Conflict => self.fill_node(&name, fx),
            Outcome::Refused(error) | Outcome::Failed(error) => {
                node.write = Write::Open;
                node.problem = Some(format!("its subnets and id could not be written, trying again: {error}"));
                self.failed.push(Target::Node(name));
            }
        }
    }

    /// Gives up choices that are not written, for another master chooses now.
    pub(super) fn withdraw_nodes(&mut self) {
        for (name, node) in &mut self.nodes {
            node.write = Write::Idle;
            if node.subnets.is_none() {
                self.subnets.release(name);
            }
            if node.id.is_none() {
                self.ids.release(name);
            }
        }
    }
}

fn subject(name: &str) -> Subject {
    Subject { kind: "Node", key: name.into() }
}
