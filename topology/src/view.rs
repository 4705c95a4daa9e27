//! The view: what a feature sees of the facts. The only door to them, and it remembers which were opened.
//!
//! An owner is translated again when its own fact changes, or a bucket that its last translation read. So a feature cannot
//! forget a dependency, and there is no fan-out to write. Must not: hand out the snapshot, or anything by iteration order of
//! a hash map.

use std::cell::RefCell;
use std::net::IpAddr;

use ovenbird_api::AclLogging;
use ovenbird_reconcile::Owner;
use ovsdb::Str;

use crate::bucket::Bucket;
use crate::facts::{
    AdminPolicyFact, Annotated, EndpointSliceFact, HostPort, Labels, NAME_LABEL, NetworkFact, NetworkPolicyFact,
    NodeFact, PodFact, Protocol, ProviderNetworkFact, ServiceCidrFact, ServiceFact, ServicePort,
};
use crate::gateway::{GatewayError, Host};
use crate::nested::Parent;
use crate::places::{Common, Place};
use crate::policies::Policies;
use crate::selection::{LabelSelector, Selected, Selection};
use crate::snapshot::{Snapshot, Subnets};
use crate::underlay::{self, NetworkError};
use crate::{Config, Interner, kinds};

/// Facts for the translation of one owner.
pub struct View<'a> {
    config: &'a Config,
    snapshot: &'a Snapshot,
    reads: RefCell<Vec<Bucket>>,
    texts: &'a RefCell<Interner>,
}

impl<'a> View<'a> {
    pub(crate) fn new(config: &'a Config, snapshot: &'a Snapshot, texts: &'a RefCell<Interner>) -> View<'a> {
        View { config, snapshot, reads: RefCell::default(), texts }
    }

    /// The cluster's networking. It never changes, so reading it is not recorded.
    pub fn config(&self) -> &'a Config {
        self.config
    }

    /// The shared copy of a text that many rows repeat.
    pub fn text(&self, text: &str) -> Str {
        self.texts.borrow_mut().intern(text)
    }

    /// The owner's own Node. Not recorded: an owner always follows its own fact.
    pub fn own_node(&self, owner: &Owner) -> Option<&'a NodeFact> {
        self.snapshot.node(&owner.key).filter(|_| owner.kind == kinds::NODE)
    }

    /// The owner's own Pod. Not recorded, as above.
    pub fn own_pod(&self, owner: &Owner) -> Option<&'a PodFact> {
        self.snapshot.pod(&owner.key).filter(|_| owner.kind == kinds::POD || owner.kind == kinds::PEER)
    }

    /// The owner's own NetworkPolicy. Not recorded, as above.
    pub(crate) fn own_network_policy(&self, owner: &Owner) -> Option<&'a NetworkPolicyFact> {
        self.snapshot.policies().network(&owner.key).filter(|_| owner.kind == kinds::NETWORK_POLICY)
    }

    /// The owner's own selection, in use. Not recorded: its owner is told when its uses or their numbers change.
    pub(crate) fn own_selection(&self, owner: &Owner) -> Option<&'a Selected> {
        self.snapshot.selections().get(&owner.key).filter(|_| owner.kind == kinds::POD_SELECTOR)
    }

    /// The selections that the owner's own Pod is in, by text. Not recorded: the Pod is told when they or their uses change.
    pub(crate) fn selections_of(&self, owner: &Owner) -> Vec<&'a Selected> {
        let mut selected: Vec<&Selected> = self.snapshot.selections().of_pod(&owner.key).collect();
        selected.sort_unstable_by_key(|selected| &selected.key);
        selected
    }

    /// The numbers that a port name means to the pods of a selection, sorted.
    pub(crate) fn port_numbers(&self, selection: &Selection, protocol: Protocol, name: &Str) -> Vec<u16> {
        let key = selection.to_string();
        self.read(Bucket::port_numbers(&key, protocol, name));
        let selected = self.snapshot.selections().get(&key);
        selected.into_iter().flat_map(|selected| selected.numbers(protocol, name)).collect()
    }

    /// The owner's own admin policy. Not recorded, as above.
    pub(crate) fn own_admin_policy(&self, owner: &Owner) -> Option<&'a AdminPolicyFact> {
        self.snapshot.policies().admin(&kinds::admin_key(owner)?)
    }

    /// The priority of an admin policy's first rule; `None` without room.
    pub(crate) fn admin_place(&self, policy: &AdminPolicyFact) -> Option<i64> {
        self.read(Bucket::admin_place(&policy.key));
        self.snapshot.policies().place(&policy.key)
    }

    /// All policies, for what depends on the order among them.
    pub(crate) fn policies(&self) -> &'a Policies {
        self.read(Bucket::passes());
        self.snapshot.policies()
    }

    /// The NetworkPolicies of the namespaces in which a selection looks for pods, by key, and these namespaces.
    pub(crate) fn network_policies_in(&self, selection: &Selection) -> (Vec<&'a NetworkPolicyFact>, Vec<&'a Str>) {
        self.read(Bucket::network_policies());
        let (policies, selections) = (self.snapshot.policies(), self.snapshot.selections());
        let namespaces: Vec<&Str> = policies.namespaces().filter(|name| selections.is_in(selection, name)).collect();
        (namespaces.iter().flat_map(|name| policies.network_in(name)).collect(), namespaces)
    }

    /// The addresses of the nodes that fit one of the selectors, sorted: those of their hosts, and of their management ports.
    pub(crate) fn addresses_of_nodes(&self, selectors: &[LabelSelector]) -> Vec<IpAddr> {
        self.read(Bucket::node_addresses());
        self.snapshot.addresses_of_nodes(selectors)
    }

    /// Whether the owner's own namespace has NetworkPolicies. Not recorded: the owner is told when that changes.
    pub(crate) fn has_policies(&self, owner: &Owner) -> bool {
        owner.kind == kinds::NETPOL_NAMESPACE && self.snapshot.policies().any_in(&owner.key)
    }

    /// Whether there is any policy.
    pub(crate) fn any_policy(&self) -> bool {
        self.read(Bucket::any_policy());
        self.snapshot.policies().any()
    }

    /// How a namespace's policies are logged.
    pub(crate) fn acl_logging(&self, namespace: &str) -> &'a Annotated<AclLogging> {
        self.read(Bucket::acl_logging(namespace));
        self.snapshot.selections().namespace(namespace).map_or(&None, |fact| &fact.acl_logging)
    }

    /// The owner's own Service. Not recorded, as above.
    pub fn own_service(&self, owner: &Owner) -> Option<&'a ServiceFact> {
        self.snapshot.service(&owner.key).filter(|_| owner.kind == kinds::SERVICE)
    }

    /// The owner's own ServiceCIDR. Not recorded, as above.
    pub(crate) fn own_service_cidr(&self, owner: &Owner) -> Option<&'a ServiceCidrFact> {
        self.snapshot.service_cidrs().get(&owner.key).filter(|_| owner.kind == kinds::SERVICE_CIDR)
    }

    /// All ServiceCIDRs, by name.
    pub(crate) fn service_cidrs(&self) -> impl Iterator<Item = &'a ServiceCidrFact> {
        self.read(Bucket::service_cidrs());
        self.snapshot.service_cidrs().values()
    }

    /// The slices of the owner's own Service, by key. Not recorded: they are the Service's own facts.
    pub fn own_slices(&self, owner: &Owner) -> Vec<&'a EndpointSliceFact> {
        if owner.kind == kinds::SERVICE { self.snapshot.slices(&owner.key) } else { Vec::new() }
    }

    /// Key of the Service that has a port of an address outside the cluster: the oldest that asks for it.
    pub(crate) fn outside_holder(&self, address: IpAddr, port: &ServicePort) -> Option<&'a Str> {
        self.read(Bucket::outside(address));
        self.snapshot.outside_holder(address, port)
    }

    /// The nodes that have a switch, by name: for what differs from node to node.
    pub(crate) fn places(&self) -> &'a [Place] {
        self.read(Bucket::places());
        self.snapshot.places()
    }

    /// What all nodes have in common, which rarely changes.
    pub(crate) fn common(&self) -> &'a Common {
        self.read(Bucket::nodes());
        self.snapshot.common()
    }

    /// What a node's subnet annotation came to; `None` without a valid one.
    pub(crate) fn subnets(&self, node: &str) -> Option<&'a Subnets> {
        self.read(Bucket::subnets(node));
        self.snapshot.subnets(node)
    }

    /// What is wrong with a node's gateway, nothing without one.
    pub(crate) fn gateway_errors(&self, node: &str) -> &'a [GatewayError] {
        self.read(Bucket::gateway(node));
        self.snapshot.gateway_errors(node)
    }

    /// Key of the pod that has an address of a node: the oldest that claims it.
    pub fn holder(&self, node: &str, address: IpAddr) -> Option<&'a Str> {
        self.read(Bucket::claims(node, address));
        self.snapshot.holder(node, address)
    }

    /// The pod that has an address of a node, or of a Network.
    pub fn pod_at(&self, node: &str, address: IpAddr) -> Option<&'a PodFact> {
        let on_network = || {
            let has = |network: &&NetworkFact| network.subnets.iter().any(|net| net.contains(&address));
            let networks = self.networks().into_iter().filter(has);
            networks.filter_map(|network| self.holder(&underlay::scope(&network.name), address)).next()
        };
        // A change of a pod is one of the buckets of its addresses.
        self.snapshot.pod(self.holder(node, address).or_else(on_network)?)
    }

    /// The owner's own Network. Not recorded, as above.
    pub(crate) fn own_network(&self, owner: &Owner) -> Option<&'a NetworkFact> {
        self.snapshot.networks().get(&owner.key).filter(|_| owner.kind == kinds::NETWORK)
    }

    /// What is wrong with a Network beside the others.
    pub(crate) fn network_errors(&self, name: &str) -> &'a [NetworkError] {
        // They change with any other's coming and going.
        self.read(Bucket::networks());
        self.snapshot.networks().errors(name)
    }

    /// A Network that has effect.
    pub(crate) fn network(&self, name: &str) -> Option<&'a NetworkFact> {
        self.read(Bucket::network(name));
        self.snapshot.networks().usable(name)
    }

    /// All Networks that have effect, the oldest first.
    pub(crate) fn networks(&self) -> Vec<&'a NetworkFact> {
        self.read(Bucket::networks());
        self.snapshot.networks().all_usable().collect()
    }

    /// A ProviderNetwork.
    pub(crate) fn provider(&self, name: &str) -> Option<&'a ProviderNetworkFact> {
        self.read(Bucket::provider(name));
        self.snapshot.networks().provider(name)
    }

    /// True when a Network is for the pods of a namespace.
    pub(crate) fn is_for(&self, network: &NetworkFact, namespace: &str) -> bool {
        self.read(Bucket::labels(namespace));
        match self.snapshot.selections().namespace(namespace) {
            Some(fact) => network.admits(&fact.labels),
            // The one label that every namespace has.
            None => network.admits(&Labels::from([(NAME_LABEL.into(), namespace.into())])),
        }
    }

    /// The chassis of a node.
    pub(crate) fn chassis(&self, node: &str) -> Option<&'a Str> {
        self.read(Bucket::chassis(node));
        self.snapshot.chassis(node)
    }

    /// How others reach a node, `None` without a gateway router.
    pub(crate) fn host(&self, node: &str) -> Option<&'a Host> {
        self.read(Bucket::host(node));
        self.snapshot.host(node)
    }

    /// The next hops on the cluster's router by which what is on a node leaves the cluster, one of each family; none without a gateway router.
    pub(crate) fn ways_out(&self, node: &str) -> &'a [IpAddr] {
        self.host(node).map_or(&[], |host| &host.ways_out)
    }

    /// True when a node has a gateway router.
    pub(crate) fn has_router(&self, node: &str) -> bool {
        self.read(Bucket::host(node));
        self.snapshot.has_router(node)
    }

    /// The addresses by which others reach a node that has a gateway router, or is a VM; else none.
    pub fn host_addresses(&self, node: &str) -> &'a [IpAddr] {
        self.host(node).map_or(&[], |host| &host.addresses)
    }

    /// Key of the pod that has a port of a node: the oldest that asks for it.
    pub fn host_port_holder(&self, node: &str, wanted: &HostPort) -> Option<&'a Str> {
        self.read(Bucket::host_port(node, wanted));
        self.snapshot.host_port_holder(node, wanted)
    }

    /// What became of the parent port of a node that is a VM; `None` for one that is none.
    pub(crate) fn parent(&self, node: &str) -> Option<&'a Parent> {
        self.read(Bucket::parent(node));
        self.snapshot.parent(node)
    }

    /// Key of the pod that has a tag of a node: the oldest that claims it.
    pub(crate) fn tag_holder(&self, node: &str, tag: u16) -> Option<&'a Str> {
        self.read(Bucket::tag(node, tag));
        self.snapshot.tags().holder(node, tag)
    }

    /// The buckets read, sorted.
    pub(crate) fn into_reads(self) -> Box<[Bucket]> {
        let mut reads = self.reads.into_inner();
        reads.sort_unstable();
        reads.dedup();
        reads.into()
    }

    fn read(&self, bucket: Bucket) {
        self.reads.borrow_mut().push(bucket);
    }
}
