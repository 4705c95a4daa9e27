//! Writes what a node says of itself: annotations of its Node, when they differ.
//!
//! Must not: decide what an annotation holds, but by the function that it is given.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use kube::Client;
use ovenbird_daemon::rights;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cluster::{NodeFact, annotate};
use crate::net::{HostNetwork, NetOps};

/// Annotations and their values.
pub type Annotations = BTreeMap<&'static str, String>;

/// Writes until the API server takes it.
pub async fn insist(client: &Client, name: &str, fact: &NodeFact, want: &Annotations) {
    let write = || annotate(client, name, &fact.annotations, want);
    let retry = ExponentialBuilder::default().with_max_delay(Duration::from_secs(10)).without_max_times();
    let told = |e: &kube::Error, _| {
        if !rights::was_told(e) {
            warn!("writing annotations of the Node: {e}");
        }
    };
    if let Ok(true) = write.retry(retry).notify(told).await {
        info!("annotations of the Node written");
    }
}

/// Keeps the annotations of a Node as they should be, from the host's network and from what is known of the Node.
///
/// # Errors
/// When one of the daemon's other parts has ended.
pub async fn keep<N: NetOps>(
    name: &str,
    net: &N,
    client: &Client,
    mut node: watch::Receiver<NodeFact>,
    mut host_changes: watch::Receiver<u64>,
    want: impl Fn(&HostNetwork, &NodeFact) -> anyhow::Result<Annotations>,
) -> anyhow::Result<()> {
    loop {
        host_changes.borrow_and_update();
        let fact = node.borrow_and_update().clone();
        let host = net.host_network().await.map_err(anyhow::Error::from);
        match host.and_then(|host| want(&host, &fact)) {
            Ok(want) => tokio::select! {
                () = insist(client, name, &fact, &want) => {}
                changed = node.changed() => { changed?; continue; }
                changed = host_changes.changed() => { changed?; continue; }
            },
            Err(e) => warn!("the host's network: {e:#}"),
        }
        tokio::select! {
            changed = node.changed() => changed?,
            changed = host_changes.changed() => changed?,
        }
    }
}
