//! The way out of the cluster of a node that is a VM: the VM itself, which masquerades; and the way back to it from pods to whom it led others.
//!
//! ```text
//! ovn_cluster_router: from rtos-N, 0/0 --> ovn-k8s-mp0 of N;   to N's address on the join switch, wherever it comes from --> ovn-k8s-mp0 of N
//! ```
//!
//! No gateway router has the node's address on the join switch. With it the VM speaks for clients that it leads to pods (NodePorts): as the host itself,
//! whom policies let pass, it must not.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::address;
use ovenbird_api::annotation::NODE_ID;
use ovenbird_reconcile::{DesiredRow, Output, Owner, Severity};
use ovenbird_schema::northbound::logical_router as lr;
use ovenbird_schema::northbound::logical_router_policy::{self as policy, Action};
use ovenbird_schema::northbound::logical_router_static_route as route;
use ovsdb::ColumnId;

use super::Parent;
use crate::build::{RowBuilder, complaint, contribution};
use crate::config::{Config, is_v4};
use crate::facts::NodeFact;
use crate::gateway::Host;
use crate::node::check;
use crate::view::View;
use crate::{cluster, gateway};

/// Priority of the way back, as that of the way to a pod's own node.
const WAY_BACK: i64 = 1004;

/// Adds the rows, to a node that has a parent port. `subnets` are those that it may use.
pub(crate) fn add(view: &View<'_>, owner: &Owner, node: &NodeFact, subnets: &[IpNet], output: &mut Output) {
    // One that tells of an external bridge, too, has its gateway.
    let Some(Parent::Port(_)) = view.parent(&node.name).filter(|_| node.gateway.is_none()) else { return };
    let id = check(&node.id, NODE_ID, Severity::Error, &mut output.diagnostics);
    let refused = view.gateway_errors(&node.name);
    output.diagnostics.extend(refused.iter().map(|e| complaint(Severity::Error, "NodeIdInUse", NODE_ID, e)));
    for subnet in subnets {
        let Some(host) = address::management(*subnet) else { continue };
        let (ip, any) = if is_v4(subnet) { ("ip4", "0.0.0.0/0") } else { ("ip6", "::/0") };
        let row = RowBuilder::new(view, &route::TABLE, owner, &format!("egress:{ip}"), route::EXTERNAL_IDS, &[])
            .exactly(route::ip_prefix(any))
            .exactly(route::nexthop(host.to_string()))
            .exactly(route::route_table(gateway::route_table(&node.name)))
            .build();
        on_cluster_router(output, row, lr::STATIC_ROUTES);
        let join = view.config().join_subnets().iter().find(|net| is_v4(net) == is_v4(subnet));
        let own = join.zip(id).filter(|_| refused.is_empty()).and_then(|(net, id)| address::nth(*net, u128::from(*id)));
        if let Some(own) = own {
            on_cluster_router(output, way_back(view, owner, (ip, own), host), lr::POLICIES);
        }
    }
}

/// How others reach a node that has a parent port.
pub(crate) fn host(config: &Config, node: &NodeFact, parent: &Parent) -> Option<Host> {
    let Parent::Port(_) = parent else { return None };
    let told = node.host_cidrs.as_ref().and_then(|cidrs| cidrs.as_ref().ok())?;
    let addresses = gateway::host_addresses(config, &[], told);
    Some(Host { addresses, join: Vec::new(), local: false, ways_out: Vec::new(), router: false })
}

fn way_back(view: &View<'_>, owner: &Owner, (ip, own): (&str, IpAddr), host: IpAddr) -> DesiredRow {
    RowBuilder::new(view, &policy::TABLE, owner, &format!("way-back:{ip}"), policy::EXTERNAL_IDS, &[])
        .exactly(policy::priority(WAY_BACK))
        .exactly(policy::match_(format!("{ip}.dst == {own}")))
        .exactly(policy::action(Action::Reroute))
        .exactly(policy::nexthops([host.to_string()]))
        .build()
}

fn on_cluster_router(output: &mut Output, row: DesiredRow, set: ColumnId) {
    output.contributions.push(contribution(&lr::TABLE, cluster::router(), set, row.id.uuid()));
    output.rows.push(row);
}
