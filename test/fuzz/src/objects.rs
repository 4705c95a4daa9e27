//! Target: a sequence of Kubernetes objects, through annotations, facts and the engine.
//!
//! Promises: no panic; what was translated step by step equals a translation from scratch; an annotation that was read is
//! written back to the same value.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ovenbird_api::L3Gateway;
use ovenbird_api::node;
use ovenbird_api::pod::PodNetwork;
use ovenbird_topology::{
    Change, Config, EndpointSliceFact, Engine, Fact, Interner, NamespaceFact, NodeFact, PodFact, ServiceFact, config,
};
use serde_json::Value;

/// Nodes, pods, a namespace, a Service with its endpoints; some in conflict, one deleted.
pub const SEEDS: &[&[u8]] = &[include_bytes!("../seeds/objects.json")];

const CLUSTER_SUBNETS: &str = "10.128.0.0/14/23,fd00:10:128::/48/64";

/// Runs the target: one JSON object after the other, up to the first that is none.
pub fn api_objects(bytes: &[u8]) {
    annotations(&String::from_utf8_lossy(bytes));
    follow(bytes);
}

/// The owners that have rows at the end.
pub fn follow(bytes: &[u8]) -> Vec<String> {
    let services = config::DEFAULT_SERVICE_CIDRS;
    let Ok(config) = Config::parse(CLUSTER_SUBNETS, services, config::DEFAULT_JOIN_SUBNETS, config::DEFAULT_MTU) else {
        return Vec::new();
    };
    let (mut engine, mut interner) = (Engine::new(config.clone()), Interner::default());
    let (mut facts, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    let values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    for change in values.map_while(Result::ok).filter_map(|value| change(value, &mut interner)) {
        match &change {
            Change::Upsert(fact) => drop(facts.insert(fact.key(), fact.clone())),
            Change::Delete(key) => drop(facts.remove(key)),
        }
        engine.apply(change);
        for owner in engine.take_dirty() {
            let output = engine.translate(&owner);
            outputs.insert(owner, output);
        }
    }

    let mut fresh = Engine::new(config);
    facts.into_values().for_each(|fact| fresh.apply(Change::Upsert(fact)));
    let mut owners = Vec::new();
    for owner in fresh.owners() {
        let output = fresh.translate(&owner);
        if !output.rows.is_empty() {
            owners.push(owner.to_string());
        }
        if let Some(stepwise) = outputs.remove(&owner) {
            assert_eq!(stepwise, output, "{owner}: step by step, and from scratch");
        }
    }
    for (owner, output) in outputs {
        assert!(output.rows.is_empty() && output.contributions.is_empty(), "{owner} is gone and still has rows");
    }
    owners
}

/// An object as a change; `{"kind":"Delete","object":...}` deletes.
fn change(value: Value, interner: &mut Interner) -> Option<Change> {
    if value.get("kind")? == "Delete" {
        return Some(Change::Delete(fact(value.get("object")?.clone(), interner)?.key()));
    }
    Some(Change::Upsert(fact(value, interner)?))
}

fn fact(value: Value, interner: &mut Interner) -> Option<Fact> {
    match value.get("kind")?.as_str()? {
        "Node" => Some(Fact::Node(NodeFact::from_k8s(&serde_json::from_value::<Node>(value).ok()?))),
        "Pod" => Some(Fact::Pod(PodFact::from_k8s(&serde_json::from_value::<Pod>(value).ok()?, interner))),
        "Namespace" => {
            let namespace = serde_json::from_value::<Namespace>(value).ok()?;
            Some(Fact::Namespace(NamespaceFact::from_k8s(&namespace, interner)))
        }
        "Service" => {
            let service = serde_json::from_value::<Service>(value).ok()?;
            Some(Fact::Service(ServiceFact::from_k8s(&service, interner)))
        }
        "EndpointSlice" => {
            let slice = serde_json::from_value::<EndpointSlice>(value).ok()?;
            Some(Fact::EndpointSlice(EndpointSliceFact::from_k8s(&slice, interner)))
        }
        _ => None,
    }
}

/// The text as the value of each annotation.
fn annotations(text: &str) {
    if let Ok(network) = PodNetwork::parse(text) {
        assert_eq!(PodNetwork::parse(&network.format()), Ok(network));
    }
    if let Ok(subnets) = node::parse_subnets(text) {
        assert_eq!(node::parse_subnets(&node::format_subnets(&subnets)), Ok(subnets));
    }
    if let Ok(Some(gateway)) = L3Gateway::parse(text) {
        assert_eq!(L3Gateway::parse(&gateway.format()), Ok(Some(gateway)));
    }
    if let Ok(id) = node::parse_id(text) {
        assert_eq!(node::parse_id(&node::format_id(id)), Ok(id));
    }
    if let Ok(mac) = node::parse_management_mac(text) {
        assert_eq!(node::parse_management_mac(&node::format_management_mac(mac)), Ok(mac));
    }
    if let Ok(addresses) = node::parse_host_cidrs(text) {
        assert_eq!(node::parse_host_cidrs(&node::format_host_cidrs(&addresses)), Ok(addresses));
    }
    if let Ok(address) = node::parse_primary_ifaddr(text) {
        assert_eq!(node::parse_primary_ifaddr(&node::format_primary_ifaddr(&address)), Ok(address));
    }
    if let Ok(addresses) = node::parse_encap_ips(text) {
        assert_eq!(node::parse_encap_ips(&node::format_encap_ips(&addresses)), Ok(addresses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_goes_all_the_way() {
        let owners = follow(SEEDS[0]);
        assert!(
            owners.contains(&"Node node-1".to_owned())
                && owners.contains(&"Pod default/web-1".to_owned())
                && owners.contains(&"Service default/web".to_owned()),
            "{owners:?}"
        );
    }
}
