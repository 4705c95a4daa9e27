//! `ovenbird-node --cleanup`: takes back what gateway and physical networks have put on the host. The daemon must not run, or it puts it there again.
//!
//! ```text
//! flows of the external bridge -> NORMAL; our routes, masquerade addresses and neighbours; nftables; our bridge mapping;
//! physical networks (`underlay::cleanup`); NICs that we took over get back what they had, and their bridges go (`uplink`)
//! ```
//!
//! Every step is tried, whatever became of the others. Annotations of the Node are left to the master and whoever deletes the Node,
//! ports of pods and the management port to Open_vSwitch. Must not: touch what others put there.

use std::collections::BTreeSet;

use anyhow::bail;
use tracing::{error, info};

use super::{discover, host, nft, openflow};
use crate::config::Config;
use crate::net::linux::Linux;
use crate::nft::apply;
use crate::rows::BRIDGE_MAPPINGS;
use crate::tool::Vsctl;
use crate::underlay;
use crate::uplink::{self, Purpose};

/// Takes everything back.
///
/// # Errors
/// When a step failed; the log says which.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let (uplink, mut config) = (uplink::Task::new(config, Purpose::Gateway), config.clone());
    config.gateway.bridge = uplink.bridge(&config.gateway)?;
    let (config, bridge) = (&config, &config.gateway.bridge);
    let mut steps = Steps::default();
    steps.took("bridge mapping", unmap(config).await);
    steps.took("flows", flows(config).await);
    steps.took("routes, addresses and neighbours", links(config).await);
    steps.took("nftables", apply(&nft::delete()).await.map_err(anyhow::Error::from));
    steps.took("physical networks", underlay::cleanup::run(&config.ovs).await);
    // Last: what is left on the bridge is the host's own.
    steps.took("uplinks", uplink.give_all_back().await);
    info!("annotations of the Node are left to the master; ports of {bridge} and br-int to Open_vSwitch");
    steps.end()
}

/// Steps of a removal: each is tried, whatever became of those before.
#[derive(Debug, Default)]
pub struct Steps {
    failed: usize,
}

impl Steps {
    /// What became of one.
    pub fn took(&mut self, what: &str, done: anyhow::Result<()>) {
        match done {
            Ok(()) => info!("{what}: removed"),
            Err(e) => {
                error!("{what}: {e:#}");
                self.failed += 1;
            }
        }
    }

    /// The end.
    ///
    /// # Errors
    /// When one failed.
    pub fn end(self) -> anyhow::Result<()> {
        if self.failed > 0 { bail!("{} steps failed", self.failed) } else { Ok(()) }
    }
}

/// The bridge as ovs-vsctl makes one. Where no bridge is, there are no flows.
async fn flows(config: &Config) -> anyhow::Result<()> {
    let Some(socket) = openflow::socket(&config.ovs, &config.gateway.bridge).filter(|socket| socket.exists()) else {
        return Ok(());
    };
    let plain = BTreeSet::from(["table=0,priority=0 actions=NORMAL".to_owned()]);
    Ok(openflow::replace(&socket, &plain).await?)
}

async fn links(config: &Config) -> anyhow::Result<()> {
    let ours = host::both_families(&config.gateway.bridge, &config.gateway.masquerade);
    Ok(Linux::new()?.clear_shared_link(&ours).await?)
}

/// Takes our mapping out of the text that others write to as well. vswitchd need not run.
async fn unmap(config: &Config) -> anyhow::Result<()> {
    let vsctl = Vsctl::new(&config.ovs);
    let key = format!("external_ids:{BRIDGE_MAPPINGS}");
    let have = vsctl.run(&["--no-wait", "--if-exists", "get", "Open_vSwitch", ".", &key]).await?;
    let have = have.trim_matches('"');
    match discover::without_ours(have) {
        rest if rest == have => {}
        rest if rest.is_empty() => {
            vsctl.run(&["--no-wait", "remove", "Open_vSwitch", ".", "external_ids", BRIDGE_MAPPINGS]).await?;
        }
        rest => drop(vsctl.run(&["--no-wait", "set", "Open_vSwitch", ".", &format!("{key}=\"{rest}\"")]).await?),
    }
    Ok(())
}
