//! `ovenbird-node --remove-network`: takes everything off the host that a node of ours has, of whichever network mode. Daemon and
//! ovn-controller must not run, or they put it there again.
//!
//! ```text
//! gateway, physical networks (cleanup) -> pods' links, kbr0 -> obr0, br-int, OVN's patch ports and settings -> nftables -> files
//! ```
//!
//! Every step is tried, whatever became of the others. Must not: touch what others put there, or settings of the kernel.

use std::path::Path;

use anyhow::Context as _;
use ovenbird_api::name::{INTEGRATION_BRIDGE, MANAGEMENT_INTERFACE};

use ovenbird_classic::{guard, host_ports, masquerade, policy, services};

use crate::classic::task;
use crate::config::Config;
use crate::gateway::cleanup::{self, Steps};
use crate::mode::NetworkMode;
use crate::nested;
use crate::net::NetOps;
use crate::net::linux::Linux;
use crate::nft::apply;
use crate::rows::ENTERED;
use crate::tool::Vsctl;

/// Tables of nftables beside the gateway's.
const TABLES: [&str; 6] =
    [masquerade::TABLE, services::TABLE, host_ports::TABLE, policy::TABLE, guard::TABLE, nested::table::TABLE];
/// What we set for ovn-controller. `system-id` and `hostname` are the host's.
const SETTINGS: [&str; 7] = [
    "ovn-encap-ip",
    "ovn-encap-type",
    "ovn-monitor-all",
    "ovn-openflow-probe-interval",
    "ovn-remote",
    "ovn-remote-probe-interval",
    ENTERED,
];

/// Takes everything off.
///
/// # Errors
/// When a step failed; the log says which.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    steps.took("gateway and physical networks", cleanup::run(config).await);
    let classic = match &config.network {
        NetworkMode::Classic(settings) => settings.clone(),
        NetworkMode::Overlay | NetworkMode::Nested(_) => ovenbird_classic::Settings::default(),
    };
    steps.took("links of pods and bridges", links(&classic.bridge).await);
    steps.took("bridges and ports of Open_vSwitch", switch(config, &classic.ovs_bridge).await);
    let tables: String = TABLES.iter().map(|table| ovenbird_nft::delete(table)).collect();
    steps.took("nftables", apply(&tables).await.map_err(anyhow::Error::from));
    steps.took("files", files(&task::ports_folder(config), &config.cni_conf));
    steps.end()
}

/// Host ends of pods' veths (`ov` and 12 digits, see `rows::PodPort::host_name`), the Linux bridge and what joins it.
async fn links(bridge: &str) -> anyhow::Result<()> {
    let net = Linux::new()?;
    let host = net.host_network().await?;
    let of_pod = |name: &str| {
        name.strip_prefix("ov").is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    for link in host.links.iter().filter(|link| of_pod(&link.name) || link.name == bridge || link.name == "vkbr0") {
        net.delete_link(&link.name).await?;
    }
    Ok(())
}

async fn switch(config: &Config, classic: &str) -> anyhow::Result<()> {
    let vsctl = Vsctl::new(&config.ovs);
    // ovn-controller(8): its ends of patch ports to bridges of physical networks. Of a VM the bridge is the operator's, and stays.
    let mut ports = vsctl.find("Port", "name", "external_ids:ovn-localnet-port!=\"\"").await?;
    ports.extend(vsctl.find("Interface", "name", "external_ids:sandbox!=\"\"").await?);
    ports.push(MANAGEMENT_INTERFACE.to_owned());
    for port in ports {
        vsctl.run(&["--if-exists", "del-port", &port]).await?;
    }
    for bridge in [INTEGRATION_BRIDGE, classic] {
        vsctl.run(&["--if-exists", "del-br", bridge]).await?;
    }
    for qos in vsctl.find("QoS", "_uuid", "external_ids:sandbox!=\"\"").await? {
        vsctl.run(&["destroy", "QoS", &qos]).await?;
    }
    vsctl.run(&[&["remove", "Open_vSwitch", ".", "external_ids"], &SETTINGS[..]].concat()).await?;
    Ok(())
}

fn files(ports: &Path, conf: &Path) -> anyhow::Result<()> {
    let gone = |done: std::io::Result<()>, path: &Path| match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    };
    gone(std::fs::remove_dir_all(ports), ports)?;
    gone(std::fs::remove_file(conf), conf)
}
