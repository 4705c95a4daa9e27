//! What the node's network needs of Open_vSwitch, and the Node's condition `NetworkUnavailable` while it lacks it.
//!
//! ```text
//! Open_vSwitch:iface_types --> tunnel type missing? --> NetworkUnavailable = True, reason, what to do --> PATCH of nodes/status
//!                                                   --> it is there (again), and the condition is ours: False
//! ```
//!
//! Schedulers keep pods off a node with that condition. Must not: write while nothing has changed, or touch another's condition.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use ovenbird_daemon::rights;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::cluster::NodeFact;
use crate::vswitch::{State, Vswitch};

/// Condition of the Kubernetes API (NodeNetworkUnavailable).
const CONDITION: &str = "NetworkUnavailable";
/// Reason by which we know our own.
pub const MISSING: &str = "OvenbirdMissingCapability";

/// What is missing, as people should read it; `None` while all is there, or not known yet.
pub fn missing(state: &State, tunnel: &str, flag: &str) -> Option<String> {
    if !state.synced || state.iface_types.is_empty() || state.iface_types.contains(tunnel) {
        return None;
    }
    let known: Vec<&str> = ["geneve", "gre", "vxlan"].into_iter().filter(|t| state.iface_types.contains(*t)).collect();
    let others = if known.is_empty() { "no tunnels at all".to_owned() } else { known.join(", ") };
    Some(format!(
        "Open vSwitch on this node makes no {tunnel} tunnels (Open_vSwitch:iface_types lacks it; it makes {others}): install one that \
         does, or choose another with {flag} on all nodes"
    ))
}

/// Keeps the condition of a Node that needs tunnels of a type, which a flag chooses, until the daemon stops.
pub fn spawn(
    client: &Client,
    name: &str,
    (tunnel, flag): (&'static str, &'static str),
    node: &watch::Receiver<NodeFact>,
    vswitch: &Vswitch,
) {
    let (nodes, name) = (Api::<Node>::all(client.clone()), name.to_owned());
    let (node, state) = (node.clone(), vswitch.state());
    // It ends when what it follows does.
    tokio::spawn(async move { run(nodes, name, (tunnel, flag), node, state).await });
}

async fn run(
    nodes: Api<Node>,
    name: String,
    (tunnel, flag): (&str, &str),
    mut node: watch::Receiver<NodeFact>,
    mut state: watch::Receiver<State>,
) -> anyhow::Result<()> {
    loop {
        let problem = missing(&state.borrow_and_update(), tunnel, flag);
        let told = node.borrow_and_update().missing.clone();
        if problem != told {
            match &problem {
                Some(problem) => error!("{problem}"),
                None => info!("Open vSwitch makes {tunnel} tunnels again"),
            }
            let write = || write(&nodes, &name, problem.as_deref());
            let retry = ExponentialBuilder::default().with_max_delay(Duration::from_secs(10)).without_max_times();
            let failed = |e: &kube::Error, _| {
                if !rights::was_told(e) {
                    warn!("writing condition {CONDITION} of the Node: {e}");
                }
            };
            tokio::select! {
                written = write.retry(retry).notify(failed) => written?,
                changed = state.changed() => { changed?; continue; }
            }
        }
        // What was written comes back by the watch.
        tokio::select! {
            changed = node.changed() => changed?,
            changed = async { state.wait_for(|s| missing(s, tunnel, flag) != problem).await.map(drop) } => changed?,
        }
    }
}

async fn write(nodes: &Api<Node>, name: &str, problem: Option<&str>) -> Result<(), kube::Error> {
    let (status, reason, message) = match problem {
        Some(problem) => ("True", MISSING, problem),
        None => ("False", "OvenbirdIsUp", "Open vSwitch has all that the network needs"),
    };
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let condition = serde_json::json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": now, "lastHeartbeatTime": now,
    });
    let patch = serde_json::json!({"status": {"conditions": [condition]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// What we said is missing, of a Node's status.
pub fn told(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ours = conditions.iter().find(|c| c.type_ == CONDITION && c.reason.as_deref() == Some(MISSING))?;
    Some(ours.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tunnel_is_told_with_the_way_out() {
        let types = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        let mut state =
            State { synced: true, iface_types: types(&["internal", "geneve", "vxlan"]), ..State::default() };
        let problem = missing(&state, "gre", "--classic-tunnel").unwrap();
        assert!(problem.contains("makes no gre tunnels") && problem.contains("it makes geneve, vxlan"), "{problem}");
        assert!(problem.contains("--classic-tunnel"), "{problem}");
        assert_eq!(missing(&state, "vxlan", "--classic-tunnel"), None);
        state.synced = false;
        assert_eq!(missing(&state, "gre", "--classic-tunnel"), None);
    }
}
