//! Chooses node subnets, node ids, pod addresses and tags, and has them written to Kubernetes.
//!
//! ```text
//! watch --Told<Fact>--> [Allocator] --facts--> engine
//!                          |    ^
//!                 Request  v    | Outcome
//!                       annotator --PATCH--> API server --> watch
//! ```
//!
//! Nothing is chosen before every list is complete (`settle`) and we lead (`set_active`): first everything that annotations
//! say is reserved, oldest object first, then the rest is filled. A pod's choice is shown to the engine at once, as if the
//! annotation were there, so that its port is committed while the PATCH is under way; when the PATCH fails the pod is shown
//! without it again. The truth stays in Kubernetes: after a crash the choice either is in an annotation or never was.
//! A node's choice is shown only once it comes back by watch, for its pods build on it.
//!
//! Inputs: facts, outcomes of writes. Outputs: [`Effects`]. Must not: do I/O, or read a clock.

mod network;
mod node;
mod pod;
mod tag;
#[cfg(test)]
mod tests;

use ovenbird_api::node::NODE_IDS;
use ovenbird_reconcile::Diagnostic;
use ovenbird_topology::allocate::{AddressPool, NodeIds, NodeSubnets};
use ovenbird_topology::config::ClusterSubnet;
use ovenbird_topology::facts::Labels;
use ovenbird_topology::underlay::Networks;
use ovenbird_topology::{Config, Fact, FactKey, PodFact};
use ovsdb::Str;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::annotate::{Done, Request, Target};
use crate::event::Subject;
use crate::status;
use node::Node;
use pod::Pod;
use tag::Tags;

/// What is to be done after an input.
#[derive(Debug, Default)]
pub struct Effects {
    /// Facts for the engine, in order.
    pub facts: Vec<Fact>,
    /// Annotations to write.
    pub requests: Vec<Request>,
    /// All complaints about an object as of now; none takes earlier ones back.
    pub complaints: Vec<(Subject, Vec<Diagnostic>)>,
}

/// An object that has not what it needs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `Node` or `Pod`.
    pub kind: &'static str,
    /// `name` or `namespace/name`.
    pub key: Str,
    /// One sentence.
    pub why: String,
}

/// How much is taken, of how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Node ids in use.
    pub ids: u64,
    /// Node ids that there are.
    pub all_ids: u64,
    /// Node subnets in use.
    pub subnets: u64,
    /// Node subnets of the configured size that there are.
    pub all_subnets: u64,
    /// Pod addresses in use on nodes that have a subnet.
    pub addresses: u64,
    /// Pod addresses of those nodes.
    pub all_addresses: u64,
}

/// See the file header.
#[derive(Debug)]
pub struct Allocator {
    config: Config,
    subnets: NodeSubnets,
    ids: NodeIds,
    networks: Networks,
    /// Labels of namespaces.
    namespaces: FxHashMap<Str, Labels>,
    /// The homes of pods: nodes, and Networks (see `network`).
    tags: Tags,
    nodes: FxHashMap<Str, Node>,
    /// Pods that must have a port.
    pods: FxHashMap<Str, Box<Pod>>,
    /// Nodes whose annotations contradict another node's.
    refused: FxHashSet<Str>,
    /// Objects whose write failed; tried again by [`Allocator::retry`].
    failed: Vec<Target>,
    settled: bool,
    active: bool,
}

impl Allocator {
    /// Knows nothing yet.
    pub fn new(config: Config) -> Allocator {
        Allocator {
            subnets: NodeSubnets::new(&config),
            config,
            ids: NodeIds::default(),
            networks: Networks::default(),
            namespaces: FxHashMap::default(),
            tags: Tags::default(),
            nodes: FxHashMap::default(),
            pods: FxHashMap::default(),
            refused: FxHashSet::default(),
            failed: Vec::new(),
            settled: false,
            active: false,
        }
    }

    /// Every list is complete: reserves what annotations say, the oldest object first.
    pub fn settle(&mut self, fx: &mut Effects) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let mut names: Vec<(i64, Str)> = self.nodes.iter().map(|(name, n)| (n.created, name.clone())).collect();
        names.sort_unstable();
        for (_, name) in names {
            self.place_node(&name, fx);
        }
        self.networks_changed(fx);
    }

    /// Whether we may choose and write. Becoming active fills everything that waits; ceasing to be takes back what is not known
    /// to be written.
    pub fn set_active(&mut self, active: bool, fx: &mut Effects) {
        if std::mem::replace(&mut self.active, active) == active {
            return;
        }
        if !active {
            self.failed.clear();
            return self.withdraw(fx);
        }
        let mut names: Vec<Str> = self.nodes.keys().cloned().collect();
        names.sort_unstable();
        for name in names {
            self.fill_node(&name, fx);
            self.fill_pods(&name, fx);
        }
        let networks: Vec<Str> = self.networks.names().cloned().collect();
        networks.iter().for_each(|name| self.evict_all(name, fx));
    }

    /// Tries again what failed. Called on a timer.
    pub fn retry(&mut self, fx: &mut Effects) {
        for target in std::mem::take(&mut self.failed) {
            match target {
                Target::Node(name) => self.fill_node(&name, fx),
                Target::Pod(key) => self.resend(&key, fx),
            }
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, key: &FactKey, fx: &mut Effects) {
        match key {
            FactKey::Node(name) => self.delete_node(name, fx),
            FactKey::Pod(key) => self.delete_pod(key, fx),
            FactKey::Network(name) => self.delete_network(name, fx),
            FactKey::ProviderNetwork(name) => {
                self.networks.set_provider(name, None);
            }
            FactKey::Namespace(name) => drop(self.namespaces.remove(name)),
            FactKey::Service(_)
            | FactKey::EndpointSlice(_)
            | FactKey::ServiceCidr(_)
            | FactKey::NetworkPolicy(_)
            | FactKey::AdminPolicy(_) => {}
        }
    }

    /// A write has ended.
    pub fn outcome(&mut self, done: Done, fx: &mut Effects) {
        match done.target {
            Target::Node(name) => self.node_outcome(name, &done.version, done.outcome, fx),
            Target::Pod(key) => self.pod_outcome(&key, &done.version, done.outcome, fx),
        }
    }

    /// All that waits, sorted.
    pub fn waiting(&self) -> Vec<Waiting> {
        let nodes = self.nodes.iter().filter_map(|(name, node)| node.why().map(|why| ("Node", name, why)));
        let pods =
            self.pods.iter().filter_map(|(key, pod)| pod.why(self.nodes.get(&pod.home)).map(|w| ("Pod", key, w)));
        let mut all: Vec<Waiting> =
            nodes.chain(pods).map(|(kind, key, why)| Waiting { kind, key: key.clone(), why }).collect();
        all.sort_unstable_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
        all
    }

    /// Pods that wait.
    pub fn waiting_pods(&self) -> usize {
        self.pods.values().filter(|pod| pod.is_waiting()).count()
    }

    /// All nodes, sorted by name.
    pub fn nodes(&self) -> Vec<status::Node> {
        let known = self.nodes.iter().filter(|(_, node)| node.known);
        let mut all: Vec<status::Node> = known
            .map(|(name, node)| status::Node {
                name: name.to_string(),
                id: node.id,
                subnets: node.subnets().iter().map(ToString::to_string).collect(),
                pods: node.pods.len(),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// For metrics.
    pub fn usage(&self) -> Use {
        let parts =
            |s: &ClusterSubnet| 1u64.checked_shl(u32::from(s.host_prefix - s.net.prefix_len())).unwrap_or(u64::MAX);
        let mut usage = Use {
            ids: self.nodes.values().filter(|n| n.id.is_some()).count() as u64,
            all_ids: NODE_IDS.count() as u64,
            subnets: self.subnets.used() as u64,
            all_subnets: self.config.cluster_subnets().iter().map(parts).fold(0, u64::saturating_add),
            ..Use::default()
        };
        let nodes = self.nodes.values().filter(|n| n.known);
        for (used, all) in nodes.filter_map(|n| n.pool.as_ref()).map(AddressPool::usage) {
            usage.addresses += used;
            usage.all_addresses = usage.all_addresses.saturating_add(all);
        }
        usage
    }
}

fn complaint(reason: &'static str, field: &str, message: String) -> Vec<Diagnostic> {
    vec![Diagnostic::error(reason, format!("metadata.annotations[{field}]"), message)]
}

/// The fact as it will be once the annotation is there.
fn shown(fact: &PodFact, home: &str, addresses: ovenbird_topology::PodAddresses) -> PodFact {
    PodFact { network: Some(Ok(addresses)), on: network::network_of(home).map(Str::from), ..fact.clone() }
}
