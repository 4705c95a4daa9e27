//! The snapshot: all facts, and what is derived from several of them.
//!
//! Derived: which subnets each node may use (two nodes may claim one), what is wrong with their gateways (two may claim one
//! address), which pods of a node claim an address, which slices a Service has, and what Services must know of the nodes. A
//! change tells the owner whose fact it is (an EndpointSlice is its Service's) and the buckets that changed with it; an upsert of
//! an equal fact tells nothing.
//! Must not: know which features read what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::address;
use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::allocate::{NodeSubnets, SubnetError};
use crate::bucket::Bucket;
use crate::facts::{
    AdminKey, AdminPolicyFact, Change, EndpointSliceFact, Fact, FactKey, HostPort, NamespaceFact, NetworkFact,
    NetworkPolicyFact, NodeFact, PodAddresses, PodFact, ProviderNetworkFact, ServiceCidrFact, ServiceFact, ServicePort,
};
use crate::gateway::{self, GatewayError, Host};
use crate::nested::{self, Parent, Tags};
use crate::places::{Common, Place};
use crate::policies::Policies;
use crate::selection::{LabelSelector, Selections};
use crate::underlay::{self, Networks};
use crate::{Config, kinds};

/// Pods by `namespace/name`.
pub(crate) type Pods = FxHashMap<Str, Box<PodFact>>;

/// Facts and derived buckets.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    nodes: BTreeMap<Str, NodeFact>,
    pods: Pods,
    selections: Selections,
    policies: Policies,
    services: FxHashMap<Str, Box<ServiceFact>>,
    slices: FxHashMap<Str, Box<EndpointSliceFact>>,
    service_cidrs: BTreeMap<Str, ServiceCidrFact>,
    networks: Networks,
    /// By address outside the cluster: keys of the Services that ask for it.
    outside: FxHashMap<IpAddr, BTreeSet<Str>>,
    /// By Service: keys of its slices, sorted.
    slices_of: FxHashMap<Str, Vec<Str>>,
    /// By node, or by [`underlay::scope`]: (address, key of a pod that claims it), sorted. Two entries with one address are a conflict.
    claims: FxHashMap<Str, Vec<(IpAddr, Str)>>,
    /// By node: keys of the pods that ask for ports of it, sorted.
    host_ports: FxHashMap<Str, BTreeSet<Str>>,
    subnets: FxHashMap<Str, Subnets>,
    /// By node, those whose gateway cannot be.
    gateways: FxHashMap<Str, Vec<GatewayError>>,
    /// By node with a gateway router: how others reach it.
    hosts: FxHashMap<Str, Host>,
    /// By node: its chassis.
    chassis: FxHashMap<Str, Str>,
    /// By node that is a VM: its port.
    parents: FxHashMap<Str, Parent>,
    tags: Tags,
    places: Vec<Place>,
    common: Common,
    /// `subnets`, `parents` and `gateways` do not yet follow from `nodes`.
    unsettled: bool,
    /// What has effect of `networks` does not yet follow from their facts.
    unjudged: bool,
    /// `hosts`, `chassis`, `places` and `common` do not yet follow from `nodes` and `subnets`.
    displaced: bool,
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
    /// The owners whose own fact changed.
    pub owners: Vec<Owner>,
    /// Buckets that changed.
    pub buckets: Vec<Bucket>,
}

impl Snapshot {
    pub fn node(&self, name: &str) -> Option<&NodeFact> {
        self.nodes.get(name)
    }

    /// Nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeFact> {
        self.nodes.values()
    }

    pub fn pod(&self, key: &str) -> Option<&PodFact> {
        self.pods.get(key).map(|pod| &**pod)
    }

    pub fn selections(&self) -> &Selections {
        &self.selections
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub fn service(&self, key: &str) -> Option<&ServiceFact> {
        self.services.get(key).map(|service| &**service)
    }

    /// Key of a Service that has an address as its own, within the cluster or outside; the first by key. Looks through all Services.
    pub fn service_at(&self, address: IpAddr) -> Option<&Str> {
        let outside = self.outside.get(&address).and_then(BTreeSet::first);
        let within = self.services.values().filter(|service| service.cluster_ips.contains(&address));
        outside.or_else(|| within.map(|service| &service.key).min())
    }

    /// Of the Services that ask for a port of an address the oldest, then the first by key.
    pub fn outside_holder(&self, address: IpAddr, port: &ServicePort) -> Option<&Str> {
        let asking = self.outside.get(&address)?.iter().filter_map(|key| self.service(key));
        let asking = asking.filter(|s| s.ports.iter().any(|p| (p.port, p.protocol) == (port.port, port.protocol)));
        asking.min_by_key(|service| (service.created, &service.key)).map(|service| &service.key)
    }

    /// The slices of a Service, by key.
    pub fn slices(&self, service: &str) -> Vec<&EndpointSliceFact> {
        let keys = self.slices_of.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key).map(|slice| &**slice)).collect()
    }

    /// ServiceCIDRs by name.
    pub fn service_cidrs(&self) -> &BTreeMap<Str, ServiceCidrFact> {
        &self.service_cidrs
    }

    /// The nodes that have a switch, by name.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What all nodes have in common.
    pub fn common(&self) -> &Common {
        &self.common
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

    /// The pod that has a port of a node: of those that ask for it the oldest, then the first by key.
    pub fn host_port_holder(&self, node: &str, wanted: &HostPort) -> Option<&Str> {
        let pods = self.host_ports.get(node)?.iter().filter_map(|key| self.pod(key));
        let asking = pods.filter(|pod| pod.host_ports.iter().any(|other| other.meets(wanted)));
        asking.min_by_key(|pod| (pod.created, &pod.key)).map(|pod| &pod.key)
    }

    /// The addresses by which others reach a node that has a gateway router, or is a VM.
    pub fn host_addresses(&self, node: &str) -> &[IpAddr] {
        self.hosts.get(node).map_or(&[], |host| &host.addresses)
    }

    /// How others reach a node that has a gateway router.
    pub(crate) fn host(&self, node: &str) -> Option<&Host> {
        self.hosts.get(node)
    }

    /// The addresses of the nodes that fit one of the selectors, sorted.
    pub fn addresses_of_nodes(&self, selectors: &[LabelSelector]) -> Vec<IpAddr> {
        let fit = |node: &&NodeFact| selectors.iter().any(|selector| selector.matches(&node.labels));
        let addresses = |node: &NodeFact| {
            let host = node.host_cidrs.iter().flatten().flatten().map(IpNet::addr);
            let subnets = self.subnets.get(&node.name).map_or(&[][..], |subnets| &subnets.usable);
            let management = subnets.iter().filter_map(|subnet| address::management(*subnet));
            host.chain(management).collect::<Vec<_>>()
        };
        let mut all: Vec<IpAddr> = self.nodes.values().filter(fit).flat_map(addresses).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// All Networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// True when a node has a gateway router.
    pub fn has_router(&self, node: &str) -> bool {
        self.hosts.get(node).is_some_and(|host| host.router)
    }

    /// The chassis of a node.
    pub fn chassis(&self, node: &str) -> Option<&Str> {
        self.chassis.get(node)
    }

    /// What became of the parent port of a node that is a VM.
    pub fn parent(&self, node: &str) -> Option<&Parent> {
        self.parents.get(node)
    }

    /// Which pods claim which tags.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// Owners that there are, sorted.
    pub fn owners(&self) -> Vec<Owner> {
        let mut owners = vec![kinds::cluster()];
        owners.extend(self.nodes.keys().map(|name| Owner::new(kinds::NODE, name.clone())));
        owners.extend(self.pods.keys().map(|key| Owner::new(kinds::POD, key.clone())));
        owners.extend(self.service_cidrs.keys().map(|name| Owner::new(kinds::SERVICE_CIDR, name.clone())));
        owners.extend(self.networks.names().map(|name| Owner::new(kinds::NETWORK, name.clone())));
        let selections = self.selections.keys().map(|key| Owner::new(kinds::POD_SELECTOR, key.clone()));
        let peers = self.selections.peers().map(|key| Owner::new(kinds::PEER, key.clone()));
        owners.extend(selections.chain(peers).chain(self.policies.owners()));
        owners.extend(self.services.keys().map(|key| Owner::new(kinds::SERVICE, key.clone())));
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
fn claim_of(pod: &PodFact) -> Option<(Str, &PodAddresses)> {
    let node = pod.attached_to()?;
    let scope = pod.on.as_ref().map_or_else(|| node.clone(), |network| underlay::scope(network).into());
    Some((scope, pod.network.as_ref()?.as_ref().ok()?))
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
