//! The way back to clients outside whose own addresses endpoints see, where what pods send leaves by another way.
//!
//! ```text
//! client - GR_N, which balances - endpoint on N;   endpoint - ovn_cluster_router -[answers: policy]- GR_N - client
//!                                                                                -[the rest]- the host of N, or the GR of another node
//! ```
//! In mode local it leaves through the host, and from a Network by the gateway of one node for all: neither knows of the connections that N's
//! gateway router has let in. So what comes from the ports of such endpoints goes to that, but for what stays in the cluster or goes to
//! the node itself.
//!
//! Inputs: a node, endpoints on it with their ports. Outputs: rows of Logical_Router_Policy. Must not: yield any for the overlay in mode shared,
//! where everything goes that way, nor for Networks whose way out is a physical gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::name;
use ovenbird_reconcile::{DesiredRow, Output, Owner};
use ovenbird_schema::northbound::logical_router as lr;
use ovenbird_schema::northbound::logical_router_policy::{self as policy, Action};
use ovsdb::Str;

use super::{Gateway, ip};
use crate::build::{RowBuilder, contribution};
use crate::cluster;
use crate::config::is_v4;
use crate::facts::Protocol;
use crate::underlay::{self, WayOut};
use crate::view::View;

/// Priority of answers.
pub(crate) const ANSWERS: i64 = 1002;
/// Priority of what stays in the cluster or on the node.
pub(crate) const INSIDE: i64 = ANSWERS + 1;

/// Endpoints of one family and protocol on one node, to whom the gateway router leads clients with their own addresses.
pub(crate) struct Answering<'a> {
    /// The node.
    pub node: &'a str,
    /// The endpoints' protocol.
    pub protocol: Protocol,
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Their ports.
    pub ports: BTreeSet<u16>,
}

/// Adds the policies by which these answer, as far as they need any: one for each port of the router by which answers come.
pub(crate) fn answers(view: &View<'_>, owner: &Owner, who: &Answering<'_>, output: &mut Output) {
    let Some(v4) = who.addresses.first().map(IpAddr::is_ipv4) else { return };
    let Some(host) = view.host(who.node) else { return };
    let Some(router) = host.join.iter().find(|address| address.is_ipv4() == v4) else { return };
    let mut by_network: BTreeMap<Option<&Str>, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in &who.addresses {
        let network = underlay::network_at(view, *address);
        if network.map_or(host.local, |network| underlay::way_out(network, v4) == WayOut::Ovn) {
            by_network.entry(network.map(|network| &network.name)).or_default().insert(*address);
        }
    }
    let Answering { node, protocol, ports, .. } = who;
    let (ip, transport, ports) = (ip(v4), protocol.as_str().to_lowercase(), list(ports.iter()));
    for (network, addresses) in by_network {
        let (port, at) = match network {
            Some(network) => (underlay::router_port(network), format!("{node}_{network}")),
            None => (name::router_to_switch(node), (*node).to_owned()),
        };
        let addresses = list(addresses.iter());
        let matched = format!("inport == \"{port}\" && {ip}.src == {addresses} && {transport}.src == {ports}");
        let role = format!("{}_way_back_{ip}_{at}", protocol.as_str());
        let row = RowBuilder::new(view, &policy::TABLE, owner, &role, policy::EXTERNAL_IDS, &[])
            .exactly(policy::priority(ANSWERS))
            .exactly(policy::match_(matched))
            .exactly(policy::action(Action::Reroute))
            .exactly(policy::nexthops([router.to_string()]))
            .build();
        on_cluster_router(output, row);
    }
}

/// Adds the policies of a node by which nothing that stays in the cluster or on the node is taken for such an answer.
pub(super) fn add(gateway: &Gateway<'_>, output: &mut Output) {
    let port = name::router_to_switch(&gateway.node.name);
    for family in &gateway.families {
        let host = gateway.host.iter().filter(|address| address.is_ipv4() == family.v4);
        let inside = inside(gateway.view, family.v4).map(|net| net.to_string());
        let inside: Vec<String> = inside.chain(host.map(ToString::to_string)).collect();
        let matched = format!("inport == \"{port}\" && {}.dst == {}", ip(family.v4), list(inside.iter()));
        let role = format!("inside:{}", ip(family.v4));
        let row = RowBuilder::new(gateway.view, &policy::TABLE, gateway.owner, &role, policy::EXTERNAL_IDS, &[])
            .exactly(policy::priority(INSIDE))
            .exactly(policy::match_(matched))
            .exactly(policy::action(Action::Allow))
            .build();
        on_cluster_router(output, row);
    }
}

/// The networks of a family that are the cluster's own: of pods, of gateway routers, and those on VLANs that OVN routes to.
pub(crate) fn inside<'a>(view: &View<'a>, v4: bool) -> impl Iterator<Item = IpNet> + use<'a> {
    let config = view.config();
    let pods = config.cluster_subnets().iter().map(|subnet| subnet.net);
    let own = pods.chain(config.join_subnets().iter().copied()).filter(move |net| is_v4(net) == v4);
    own.chain(underlay::routed(view, v4))
}

fn on_cluster_router(output: &mut Output, row: DesiredRow) {
    output.contributions.push(contribution(&lr::TABLE, cluster::router(), lr::POLICIES, row.id.uuid()));
    output.rows.push(row);
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    format!("{{{}}}", items.map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}
