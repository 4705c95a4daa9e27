//! Which gateways there may be: addresses and ids that two nodes claim, addresses inside the cluster's networks; and the
//! addresses of a host that others reach it by.
//!
//! Pure functions of all Nodes and the configuration. Must not: make rows.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::L3Gateway;
use ovenbird_api::annotation::{L3_GATEWAY_CONFIG, NODE_ID};
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::facts::NodeFact;

/// A node whose gateway cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    /// An older node has the address.
    #[error(
        "address {address} is that of node {holder}, too, which is older; correct the annotation {L3_GATEWAY_CONFIG} of one of them"
    )]
    AddressTaken { address: IpAddr, holder: Str },
    /// An older node has the id.
    #[error("id {id} belongs to node {holder}, which is older; remove the annotation {NODE_ID} and it is written anew")]
    IdTaken { id: u16, holder: Str },
    /// The address would shadow a part of the cluster.
    #[error("node address {address} is inside {setting} {net}; choose a network for one outside the other")]
    Inside { address: IpAddr, setting: &'static str, net: IpNet },
}

/// What is wrong with the nodes' gateways, by node; sound ones are left out. A node that is a VM has the gateway's id without a gateway. Of two nodes that claim one thing the older,
/// then the first by name, has it.
pub(crate) fn judge<'a>(
    config: &Config,
    nodes: impl Iterator<Item = &'a NodeFact>,
) -> FxHashMap<Str, Vec<GatewayError>> {
    let told = |node: &'a NodeFact| (node, node.gateway.as_ref().and_then(|gateway| gateway.as_ref().ok()));
    let concerned = |(node, gateway): &(&NodeFact, Option<_>)| gateway.is_some() || node.parent.is_some();
    let mut nodes: Vec<(&NodeFact, Option<&Box<L3Gateway>>)> = nodes.map(told).filter(concerned).collect();
    nodes.sort_by_key(|(node, _)| (node.created, node.name.clone()));
    let mut addresses: FxHashMap<IpAddr, &Str> = FxHashMap::default();
    let mut ids: FxHashMap<u16, &Str> = FxHashMap::default();
    let mut judged = FxHashMap::default();
    for (node, gateway) in nodes {
        let mut errors = Vec::new();
        for address in gateway.iter().flat_map(|gateway| &gateway.addresses).map(IpNet::addr) {
            if let Some((setting, net)) = config.networks().find(|(_, net)| net.contains(&address)) {
                errors.push(GatewayError::Inside { address, setting, net });
            } else if let Some(holder) = addresses.get(&address).filter(|holder| ***holder != node.name) {
                errors.push(GatewayError::AddressTaken { address, holder: (*holder).clone() });
            }
        }
        let id = node.id.as_ref().and_then(|id| id.as_ref().ok()).copied();
        if let Some((id, holder)) = id.and_then(|id| Some((id, *ids.get(&id)?))) {
            errors.push(GatewayError::IdTaken { id, holder: holder.clone() });
        }
        if errors.is_empty() {
            addresses.extend(gateway.iter().flat_map(|g| &g.addresses).map(|net| (net.addr(), &node.name)));
            ids.extend(id.map(|id| (id, &node.name)));
        } else {
            judged.insert(node.name.clone(), errors);
        }
    }
    judged
}

/// The addresses by which others reach the host: those of the `bridge` in their order, then the rest, sorted. Left out are
/// link-local ones and those inside the cluster's networks, which are not the host's alone.
pub(crate) fn host_addresses(config: &Config, bridge: &[IpNet], host_cidrs: &[IpNet]) -> Vec<IpAddr> {
    let mut rest: Vec<IpAddr> = host_cidrs.iter().map(IpNet::addr).collect();
    rest.sort_unstable();
    let mut all: Vec<IpAddr> = Vec::new();
    for address in bridge.iter().map(IpNet::addr).chain(rest) {
        let link_local = match address {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        if !link_local && !all.contains(&address) && !config.networks().any(|(_, net)| net.contains(&address)) {
            all.push(address);
        }
    }
    all
}
