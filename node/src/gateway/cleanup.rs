//! `ovenbird-node --cleanup`: takes back what the gateway has put on the host. The daemon must not run, or it puts it there again.
//!
//! ```text
//! flows of the external bridge -> NORMAL; our routes, masquerade addresses and neighbours; nftables; our bridge mapping;
//! a NIC that we took over gets back what it had, and its bridge goes (`uplink`)
//! ```
//!
//! Every step is tried, whatever became of the others. Annotations of the Node are left to the master and whoever deletes the Node,
//! ports of pods and the management port to Open_vSwitch. Must not: touch what others put there.

use std::collections::BTreeSet;
use std::fmt::Display;

use anyhow::bail;
use ovenbird_api::name::PHYSICAL_NETWORK;
use tokio::process::Command;
use tracing::{error, info};

use super::{discover, host, nft, openflow};
use crate::config::Config;
use crate::net::causes;
use crate::net::linux::Linux;
use crate::rows::BRIDGE_MAPPINGS;
use crate::uplink;

/// Takes everything back.
///
/// # Errors
/// When a step failed; the log says which.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let (uplink, mut config) = (uplink::Task::new(config), config.clone());
    config.gateway.bridge = uplink.bridge(&config.gateway)?;
    let (config, bridge) = (&config, &config.gateway.bridge);
    let mut failed = 0;
    let mut told = |what: &str, done: Result<(), String>| match done {
        Ok(()) => info!("{what}: removed"),
        Err(e) => {
            error!("{what}: {e}");
            failed += 1;
        }
    };
    told("bridge mapping", unmap(config).await);
    told("flows", flows(config).await);
    told("routes, addresses and neighbours", links(config).await);
    told("nftables", nft::replace(&nft::delete()).await.map_err(text));
    // Last: what is left on the bridge is the host's own.
    told("uplink", uplink.give_back().await.map_err(|e| format!("{e:#}")));
    info!("annotations of the Node are left to the master; ports of {bridge} and br-int to Open_vSwitch");
    if failed > 0 { bail!("{failed} steps of the clean-up failed") } else { Ok(()) }
}

fn text(e: impl std::error::Error) -> String {
    format!("{e}: {}", causes(&e))
}

/// The bridge as ovs-vsctl makes one. Where no bridge is, there are no flows.
async fn flows(config: &Config) -> Result<(), String> {
    match openflow::socket(&config.ovs, &config.gateway.bridge).filter(|socket| socket.exists()) {
        Some(socket) => {
            let plain = BTreeSet::from(["table=0,priority=0 actions=NORMAL".to_owned()]);
            openflow::replace(&socket, &plain).await.map_err(text)
        }
        None => Ok(()),
    }
}

async fn links(config: &Config) -> Result<(), String> {
    let net = Linux::new().map_err(text)?;
    let ours = host::both_families(&config.gateway.bridge, &config.gateway.masquerade);
    net.clear_shared_link(&ours).await.map_err(text)
}

/// Takes our mapping out of the text that others write to as well.
async fn unmap(config: &Config) -> Result<(), String> {
    let Some(endpoint) = config.ovs.first() else { return Ok(()) };
    let (db, key) = (format!("--db={endpoint}"), format!("external_ids:{BRIDGE_MAPPINGS}"));
    let vsctl = async |args: &[&str]| {
        let output = Command::new("ovs-vsctl").args(["--no-wait", "--timeout=30", &db]).args(args).output().await;
        let output = output.map_err(|e| problem("running ovs-vsctl", e))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    };
    let have = vsctl(&["--if-exists", "get", "Open_vSwitch", ".", &key]).await?;
    match discover::without_ours(have.trim_matches('"')) {
        rest if rest == have.trim_matches('"') => Ok(()),
        rest if rest.is_empty() => {
            vsctl(&["remove", "Open_vSwitch", ".", "external_ids", BRIDGE_MAPPINGS]).await.map(drop)
        }
        rest => vsctl(&["set", "Open_vSwitch", ".", &format!("{key}=\"{rest}\"")]).await.map(drop),
    }
    .map_err(|e| problem(PHYSICAL_NETWORK, e))
}

fn problem(what: &str, e: impl Display) -> String {
    format!("{what}: {e}")
}
