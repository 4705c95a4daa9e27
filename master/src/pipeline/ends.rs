//! The ends of the pipeline: what comes in, and what it is connected to.
//!
//! Must not: hold logic.

use std::sync::Arc;

use ovenbird_topology::{
    AdminKind, AdminPolicyFact, EndpointSliceFact, NamespaceFact, NetworkFact, NetworkPolicyFact, NodeFact, PodFact,
    ProviderNetworkFact, ServiceCidrFact, ServiceFact,
};
use ovsdb::Handle;
use tokio::sync::{mpsc, watch};

use crate::admin::Question;
use crate::annotate::{Done, Request};
use crate::condition::Conditions;
use crate::event::Reporter;
use crate::lease::{Leading, Validity};
use crate::metrics::Metrics;
use crate::object::Told;
use crate::readiness::Readiness;
use crate::watch::Batch;

/// What watches tell.
#[derive(Debug)]
pub enum Seen {
    /// Of nodes.
    Nodes(Batch<Told<NodeFact>>),
    /// Of pods.
    Pods(Batch<Told<PodFact>>),
    /// Of namespaces.
    Namespaces(Batch<NamespaceFact>),
    /// Of Services.
    Services(Batch<ServiceFact>),
    /// Of EndpointSlices.
    EndpointSlices(Batch<EndpointSliceFact>),
    /// Of NetworkPolicies.
    NetworkPolicies(Batch<NetworkPolicyFact>),
    /// Of admin policies of one kind.
    AdminPolicies(AdminKind, Batch<AdminPolicyFact>),
    /// Of Networks.
    Networks(Batch<NetworkFact>),
    /// Of ProviderNetworks.
    ProviderNetworks(Batch<ProviderNetworkFact>),
    /// Of ServiceCIDRs.
    ServiceCidrs(Batch<ServiceCidrFact>),
}

/// The ends of all channels that lead here.
#[derive(Debug)]
pub struct Inputs {
    /// From watches.
    pub seen: mpsc::Receiver<Seen>,
    /// From the annotator.
    pub outcomes: mpsc::UnboundedReceiver<Done>,
    /// From the OVSDB client.
    pub northbound: mpsc::UnboundedReceiver<ovsdb::Event>,
    /// From the election.
    pub leading: watch::Receiver<Leading>,
    /// From the admin socket.
    pub questions: mpsc::Receiver<Question>,
}

/// What the pipeline is connected to.
#[derive(Debug)]
pub struct Outputs {
    /// To the annotator.
    pub requests: mpsc::UnboundedSender<Request>,
    /// To the watches: a new generation makes them list anew.
    pub generation: watch::Sender<u64>,
    /// To the OVSDB client.
    pub handle: Handle,
    /// To the Events of objects.
    pub reporter: Reporter,
    /// To the status of admin policies and Networks.
    pub conditions: Conditions,
    /// Asked before each transaction.
    pub validity: Validity,
    /// For /metrics.
    pub metrics: Arc<Metrics>,
    /// For /readyz.
    pub readiness: Arc<Readiness>,
}
