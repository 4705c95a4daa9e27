//! Keeps the external bridge's flows, the host's routes to Services and its nftables as they should be, until the daemon stops; what
//! stands then goes on forwarding.
//!
//! ```text
//! Node, kernel, Open_vSwitch, Services --> Gateway, Served --> [flows] --> [openflow], when different, or when vswitchd is new
//!                                                          --> [host] --> routes, once the flows are there to take them
//!                                                  Served  --> [nft], when different
//! ```
//!
//! Must not: write before everything that flows depend on has been seen once: a start changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::{GatewayMode, HostPorts};
use tokio::sync::watch;
use tracing::{info, warn};

use super::bridge::Bridge;
use super::discover::{Gateway, discover};
use super::endpoints::{Hosts, Local};
use super::flows::{Facts, flows};
use super::openflow::{Kept, socket};
use super::physical::Physical;
use super::services::{Served, Services};
use super::{host, nft};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::net::{NetOps, causes};
use crate::nft::apply;
use crate::underlay::Shared;
use crate::vswitch::Vswitch;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Lets packets from 127.0.0.1 leave by the management port, where they are masqueraded.
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/ovn-k8s-mp0/route_localnet";

/// What the task works with.
pub struct Task<N> {
    /// Settings.
    pub config: Config,
    /// MTU of pods.
    pub mtu: u32,
    /// The kernel.
    pub net: Arc<N>,
    /// Open_vSwitch.
    pub vswitch: Vswitch,
    /// The Node.
    pub node: watch::Receiver<NodeFact>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Services, once they are listed.
    pub services: watch::Receiver<Option<Services>>,
    /// Endpoints on this node of Services with policy Local, once they are known.
    pub local: watch::Receiver<Option<Local>>,
    /// Networks of Services, once they are known.
    pub service_cidrs: watch::Receiver<Option<Vec<IpNet>>>,
    /// Subnets of Networks, whose pods are reached by OVN.
    pub routed: watch::Receiver<Vec<IpNet>>,
    /// Ports of the node that pods ask for.
    pub host_ports: watch::Receiver<Vec<HostPorts>>,
    /// Networks on the external bridge, once they are known.
    pub shared: watch::Receiver<Shared>,
    /// Becomes true when the bridge has flows, so that a gateway router may have the host's MAC.
    pub guarded: watch::Sender<bool>,
}

impl<N: NetOps> Task<N> {
    /// Runs until the daemon stops.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let Some(socket) = socket(&self.config.ovs, &self.config.gateway.bridge) else {
            warn!("no gateway: OpenFlow is reached beside a unix socket of Open_vSwitch, and --ovs-address names none");
            self.guarded.send_replace(true);
            return std::future::pending().await;
        };
        self.node.wait_for(|node| !node.subnets.is_empty()).await?;
        self.services.wait_for(Option::is_some).await?;
        self.service_cidrs.wait_for(Option::is_some).await?;
        self.local.wait_for(Option::is_some).await?;
        self.shared.wait_for(Option::is_some).await?;
        let mut kept = Kept::new(socket, "the external bridge");
        let mut table = None;
        let mut state = self.vswitch.state();
        loop {
            let bridges = state.wait_for(|s| s.synced).await?.bridges.clone();
            let gateway = self.gateway().await;
            let served = self.served(gateway.as_ref());
            let cidrs = self.service_cidrs.borrow_and_update().clone().unwrap_or_default();
            let mut done = self.write_table(&mut table, gateway.as_ref(), &served, &cidrs).await;
            if let Some(gateway) = &gateway {
                let flows = self.flows(gateway, &bridges, &served, &cidrs);
                let written = told("flows of the external bridge", &kept.write(flows).await);
                self.guarded.send_if_modified(|guarded| written && !std::mem::replace(guarded, true));
                done &= written;
                // Without flows the routes would lead nowhere.
                done = done && self.write_host(gateway, &cidrs).await;
            }
            let again = if done { self.config.audit_interval } else { RETRY };
            tokio::select! {
                changed = self.node.changed() => changed?,
                changed = self.host_changes.changed() => changed?,
                changed = self.services.changed() => changed?,
                changed = self.service_cidrs.changed() => changed?,
                changed = self.local.changed() => changed?,
                changed = self.routed.changed() => changed?,
                changed = self.host_ports.changed() => changed?,
                changed = self.shared.changed() => changed?,
                // Ports of pods come and go on br-int, which is none of these.
                changed = async { state.wait_for(|s| !s.synced || s.bridges != bridges).await.map(drop) } => changed?,
                () = kept.ended() => {
                    info!("ovs-vswitchd has closed the session with the external bridge");
                    tokio::time::sleep(RETRY).await;
                }
                () = tokio::time::sleep(again) => {
                    // Somebody else may have changed something: all is compared again.
                    kept.forget();
                    table = None;
                }
            }
        }
    }

    fn served(&mut self, gateway: Option<&Gateway>) -> Served {
        let all_endpoints = gateway.filter(|g| g.patch.is_some()).map(|_| &self.config.gateway.masquerade);
        let local = self.local.borrow_and_update().clone().unwrap_or_default();
        let routed = self.routed.borrow_and_update().clone();
        let pods = [&self.config.cluster_subnets[..], &routed].concat();
        let hosts = Hosts::new(&local, &pods);
        let services = self.services.borrow_and_update();
        let mut served = services.as_ref().map(|s| Served::of(s, all_endpoints, &hosts)).unwrap_or_default();
        drop(services);
        let addresses = gateway.iter().flat_map(|g| &g.l3.addresses).map(IpNet::addr);
        // The host's own way to a pod's port; of IPv6 the kernel lets no loopback address leave.
        let own: Vec<IpAddr> = addresses.chain([Ipv4Addr::LOCALHOST.into()]).collect();
        served.add_host_ports(&self.host_ports.borrow_and_update(), &own);
        served
    }

    /// The gateway, when there is one; one that lacks something for a while leaves the flows as they are.
    async fn gateway(&mut self) -> Option<Gateway> {
        self.host_changes.borrow_and_update();
        let host = match self.net.host_network().await {
            Ok(host) => host,
            Err(e) => {
                told("the host's network", &Err::<(), _>(e));
                return None;
            }
        };
        let state = self.vswitch.state().borrow().clone();
        // What is missing is said by `chassis`.
        discover(&self.config.gateway, &self.config.node, &host, &state.bridges).ok().flatten()
    }

    /// Addresses, neighbours and routes; true when they are as they should be.
    async fn write_host(&self, gateway: &Gateway, service_cidrs: &[IpNet]) -> bool {
        let want = host::link(gateway, &self.config.gateway.masquerade, service_cidrs, self.mtu);
        let changed = self.net.apply_shared_link(&want).await;
        if matches!(changed, Ok(true)) {
            info!(routes = want.routes.len(), "routes to Services over the external bridge are as they should be");
        }
        told("routes over the external bridge", &changed)
    }

    /// Our table of nftables, unless it was written; true when it is as it should be.
    async fn write_table(
        &mut self,
        written: &mut Option<String>,
        gateway: Option<&Gateway>,
        served: &Served,
        service_cidrs: &[IpNet],
    ) -> bool {
        let subnets = self.node.borrow_and_update().subnets.clone();
        let settings = &self.config.gateway;
        let masked = settings.snat && gateway.is_some_and(|g| g.l3.mode == GatewayMode::Local);
        let want = nft::ruleset(&nft::Facts {
            served,
            node_port: settings.node_port,
            node_port_addresses: &settings.node_port_addresses,
            local_pods: if masked { &subnets } else { &[] },
            unmasked: &[&self.config.cluster_subnets[..], &settings.non_masquerade_cidrs].concat(),
            link: gateway.filter(|g| g.patch.is_some()).map(|g| nft::Link {
                bridge: &g.l3.bridge,
                masquerade: &settings.masquerade,
                service_cidrs,
            }),
        });
        if written.as_ref() == Some(&want) {
            return true;
        }
        let mut done = told("nftables", &apply(&want).await);
        if nft::serves_loopback(served) {
            done &= told("pods' ports at 127.0.0.1", &tokio::fs::write(ROUTE_LOCALNET, "1").await);
        }
        *written = done.then_some(want);
        done
    }

    fn flows(
        &mut self,
        gateway: &Gateway,
        bridges: &BTreeMap<String, Bridge>,
        served: &Served,
        service_cidrs: &[IpNet],
    ) -> BTreeSet<String> {
        let shared = self.shared.borrow_and_update().clone().unwrap_or_default();
        let bridge = bridges.get(&gateway.l3.bridge);
        let physical = bridge.map(|bridge| Physical::of(&shared, gateway.l3.vlan, bridge)).unwrap_or_default();
        let subnets = self.node.borrow_and_update().subnets.clone();
        flows(&Facts {
            gateway,
            masquerade: &self.config.gateway.masquerade,
            service_cidrs,
            node_subnets: &subnets,
            tunnel_port: self.config.encap.port(),
            node_port_addresses: &self.config.gateway.node_port_addresses,
            answer_external: self.config.gateway.answer_external,
            served,
            physical: &physical,
        })
    }
}

/// True for a success; says what a failure is.
fn told<T, E: Error>(what: &str, done: &Result<T, E>) -> bool {
    if let Err(e) = done {
        warn!("{what}: {e}: {}", causes(e));
    }
    done.is_ok()
}
