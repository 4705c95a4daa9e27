//! How the snapshot changes: facts come and go, and what is derived of them follows, at once or with the batch (`settle`).
//!
//! In: changes. Out: the owners and buckets that changed with them. Must not: be the way to read anything.

use ipnet::IpNet;
use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use super::{Snapshot, Subnets, Touched};
use crate::allocate::NodeSubnets;
use crate::bucket::Bucket;
use crate::facts::{
    AdminKey, AdminPolicyFact, Change, EndpointSliceFact, Fact, FactKey, NamespaceFact, NetworkFact, NetworkPolicyFact,
    NodeFact, PodAddresses, PodFact, ProviderNetworkFact, ServiceCidrFact, ServiceFact,
};
use crate::places::{Common, Place};
use crate::{Config, gateway, kinds, nested, underlay};

impl Snapshot {
    /// Takes a change in.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Upsert(Fact::Node(node)) => self.set_node(node.name.clone(), Some(node)),
            Change::Delete(FactKey::Node(name)) => self.set_node(name, None),
            Change::Upsert(Fact::Pod(pod)) => self.set_pod(&pod.key.clone(), Some(pod)),
            Change::Delete(FactKey::Pod(key)) => self.set_pod(&key, None),
            Change::Upsert(Fact::Namespace(namespace)) => self.set_namespace(&namespace.name.clone(), Some(namespace)),
            Change::Delete(FactKey::Namespace(name)) => self.set_namespace(&name, None),
            Change::Upsert(Fact::Service(service)) => self.set_service(&service.key.clone(), Some(service)),
            Change::Delete(FactKey::Service(key)) => self.set_service(&key, None),
            Change::Upsert(Fact::EndpointSlice(slice)) => self.set_slice(&slice.key.clone(), Some(slice)),
            Change::Delete(FactKey::EndpointSlice(key)) => self.set_slice(&key, None),
            Change::Upsert(Fact::ServiceCidr(cidr)) => self.set_service_cidr(cidr.name.clone(), Some(cidr)),
            Change::Delete(FactKey::ServiceCidr(name)) => self.set_service_cidr(name, None),
            Change::Upsert(Fact::AdminPolicy(policy)) => self.set_admin_policy(&policy.key.clone(), Some(policy)),
            Change::Delete(FactKey::AdminPolicy(key)) => self.set_admin_policy(&key, None),
            Change::Upsert(Fact::Network(network)) => self.set_network(&network.name.clone(), Some(network)),
            Change::Delete(FactKey::Network(name)) => self.set_network(&name, None),
            Change::Upsert(Fact::ProviderNetwork(p)) => self.set_provider(&p.name.clone(), Some(p)),
            Change::Delete(FactKey::ProviderNetwork(name)) => self.set_provider(&name, None),
            Change::Upsert(Fact::NetworkPolicy(policy)) => self.set_network_policy(&policy.key.clone(), Some(policy)),
            Change::Delete(FactKey::NetworkPolicy(key)) => self.set_network_policy(&key, None),
        }
    }

    /// Brings what is derived of all nodes up to date and returns the buckets that changed by it. Apart from `apply`, so that a
    /// batch of changes, such as the first list, costs one pass over the nodes.
    pub fn settle(&mut self, config: &Config) -> Vec<Bucket> {
        let mut buckets = self.policies.settle();
        if std::mem::take(&mut self.unjudged) {
            buckets.extend(self.networks.settle(config).iter().map(|name| Bucket::network(name)));
            buckets.push(Bucket::networks());
        }
        if std::mem::take(&mut self.unsettled) {
            let subnets = judge_subnets(config, self.nodes.values());
            buckets.extend(replace(&mut self.subnets, subnets).iter().map(|n| Bucket::subnets(n)));
            let parents = nested::judge(self.nodes.values());
            buckets.extend(replace(&mut self.parents, parents).iter().map(|n| Bucket::parent(n)));
            let gateways = gateway::judge(config, self.nodes.values());
            buckets.extend(replace(&mut self.gateways, gateways).iter().map(|n| Bucket::gateway(n)));
        }
        if std::mem::take(&mut self.displaced) {
            let chassis = |node: &NodeFact| Some((node.name.clone(), node.chassis.as_ref()?.as_ref().ok()?.clone()));
            let chassis = self.nodes.values().filter_map(chassis).collect();
            buckets.extend(replace(&mut self.chassis, chassis).iter().map(|n| Bucket::chassis(n)));
            let host = |node: &NodeFact| {
                let subnets = &self.subnets(&node.name)?.usable;
                let by_router = gateway::host(config, node, subnets, self.gateway_errors(&node.name));
                let vm = || nested::host(config, node, self.parent(&node.name)?);
                Some((node.name.clone(), by_router.or_else(vm)?))
            };
            let hosts = self.nodes.values().filter_map(host).collect();
            buckets.extend(replace(&mut self.hosts, hosts).iter().map(|n| Bucket::host(n)));
            let with_switch = |node: &&NodeFact| self.subnets(&node.name).is_some_and(|s| !s.usable.is_empty());
            let by_router = |node: &NodeFact| self.hosts.get(&node.name).filter(|host| host.router);
            let place = |node: &NodeFact| Place::of(node, by_router(node).map(|host| &host.addresses[..]));
            buckets.push(Bucket::node_addresses());
            let places: Vec<Place> = self.nodes.values().filter(with_switch).map(place).collect();
            let common = Common::of(self.nodes.values(), &places);
            if self.places != places {
                buckets.push(Bucket::places());
            }
            if self.common != common {
                buckets.push(Bucket::nodes());
            }
            (self.places, self.common) = (places, common);
        }
        buckets
    }

    fn set_node(&mut self, name: Str, node: Option<NodeFact>) -> Touched {
        if self.nodes.get(&name) == node.as_ref() {
            return Touched::default();
        }
        let claim = |n: &NodeFact| (n.created, n.subnets.clone(), n.id.clone(), n.gateway.clone(), n.parent.clone());
        self.unsettled |= self.nodes.get(&name).map(claim) != node.as_ref().map(claim);
        self.displaced = true;
        let owners = vec![Owner::new(kinds::NODE, name.clone())];
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
        Touched { owners, buckets: Vec::new() }
    }

    fn set_pod(&mut self, key: &Str, pod: Option<PodFact>) -> Touched {
        if self.pod(key) == pod.as_ref() {
            return Touched::default();
        }
        let mut touched = Touched { owners: vec![Owner::new(kinds::POD, key.clone())], buckets: Vec::new() };
        // The map's key is the fact's own text, so that it is held once: hence no insertion over an older fact.
        let before = self.pods.remove(key);
        if let Some(before) = &before {
            self.unclaim(before, &mut touched.buckets);
        }
        self.selections.set_pod(before.as_deref(), pod.as_ref(), &mut touched);
        if let Some(pod) = pod {
            self.claim(&pod, &mut touched.buckets);
            self.pods.insert(pod.key.clone(), Box::new(pod));
        }
        touched
    }

    fn set_namespace(&mut self, name: &Str, namespace: Option<NamespaceFact>) -> Touched {
        let mut touched = Touched::default();
        if self.selections.namespace(name) != namespace.as_ref() {
            self.selections.set_namespace(name, namespace, &self.pods, &mut touched);
        }
        touched
    }

    fn set_network_policy(&mut self, key: &Str, policy: Option<NetworkPolicyFact>) -> Touched {
        let mut touched = Touched::default();
        self.policies.set_network(key, policy, &mut self.selections, &self.pods, &mut touched);
        touched
    }

    fn set_admin_policy(&mut self, key: &AdminKey, policy: Option<AdminPolicyFact>) -> Touched {
        let mut touched = Touched::default();
        self.policies.set_admin(key, policy, &mut self.selections, &self.pods, &mut touched);
        touched
    }

    /// Says whether the database has tiers of ACLs.
    pub fn set_acl_tiers(&mut self, tiers: bool) -> Vec<Bucket> {
        self.policies.set_tiers(tiers)
    }

    fn set_service(&mut self, key: &Str, service: Option<ServiceFact>) -> Touched {
        if self.service(key) == service.as_ref() {
            return Touched::default();
        }
        let mut buckets = Vec::new();
        for address in self.services.remove(key).iter().flat_map(|before| before.outside()) {
            buckets.push(Bucket::outside(address));
            if let Some(keys) = self.outside.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.outside.remove(&address);
                }
            }
        }
        if let Some(service) = service {
            for address in service.outside() {
                buckets.push(Bucket::outside(address));
                self.outside.entry(address).or_default().insert(service.key.clone());
            }
            self.services.insert(service.key.clone(), Box::new(service));
        }
        Touched { owners: vec![Owner::new(kinds::SERVICE, key.clone())], buckets }
    }

    fn set_service_cidr(&mut self, name: Str, cidr: Option<ServiceCidrFact>) -> Touched {
        if self.service_cidrs.get(&name) == cidr.as_ref() {
            return Touched::default();
        }
        let owners = vec![Owner::new(kinds::SERVICE_CIDR, name.clone())];
        match cidr {
            Some(cidr) => self.service_cidrs.insert(name, cidr),
            None => self.service_cidrs.remove(&name),
        };
        Touched { owners, buckets: vec![Bucket::service_cidrs()] }
    }

    fn set_network(&mut self, name: &Str, network: Option<NetworkFact>) -> Touched {
        if !self.networks.set(name, network) {
            return Touched::default();
        }
        self.unjudged = true;
        Touched { owners: vec![Owner::new(kinds::NETWORK, name.clone())], buckets: vec![Bucket::network(name)] }
    }

    fn set_provider(&mut self, name: &Str, provider: Option<ProviderNetworkFact>) -> Touched {
        let buckets = vec![Bucket::provider(name)];
        if self.networks.set_provider(name, provider) {
            Touched { owners: Vec::new(), buckets }
        } else {
            Touched::default()
        }
    }

    fn set_slice(&mut self, key: &Str, slice: Option<EndpointSliceFact>) -> Touched {
        if self.slices.get(key).map(|slice| &**slice) == slice.as_ref() {
            return Touched::default();
        }
        let mut touched = Touched::default();
        if let Some(service) = self.slices.remove(key).and_then(|before| before.service) {
            if let Some(keys) = self.slices_of.get_mut(&service) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            touched.owners.push(Owner::new(kinds::SERVICE, service));
        }
        let Some(slice) = slice else { return touched };
        if let Some(service) = &slice.service {
            let keys = self.slices_of.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
            let at = keys.partition_point(|other| other < key);
            keys.insert(at, slice.key.clone());
            touched.owners.push(Owner::new(kinds::SERVICE, service.clone()));
        }
        self.slices.insert(slice.key.clone(), Box::new(slice));
        touched
    }

    fn claim(&mut self, pod: &PodFact, buckets: &mut Vec<Bucket>) {
        buckets.extend(self.tags.claim(pod).map(|(node, tag)| Bucket::tag(node, tag)));
        if let Some(node) = pod.attached_to().filter(|_| !pod.host_ports.is_empty()) {
            buckets.extend(pod.host_ports.iter().map(|wanted| Bucket::host_port(node, wanted)));
            self.host_ports.entry(node.clone()).or_default().insert(pod.key.clone());
        }
        let Some((scope, addresses)) = claim_of(pod) else { return };
        let claims = self.claims.entry(scope.clone()).or_default();
        for address in addresses.iter() {
            buckets.push(Bucket::claims(&scope, address));
            let claim = (address, pod.key.clone());
            if let Err(at) = claims.binary_search(&claim) {
                claims.insert(at, claim);
            }
        }
    }

    fn unclaim(&mut self, pod: &PodFact, buckets: &mut Vec<Bucket>) {
        buckets.extend(self.tags.unclaim(pod).map(|(node, tag)| Bucket::tag(node, tag)));
        if let Some(node) = pod.attached_to().filter(|_| !pod.host_ports.is_empty()) {
            buckets.extend(pod.host_ports.iter().map(|wanted| Bucket::host_port(node, wanted)));
            if let Some(keys) = self.host_ports.get_mut(node) {
                keys.remove(&pod.key);
                if keys.is_empty() {
                    self.host_ports.remove(node);
                }
            }
        }
        let Some((scope, addresses)) = claim_of(pod) else { return };
        buckets.extend(addresses.iter().map(|address| Bucket::claims(&scope, address)));
        if let Some(claims) = self.claims.get_mut(&scope) {
            claims.retain(|(_, key)| *key != pod.key);
            if claims.is_empty() {
                self.claims.remove(&scope);
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

/// The addresses that a pod claims, and where: none without a port.
fn claim_of(pod: &PodFact) -> Option<(Str, PodAddresses)> {
    let node = pod.attached_to()?;
    let scope = pod.on.as_ref().map_or_else(|| node.clone(), |network| underlay::scope(network).into());
    Some((scope, pod.addresses()?))
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
