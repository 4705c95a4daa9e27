//! The packet between two ends that ovn-trace(8) can follow.
//!
//! ```text
//! pod or node: its port -> switch -> (router -> switch ->) port
//! outside:     the router's port of the destination's switch -> its port; and back: port -> the router's port. On a Network without a router
//!              of OVN's: its localnet port
//! ```
//!
//! Traffic of who is outside is followed on the pod's switch alone, for it is there that policies are. Must not: judge.

use ipnet::IpNet;
use ovenbird_api::{Mac, name};

use super::answer::Microflow;
use super::ends::{Address, LogicalPort};
use super::judge::Asked;
use crate::node;
use crate::snapshot::Snapshot;

/// The packet; `None` of a pod to itself, for which there must be a Service, and between two that have no port.
pub(super) fn of(snapshot: &Snapshot, from: &Address<'_>, to: &Address<'_>, asked: Asked) -> Option<Microflow> {
    let (protocol, port) = match asked {
        Asked::Anything => ("ip", None),
        Asked::Icmp => ("icmp", None),
        Asked::Port(protocol, number) => (protocol.name(), Some(number)),
    };
    let flow = |switch: &LogicalPort<'_>, (inport, eth_src): (String, Mac), eth_dst: Mac, outport: String| Microflow {
        switch: switch.switch(),
        inport,
        eth_src: eth_src.to_string(),
        eth_dst: eth_dst.to_string(),
        outport,
        protocol: protocol.to_owned(),
        port,
    };
    match (&from.port, &to.port) {
        (None, None) => None,
        (Some(source), Some(destination)) if source.name == destination.name => None,
        (None, Some(destination)) => {
            Some(flow(destination, way_out(snapshot, destination)?, destination.mac, destination.name.clone()))
        }
        (Some(source), target) => {
            let (outport, mac) = match target {
                Some(target) if target.switch() == source.switch() => (target.name.clone(), target.mac),
                Some(target) => (target.name.clone(), router(snapshot, source)?.1),
                None => way_out(snapshot, source)?,
            };
            Some(flow(source, (source.name.clone(), source.mac), mac, outport))
        }
    }
}

impl LogicalPort<'_> {
    /// Name of its switch.
    fn switch(&self) -> String {
        self.network.map_or_else(|| name::node_switch(self.node).to_owned(), |network| name::network_switch(network))
    }
}

/// The port of a port's switch that leads to the cluster's router, and the router's MAC there; `None` without one.
fn router(snapshot: &Snapshot, port: &LogicalPort<'_>) -> Option<(String, Mac)> {
    let mac = match port.network {
        Some(network) => {
            let network = snapshot.networks().usable(network)?;
            Mac::of_any(network.routers.iter().map(IpNet::addr))?
        }
        None => node::router_mac(&snapshot.subnets(port.node)?.usable)?,
    };
    Some((name::switch_to_router(&port.switch()), mac))
}

/// The port by which the outside is met on a port's switch, with a MAC of who is behind it: on a Network without OVN's router that on the wire.
fn way_out(snapshot: &Snapshot, port: &LogicalPort<'_>) -> Option<(String, Mac)> {
    let on_wire = || {
        let network = snapshot.networks().usable(port.network?)?;
        Some((name::network_localnet(&network.name), Mac::of_any(network.physical.iter().copied())?))
    };
    router(snapshot, port).or_else(on_wire)
}
