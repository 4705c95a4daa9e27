//! Routes of the gateway router, the way of a node's pods to it, and the short way to their own node.
//!
//! ```text
//! GR_N:           cluster subnets -> ovn_cluster_router; masquerade subnet -> .4 (the host); 0/0 -> each next hop
//! cluster router: from rtos-N, 0/0 -> GR_N (shared) or the management port (local; but see `way_back`); to a node's own addresses -> its
//!                 management port, so that they see the pod's own address and answer the way they were asked; from Networks to all nodes',
//!                 for the one by whose gateway router they leave has the addresses of that
//! ```

use std::fmt::Display;
use std::net::IpAddr;

use ovenbird_api::{GatewayMode, address, name};
use ovenbird_reconcile::{DesiredRow, Output};
use ovenbird_schema::northbound::logical_router as lr;
use ovenbird_schema::northbound::logical_router_policy::{self as policy, Action};
use ovenbird_schema::northbound::logical_router_static_route as route;

use super::{ANSWERS, Family, Gateway, ip};
use crate::build::RowBuilder;
use crate::cluster;
use crate::config::is_v4;
use crate::underlay;

/// Priority of the policy by which pods reach their own node, as ovn-kubernetes has it.
const OWN_NODE: i64 = 1004;
/// Priority of that by which pods on Networks reach any node: below that of answers to it as a client.
const FROM_NETWORKS: i64 = ANSWERS - 1;

/// Adds them.
pub(super) fn add(gateway: &Gateway<'_>, output: &mut Output) {
    let own = (&lr::TABLE, gateway.router(), lr::STATIC_ROUTES);
    let on_cluster = (&lr::TABLE, cluster::router(), lr::STATIC_ROUTES);
    let external = name::router_to_external(&name::gateway_router(&gateway.node.name));
    let config = gateway.view.config();
    for family in &gateway.families {
        let pods = config.cluster_subnets().iter().map(|s| s.net).filter(|net| is_v4(net) == family.v4);
        for net in pods.chain(underlay::routed(gateway.view, family.v4)) {
            let role = format!("gateway-cluster:{net}");
            gateway.add_to(output, static_route(gateway, &role, net, family.cluster, Out::Anywhere), own);
        }
        let (masquerade, to_host) =
            (config.masquerade().subnet(family.v4), config.masquerade().dummy_next_hop(family.v4));
        let role = format!("gateway-masquerade:{}", ip(family.v4));
        gateway.add_to(output, static_route(gateway, &role, masquerade, to_host, Out::Port(&external)), own);
        for hop in gateway.l3.next_hops.iter().filter(|hop| hop.is_ipv4() == family.v4) {
            let role = format!("gateway-default:{hop}");
            gateway.add_to(output, static_route(gateway, &role, default(family.v4), *hop, Out::Port(&external)), own);
        }
        let management = address::management(family.subnet);
        if let Some(way_out) = family.way_out(gateway.l3.mode) {
            let role = format!("egress:{}", ip(family.v4));
            let table = super::route_table(&gateway.node.name);
            let row = static_route(gateway, &role, default(family.v4), way_out, Out::FromTable(&table));
            gateway.add_to(output, row, on_cluster);
        }
        let Some(management) = management else { continue };
        let on_cluster = (&lr::TABLE, cluster::router(), lr::POLICIES);
        if gateway.l3.mode == GatewayMode::Shared {
            let port = name::router_to_switch(&gateway.node.name);
            let row = to_node(gateway, family, &[port], ("own-node", OWN_NODE), management);
            gateway.add_to(output, row, on_cluster);
        }
        let networks = underlay::ports_on_way_out(gateway.view, family.v4);
        if !networks.is_empty() {
            let row = to_node(gateway, family, &networks, ("from-networks", FROM_NETWORKS), management);
            gateway.add_to(output, row, on_cluster);
        }
    }
}

/// Where a route applies or leads.
#[derive(Clone, Copy)]
enum Out<'a> {
    /// By whichever port reaches the next hop.
    Anywhere,
    /// By this port, even if the next hop is not on its networks.
    Port(&'a str),
    /// Only for what enters by a port with this route table.
    FromTable(&'a str),
}

fn static_route(gateway: &Gateway<'_>, role: &str, prefix: impl Display, next_hop: IpAddr, out: Out<'_>) -> DesiredRow {
    let row = RowBuilder::new(gateway.view, &route::TABLE, gateway.owner, role, route::EXTERNAL_IDS, &[])
        .exactly(route::ip_prefix(prefix.to_string()))
        .exactly(route::nexthop(next_hop.to_string()));
    match out {
        Out::Anywhere => row,
        Out::Port(port) => row.exactly(route::output_port(Some(port))),
        Out::FromTable(table) => row.exactly(route::route_table(table)),
    }
    .build()
}

fn default(v4: bool) -> &'static str {
    if v4 { "0.0.0.0/0" } else { "::/0" }
}

/// What enters by these ports, and is for the node's own addresses, goes to its management port.
fn to_node(
    gateway: &Gateway<'_>,
    family: &Family,
    ports: &[String],
    (role, priority): (&str, i64),
    management: IpAddr,
) -> DesiredRow {
    let addresses: Vec<String> =
        gateway.host.iter().filter(|a| a.is_ipv4() == family.v4).map(ToString::to_string).collect();
    let ports = match ports {
        [port] => format!("\"{port}\""),
        _ => format!("{{{}}}", ports.iter().map(|port| format!("\"{port}\"")).collect::<Vec<_>>().join(", ")),
    };
    let matched = format!("inport == {ports} && {}.dst == {{{}}}", ip(family.v4), addresses.join(", "));
    let role = format!("{role}:{}", ip(family.v4));
    RowBuilder::new(gateway.view, &policy::TABLE, gateway.owner, &role, policy::EXTERNAL_IDS, &[])
        .exactly(policy::priority(priority))
        .exactly(policy::match_(matched))
        .exactly(policy::action(Action::Reroute))
        .exactly(policy::nexthops([management.to_string()]))
        .build()
}
