//! `ovenbird-node --remove-network`: takes everything off the host that a node of ours has, of whichever network mode. Daemon and
//! ovn-controller must not run, or they put it there again.
//!
//! ```text
//! gateway (cleanup) -> pods' links, kbr0 -> obr0, br-int, OVN's patch ports and settings -> nftables -> files
//! ```
//!
//! Every step is tried, whatever became of the others. Must not: touch what others put there, or settings of the kernel.

use std::fmt::Display;
use std::path::Path;

use anyhow::bail;
use ovenbird_api::name::{INTEGRATION_BRIDGE, MANAGEMENT_INTERFACE};
use tokio::process::Command;
use tracing::{error, info};

use crate::classic::{NetworkMode, task};
use crate::config::Config;
use crate::gateway::{cleanup, nft};
use crate::net::linux::Linux;
use crate::net::{NetOps, causes};

/// Tables of nftables beside the gateway's.
const TABLES: [&str; 4] =
    ["inet ovenbird-classic", "inet ovenbird-services", "inet ovenbird-policy", "bridge ovenbird-ports"];
/// What we set for ovn-controller. `system-id` and `hostname` are the host's.
const SETTINGS: [&str; 6] = [
    "ovn-encap-ip",
    "ovn-encap-type",
    "ovn-monitor-all",
    "ovn-openflow-probe-interval",
    "ovn-remote",
    "ovn-remote-probe-interval",
];

/// Takes everything off.
///
/// # Errors
/// When a step failed; the log says which.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let mut failed = 0;
    let mut told = |what: &str, done: Result<(), String>| match done {
        Ok(()) => info!("{what}: removed"),
        Err(e) => {
            error!("{what}: {e}");
            failed += 1;
        }
    };
    told("gateway", cleanup::run(config).await.map_err(|e| e.to_string()));
    let classic = match &config.network {
        NetworkMode::Classic(settings) => settings.clone(),
        NetworkMode::Overlay | NetworkMode::Nested(_) => ovenbird_classic::Settings::default(),
    };
    told("links of pods and bridges", links(&classic.bridge).await);
    told("bridges of Open_vSwitch", bridges(config, &classic.ovs_bridge).await);
    let tables: String = TABLES.iter().map(|table| format!("table {table}\ndelete table {table}\n")).collect();
    told("nftables", nft::replace(&tables).await.map_err(|e| format!("{e}: {}", causes(&e))));
    told("files", files(&task::ports_folder(config), &config.cni_conf));
    if failed > 0 { bail!("{failed} steps of the removal failed") } else { Ok(()) }
}

/// Host ends of pods' veths (`ov` and 12 digits, see `rows::PodPort::host_name`), the Linux bridge and what joins it.
async fn links(bridge: &str) -> Result<(), String> {
    let net = Linux::new().map_err(|e| e.to_string())?;
    let host = net.host_network().await.map_err(|e| e.to_string())?;
    let of_pod = |name: &str| {
        name.strip_prefix("ov").is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    for link in host.links.iter().filter(|link| of_pod(&link.name) || link.name == bridge || link.name == "vkbr0") {
        net.delete_link(&link.name).await.map_err(|e| format!("{e}: {}", causes(&e)))?;
    }
    Ok(())
}

async fn bridges(config: &Config, classic: &str) -> Result<(), String> {
    let Some(endpoint) = config.ovs.first() else { return Ok(()) };
    let db = format!("--db={endpoint}");
    let vsctl = async |args: &[&str]| {
        let output = Command::new("ovs-vsctl").args(["--timeout=30", &db]).args(args).output().await;
        let output = output.map_err(|e| problem("running ovs-vsctl", e))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    };
    let find = async |table: &str, column: &str, condition: &str| {
        vsctl(&["--bare", "--no-heading", &format!("--columns={column}"), "find", table, condition]).await
    };
    // ovn-controller(8): its ends of patch ports to bridges of physical networks.
    for port in find("Port", "name", "external_ids:ovn-localnet-port!=\"\"").await?.split_whitespace() {
        vsctl(&["--if-exists", "del-port", port]).await?;
    }
    // Of a VM: its bridge is the operator's, and stays.
    vsctl(&["--if-exists", "del-port", MANAGEMENT_INTERFACE]).await?;
    for port in find("Interface", "name", "external_ids:sandbox!=\"\"").await?.split_whitespace() {
        vsctl(&["--if-exists", "del-port", port]).await?;
    }
    for bridge in [INTEGRATION_BRIDGE, classic] {
        vsctl(&["--if-exists", "del-br", bridge]).await?;
    }
    for qos in find("QoS", "_uuid", "external_ids:sandbox!=\"\"").await?.split_whitespace() {
        vsctl(&["destroy", "QoS", qos]).await?;
    }
    let remove = ["remove", "Open_vSwitch", ".", "external_ids"];
    vsctl(&[&remove[..], &SETTINGS[..]].concat()).await.map(drop)
}

fn files(ports: &Path, conf: &Path) -> Result<(), String> {
    let gone = |done: std::io::Result<()>, path: &Path| match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(problem(&path.display().to_string(), e)),
        _ => Ok(()),
    };
    gone(std::fs::remove_dir_all(ports), ports)?;
    gone(std::fs::remove_file(conf), conf)
}

fn problem(what: &str, e: impl Display) -> String {
    format!("{what}: {e}")
}
