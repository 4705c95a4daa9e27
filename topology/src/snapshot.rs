//! The snapshot: all facts, and what is derived from several of them.
//!
//! Derived: which subnets each node may use (two nodes may claim one), what is wrong with their gateways (two may claim one
//! address), and which pods of a node claim an address. A change
//! tells the owner whose fact it is and the buckets that changed with it; an upsert of an equal fact tells nothing.
//! Must not: know which features read what.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::allocate::{NodeSubnets, SubnetError};
use crate::bucket::Bucket;
use crate::facts::{Change, Fact, FactKey, NamespaceFact, NodeFact, PodAddresses, PodFact};
use crate::gateway::{self, GatewayError};
use crate::{Config, kinds};

/// Facts and derived buckets.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    nodes: BTreeMap<Str, NodeFact>,
    pods: FxHashMap<Str, Box<PodFact>>,
    namespaces: FxHashMap<Str, NamespaceFact>,
    /// By node: (address, key of a pod that claims it), sorted. Two entries with one address are a conflict.
    claims: FxHashMap<Str, Vec<(IpAddr, Str)>>,
    subnets: FxHashMap<Str, Subnets>,
    /// By node, those whose gateway cannot be.
    gateways: FxHashMap<Str, Vec<GatewayError>>,
    /// `subnets` and `gateways` do not yet follow from `nodes`.
    unsettled: bool,
}

/// What became of a node's subnet annotation.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Subnets {
    /// The node's own.
    pub usable: Vec<IpNet>,
    /// Outside cluster-subnets, or an older node's.
    pub refused: Vec<SubnetError>,
}

/// What a change touches.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// The owner whose own fact changed.
    pub owner: Option<Owner>,
    /// Buckets that changed.
    pub buckets: Vec<Bucket>,
}

impl Snapshot {
    pub fn node(&self, name: &str) -> Option<&NodeFact> {
        self.nodes.get(name)
    }

    pub fn pod(&self, key: &str) -> Option<&PodFact> {
        self.pods.get(key).map(|pod| &**pod)
    }

    pub fn subnets(&self, node: &str) -> Option<&Subnets> {
        self.subnets.get(node)
    }

    pub fn gateway_errors(&self, node: &str) -> &[GatewayError] {
        self.gateways.get(node).map_or(&[], Vec::as_slice)
    }

    /// The pod that has an address of a node: of those that claim it the oldest, then the first by key.
    pub fn holder(&self, node: &str, address: IpAddr) -> Option<&Str> {
        let claims = self.claims.get(node)?;
        let first = claims.partition_point(|(claimed, _)| *claimed < address);
        let claimants = claims[first..].iter().take_while(|(claimed, _)| *claimed == address).map(|(_, key)| key);
        claimants.min_by_key(|key| (self.pods.get(*key).map(|pod| pod.created), *key))
    }

    /// Owners that there are, sorted.
    pub fn owners(&self) -> Vec<Owner> {
        let mut owners = vec![kinds::cluster()];
        owners.extend(self.nodes.keys().map(|name| Owner::new(kinds::NODE, name.clone())));
        owners.extend(self.pods.keys().map(|key| Owner::new(kinds::POD, key.clone())));
        owners.sort_unstable();
        owners
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Upsert(Fact::Node(node)) => self.set_node(node.name.clone(), Some(node)),
            Change::Delete(FactKey::Node(name)) => self.set_node(name, None),
            Change::Upsert(Fact::Pod(pod)) => self.set_pod(&pod.key.clone(), Some(pod)),
            Change::Delete(FactKey::Pod(key)) => self.set_pod(&key, None),
            Change::Upsert(Fact::Namespace(namespace)) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
                Touched::default()
            }
            Change::Delete(FactKey::Namespace(name)) => {
                self.namespaces.remove(&name);
                Touched::default()
            }
        }
    }

    /// Brings `subnets` and `gateways` up to date and returns the buckets that changed by it. Apart from `apply`, so that a batch of
    /// changes, such as the first list, costs one pass over the nodes.
    pub fn settle(&mut self, config: &Config) -> Vec<Bucket> {
        if !std::mem::take(&mut self.unsettled) {
            return Vec::new();
        }
        let subnets = judge_subnets(config, self.nodes.values());
        let mut buckets: Vec<Bucket> = replace(&mut self.subnets, subnets).iter().map(|n| Bucket::subnets(n)).collect();
        let gateways = gateway::judge(config, self.nodes.values());
        buckets.extend(replace(&mut self.gateways, gateways).iter().map(|n| Bucket::gateway(n)));
        buckets
    }

    fn set_node(&mut self, name: Str, node: Option<NodeFact>) -> Touched {
        let owner = Some(Owner::new(kinds::NODE, name.clone()));
        let claim = |n: &NodeFact| (n.created, n.subnets.clone(), n.id.clone(), n.gateway.clone());
        let (before, after) = (self.nodes.get(&name), node.as_ref());
        if before == after {
            return Touched::default();
        }
        self.unsettled |= before.map(claim) != after.map(claim);
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
        Touched { owner, buckets: Vec::new() }
    }

    fn set_pod(&mut self, key: &Str, pod: Option<PodFact>) -> Touched {
        if self.pod(key) == pod.as_ref() {
            return Touched::default();
        }
        let mut touched = Touched { owner: Some(Owner::new(kinds::POD, key.clone())), buckets: Vec::new() };
        // The map's key is the fact's own text, so that it is held once: hence no insertion over an older fact.
        if let Some(before) = self.pods.remove(key) {
            self.unclaim(&before, &mut touched.buckets);
        }
        if let Some(pod) = pod {
            self.claim(&pod, &mut touched.buckets);
            self.pods.insert(pod.key.clone(), Box::new(pod));
        }
        touched
    }

    fn claim(&mut self, pod: &PodFact, buckets: &mut Vec<Bucket>) {
        let Some((node, addresses)) = claim_of(pod) else { return };
        let claims = self.claims.entry(node.clone()).or_default();
        for address in addresses.iter() {
            buckets.push(Bucket::claims(node, address));
            let claim = (address, pod.key.clone());
            if let Err(at) = claims.binary_search(&claim) {
                claims.insert(at, claim);
            }
        }
    }

    fn unclaim(&mut self, pod: &PodFact, buckets: &mut Vec<Bucket>) {
        let Some((node, addresses)) = claim_of(pod) else { return };
        buckets.extend(addresses.iter().map(|address| Bucket::claims(node, address)));
        if let Some(claims) = self.claims.get_mut(node) {
            claims.retain(|(_, key)| *key != pod.key);
            if claims.is_empty() {
                self.claims.remove(node);
            }
        }
    }
}

/// Puts `new` in the place of `old` and returns the nodes whose value differs.
fn replace<T: PartialEq>(old: &mut FxHashMap<Str, T>, new: FxHashMap<Str, T>) -> Vec<Str> {
    let old_values = std::mem::replace(old, new);
    let changed = old.iter().filter(|(name, now)| old_values.get(*name) != Some(now)).map(|(name, _)| name);
    let gone = old_values.keys().filter(|name| !old.contains_key(*name));
    changed.chain(gone).cloned().collect()
}

/// The node and the addresses that a pod claims on it: none without a port.
fn claim_of(pod: &PodFact) -> Option<(&Str, &PodAddresses)> {
    Some((pod.attached_to()?, pod.network.as_ref()?.as_ref().ok()?))
}

/// Gives each node the subnets it names; of two nodes that name overlapping ones, to the older.
fn judge_subnets<'a>(config: &Config, nodes: impl Iterator<Item = &'a NodeFact>) -> FxHashMap<Str, Subnets> {
    let named = |node: &'a NodeFact| Some((node, node.subnets.as_ref()?.as_ref().ok()?));
    let mut nodes: Vec<(&NodeFact, &Vec<IpNet>)> = nodes.filter_map(named).collect();
    nodes.sort_by_key(|(node, _)| (node.created, node.name.clone()));
    let mut taken = NodeSubnets::new(config);
    let mut judged = FxHashMap::default();
    for (node, subnets) in nodes {
        let result: &mut Subnets = judged.entry(node.name.clone()).or_default();
        for subnet in subnets {
            result.usable.push(*subnet);
            if let Err(error) = taken.reserve(&node.name, &result.usable) {
                result.usable.pop();
                result.refused.push(error);
            }
        }
    }
    judged
}
