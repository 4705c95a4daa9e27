//! The snapshot: all facts, and what is derived from several of them.
//!
//! Derived: which subnets each node may use (two nodes may claim one), what is wrong with their gateways (two may claim one
//! address), which pods of a node claim an address, which slices a Service has, and what Services must know of the nodes. A
//! change tells the owner whose fact it is (an EndpointSlice is its Service's) and the buckets that changed with it; an upsert of
//! an equal fact tells nothing.
//! Here is what is read; how it changes is in `change`. Must not: know which features read what.

mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::address;
use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::allocate::SubnetError;
use crate::bucket::Bucket;
use crate::facts::{EndpointSliceFact, HostPort, NodeFact, PodFact, ServiceCidrFact, ServiceFact, ServicePort};
use crate::gateway::{GatewayError, Host};
use crate::kinds;
use crate::nested::{Parent, Tags};
use crate::places::{Common, Place};
use crate::policies::Policies;
use crate::selection::{LabelSelector, Selections};
use crate::underlay::Networks;

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
}
