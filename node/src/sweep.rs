//! Finds the ports of pods that the API has forgotten. A runtime takes a pod's ports away before that; one that has lost its state, or
//! whose pod was deleted by force, never does, and none sends GC by itself.
//!
//! In: attachments, the book of pods. Out: attachments that are gone. It must not touch the port of a pod that is there, whatever became
//! of its sandbox: the kubelet makes another.

use std::collections::BTreeSet;
use std::time::Duration;

use ovenbird_cni_server::{Attach, Attachment, Del};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cable::Cable;
use crate::net::NetOps;
use crate::plug::Plug;
use crate::pods::PodBook;
use crate::rows::PodPort;

/// Between two looks. A port goes when two looks miss its pod: until then its runtime may be about to take it away.
const PERIOD: Duration = Duration::from_secs(30);

/// Whether a port's pod is not there, or another of its name is. A static pod whose mirror is away still runs: its kubelet makes
/// another mirror within minutes, and would not attach the pod anew.
pub fn is_gone(pods: &PodBook, port: &PodPort) -> bool {
    let (namespace, name) = port.pod();
    match pods.get(namespace, name) {
        Some(pod) => !pod.is(Some(&port.uid)),
        None => !is_static(&port.uid),
    }
}

/// A kubelet gives its static pods an MD5 sum as UID, the API gives UUIDs.
fn is_static(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Looks until the daemon stops.
pub async fn run<N: NetOps, C: Cable>(plug: &Plug<N, C>, pods: &PodBook, stop: &CancellationToken) {
    let mut suspects = BTreeSet::new();
    while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        suspects = look(plug, pods, suspects).await;
    }
}

/// One look. Takes, and returns, the ports whose pods were missed.
pub(crate) async fn look<N: NetOps, C: Cable>(
    plug: &Plug<N, C>,
    pods: &PodBook,
    before: BTreeSet<Attachment>,
) -> BTreeSet<Attachment> {
    let mut missed = BTreeSet::new();
    for port in plug.attachments().into_iter().filter(|port| is_gone(pods, port)) {
        let attachment = port.attachment.clone();
        if !before.contains(&attachment) {
            missed.insert(attachment);
            continue;
        }
        info!("{} ({}) is gone, and no runtime takes its port away: it goes", port.lsp, port.uid);
        if let Err(e) = plug.del(Del { attachment: attachment.clone(), netns: None }, Instant::now()).await {
            warn!("removing it: {e}");
            missed.insert(attachment);
        }
    }
    missed
}
