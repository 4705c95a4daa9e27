//! The external switch between the gateway router and the node's bridge, with the router's port on it.

use std::net::IpAddr;

use ovenbird_api::{Mac, name};
use ovenbird_reconcile::Output;
use ovenbird_schema::northbound::{
    logical_router as lr, logical_router_port as lrp, logical_switch as ls, logical_switch_port as lsp, port_group,
};
use ovsdb::Atom;

use super::Gateway;
use crate::build::{RowBuilder, contribution};
use crate::cluster;
use crate::config::is_v4;

/// Adds them.
pub(super) fn add(gateway: &Gateway<'_>, output: &mut Output) {
    let Gateway { view, owner, node, l3, families, .. } = gateway;
    let router_name = name::gateway_router(&node.name);
    let port_name = name::router_to_external(&router_name);
    let switch = RowBuilder::new(view, &ls::TABLE, owner, "external", ls::EXTERNAL_IDS, &[])
        .exactly(ls::name(name::external_switch(&node.name)))
        .members(ls::PORTS)
        .build();
    let on_switch = (&ls::TABLE, switch.id.uuid(), ls::PORTS);
    output.rows.push(switch);

    let localnet = RowBuilder::new(view, &lsp::TABLE, owner, "localnet", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(&*l3.interface))
        .exactly(lsp::type_("localnet"))
        .exactly(lsp::addresses(["unknown"]))
        .exactly(lsp::tag_request(l3.vlan.map(i64::from)))
        .keys(lsp::OPTIONS, [("network_name", Some(name::PHYSICAL_NETWORK.into()))])
        .build();
    let switch_end = RowBuilder::new(view, &lsp::TABLE, owner, "external", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::external_to_router(&router_name)))
        .exactly(lsp::type_("router"))
        .exactly(lsp::addresses([l3.mac.to_string()]))
        .keys(
            lsp::OPTIONS,
            [
                ("router-port", Some(Atom::from(&*port_name))),
                ("nat-addresses", Some("router".into())),
                ("exclude-lb-vips-from-garp", Some("true".into())),
            ],
        )
        .build();
    let outside = contribution(&port_group::TABLE, cluster::outside_ports(), port_group::PORTS, localnet.id.uuid());
    output.contributions.push(outside);
    gateway.add_to(output, localnet, on_switch);
    gateway.add_to(output, switch_end, on_switch);

    let of_family = |v4: bool| families.iter().any(|f| f.v4 == v4);
    let networks = l3.addresses.iter().filter(|net| of_family(is_v4(net)));
    let physical = [("gateway-physical-ip", Atom::from("yes"))];
    let router_end = RowBuilder::new(view, &lrp::TABLE, owner, "gateway-external", lrp::EXTERNAL_IDS, &physical)
        .exactly(lrp::name(&*port_name))
        .exactly(lrp::mac(l3.mac.to_string()))
        .exactly(lrp::networks(networks.map(ToString::to_string)))
        .build();
    gateway.add_to(output, router_end, (&lr::TABLE, gateway.router(), lr::PORTS));

    // The next hop of routes to the host itself: no neighbour answers for it, so its MAC is given.
    for family in families {
        let next_hop: IpAddr = view.config().masquerade().dummy_next_hop(family.v4);
        let role = if family.v4 { "gateway-v4" } else { "gateway-v6" };
        output.rows.push(gateway.neighbour(role, &port_name, next_hop, Mac::of(next_hop)));
    }
}
