//! Fills what annotations lack: node subnets, node ids and pod addresses, in memory only.
//!
//! First everything that annotations say is reserved, then the rest is allocated, oldest first, then in order of names. An annotation that cannot
//! be read or conflicts is left to the translation, which complains. Must not: change an annotation.

use std::collections::BTreeMap;

use ovenbird_topology::allocate::{AddressPool, NodeIds, NodeSubnets, attachment};
use ovenbird_topology::{Config, Fact, NodeFact, PodAddresses, PodFact};
use ovsdb::Str;

/// The facts with nothing missing, and what could not be allocated.
pub fn fill(config: &Config, mut facts: Vec<Fact>) -> (Vec<Fact>, Vec<String>) {
    facts.sort_by_key(|fact| match fact {
        Fact::Node(node) => node.created,
        Fact::Pod(pod) => pod.created,
        Fact::Namespace(_)
        | Fact::Service(_)
        | Fact::EndpointSlice(_)
        | Fact::ServiceCidr(_)
        | Fact::NetworkPolicy(_)
        | Fact::AdminPolicy(_) => 0,
    });
    let mut problems = Vec::new();
    let (mut subnets, mut ids) = (NodeSubnets::new(config), NodeIds::default());
    let nodes: Vec<&mut NodeFact> = facts.iter_mut().filter_map(as_node).collect();
    for node in &nodes {
        if let Some(Ok(annotated)) = &node.subnets {
            // A conflict is told by the translation, with the same words.
            let _ = subnets.reserve(&node.name, annotated);
        }
        if let Some(Ok(annotated)) = node.id {
            let _ = ids.reserve(&node.name, annotated);
        }
    }
    let mut pools: BTreeMap<Str, AddressPool> = BTreeMap::new();
    for node in nodes {
        if node.subnets.is_none() {
            match subnets.allocate(&node.name, &node.pod_cidrs) {
                Ok(allocated) => node.subnets = Some(Ok(allocated)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if node.id.is_none() {
            match ids.allocate(&node.name) {
                Ok(allocated) => node.id = Some(Ok(allocated)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        pools.insert(node.name.clone(), AddressPool::new(subnets.get(&node.name)));
    }

    for pod in facts.iter_mut().filter_map(as_attached_pod) {
        if let (Some(pool), Some(Ok(annotated))) = (pod.node.as_ref().and_then(|n| pools.get_mut(n)), &pod.network) {
            let _ = pool.reserve(&pod.key, annotated.iter());
        }
    }
    for pod in facts.iter_mut().filter_map(as_attached_pod).filter(|pod| pod.network.is_none()) {
        match pod.node.as_ref().and_then(|n| pools.get_mut(n)) {
            None => problems.push(format!("pod {}: there is no node {}", pod.key, pod.node.as_deref().unwrap_or(""))),
            Some(pool) => match pool.allocate(&pod.key) {
                Ok(addresses) => {
                    let subnets: Vec<_> = pool.subnets().collect();
                    pod.network =
                        attachment(config, &subnets, &addresses).map(|network| Ok(PodAddresses::from(network)));
                }
                Err(error) => problems.push(error.to_string()),
            },
        }
    }
    (facts, problems)
}

fn as_node(fact: &mut Fact) -> Option<&mut NodeFact> {
    if let Fact::Node(node) = fact { Some(node) } else { None }
}

/// A pod that must have a port.
fn as_attached_pod(fact: &mut Fact) -> Option<&mut PodFact> {
    if let Fact::Pod(pod) = fact { Some(pod).filter(|pod| pod.attached_to().is_some()) } else { None }
}
