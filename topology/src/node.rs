//! Feature: a node's switch, its link to the cluster router, and the host's own port.
//!
//! ```text
//! pods, k8s-N (.2) - switch N -(stor-N | rtos-N .1)- ovn_cluster_router
//! ```
//!
//! Inputs: the Node, and which subnets it may use. Outputs: rows of the owner Node; nothing before it has a subnet. The
//! router port is pinned to the node's chassis once that is known. The node's way out is a feature of its own, `gateway` or `nested`.

use ipnet::IpNet;
use ovenbird_api::annotation::{NODE_CHASSIS_ID, NODE_MGMT_PORT_MACS, NODE_SUBNETS};
use ovenbird_api::nested::MANAGEMENT_TAG;
use ovenbird_api::{Mac, address, name};
use ovenbird_reconcile::{DesiredRow, Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::{
    gateway_chassis, logical_router as lr, logical_router_port as lrp, logical_switch as ls, logical_switch_port as lsp,
};
use ovsdb::{Atom, Uuid};

use crate::build::{self, RowBuilder, complaint, contribution};
use crate::cluster::{self, Group, load_balancer_group};
use crate::config::is_v4;
use crate::facts::{Annotated, NodeFact};
use crate::gateway;
use crate::kinds;
use crate::nested;
use crate::policy;
use crate::view::View;

/// Identity of a node's switch.
pub(crate) fn switch(node: &str) -> Uuid {
    build::id(&ls::TABLE, &Owner::new(kinds::NODE, node), "")
}

/// A node's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(node) = view.own_node(owner) else { return Output::default() };
    let mut output = Output::default();
    check(&node.subnets, NODE_SUBNETS, Severity::Error, &mut output.diagnostics);
    let Some(subnets) = view.subnets(&node.name) else { return output };
    let refused = subnets.refused.iter();
    output.diagnostics.extend(refused.map(|e| complaint(Severity::Error, "SubnetRefused", NODE_SUBNETS, e)));
    if subnets.usable.is_empty() {
        return output;
    }
    let chassis = check(&node.chassis, NODE_CHASSIS_ID, Severity::Warning, &mut output.diagnostics);
    check(&node.management_mac, NODE_MGMT_PORT_MACS, Severity::Warning, &mut output.diagnostics);

    let switch = switch_row(view, owner, node, &subnets.usable);
    let pin = chassis.map(|chassis| pin_row(view, owner, node, chassis));
    let router_port = router_port_row(view, owner, node, &subnets.usable, pin.as_ref());
    let to_router = RowBuilder::new(view, &lsp::TABLE, owner, "router", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::switch_to_router(&node.name)))
        .exactly(lsp::type_("router"))
        .exactly(lsp::addresses(["router"]))
        .keys(lsp::OPTIONS, [("router-port", Some(name::router_to_switch(&node.name).into()))])
        .build();
    let management = management_row(view, owner, node, &subnets.usable, &mut output.diagnostics);

    let member_of_switch = |row: &DesiredRow| contribution(&ls::TABLE, switch.id.uuid(), ls::PORTS, row.id.uuid());
    output.contributions = vec![
        contribution(&lr::TABLE, cluster::router(), lr::PORTS, router_port.id.uuid()),
        member_of_switch(&to_router),
        member_of_switch(&management),
    ];
    let port = management.id.uuid();
    output.rows = vec![switch, router_port, to_router, management];
    output.rows.extend(pin);
    policy::add_to_node(view, owner, &subnets.usable, port, &mut output);
    gateway::translate(view, owner, node, &subnets.usable, chassis, &mut output);
    nested::add_way_out(view, owner, node, &subnets.usable, &mut output);
    output
}

/// The MAC of the cluster router on a node's switch.
pub(crate) fn router_mac(subnets: &[IpNet]) -> Option<Mac> {
    Mac::of_any(subnets.iter().filter_map(|subnet| address::router(*subnet)))
}

/// The MAC of the host's port: what the node says, or what the rule gives until it has said.
pub(crate) fn management_mac(node: &NodeFact, subnets: &[IpNet]) -> Option<Mac> {
    let said = node.management_mac.as_ref().and_then(|mac| mac.as_ref().ok()).copied();
    said.or_else(|| Mac::of_any(subnets.iter().filter_map(|subnet| address::management(*subnet))))
}

/// The value of an annotation; a complaint when it cannot be read.
pub(crate) fn check<'a, T>(
    value: &'a Annotated<T>,
    annotation: &str,
    severity: Severity,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'a T> {
    match value.as_ref()? {
        Ok(value) => Some(value),
        Err(error) => {
            diagnostics.push(complaint(severity, "InvalidAnnotation", annotation, error));
            None
        }
    }
}

fn switch_row(view: &View<'_>, owner: &Owner, node: &NodeFact, subnets: &[IpNet]) -> DesiredRow {
    let v4 = subnets.iter().copied().find(is_v4);
    let v6 = subnets.iter().find(|s| !is_v4(s));
    let text = |text: String| Atom::from(text);
    RowBuilder::new(view, &ls::TABLE, owner, "", ls::EXTERNAL_IDS, &[])
        .exactly(ls::name(name::node_switch(&node.name)))
        .keys(
            ls::OTHER_CONFIG,
            [
                ("subnet", v4.map(|s| text(s.to_string()))),
                ("exclude_ips", v4.and_then(address::management).map(|a| text(a.to_string()))),
                ("ipv6_prefix", v6.map(|s| text(s.network().to_string()))),
            ],
        )
        .exactly(ls::load_balancer_group([Group::Everywhere, Group::Switches].map(load_balancer_group)))
        .members(ls::ACLS)
        .members(ls::LOAD_BALANCER)
        .members(ls::PORTS)
        .build()
}

fn router_port_row(
    view: &View<'_>,
    owner: &Owner,
    node: &NodeFact,
    subnets: &[IpNet],
    pin: Option<&DesiredRow>,
) -> DesiredRow {
    let on_subnet = |s: &IpNet| address::router(*s).map(|a| address::on_subnet(a, *s));
    let networks: Vec<IpNet> = subnets.iter().filter_map(on_subnet).collect();
    let mac = router_mac(subnets).map(|mac| mac.to_string()).unwrap_or_default();
    RowBuilder::new(view, &lrp::TABLE, owner, "", lrp::EXTERNAL_IDS, &[])
        .exactly(lrp::name(name::router_to_switch(&node.name)))
        .exactly(lrp::mac(mac))
        .exactly(lrp::networks(networks.iter().map(IpNet::to_string)))
        .exactly(lrp::gateway_chassis(pin.map(|row| row.id.uuid())))
        .keys(lrp::OPTIONS, [("route_table", Some(gateway::route_table(&node.name).into()))])
        .build()
}

/// Pins the router port to the node's chassis.
fn pin_row(view: &View<'_>, owner: &Owner, node: &NodeFact, chassis: &str) -> DesiredRow {
    RowBuilder::new(view, &gateway_chassis::TABLE, owner, "", gateway_chassis::EXTERNAL_IDS, &[])
        .exactly(gateway_chassis::name(name::gateway_chassis(&node.name, chassis)))
        .exactly(gateway_chassis::chassis_name(chassis))
        .exactly(gateway_chassis::priority(1))
        .build()
}

/// The host's port. In a VM it is a child of the VM's; without a parent nobody binds it.
fn management_row(
    view: &View<'_>,
    owner: &Owner,
    node: &NodeFact,
    subnets: &[IpNet],
    diagnostics: &mut Vec<Diagnostic>,
) -> DesiredRow {
    let mut addresses = management_mac(node, subnets).map(|mac| mac.to_string()).unwrap_or_default();
    for ip in subnets.iter().filter_map(|s| address::management(*s)) {
        addresses.push_str(&format!(" {ip}"));
    }
    let row = RowBuilder::new(view, &lsp::TABLE, owner, "management", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::management_port(&node.name)))
        .exactly(lsp::addresses([addresses]));
    match nested::parent_of_node(view, node, diagnostics) {
        Some(parent) => row.child_of(parent, MANAGEMENT_TAG).build(),
        None => row.build(),
    }
}
