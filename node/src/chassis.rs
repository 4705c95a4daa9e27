//! What this host is to OVN and to the cluster: tunnel endpoint, MTU, chassis settings, annotations of the Node.
//!
//! ```text
//! HostNetwork, Config, State --> Chassis rows --> Open_vSwitch
//!                            --> annotations  --> PATCH of the Node, when different
//! ```
//!
//! The functions are pure; [`run`] feeds them with what changes. Must not: attach anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kube::Client;
use ovenbird_api::node::{self, PrimaryIfaddr};
use ovenbird_api::{L3Gateway, Mac, address, annotation, name};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::annotations;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::gateway::discover::{Gateway, Unusable, discover, own_addresses};
use crate::net::{HostNetwork, Link, NetOps};
use crate::plug::Entered;
use crate::rows::Chassis;
use crate::underlay::Mapped;
use crate::vswitch::Vswitch;

/// A host that cannot be a node as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No default route to take the address from.
    #[error(
        "no interface with a default route has an address; give the address of the tunnel endpoint with --encap-ip"
    )]
    NoEndpoint,
    /// The address is not ours.
    #[error("no interface of this host has the address {0} of --encap-ip")]
    NotOurs(IpAddr),
    /// Too little is left for pods.
    #[error(
        "interface {link} has MTU {mtu}: less {overhead} bytes of tunnel too little is left for pods; raise it or give --mtu"
    )]
    SmallMtu {
        /// Uplink.
        link: String,
        /// Its MTU.
        mtu: u32,
        /// Tunnel overhead.
        overhead: u32,
    },
}

/// The tunnel endpoint: as configured, else the address of the interface with the default route.
///
/// # Errors
/// When there is none.
pub fn encap_ip(config: &Config, host: &HostNetwork) -> Result<IpAddr, HostError> {
    let primary = primary(host, None);
    let found = primary.ipv4.map(|a| a.addr().into()).or(primary.ipv6.map(|a| a.addr().into()));
    config.encap_ip.or(found).ok_or(HostError::NoEndpoint)
}

/// MTU of pods: as configured, else that of the interface with the tunnel endpoint less the overhead.
///
/// # Errors
/// When no interface has the endpoint, or too little is left.
pub fn pod_mtu(config: &Config, endpoint: IpAddr, host: &HostNetwork) -> Result<u32, HostError> {
    mtu_less(config, endpoint, host, config.encap.overhead(endpoint))
}

/// The same for a tunnel with this overhead.
///
/// # Errors
/// As [`pod_mtu`].
pub fn mtu_less(config: &Config, endpoint: IpAddr, host: &HostNetwork, overhead: u32) -> Result<u32, HostError> {
    if let Some(mtu) = config.mtu {
        return Ok(mtu);
    }
    let uplink = with_address(host, endpoint).ok_or(HostError::NotOurs(endpoint))?;
    let small = || HostError::SmallMtu { link: uplink.name.clone(), mtu: uplink.mtu, overhead };
    uplink.mtu.checked_sub(overhead).filter(|mtu| *mtu >= 576).ok_or_else(small)
}

/// Addresses of the management port, one for each subnet of the node: (address, router, subnet).
pub fn management_addresses(subnets: &[IpNet]) -> Vec<(IpNet, IpAddr)> {
    let of = |subnet: &IpNet| {
        let own = address::on_subnet(address::management(*subnet)?, *subnet);
        Some((own, address::router(*subnet)?))
    };
    subnets.iter().filter_map(of).collect()
}

/// Annotations of the Node.
pub fn annotations(
    system_id: &str,
    endpoint: IpAddr,
    host: &HostNetwork,
    subnets: &[IpNet],
    userspace: bool,
) -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::from([
        (annotation::NODE_CHASSIS_ID, system_id.to_owned()),
        (annotation::NODE_ENCAP_IPS, node::format_encap_ips(&[endpoint])),
        (annotation::NODE_PRIMARY_IFADDR, node::format_primary_ifaddr(&primary(host, Some(endpoint)))),
        (annotation::HOST_CIDRS, node::format_host_cidrs(&host_cidrs(host))),
        (annotation::DATAPATH_TYPE, if userspace { "netdev" } else { "system" }.to_owned()),
    ]);
    let own = management_addresses(subnets).into_iter().map(|(own, _)| own.addr());
    if let Some(mac) = Mac::of_any(own) {
        all.insert(annotation::NODE_MGMT_PORT_MACS, node::format_management_mac(mac));
    }
    all
}

/// Addresses of the interfaces with the default routes; without a default route, of the one with the tunnel endpoint.
pub(crate) fn primary(host: &HostNetwork, endpoint: Option<IpAddr>) -> PrimaryIfaddr {
    let by_index = |index: Option<u32>| host.links.iter().find(|l| Some(l.index) == index);
    let fallback = endpoint.and_then(|ip| with_address(host, ip));
    let addresses = |index| by_index(index).or(fallback).map_or(&[][..], |l| &l.addresses);
    PrimaryIfaddr {
        ipv4: addresses(host.default_link(true))
            .iter()
            .find_map(|a| if let IpNet::V4(a) = a { Some(*a) } else { None }),
        ipv6: addresses(host.default_link(false))
            .iter()
            .find_map(|a| if let IpNet::V6(a) = a { Some(*a) } else { None }),
    }
}

fn with_address(host: &HostNetwork, ip: IpAddr) -> Option<&Link> {
    host.links.iter().find(|l| l.addresses.iter().any(|a| a.addr() == ip))
}

/// All addresses of the host, without loopback and the management port, sorted.
pub(crate) fn host_cidrs(host: &HostNetwork) -> Vec<IpNet> {
    let of_host = host.links.iter().filter(|l| l.name != name::MANAGEMENT_INTERFACE);
    let mut all: Vec<IpNet> = of_host.flat_map(|l| &l.addresses).filter(|a| !a.addr().is_loopback()).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What the chassis follows.
pub struct Told {
    /// The Node.
    pub node: watch::Receiver<NodeFact>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Bridges of ProviderNetworks.
    pub providers: watch::Receiver<Mapped>,
    /// Networks that have pods here.
    pub entered: watch::Receiver<Entered>,
    /// Whether the external bridge has flows: before it has, a gateway router would take what is for the host.
    pub guarded: watch::Receiver<bool>,
}

/// Keeps chassis rows and annotations as they should be, until the daemon stops.
pub async fn run<N: NetOps>(
    config: Config,
    net: Arc<N>,
    vswitch: Vswitch,
    client: Client,
    told: Told,
) -> anyhow::Result<()> {
    let Told { mut node, mut host_changes, mut providers, mut entered, mut guarded } = told;
    let mut state = vswitch.state();
    let mut said = None;
    // Kept when the host has one already, here or from an earlier run.
    let invented = uuid::Uuid::new_v4().to_string();
    loop {
        let now = state.wait_for(|s| s.synced).await?.clone();
        let system_id = now.system_id.clone().unwrap_or_else(|| invented.clone());
        let fact = node.borrow_and_update().clone();
        match host_view(&config, &*net).await {
            Ok((host, endpoint)) => {
                let found = discover(&config.gateway, &config.node, &host, &now.bridges);
                let what = found.clone().map(|gateway| gateway.map(|g| (g.l3, g.others)));
                if said.as_ref() != Some(&what) {
                    tell(&config, &found);
                    said = Some(what);
                }
                let mut chassis = chassis(&config, &system_id, endpoint, now.userspace);
                chassis.external_bridge = external_bridge(&config, &found);
                chassis.providers = providers.borrow_and_update().clone();
                chassis.entered = entered.borrow_and_update().clone();
                vswitch.set_chassis(chassis);
                let mut want = annotations(&system_id, endpoint, &host, &fact.subnets, now.userspace);
                let may_tell = *guarded.borrow_and_update() || matches!(found, Ok(None));
                let gateway = gateway_text(&found).filter(|_| may_tell);
                want.extend(gateway.map(|text| (annotation::L3_GATEWAY_CONFIG, text)));
                let mtu = pod_mtu(&config, endpoint, &host).ok();
                want.extend(mtu.map(|mtu| (annotation::POD_MTU, node::format_pod_mtu(mtu))));
                tokio::select! {
                    () = annotations::insist(&client, &config.node, &fact, &want) => {}
                    // A Node that was deleted and has come back, a host that has changed: say what is true now.
                    changed = node.changed() => { changed?; continue; }
                    changed = host_changes.changed() => { changed?; continue; }
                    changed = providers.changed() => { changed?; continue; }
                    changed = entered.changed() => { changed?; continue; }
                    changed = guarded.changed() => { changed?; continue; }
                }
            }
            // An uplink may lose its address for a while: what was said before stays.
            Err(e) => warn!("the host's network: {e:#}"),
        }
        tokio::select! {
            changed = node.changed() => changed?,
            changed = host_changes.changed() => changed?,
            changed = state.changed() => changed?,
            changed = providers.changed() => changed?,
            changed = entered.changed() => changed?,
            changed = guarded.changed() => changed?,
        }
    }
}

/// Annotation `l3-gateway-config`; `None` leaves what was said: a bridge may lack something for a while.
fn gateway_text(found: &Result<Option<Gateway>, Unusable>) -> Option<String> {
    let gateway = found.as_ref().ok()?;
    Some(gateway.as_ref().map_or_else(|| r#"{"default":{"mode":""}}"#.into(), |gateway| gateway.l3.format()))
}

/// The bridge that should be in `ovn-bridge-mappings`.
fn external_bridge(config: &Config, found: &Result<Option<Gateway>, Unusable>) -> Option<String> {
    (!matches!(found, Ok(None))).then(|| config.gateway.bridge.clone())
}

fn tell(config: &Config, found: &Result<Option<Gateway>, Unusable>) {
    let bridge = &config.gateway.bridge;
    match found {
        Ok(Some(gateway)) => {
            let L3Gateway { mode, mac, addresses, next_hops, .. } = &gateway.l3;
            info!(bridge, %mode, %mac, ?addresses, ?next_hops, "gateway");
            if !gateway.others.is_empty() {
                warn!("ports {:?} of {bridge} are out of the host's reach: it shares its MAC with OVN", gateway.others);
            }
        }
        Ok(None) if config.gateway.mode.is_none() => info!("no gateway: --gateway-mode is none"),
        Ok(None) => info!("no gateway: Open_vSwitch has no bridge {bridge}"),
        Err(e) => warn!("no gateway for now: {e}"),
    }
}

async fn host_view<N: NetOps>(config: &Config, net: &N) -> anyhow::Result<(HostNetwork, IpAddr)> {
    let mut host = net.host_network().await?;
    for link in &mut host.links {
        link.addresses = own_addresses(&link.addresses, &config.gateway.masquerade);
    }
    let endpoint = encap_ip(config, &host)?;
    Ok((host, endpoint))
}

fn chassis(config: &Config, system_id: &str, endpoint: IpAddr, userspace: bool) -> Chassis {
    Chassis {
        system_id: system_id.to_owned(),
        node: config.node.clone(),
        sb_address: config.sb_address.clone(),
        encap_type: config.encap.as_str(),
        encap_ip: endpoint,
        bridge_mappings: config.bridge_mappings.clone(),
        external_bridge: None,
        providers: None,
        entered: Entered::new(),
        monitor_all: config.monitor_all,
        userspace,
    }
}

#[cfg(test)]
#[path = "chassis_tests.rs"]
mod tests;
