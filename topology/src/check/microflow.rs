//! The packet between two ends that ovn-trace(8) can follow.
//!
//! ```text
//! pod or node: its port -> switch -> (router -> switch ->) port
//! outside:     the router's port of the destination's switch -> its port; and back: port -> the router's port
//! ```
//!
//! Traffic of who is outside is followed on the pod's switch alone, for it is there that policies are. Must not: judge.

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
    let router = |port: &LogicalPort<'_>| {
        let subnets = &snapshot.subnets(port.node)?.usable;
        Some((name::switch_to_router(port.node), node::router_mac(subnets)?))
    };
    let flow = |switch: &LogicalPort<'_>, (inport, eth_src): (String, Mac), eth_dst: Mac, outport: String| Microflow {
        switch: name::node_switch(switch.node).to_owned(),
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
            Some(flow(destination, router(destination)?, destination.mac, destination.name.clone()))
        }
        (Some(source), target) => {
            let (outport, mac) = match target {
                Some(target) if target.node == source.node => (target.name.clone(), target.mac),
                Some(target) => (target.name.clone(), router(source)?.1),
                None => router(source)?,
            };
            Some(flow(source, (source.name.clone(), source.mac), mac, outport))
        }
    }
}
