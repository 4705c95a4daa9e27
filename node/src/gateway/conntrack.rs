//! Makes Open vSwitch forget UDP connections that lead nowhere, when OVN has settled: those to endpoints that are gone, and those to a Service
//! itself, from before it had an endpoint.
//!
//! ```text
//! [endpoints]: an address --> after a while, and again: flush what it answers --> ovs-ofctl ct-flush br-int
//! ```
//!
//! A client that goes on sending from one port keeps its connection for as long as it sends. ovn-controller flushes those of endpoints that are gone
//! (`options:ct_flush`), but before it changes the flows: whoever sends in between connects to the old endpoint again. And who sends before OVN
//! knows a Service has a connection to its address, which is no endpoint's, and which nobody flushes. So this comes later, and more than once, for
//! nobody tells when all flows are in force. Must not: touch other protocols, whose connections end by themselves.

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
pub async fn run(bridge: Option<&Path>, mut stale: UnboundedReceiver<SocketAddr>) -> anyhow::Result<()> {
    let mut due: BTreeSet<(Instant, SocketAddr)> = BTreeSet::new();
    loop {
        let next = due.first().copied();
        let wait = async {
            match next {
                Some((at, address)) => {
                    sleep_until(at).await;
                    address
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = stale.recv() => {
                let Some(address) = told else { anyhow::bail!("nobody tells of endpoints any more") };
                debug!(%address, "UDP connections to it are forgotten");
                due.extend(PAUSES.map(|pause| (Instant::now() + Duration::from_millis(pause), address)));
            }
            address = wait => {
                due.pop_first();
                if let Some(bridge) = bridge && let Err(complaint) = flush(bridge, address).await {
                    warn!("UDP clients that have sent to {address} may not find an endpoint: {complaint}: {}", causes(&complaint));
                }
            }
        }
    }
}

/// Forgets the UDP connections, in all zones, whose answers come from `address`.
///
/// # Errors
/// What the tool says: before Open vSwitch 3.1 there is no such command.
async fn flush(bridge: &Path, address: SocketAddr) -> Result<(), ToolError> {
    let bridge = format!("unix:{}", bridge.display());
    OFCTL.run(["--timeout=10", "ct-flush", &bridge, "", &tuple(address)], "").await.map(drop)
}

/// The reply's direction, as ovs-ofctl(8) reads it.
fn tuple(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let source = if ip.is_ipv4() { "ct_nw_src" } else { "ct_ipv6_src" };
    format!("{source}={ip},ct_nw_proto=17,ct_tp_src={port}")
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
