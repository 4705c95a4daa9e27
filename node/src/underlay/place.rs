//! Where a physical network is on this node. Pure.
//!
//! ```text
//! ProviderNetwork, labels of the Node, bridges (Open_vSwitch), links (kernel), NICs that are or could not be taken over
//!   --> Placement: bridge, NIC to put into one, with its addresses or as it is, or what is in the way
//! ```
//!
//! Must not: change anything.

use std::collections::{BTreeMap, BTreeSet};

use ovenbird_api::ProviderNetworkSpec;
use ovenbird_api::name::{INTEGRATION_BRIDGE, PHYSICAL_NETWORK};
use ovenbird_api::underlay::NodeStatus;
use ovenbird_reconcile::Output;

use super::objects::Segment;
use crate::gateway::Bridge;
use crate::net::{HostNetwork, Link};
use crate::rows;
use crate::uplink::choose::bridge_name;

/// Longest name of an interface.
const LONGEST_NAME: usize = 15;

/// What a node is, as far as physical networks go.
pub struct Host<'a> {
    /// Labels of the Node.
    pub labels: &'a BTreeMap<String, String>,
    /// Bridges but br-int.
    pub bridges: &'a BTreeMap<String, Bridge>,
    /// Links of the kernel.
    pub network: &'a HostNetwork,
    /// Bridge of the gateway, where there is one, and the VLAN that the host itself is in there.
    pub gateway: Option<(&'a str, Option<u16>)>,
    /// Networks by name.
    pub segments: &'a BTreeMap<String, Segment>,
    /// NICs that are taken over for physical networks.
    pub taken: &'a BTreeSet<String>,
    /// NICs that could not be taken over, and why.
    pub refused: &'a BTreeMap<String, String>,
    /// OVS forwards in user space.
    pub userspace: bool,
}

/// A physical network on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its bridge, once that can be used.
    pub bridge: Option<String>,
    /// The NIC for which a bridge of ours must be there.
    pub nic: Option<String>,
    /// The NIC that must be taken over, as it carries addresses.
    pub take_over: Option<String>,
    /// The NIC that is named, whatever became of it.
    pub interface: Option<String>,
    /// What is in the way.
    pub fault: Option<Fault>,
    /// Networks that it has no room for there.
    pub crowded: Vec<String>,
}

/// What is in the way of a physical network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The name is the gateways'.
    #[error(
        "a ProviderNetwork cannot be called {PHYSICAL_NETWORK}, which is the network of the gateways' bridges; choose another name"
    )]
    Reserved,
    /// Nothing is named.
    #[error("neither a bridge nor an interface is named; give one of them")]
    Nothing,
    /// No such bridge.
    #[error(
        "Open_vSwitch has no bridge {0}; make it with the NIC inside (ovs-vsctl add-br, add-port), or name the interface instead"
    )]
    NoBridge(String),
    /// OVN's own.
    #[error("{INTEGRATION_BRIDGE} is the bridge of OVN itself; use another bridge, with a NIC or bond of its own")]
    BridgeInUse,
    /// Of another datapath.
    #[error(
        "bridge {0} is of another datapath type than br-int, and nothing leads from one to the other; set its datapath_type"
    )]
    Datapath(String),
    /// No such NIC.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// The NIC carries addresses.
    #[error("interface {0} is taken over into a bridge with its addresses, once the API server answers")]
    TakingOver(String),
    /// It could not be.
    #[error(
        "interface {0} has addresses and was not taken over, or moved back: {1}. It is tried again from time to time; or give the network a NIC of its own, or make a bridge with the NIC and its addresses and name that"
    )]
    NotTakenOver(String, String),
    /// No name for a bridge.
    #[error(
        "the bridge of {0} would have a name of more than {LONGEST_NAME} bytes; make a bridge with it inside and name that"
    )]
    LongName(String),
    /// Too small.
    #[error("interface {0} has MTU {1}, the network {2}; raise it (ip link set mtu)")]
    Mtu(String, u32, u32),
    /// OVS has not got it yet.
    #[error("ovs-vswitchd has not opened {0} yet; if this stays, `ovs-vsctl show` says why")]
    NotOpen(String),
}

impl Fault {
    /// In one word, for a status.
    pub fn reason(&self) -> &'static str {
        match self {
            Fault::Reserved => "NameReserved",
            Fault::Nothing => "NothingNamed",
            Fault::NoBridge(_) => "NoBridge",
            Fault::BridgeInUse => "BridgeInUse",
            Fault::Datapath(_) => "DatapathDiffers",
            Fault::NoInterface(_) => "NoInterface",
            Fault::TakingOver(_) => "TakingOver",
            Fault::NotTakenOver(..) => "NotTakenOver",
            Fault::LongName(_) => "NameTooLong",
            Fault::Mtu(..) => "MtuTooSmall",
            Fault::NotOpen(_) => "NotOpenYet",
        }
    }
}

impl Placement {
    /// For the object's status.
    pub fn status(&self) -> NodeStatus {
        let fault = self.fault.as_ref().map(|fault| (fault.reason(), fault.to_string()));
        let (reason, message) = fault.or_else(|| Some(("VlanIsTheHosts", self.note()?))).unzip();
        NodeStatus {
            ready: self.fault.is_none(),
            bridge: self.bridge.clone(),
            reason: reason.map(str::to_owned),
            message,
        }
    }

    /// What has no room.
    pub fn note(&self) -> Option<String> {
        let (bridge, names) = (self.bridge.as_ref()?, self.crowded.join(", "));
        (!names.is_empty()).then(|| {
            format!(
                "the host itself is on this VLAN of {bridge}, the bridge of the gateway, so here pods of Network {names} are cut \
                 off; give the Network another VLAN"
            )
        })
    }
}

/// Where a physical network is here; `None` when this node is not meant.
pub fn place(name: &str, spec: &ProviderNetworkSpec, host: &Host<'_>) -> Option<Placement> {
    let uplink = spec.on(|key| host.labels.get(key).map(String::as_str))?;
    let fault = |fault| Placement { fault: Some(fault), ..Placement::default() };
    if name == PHYSICAL_NETWORK {
        return Some(fault(Fault::Reserved));
    }
    let placement = match (&uplink.bridge, &uplink.interface) {
        (Some(bridge), _) => match host.bridges.get(bridge) {
            _ if bridge == INTEGRATION_BRIDGE => fault(Fault::BridgeInUse),
            None => fault(Fault::NoBridge(bridge.clone())),
            Some(found) => on_bridge(bridge, found, host, None),
        },
        (None, Some(nic)) => on_nic(nic, spec.mtu, host),
        (None, None) => fault(Fault::Nothing),
    };
    // Frames of the host's own VLAN are the host's and the gateway's, which share a MAC there.
    let own = host.gateway.filter(|(bridge, _)| placement.bridge.as_deref() == Some(*bridge)).map(|(_, vlan)| vlan);
    let meets = |segment: &Segment| segment.provider == name && Some(segment.vlan) == own;
    let crowded = host.segments.iter().filter(|(_, segment)| meets(segment)).map(|(network, _)| network.clone());
    Some(Placement { interface: uplink.interface.clone(), crowded: crowded.collect(), ..placement })
}

/// On a bridge that is there. `nic` is the one for which it is ours.
fn on_bridge(name: &str, bridge: &Bridge, host: &Host<'_>, nic: Option<&str>) -> Placement {
    let fault = (bridge.userspace != host.userspace).then(|| Fault::Datapath(name.to_owned()));
    let bridge = fault.is_none().then(|| name.to_owned());
    Placement { bridge, nic: nic.map(str::to_owned), fault, ..Placement::default() }
}

fn on_nic(nic: &str, mtu: Option<u32>, host: &Host<'_>) -> Placement {
    let fault = |fault| Placement { fault: Some(fault), ..Placement::default() };
    let link = host.network.links.iter().find(|link| link.name == nic);
    if let Some((name, bridge)) = host.bridges.iter().find(|(_, bridge)| bridge.ports.contains_key(nic)) {
        let ours = bridge.made_for.as_deref().filter(|made_for| *made_for == nic);
        let mut placement = on_bridge(name, bridge, host, ours);
        let open = bridge.ports.get(nic).is_some_and(|port| port.ofport.is_some());
        if placement.fault.is_none() {
            placement.fault = match link {
                None => Some(Fault::NoInterface(nic.to_owned())),
                Some(_) if !open => Some(Fault::NotOpen(nic.to_owned())),
                Some(link) => too_small(link, mtu),
            };
        }
        return placement;
    }
    let Some(link) = link else { return fault(Fault::NoInterface(nic.to_owned())) };
    if bridge_name(nic).len() > LONGEST_NAME {
        return fault(Fault::LongName(nic.to_owned()));
    }
    if let Some(small) = too_small(link, mtu) {
        return fault(small);
    }
    let waiting = Fault::NotOpen(nic.to_owned());
    if !link.addresses.is_empty() {
        let why = host.refused.get(nic).cloned();
        let why = why.map_or_else(|| Fault::TakingOver(nic.to_owned()), |why| Fault::NotTakenOver(nic.to_owned(), why));
        return Placement { take_over: Some(nic.to_owned()), ..fault(why) };
    }
    // One that was taken over has a bridge that Open_vSwitch tells of soon.
    Placement { nic: (!host.taken.contains(nic)).then(|| nic.to_owned()), ..fault(waiting) }
}

fn too_small(link: &Link, mtu: Option<u32>) -> Option<Fault> {
    let mtu = mtu.filter(|mtu| link.mtu < *mtu)?;
    Some(Fault::Mtu(link.name.clone(), link.mtu, mtu))
}

/// The bridge of ours for a NIC: its name, and the rows.
pub fn bridge_for(nic: &str, userspace: bool) -> (ovenbird_reconcile::Owner, Output) {
    rows::provider_bridge(&bridge_name(nic), nic, userspace)
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
