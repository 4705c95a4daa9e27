//! Physical networks on this node: which bridge or NIC each ProviderNetwork is here, what ovn-controller is told of it, what the object is told.
//!
//! ```text
//! [objects] watch --> ProviderNetworks, this Node's labels, bridges, links --> [place] --> bridge of ours with the NIC inside
//!           watch --> Networks: subnets that OVN routes --> [management]               --> ovn-bridge-mappings  ([chassis])
//!                                                                                      --> status of the ProviderNetwork
//! ```
//!
//! OVN sends for a router on such a network from one chassis at a time (see the master's translation), so the router's MAC is
//! nowhere twice on the wire and `ovn-chassis-mac-mappings` is not needed. Must not: take a NIC that carries addresses, or a bridge that is the
//! gateway's.

pub mod objects;
pub mod place;
pub mod task;

pub use task::Task;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::NodeFact;
use crate::config::Config;
use crate::net::NetOps;
use crate::vswitch::Vswitch;

/// By ProviderNetwork: its bridge on this node. `None` until the ProviderNetworks are known.
pub type Mapped = Option<BTreeMap<String, String>>;

/// What the daemon runs, and what its other parts are told by it.
pub struct Parts<N> {
    /// To be run.
    pub task: Task<N>,
    /// For `ovn-bridge-mappings`.
    pub mapped: watch::Receiver<Mapped>,
    /// Subnets of Networks that the host reaches over the management port.
    pub routed: watch::Receiver<Vec<IpNet>>,
}

impl<N: NetOps> Parts<N> {
    /// Starts the watches. `declared` is cancelled once the rest of what should stay in Open_vSwitch is wanted.
    pub fn new(
        config: &Config,
        client: &Client,
        net: &Arc<N>,
        vswitch: &Vswitch,
        (node, host_changes): (&watch::Receiver<NodeFact>, &watch::Receiver<u64>),
        declared: &CancellationToken,
    ) -> Parts<N> {
        let objects = objects::watch_all(client, &config.node);
        let (tell, mapped) = watch::channel(None);
        let task = Task {
            config: config.clone(),
            net: net.clone(),
            vswitch: vswitch.clone(),
            client: client.clone(),
            node: node.clone(),
            host_changes: host_changes.clone(),
            providers: objects.providers,
            mapped: tell,
            declared: declared.clone(),
            all_declared: CancellationToken::new(),
        };
        Parts { task, mapped, routed: objects.routed }
    }
}
