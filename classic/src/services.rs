//! Services of the classic network: one table of nftables on each node, `inet ovenbird-services`.
//!
//! ```text
//! Services, EndpointSlices, settings --[part]--> what each Service has in the table --+
//!                           settings --[base]--> hooks, and the way to the maps ------+--> Parts --> table, or what has changed
//!
//! packet: address, protocol, port --vips, node_ports--> of N endpoints, the i-th --endpoint_i--> DNAT
//! ```
//!
//! Chains and maps are shared by all Services ([`entry`]): two look-ups find an endpoint, however many Services there are, and one Service has
//! elements only. With session affinity it has chains of its own ([`affinity`]), for each endpoint remembers its clients.
//!
//! What is decided here is what kube-proxy decides, but for two things: pods of this node keep their address on every way, for their answers pass
//! by here anyway; and external addresses inside the cluster's own networks are nobody's. Must not: do I/O, or serve Services of others.

mod affinity;
mod base;
pub(crate) mod entry;
mod part;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_nft::{Parts, Table};
use ovenbird_topology::{EndpointSliceFact, ServiceFact};
use ovsdb::Str;
pub(crate) use udp::Answers;
pub use udp::{Changed, Connection};

/// The table.
pub const TABLE: &str = "inet ovenbird-services";

/// What Services depend on beside themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name of the node.
    pub node: String,
    /// Its zone: label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Its pods' networks, at most one of each family. Services of a family without one are not served.
    pub pods: Vec<IpNet>,
    /// Its addresses. Those that load-balancer source ranges allow may use the load balancer's address as their own, too.
    pub addresses: Vec<IpAddr>,
    /// NodePorts are served.
    pub node_ports: bool,
    /// ... on the node's addresses in these networks; on all but loopback when there are none.
    pub node_port_addresses: Vec<IpNet>,
    /// Networks of Services. What is addressed to one and is no Service's is dropped.
    pub service_cidrs: Vec<IpNet>,
    /// Networks of all pods. External addresses are outside of them.
    pub cluster: Vec<IpNet>,
    /// How pods are reached, where not by the node's own bridge.
    pub behind: Option<Behind>,
}

/// A network of pods that the node has a port on. It leads from pod to pod past the node, so that no pod's answer comes back to one that the node has led
/// there with its own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The node's interface there.
    pub interface: String,
    /// The addresses with which the node speaks for others there, one of each family. For itself it has the interface's.
    pub for_others: Vec<IpAddr>,
}

impl Settings {
    /// The node's pods of a family.
    fn pods(&self, v4: bool) -> Option<IpNet> {
        self.pods.iter().find(|net| net.addr().is_ipv4() == v4).map(IpNet::trunc)
    }

    fn is_own_pod(&self, address: IpAddr) -> bool {
        self.pods.iter().any(|net| net.contains(&address))
    }

    fn is_outside(&self, address: IpAddr) -> bool {
        !self.cluster.iter().chain(&self.service_cidrs).any(|net| net.contains(&address))
    }
}

/// Weights of pods that ask for one (annotation `weight`), by their addresses.
pub type Weights = BTreeMap<IpAddr, u8>;

/// Who has a part in the table. Of two Services that want one address, the older has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Base,
    Service(i64, Str),
}

/// All that is known, and the table that follows from it. A change costs as much as the Services that it concerns.
#[derive(Debug)]
pub struct Services {
    settings: Settings,
    weights: Weights,
    services: BTreeMap<Str, ServiceFact>,
    /// By Service, then by name.
    slices: BTreeMap<Str, BTreeMap<Str, EndpointSliceFact>>,
    /// Which Service a slice is of.
    service_of: BTreeMap<Str, Str>,
    dirty: BTreeSet<Str>,
    /// Under which name a Service has its part.
    owners: BTreeMap<Str, Owner>,
    parts: Parts<Owner>,
    /// Who answers, of Services with UDP.
    udp: BTreeMap<Str, Answers>,
    /// What of it has changed.
    changed: Answers,
}

impl Services {
    /// No Services.
    pub fn new(settings: Settings) -> Services {
        let mut parts = Parts::new(TABLE);
        parts.set(&Owner::Base, base::table(&settings));
        Services {
            settings,
            weights: Weights::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            service_of: BTreeMap::new(),
            dirty: BTreeSet::new(),
            owners: BTreeMap::new(),
            parts,
            udp: BTreeMap::new(),
            changed: Answers::new(),
        }
    }

    /// Other settings concern every Service.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.parts.set(&Owner::Base, base::table(&settings));
            self.dirty.extend(self.services.keys().cloned());
            self.settings = settings;
        }
    }

    /// Other weights concern Services whose scheduler goes by them.
    pub fn set_weights(&mut self, weights: Weights) {
        if self.weights != weights {
            let weighted = self.services.values().filter(|service| part::is_weighted(service));
            self.dirty.extend(weighted.map(|service| service.key.clone()));
            self.weights = weights;
        }
    }

    /// A Service is there.
    pub fn set_service(&mut self, service: ServiceFact) {
        if self.services.get(&service.key) != Some(&service) {
            self.dirty.insert(service.key.clone());
            self.services.insert(service.key.clone(), service);
        }
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, key: &str) {
        if let Some((key, _)) = self.services.remove_entry(key) {
            self.dirty.insert(key);
        }
    }

    /// An EndpointSlice is there.
    pub fn set_slice(&mut self, slice: EndpointSliceFact) {
        if self.service_of.get(&slice.key) != slice.service.as_ref() {
            self.remove_slice(&slice.key);
        }
        let Some(service) = &slice.service else { return };
        let of_service = self.slices.entry(service.clone()).or_default();
        if of_service.get(&slice.key) != Some(&slice) {
            self.dirty.insert(service.clone());
            self.service_of.insert(slice.key.clone(), service.clone());
            of_service.insert(slice.key.clone(), slice);
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, key: &str) {
        let Some(service) = self.service_of.remove(key) else { return };
        if let Some(of_service) = self.slices.get_mut(&service) {
            of_service.remove(key);
            if of_service.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty.insert(service);
    }

    /// The Services that are known, by key.
    pub fn services(&self) -> &BTreeMap<Str, ServiceFact> {
        &self.services
    }

    /// The slices of a Service.
    pub fn slices(&self, service: &str) -> Vec<&EndpointSliceFact> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values).collect()
    }

    /// What differs in the table since the call before: what stood there, and what is to stand there ([`Parts::take_changes`]).
    pub fn take_changes(&mut self) -> (Table, Table) {
        self.translate();
        self.parts.take_changes()
    }

    /// The whole table.
    pub fn table(&mut self) -> Table {
        self.translate();
        self.parts.table()
    }

    /// Which connections of UDP lead nowhere since the table was last taken. They are to be forgotten once it is in force.
    pub fn take_udp(&mut self) -> Changed {
        Changed::new(std::mem::take(&mut self.changed), &self.settings.addresses)
    }

    fn translate(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let service = self.services.get(&key);
            let owner = service.map(|service| Owner::Service(service.created, key.clone()));
            // One that was made anew has another age.
            let before = self.owners.get(&key).filter(|before| owner.as_ref() != Some(*before));
            if let Some(before) = before {
                self.parts.set(before, Table::default());
            }
            let answers = match (service, owner) {
                (Some(service), Some(owner)) => {
                    let (part, answers) = part::of(&self.settings, &self.weights, service, &self.slices(&key));
                    self.parts.set(&owner, part);
                    self.owners.insert(key.clone(), owner);
                    answers
                }
                _ => {
                    self.owners.remove(&key);
                    Answers::new()
                }
            };
            self.note_udp(key, answers);
        }
    }

    fn note_udp(&mut self, service: Str, now: Answers) {
        let before = self.udp.remove(&service).unwrap_or_default();
        let gone = before.keys().filter(|by| !now.contains_key(by)).map(|by| (*by, BTreeSet::new()));
        self.changed.extend(gone);
        let new = now.iter().filter(|(by, endpoints)| before.get(by) != Some(endpoints));
        self.changed.extend(new.map(|(by, endpoints)| (*by, endpoints.clone())));
        if !now.is_empty() {
            self.udp.insert(service, now);
        }
    }
}
