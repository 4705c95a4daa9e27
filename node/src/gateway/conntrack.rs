//! Makes Open vSwitch forget UDP connections to endpoints that are gone, when OVN has settled.
//!
//! ```text
//! [endpoints]: an endpoint that was ready is no more --> after a while, and again: flush what it answers --> ovs-ofctl ct-flush br-int
//! ```
//!
//! A client that goes on sending from one port keeps its connection, and its endpoint, for as long as it sends. ovn-controller flushes
//! such connections (`options:ct_flush`), but before it changes the flows: whoever sends in between connects to the old endpoint
//! again. So this comes later, and more than once, for nobody tells when all flows are in force. Must not: touch other protocols, whose
//! connections end by themselves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::net::causes;
use crate::tool::{OFCTL, ToolError};

/// Milliseconds after which connections are flushed. OVN takes 10 when it has nothing else to do, and seconds in a large cluster.
const PAUSES: [u64; 4] = [300, 1_000, 4_000, 15_000];

/// Runs until the daemon stops. `bridge` is the socket of the integration bridge; without one there is nothing to be done.
///
/// # Errors
/// When whoever tells of endpoints has ended.
pub async fn run(bridge: Option<&Path>, mut gone: UnboundedReceiver<SocketAddr>) -> anyhow::Result<()> {
    let mut due: BTreeSet<(Instant, SocketAddr)> = BTreeSet::new();
    loop {
        let next = due.first().copied();
        let wait = async {
            match next {
                Some((at, endpoint)) => {
                    sleep_until(at).await;
                    endpoint
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = gone.recv() => {
                let Some(endpoint) = told else { anyhow::bail!("nobody tells of endpoints any more") };
                debug!(%endpoint, "is gone");
                due.extend(PAUSES.map(|pause| (Instant::now() + Duration::from_millis(pause), endpoint)));
            }
            endpoint = wait => {
                due.pop_first();
                if let Some(bridge) = bridge && let Err(complaint) = flush(bridge, endpoint).await {
                    warn!("UDP clients of the endpoint {endpoint}, which is gone, may not find another: {complaint}: {}", causes(&complaint));
                }
            }
        }
    }
}

/// Forgets the UDP connections, in all zones, whose answers come from `endpoint`.
///
/// # Errors
/// What the tool says: before Open vSwitch 3.1 there is no such command.
async fn flush(bridge: &Path, endpoint: SocketAddr) -> Result<(), ToolError> {
    let bridge = format!("unix:{}", bridge.display());
    OFCTL.run(["--timeout=10", "ct-flush", &bridge, "", &tuple(endpoint)], "").await.map(drop)
}

/// The reply's direction, as ovs-ofctl(8) reads it.
fn tuple(endpoint: SocketAddr) -> String {
    let (address, port) = (endpoint.ip(), endpoint.port());
    let source = if address.is_ipv4() { "ct_nw_src" } else { "ct_ipv6_src" };
    format!("{source}={address},ct_nw_proto=17,ct_tp_src={port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_an_endpoint_are_named() {
        let of = |text: &str| tuple(text.parse().unwrap());
        assert_eq!(of("10.128.0.3:53"), "ct_nw_src=10.128.0.3,ct_nw_proto=17,ct_tp_src=53");
        assert_eq!(of("[fd01::3]:53"), "ct_ipv6_src=fd01::3,ct_nw_proto=17,ct_tp_src=53");
    }
}
