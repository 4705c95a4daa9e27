//! What the external bridge is: MAC, addresses, uplink, next hops, VLAN. Pure.
//!
//! ```text
//! settings, HostNetwork (kernel), Bridge (Open_vSwitch) --> Gateway, or none, or what is missing
//! ```
//!
//! Must not: change the bridge; one that the operator prepared is used as it is.

use std::collections::BTreeMap;

use ipnet::IpNet;
use ovenbird_api::name::{PHYSICAL_NETWORK, localnet_port, patch_to_integration};
use ovenbird_api::{L3Gateway, Masquerade};

use super::bridge::{Bridge, BridgePort};
use super::settings::GatewaySettings;
use crate::net::HostNetwork;

/// A gateway as the node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// What the cluster is told.
    pub l3: L3Gateway,
    /// OpenFlow number of the uplink.
    pub uplink: u16,
    /// OpenFlow number of the patch port to br-int, which ovn-controller makes once the gateway router is bound here.
    pub patch: Option<u16>,
    /// Other ports of the bridge: the host does not reach them by its shared MAC.
    pub others: Vec<String>,
}

/// Why a bridge that is there, or asked for, cannot be the gateway now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Asked for and absent.
    #[error(
        "Open_vSwitch has no bridge {0}: make it with the uplink inside (ovs-vsctl add-br, add-port), or give --gateway-interface"
    )]
    NoBridge(String),
    /// Its own interface is not there, or has no MAC.
    #[error("bridge {0} has no interface of its own: is ovs-vswitchd running?")]
    NoInterface(String),
    /// No address.
    #[error("bridge {0} has no address: move the host's addresses from the uplink to it")]
    NoAddress(String),
    /// No port that leads out.
    #[error("bridge {0} has no uplink: add the network interface to it")]
    NoUplink(String),
    /// More than one.
    #[error(
        "bridge {0} has several ports that may be its uplink ({1}): name it in external_ids:bridge-uplink of the bridge"
    )]
    ManyUplinks(String, String),
    /// A bond of OVS.
    #[error("uplink {1} of bridge {0} is a bond of OVS: make a bond of the kernel instead")]
    Bond(String, String),
    /// Not numbered yet.
    #[error("uplink {1} of bridge {0} has no OpenFlow number: does its interface exist?")]
    NoNumber(String, String),
}

/// The gateway of this node; `None` when there should be none.
///
/// # Errors
/// When the bridge is not as it must be, now or for good.
pub fn discover(
    settings: &GatewaySettings,
    node: &str,
    host: &HostNetwork,
    bridges: &BTreeMap<String, Bridge>,
) -> Result<Option<Gateway>, Unusable> {
    let Some(mode) = settings.mode else { return Ok(None) };
    let name = &settings.bridge;
    let Some(bridge) = bridges.get(name) else {
        return if settings.asked { Err(Unusable::NoBridge(name.clone())) } else { Ok(None) };
    };
    let link = host.links.iter().find(|l| l.name == *name).ok_or_else(|| Unusable::NoInterface(name.clone()))?;
    let mac = link.mac.ok_or_else(|| Unusable::NoInterface(name.clone()))?;
    let addresses = own_addresses(&link.addresses, &settings.masquerade);
    if addresses.is_empty() {
        return Err(Unusable::NoAddress(name.clone()));
    }
    let (uplink_name, uplink) = uplink(name, bridge)?;
    let interface = localnet_port(name, node);
    let patch = patch_to_integration(&interface);
    let is_other = |(port, of): &(&String, &BridgePort)| **port != *name && **port != uplink_name && of.kind != "patch";
    let l3 = L3Gateway {
        mode,
        bridge: name.clone(),
        interface,
        mac,
        addresses,
        next_hops: if settings.next_hops.is_empty() { host.next_hops(link.index) } else { settings.next_hops.clone() },
        node_port: settings.node_port,
        vlan: own_vlan(settings, bridge),
    };
    Ok(Some(Gateway {
        l3,
        uplink,
        patch: bridge.ports.get(&patch).and_then(|port| port.ofport),
        others: bridge.ports.iter().filter(is_other).map(|(port, _)| port.clone()).collect(),
    }))
}

/// The VLAN that the host is in on its external bridge: as configured, else that of the bridge's own port.
pub fn own_vlan(settings: &GatewaySettings, bridge: &Bridge) -> Option<u16> {
    let tag = bridge.ports.get(&settings.bridge).and_then(|port| port.vlan);
    settings.vlan.or(tag).filter(|tag| *tag != 0)
}

/// Addresses of a link without those for the way between host and OVN, in the kernel's order: its first is the one it uses itself.
pub fn own_addresses(addresses: &[IpNet], masquerade: &Masquerade) -> Vec<IpNet> {
    let own = |a: &&IpNet| !masquerade.subnet(a.addr().is_ipv4()).contains(&a.addr());
    addresses.iter().filter(own).copied().collect()
}

/// The port that leads out: the one that is named, else the only one that is neither the bridge's own, nor made by software.
fn uplink(name: &str, bridge: &Bridge) -> Result<(String, u16), Unusable> {
    let may_be = |(port, of): &(&String, &BridgePort)| match &bridge.uplink {
        Some(named) => *port == named,
        None => *port != name && (of.kind.is_empty() || of.kind == "system"),
    };
    let found: Vec<_> = bridge.ports.iter().filter(may_be).collect();
    let (port, of) = match &found[..] {
        [] => return Err(Unusable::NoUplink(name.into())),
        [one] => *one,
        many => {
            let names: Vec<_> = many.iter().map(|(port, _)| port.as_str()).collect();
            return Err(Unusable::ManyUplinks(name.into(), names.join(", ")));
        }
    };
    if of.interfaces > 1 {
        return Err(Unusable::Bond(name.into(), port.clone()));
    }
    let number = of.ofport.ok_or_else(|| Unusable::NoNumber(name.into(), port.clone()))?;
    Ok((port.clone(), number))
}

/// `ovn-bridge-mappings` with the external bridge among what is there: mappings of other networks stay as they are, and each stays in its place.
pub fn mappings(have: Option<&str>, bridge: &str) -> String {
    let ours = format!("{PHYSICAL_NETWORK}:{bridge}");
    let have = have.unwrap_or_default();
    if parts(have).filter(|m| is_ours(m)).eq([&*ours]) {
        return parts(have).collect::<Vec<_>>().join(",");
    }
    let others = without_ours(have);
    if others.is_empty() { ours } else { [&others, ",", &ours].concat() }
}

/// The mappings of other networks among these.
pub fn without_ours(mappings: &str) -> String {
    parts(mappings).filter(|m| !is_ours(m)).collect::<Vec<_>>().join(",")
}

fn parts(mappings: &str) -> impl Iterator<Item = &str> {
    mappings.split(',').map(str::trim).filter(|mapping| !mapping.is_empty())
}

fn is_ours(mapping: &str) -> bool {
    mapping.split(':').next() == Some(PHYSICAL_NETWORK)
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
