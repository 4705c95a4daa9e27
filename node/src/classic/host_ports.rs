//! Keeps the table of ports of the node that lead to its pods (`ovenbird_classic::host_ports`).
//!
//! ```text
//! book of the node's pods --> table --> nft, when different; route_localnet of the link to them --> connections of UDP to who had a port before are forgotten [conntrack]
//! ```
//!
//! Must not: write before all pods are listed: a start changes nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::HostPorts;
use ovenbird_classic::host_ports::{changed, table};
use tracing::{info, warn};

use super::conntrack;
use crate::chassis;
use crate::net::{NetOps, causes, ensure_sysctl};
use crate::nft;
use crate::pods::PodBook;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// What the table follows from.
pub struct Task<N> {
    /// The kernel.
    pub net: Arc<N>,
    /// The node's pods.
    pub pods: Arc<PodBook>,
    /// The link that leads to them.
    pub link: String,
    /// Time after which the table is compared with the kernel's, when nothing happens.
    pub audit: Duration,
}

impl<N: NetOps> Task<N> {
    /// Runs until the daemon stops; the table stays.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(self) -> anyhow::Result<()> {
        self.pods.until_complete().await;
        let (mut asking, mut before) = (self.pods.host_ports(), Vec::new());
        loop {
            let now = asking.borrow_and_update().clone();
            let again = match self.write(&now).await {
                Ok(written) => {
                    if written {
                        info!("ports of the node lead to {} pods", now.len());
                    }
                    self.forget(&before, &now).await;
                    before = now;
                    self.audit
                }
                Err(e) => {
                    warn!("ports of the node: {e:#}");
                    RETRY
                }
            };
            tokio::select! {
                changed = asking.changed() => changed?,
                // Somebody else may have changed something: the next turn compares.
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Makes the kernel agree. True when the table was another. Its rules are there before the link lets packets of 127.0.0.1 out.
    async fn write(&self, pods: &[HostPorts]) -> anyhow::Result<bool> {
        let written = nft::replace(&table(pods, &self.link)).await?;
        ensure_sysctl(&format!("net/ipv4/conf/{}/route_localnet", self.link), "1")?;
        Ok(written)
    }

    /// Lets clients of UDP find who has a port now.
    async fn forget(&self, before: &[HostPorts], now: &[HostPorts]) {
        if changed(before, now, &[]).is_empty() {
            return;
        }
        let failed = |e: &dyn std::error::Error| warn!("clients of UDP may not find another pod: {e}: {}", causes(e));
        let mut own: Vec<IpAddr> = match self.net.host_network().await {
            Ok(host) => chassis::host_cidrs(&host).iter().map(IpNet::addr).collect(),
            Err(e) => return failed(&e),
        };
        own.push(Ipv4Addr::LOCALHOST.into());
        match conntrack::flush(&changed(before, now, &own)).await {
            Ok(0) => {}
            Ok(gone) => info!(gone, "connections of UDP to pods that had ports of the node are forgotten"),
            Err(e) => failed(&e),
        }
    }
}
