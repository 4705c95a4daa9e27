//! Fills what annotations lack: node subnets, node ids and pod addresses, in memory only.
//!
//! First everything that annotations say is reserved, then the rest is allocated, oldest first, then in order of names. An annotation that cannot
//! be read or conflicts is left to the translation, which complains. Must not: change an annotation.

use std::collections::BTreeMap;

use ovenbird_topology::allocate::{AddressPool, NodeIds, NodeSubnets, TagPool, attachment};
use ovenbird_topology::facts::Labels;
use ovenbird_topology::underlay::{self, Networks, scope};
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
        | Fact::AdminPolicy(_)
        | Fact::Network(_)
        | Fact::ProviderNetwork(_) => 0,
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
    let mut tags: BTreeMap<Str, TagPool> = BTreeMap::new();
    for node in nodes {
        if node.parent.is_some() {
            tags.insert(node.name.clone(), TagPool::default());
        }
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

    let (networks, namespaces) = networks(config, &facts);
    pools.extend(networks.all_usable().map(|network| (scope(&network.name).into(), network.pool())));
    for pod in facts.iter_mut().filter_map(as_attached_pod) {
        let home = pod.on.as_ref().map(|network| scope(network).into()).or_else(|| pod.node.clone());
        if let (Some(pool), Some(Ok(annotated))) = (home.and_then(|home| pools.get_mut(&home)), &pod.network) {
            let _ = pool.reserve(&pod.key, annotated.iter());
            let tags = pod.node.as_ref().and_then(|n| tags.get_mut(n));
            let _ = tags.zip(annotated.tag).map(|(tags, tag)| tags.reserve(&pod.key, tag));
        }
    }
    for pod in facts.iter_mut().filter_map(as_attached_pod).filter(|pod| pod.network.is_none()) {
        let network = namespaces.get(pod.namespace()).and_then(|labels| networks.of_namespace(labels));
        let home = network.map(|network| scope(&network.name).into()).or_else(|| pod.node.clone());
        match home.and_then(|home| pools.get_mut(&home)) {
            None => problems.push(format!("pod {}: there is no node {}", pod.key, pod.node.as_deref().unwrap_or(""))),
            Some(pool) => match pool.allocate(&pod.key) {
                Ok(addresses) => {
                    let subnets: Vec<_> = pool.subnets().collect();
                    let attached = match network {
                        Some(network) => underlay::attachment(config, &networks, network, (&pod.uid, &addresses)),
                        None => attachment(config, &subnets, &addresses),
                    };
                    pod.on = network.map(|network| network.name.clone());
                    let tag = tag(&mut tags, pod, &mut problems);
                    pod.network = attached.map(|network| Ok(PodAddresses { tag, ..PodAddresses::from(network) }));
                }
                Err(error) => problems.push(error.to_string()),
            },
        }
    }
    (facts, problems)
}

/// The tag of a pod on a node that is a VM.
fn tag(tags: &mut BTreeMap<Str, TagPool>, pod: &PodFact, problems: &mut Vec<String>) -> Option<u16> {
    match tags.get_mut(pod.node.as_ref()?)?.allocate(&pod.key) {
        Ok(tag) => Some(tag),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// All Networks, and the labels of all namespaces.
fn networks(config: &Config, facts: &[Fact]) -> (Networks, BTreeMap<Str, Labels>) {
    let (mut networks, mut namespaces) = (Networks::default(), BTreeMap::new());
    for fact in facts {
        match fact {
            Fact::Network(network) => drop(networks.set(&network.name, Some(network.clone()))),
            Fact::ProviderNetwork(fact) => drop(networks.set_provider(&fact.name, Some(fact.clone()))),
            Fact::Namespace(fact) => drop(namespaces.insert(fact.name.clone(), fact.labels.clone())),
            _ => {}
        }
    }
    networks.settle(config);
    (networks, namespaces)
}

fn as_node(fact: &mut Fact) -> Option<&mut NodeFact> {
    if let Fact::Node(node) = fact { Some(node) } else { None }
}

/// A pod that must have a port.
fn as_attached_pod(fact: &mut Fact) -> Option<&mut PodFact> {
    if let Fact::Pod(pod) = fact { Some(pod).filter(|pod| pod.attached_to().is_some()) } else { None }
}
