//! Physical networks on this node: which bridge or NIC each ProviderNetwork is here, what ovn-controller is told of it, what the object is told.
//!
//! ```text
//! [objects] watch --> ProviderNetworks, this Node's labels, bridges, links --> [place] --> bridge of ours with the NIC inside
//!           watch --> Networks: subnets that OVN routes --> [management]               --> [moves]: a NIC with addresses ([uplink])
//!                               VLANs on the gateway's bridge --> its flows            --> ovn-bridge-mappings  ([chassis])
//!                                                                                      --> status of the ProviderNetwork
//! ```
//!
//! [cleanup] takes the host off them. OVN sends for a router on such a network from one chassis at a time (see the master's translation), so the router's MAC is
//! nowhere twice on the wire and `ovn-chassis-mac-mappings` is not needed. A NIC that the gateway has is in a bridge already, which both share.
//! Must not: cut addresses of the host off.

pub mod cleanup;
pub mod moves;
pub mod objects;
pub mod place;
pub mod task;

pub use moves::Moves;
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

/// Networks on the gateway's bridge, by name with their VLANs. `None` until that is known.
pub type Shared = Option<BTreeMap<String, Option<u16>>>;

/// What the daemon runs, and what its other parts are told by it.
pub struct Parts<N> {
    /// To be run.
    pub task: Task<N>,
    /// For `ovn-bridge-mappings`.
    pub mapped: watch::Receiver<Mapped>,
    /// For the flows of the gateway's bridge.
    pub shared: watch::Receiver<Shared>,
    /// Subnets of Networks that the host reaches over the management port.
    pub routed: watch::Receiver<Vec<IpNet>>,
}

impl<N: NetOps> Parts<N> {
    /// Starts the watches. `declared` is cancelled once the rest of what should stay in Open_vSwitch is wanted, `stop` when the daemon ends.
    pub fn new(
        config: &Config,
        client: &Client,
        net: &Arc<N>,
        vswitch: &Vswitch,
        (node, host_changes): (&watch::Receiver<NodeFact>, &watch::Receiver<u64>),
        (declared, stop): (&CancellationToken, &CancellationToken),
    ) -> Parts<N> {
        let objects = objects::watch_all(client, &config.node);
        let (tell, mapped) = watch::channel(None);
        let (tell_shared, shared) = watch::channel(None);
        let task = Task {
            config: config.clone(),
            net: net.clone(),
            vswitch: vswitch.clone(),
            client: client.clone(),
            node: node.clone(),
            host_changes: host_changes.clone(),
            providers: objects.providers,
            segments: objects.segments,
            mapped: tell,
            shared: tell_shared,
            moves: Moves::new(config, client, stop),
            declared: declared.clone(),
            all_declared: CancellationToken::new(),
        };
        Parts { task, mapped, shared, routed: objects.routed }
    }
}
