//! The gateway router itself, its link to the join switch, and what its chassis tells load balancers of the host.

use ipnet::IpNet;
use ovenbird_api::{Mac, name};
use ovenbird_reconcile::Output;
use ovenbird_schema::northbound::{
    chassis_template_var, logical_router as lr, logical_router_port as lrp, logical_switch as ls,
    logical_switch_port as lsp,
};
use ovsdb::Atom;

use super::{Gateway, ROLE};
use crate::build::RowBuilder;
use crate::cluster::{self, Group};

/// Seconds after which a neighbour that is not heard of any more is forgotten.
const NEIGHBOUR_AGE: &str = "300";

/// Adds them.
pub(super) fn add(gateway: &Gateway<'_>, output: &mut Output) {
    let Gateway { view, owner, node, l3, chassis, families, host, .. } = gateway;
    let router_name = name::gateway_router(&node.name);
    let own: Vec<String> = families.iter().map(|f| f.uplink.addr().to_string()).collect();
    let physical = [
        ("physical_ip", Atom::from(own.first().cloned().unwrap_or_default())),
        ("physical_ips", Atom::from(own.join(","))),
    ];
    // Replies to what a router's load balancer let in must come back by that router: `router_ip` makes it the client.
    let options = [
        ("chassis", Atom::from(Clone::clone(*chassis))),
        ("lb_force_snat_ip", "router_ip".into()),
        // The host's connections and ours leave by one address: one zone keeps their ports apart.
        ("snat-ct-zone", "0".into()),
        ("dynamic_neigh_routers", "true".into()),
        ("always_learn_from_arp_request", "false".into()),
        ("mac_binding_age_threshold", NEIGHBOUR_AGE.into()),
    ];
    let groups = [Some(Group::Everywhere), l3.node_port.then_some(Group::Routers)];
    let router = RowBuilder::new(view, &lr::TABLE, owner, ROLE, lr::EXTERNAL_IDS, &physical)
        .exactly(lr::name(&*router_name))
        .keys(lr::OPTIONS, options.map(|(key, value)| (key, Some(value))))
        .exactly(lr::load_balancer_group(groups.into_iter().flatten().map(cluster::load_balancer_group)))
        .members(lr::LOAD_BALANCER)
        .members(lr::NAT)
        .members(lr::PORTS)
        .members(lr::STATIC_ROUTES)
        .build();
    output.rows.push(router);

    let port_name = name::router_to_join(&router_name);
    let networks: Vec<IpNet> = families.iter().map(|f| f.join).collect();
    let mac = Mac::of_any(networks.iter().map(IpNet::addr)).map(|mac| mac.to_string()).unwrap_or_default();
    let router_end = RowBuilder::new(view, &lrp::TABLE, owner, "gateway-join", lrp::EXTERNAL_IDS, &[])
        .exactly(lrp::name(&*port_name))
        .exactly(lrp::mac(mac))
        .exactly(lrp::networks(networks.iter().map(IpNet::to_string)))
        .keys(lrp::OPTIONS, [("gateway_mtu", gateway.mtu.map(|mtu| mtu.to_string().into()))])
        .build();
    let switch_end = RowBuilder::new(view, &lsp::TABLE, owner, "gateway-join", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::join_to_router(&router_name)))
        .exactly(lsp::type_("router"))
        .exactly(lsp::addresses(["router"]))
        .keys(lsp::OPTIONS, [("router-port", Some(port_name.into()))])
        .build();
    gateway.add_to(output, router_end, (&lr::TABLE, gateway.router(), lr::PORTS));
    gateway.add_to(output, switch_end, (&ls::TABLE, cluster::join(), ls::PORTS));

    // What a load balancer has let in must not wait for an answer of the cluster router: OVN keeps the packet that waits, and
    // then sends it on untranslated.
    if let Some(mac) = cluster::join_mac(view.config()) {
        for family in families {
            let role = if family.v4 { "join-v4" } else { "join-v6" };
            output.rows.push(gateway.neighbour(role, &name::router_to_join(&router_name), family.cluster, mac));
        }
    }

    let variables = [("NODEIP_IPv4_", true), ("NODEIP_IPv6_", false)].into_iter().flat_map(|(stem, v4)| {
        let of_family = host.iter().filter(move |a| a.is_ipv4() == v4).enumerate();
        of_family.map(move |(i, a)| (format!("{stem}{i}"), Some(Atom::from(a.to_string()))))
    });
    let template =
        RowBuilder::new(view, &chassis_template_var::TABLE, owner, "template", chassis_template_var::EXTERNAL_IDS, &[])
            .exactly(chassis_template_var::chassis(Clone::clone(*chassis)))
            .keys(chassis_template_var::VARIABLES, variables)
            .build();
    output.rows.push(template);
}
