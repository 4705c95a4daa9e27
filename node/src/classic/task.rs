//! Keeps bridges, tunnels, flows, routes and masquerading of the classic network as they should be, until the daemon stops; what stands
//! then goes on forwarding.
//!
//! ```text
//! own subnets, Nodes, kernel, Open_vSwitch --> Fabric --> rows --> ofports --> flows
//!                                                     --> kbr0: address, MAC, MTU, routes, neighbours, what joins it with obr0
//!                                                     --> nftables: pods leave the cluster with the node's address
//! ```
//!
//! Must not: write before all nodes have been listed: a start changes nothing.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use ovenbird_classic::{Existing, Fabric, Member, Settings};
use ovenbird_nft::Table;
use ovenbird_reconcile::Owner;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ports::Ports;
use crate::chassis;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::gateway::Bridge;
use crate::gateway::openflow::{self, Kept};
use crate::known::Known;
use crate::net::linux::Linux;
use crate::net::{HostLink, NetError, NetOps, Route, causes, ensure_sysctl};
use crate::nft;
use crate::readiness::{Part, Readiness};
use crate::vswitch::{State, Vswitch};

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// What the task works with.
pub struct Task {
    /// Settings.
    pub config: Config,
    /// Shape of the network.
    pub settings: Settings,
    /// MTU of pods.
    pub mtu: u32,
    /// The kernel.
    pub net: Arc<Linux>,
    /// Open_vSwitch.
    pub vswitch: Vswitch,
    /// This Node.
    pub node: watch::Receiver<NodeFact>,
    /// All nodes.
    pub members: watch::Receiver<Known<Member>>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Pods' ports, which are told when their bridge stands.
    pub ports: Arc<Ports<Linux>>,
    /// Told when the network stands.
    pub readiness: Arc<Readiness>,
    /// Cancelled once all rows are wanted.
    pub declared: CancellationToken,
}

/// What was written last.
struct Written {
    /// Owners of rows, and what they were made from.
    rows: Option<(Fabric, Existing)>,
    owners: BTreeSet<Owner>,
    kept: Kept,
    table: Option<Table>,
}

impl Task {
    /// Runs until the daemon stops.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended, or flows cannot be written from here.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let socket = openflow::socket(&self.config.ovs, &self.settings.ovs_bridge).context(
            "flows are written beside a unix socket of Open_vSwitch: give one with --ovs-address, e.g. unix:/run/openvswitch/db.sock",
        )?;
        self.node.wait_for(|node| !node.subnets.is_empty()).await?;
        self.readiness.set(Part::Subnets, true);
        self.members.wait_for(Option::is_some).await?;
        let kept = Kept::new(socket, &self.settings.ovs_bridge);
        let mut written = Written { rows: None, owners: BTreeSet::new(), kept, table: None };
        let mut state = self.vswitch.state();
        loop {
            let now = state.wait_for(|s| s.synced).await?.clone();
            self.host_changes.borrow_and_update();
            let done = match self.fabric(&now).await {
                Ok(fabric) => self.apply(&fabric, &now, &mut written).await,
                Err(e) => {
                    warn!("the network of this host: {e:#}");
                    Ok(false)
                }
            };
            if let Err(e) = &done {
                warn!("{e}: {}", causes(e));
            }
            let done = done.unwrap_or(false);
            if done {
                self.readiness.set(Part::Fabric, true);
            }
            let again = if done { self.config.audit_interval } else { RETRY };
            tokio::select! {
                changed = self.node.changed() => changed?,
                changed = self.members.changed() => changed?,
                changed = self.host_changes.changed() => changed?,
                changed = async { state.wait_for(|s| !s.synced || s.bridges != now.bridges).await.map(drop) } => changed?,
                () = written.kept.ended() => {
                    info!("ovs-vswitchd has closed the session with {}", self.settings.ovs_bridge);
                    tokio::time::sleep(RETRY).await;
                }
                () = tokio::time::sleep(again) => {
                    // Somebody else may have changed something: all is compared again.
                    written.kept.forget();
                    written.table = None;
                }
            }
        }
    }

    async fn fabric(&mut self, state: &State) -> anyhow::Result<Fabric> {
        let host = self.net.host_network().await?;
        let address = chassis::encap_ip(&self.config, &host)?;
        let name = self.config.node.clone();
        let own = Member { name, address, subnets: self.node.borrow_and_update().subnets.clone() };
        let members = self.members.borrow_and_update();
        let peers = members.iter().flatten().filter(|(name, _)| **name != own.name).map(|(_, m)| m.clone());
        Ok(Fabric {
            settings: self.settings.clone(),
            peers: peers.collect(),
            own,
            cluster: self.config.cluster_subnets.clone(),
            userspace: state.userspace,
            mtu: self.mtu,
        })
    }

    /// Makes everything agree with a fabric. False when ports are not there yet, of which Open_vSwitch will tell.
    async fn apply(&self, fabric: &Fabric, state: &State, written: &mut Written) -> Result<bool, NetError> {
        let bridge = state.bridges.get(&self.settings.ovs_bridge);
        let existing = existing(bridge, self.settings.tunnel.as_str());
        let tunnel = self.declare(fabric, existing, written);
        self.declared.cancel();
        // At a start, and from time to time, somebody else may have made the bridge anew.
        let joined = self.apply_bridge(fabric, state.userspace, written.table.is_none()).await?;
        let mut done = joined && self.write_table(fabric, &mut written.table).await;
        let ofport = |name: &str| bridge?.ports.get(name)?.ofport.map(|n| n.to_string());
        let attach = match fabric.attachment().port {
            Some(port) => ofport(port),
            None => Some("LOCAL".to_owned()),
        };
        match (attach, tunnel.map_or(Some(String::new()), |name| ofport(&name))) {
            (Some(attach), Some(tunnel)) => {
                done &= told("flows", &written.kept.write(fabric.flows(&tunnel, &attach)).await);
            }
            _ => done = false,
        }
        Ok(done)
    }

    /// Wants the rows. Returns the name of the tunnel port that flows steer.
    fn declare(&self, fabric: &Fabric, existing: Existing, written: &mut Written) -> Option<String> {
        let tunnels = fabric.tunnels(&existing);
        let steered = tunnels.iter().find(|(owner, ..)| owner.key.is_empty()).map(|(_, name, _)| name.clone());
        let made_from = (fabric.clone(), existing);
        if written.rows.as_ref() == Some(&made_from) {
            return steered;
        }
        let mut owners = BTreeSet::new();
        let all =
            tunnels.into_iter().map(|(owner, _, output)| (owner, output)).chain([(Fabric::owner(), fabric.rows())]);
        for (owner, output) in all {
            owners.insert(owner.clone());
            self.vswitch.set(owner, output);
        }
        for gone in written.owners.difference(&owners) {
            info!("{gone} is gone");
            drop(self.vswitch.remove(gone));
        }
        (written.owners, written.rows) = (owners, Some(made_from));
        steered
    }

    /// The Linux bridge. False when the link that joins it with the OVS bridge is not there yet.
    async fn apply_bridge(&self, fabric: &Fabric, userspace: bool, suspect: bool) -> Result<bool, NetError> {
        let name = &self.settings.bridge;
        let made = self.net.ensure_bridge(name).await?;
        self.settle(name)?;
        if let Some(link) = host_link(fabric, userspace) {
            self.net.apply_host_link(&link).await?;
        }
        self.net.apply_neighbours(name, &v6(&self.config.cluster_subnets), &fabric.neighbours()).await?;
        self.ports.stand(made || suspect);
        if let (link, Some(port)) = (fabric.attachment().link, fabric.attachment().port)
            && link != port
        {
            self.net.ensure_pair([link, port], self.mtu, userspace).await?;
        }
        match self.net.join(fabric.joined_link(), name).await {
            Ok(new) => {
                if new {
                    info!("{} is a port of {name}", fabric.joined_link());
                }
                Ok(true)
            }
            Err(NetError::NoLink(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Settings of the kernel: the host routes, sends nobody past itself, and sees in its hooks what the bridge forwards.
    fn settle(&self, bridge: &str) -> Result<(), NetError> {
        let families = |v4: bool| self.config.cluster_subnets.iter().any(|net| net.addr().is_ipv4() == v4);
        let mut keys = Vec::new();
        if families(true) {
            let redirects = |of: &str| (format!("net/ipv4/conf/{of}/send_redirects"), "0");
            keys.extend([("net/ipv4/ip_forward".to_owned(), "1"), redirects("all"), redirects(bridge)]);
            keys.push(("net/bridge/bridge-nf-call-iptables".to_owned(), "1"));
        }
        if families(false) {
            keys.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        }
        // Pods have link-local addresses in any case, which policies must see.
        keys.push(("net/bridge/bridge-nf-call-ip6tables".to_owned(), "1"));
        for (key, value) in keys {
            if ensure_sysctl(&key, value)? {
                info!("{} = {value}", key.replace('/', "."));
            }
        }
        Ok(())
    }

    async fn write_table(&self, fabric: &Fabric, written: &mut Option<Table>) -> bool {
        let gateway = &self.config.gateway;
        let want = fabric.masquerade(gateway.snat, &gateway.non_masquerade_cidrs);
        if written.as_ref() == Some(&want) {
            return true;
        }
        let done = told("nftables", &nft::replace(&want).await);
        *written = done.then_some(want);
        done
    }
}

/// Tunnel ports of this kind that are in the bridge.
fn existing(bridge: Option<&Bridge>, kind: &str) -> Existing {
    let tunnels = bridge.into_iter().flat_map(|b| &b.ports).filter(|(_, port)| port.kind == kind);
    let remote = |text: &str| if text == "flow" { Some(None) } else { text.parse::<IpAddr>().ok().map(Some) };
    tunnels.filter_map(|(name, port)| Some((remote(port.remote.as_deref()?)?, name.clone()))).collect()
}

/// kbr0 as it should be.
fn host_link(fabric: &Fabric, userspace: bool) -> Option<HostLink> {
    let route = |(dst, via): (IpNet, Option<IpAddr>)| Route { src: fabric.source(&dst), ..Route::to(dst, via) };
    Some(HostLink {
        name: fabric.settings.bridge.clone(),
        mac: fabric.own.mac()?,
        mtu: fabric.mtu,
        addresses: fabric.own.gateways(),
        routes: fabric.routes().into_iter().map(route).collect(),
        checksum_in_software: userspace,
    })
}

fn v6(networks: &[IpNet]) -> Vec<IpNet> {
    networks.iter().filter(|net| net.addr().is_ipv6()).copied().collect()
}

/// True for a success; says what a failure is.
fn told<T, E: Error>(what: &str, done: &Result<T, E>) -> bool {
    if let Err(e) = done {
        warn!("{what}: {e}: {}", causes(e));
    }
    done.is_ok()
}

/// Folder of what is known of pods' ports.
pub fn ports_folder(config: &Config) -> PathBuf {
    config.cni_socket.parent().map_or_else(|| "/run/ovenbird".into(), PathBuf::from).join("ports")
}
