//! Start of a daemon on a host that already has pods: takes over what lives, drops what is gone.
//!
//! ```text
//! declared ports --> sandbox and host link still there? --yes--> adopted: the port is not touched
//!                                                       --no---> left: goes with the first deletes, before a port of its name comes
//! list of pods complete --> adopted, but its pod is gone: unplugged --> deletes allowed
//! ```
//!
//! Must not: delete anything before both lists are complete, or the chassis' own rows are wanted.

use std::sync::Arc;

use ovenbird_cni_server::{Attach, CniError, Del};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cable::Cable;
use crate::net::{NetOps, causes};
use crate::plug::Plug;
use crate::pods::PodBook;
use crate::readiness::{Part, Readiness};
use crate::rows::PodPort;
use crate::sweep;

/// Runs once. `declared` is cancelled when all else that should stay is wanted.
///
/// # Errors
/// When the daemon is stopping.
pub async fn run<N: NetOps, C: Cable>(
    net: &N,
    plug: &Arc<Plug<N, C>>,
    pods: &PodBook,
    readiness: &Readiness,
    declared: &CancellationToken,
) -> Result<(), CniError> {
    let mut stale = Vec::new();
    for port in plug.cable().ports().await? {
        if lives(net, &port).await && plug.take_over(port.clone()) {
            continue;
        }
        warn!("sandbox {} of {} is gone: its port goes", port.attachment.container_id, port.lsp);
        if let Err(e) = net.delete_link(&PodPort::host_name(&port.attachment)).await {
            warn!("{e}: {}", causes(&e));
        }
        stale.push(port);
    }
    plug.leave(stale);
    let adopted = plug.attachments();
    info!(ports = adopted.len(), "ports of the previous run taken over");
    readiness.set(Part::Restored, true);
    // Without an address of their own: a DHCP server's.
    for port in adopted.iter().filter(|port| port.addresses.is_empty()) {
        tokio::spawn(plug.clone().resume(port.clone()));
    }

    pods.until_complete().await;
    readiness.set(Part::Pods, true);
    for port in adopted {
        if !sweep::is_gone(pods, &port) {
            continue;
        }
        warn!("pod {} ({}) is gone: its port goes", port.lsp, port.uid);
        let del = Del { attachment: port.attachment.clone(), netns: None };
        if let Err(e) = plug.del(del, Instant::now()).await {
            warn!("removing it: {e}");
        }
    }
    declared.cancelled().await;
    plug.cable().allow_deletes();
    plug.await_stale().await;
    Ok(())
}

async fn lives<N: NetOps>(net: &N, port: &PodPort) -> bool {
    let same = net.netns_id(&port.netns).is_ok_and(|id| id == port.netns_id);
    same && matches!(net.host_link(&PodPort::host_name(&port.attachment)).await, Ok(Some(_)))
}
