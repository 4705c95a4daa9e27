//! Feature: what there is once in a cluster: the cluster router and the join switch, with the link between them, and the
//! groups through which switches and gateway routers share load balancers.
//!
//! ```text
//! node switches -(rtos)- ovn_cluster_router -(rtoj | jtor)- join - gateway routers
//! ```
//!
//! Inputs: the configuration. Outputs: eight rows of the owner Cluster, and
//! the sets of destinations that gateways leave pods' addresses alone for.

use ipnet::IpNet;
use ovenbird_api::{Mac, address, name};
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::northbound::{
    load_balancer_group, logical_router as lr, logical_router_port as lrp, logical_switch as ls,
    logical_switch_port as lsp, port_group,
};
use ovsdb::{Atom, Uuid};

use crate::Config;
use crate::build::{self, RowBuilder, contribution};
use crate::gateway;
use crate::kinds;
use crate::policy;
use crate::view::View;

/// Identity of the cluster router.
pub(crate) fn router() -> Uuid {
    build::id(&lr::TABLE, &kinds::cluster(), "")
}

/// Identity of the join switch.
pub(crate) fn join() -> Uuid {
    build::id(&ls::TABLE, &kinds::cluster(), "join")
}

/// The cluster router's addresses on the join switch, with prefix length.
fn join_networks(config: &Config) -> Vec<IpNet> {
    let own = |s: &IpNet| Some(address::on_subnet(address::router(*s)?, *s));
    config.join_subnets().iter().filter_map(own).collect()
}

/// The MAC of the cluster router on the join switch.
pub(crate) fn join_mac(config: &Config) -> Option<Mac> {
    Mac::of_any(join_networks(config).iter().map(IpNet::addr))
}

/// A group of load balancers: one reference for a switch or router instead of one per Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// On every node switch and every gateway router.
    Everywhere,
    /// On every node switch.
    Switches,
    /// On every gateway router.
    Routers,
}

impl Group {
    const ALL: [Group; 3] = [Group::Everywhere, Group::Switches, Group::Routers];

    /// The row's name, which is its role, too.
    fn name(self) -> &'static str {
        match self {
            Group::Everywhere => "clusterLBGroup",
            Group::Switches => "clusterSwitchLBGroup",
            Group::Routers => "clusterRouterLBGroup",
        }
    }
}

/// Identity of a group of load balancers.
pub(crate) fn load_balancer_group(group: Group) -> Uuid {
    build::id(&load_balancer_group::TABLE, &kinds::cluster(), group.name())
}

/// Identity of the group of ports by which traffic from outside enters the external switches.
pub(crate) fn outside_ports() -> Uuid {
    build::id(&port_group::TABLE, &kinds::cluster(), OUTSIDE_PORTS)
}

/// Name and role of that group.
pub(crate) const OUTSIDE_PORTS: &str = "clusterOutsidePortGroup";

/// The cluster's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(mac) = join_mac(view.config()) else { return Output::default() };
    let networks = join_networks(view.config());
    let router_port = name::router_to_join(name::CLUSTER_ROUTER);

    let router =
        RowBuilder::new(view, &lr::TABLE, owner, "", lr::EXTERNAL_IDS, &[("k8s-cluster-router", Atom::from("yes"))])
            .exactly(lr::name(name::CLUSTER_ROUTER))
            .keys(lr::OPTIONS, [("always_learn_from_arp_request", Some("false".into()))])
            .members(lr::POLICIES)
            .members(lr::PORTS)
            .members(lr::STATIC_ROUTES)
            .build();
    let join = RowBuilder::new(view, &ls::TABLE, owner, "join", ls::EXTERNAL_IDS, &[])
        .exactly(ls::name(name::JOIN_SWITCH))
        .members(ls::PORTS)
        .build();
    let to_join = RowBuilder::new(view, &lrp::TABLE, owner, "join", lrp::EXTERNAL_IDS, &[])
        .exactly(lrp::name(&*router_port))
        .exactly(lrp::mac(mac.to_string()))
        .exactly(lrp::networks(networks.iter().map(IpNet::to_string)))
        .build();
    let to_router = RowBuilder::new(view, &lsp::TABLE, owner, "join", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::join_to_router(name::CLUSTER_ROUTER)))
        .exactly(lsp::type_("router"))
        .exactly(lsp::addresses(["router"]))
        .keys(lsp::OPTIONS, [("router-port", Some(router_port.into()))])
        .build();

    let contributions = vec![
        contribution(&lr::TABLE, router.id.uuid(), lr::PORTS, to_join.id.uuid()),
        contribution(&ls::TABLE, join.id.uuid(), ls::PORTS, to_router.id.uuid()),
    ];
    let mut rows = vec![router, join, to_join, to_router];
    rows.push(
        RowBuilder::new(view, &port_group::TABLE, owner, OUTSIDE_PORTS, port_group::EXTERNAL_IDS, &[])
            .exactly(port_group::name(OUTSIDE_PORTS))
            .members(port_group::ACLS)
            .members(port_group::PORTS)
            .build(),
    );
    rows.extend(Group::ALL.map(|group| {
        RowBuilder::unnamed(view, &load_balancer_group::TABLE, owner, group.name())
            .exactly(load_balancer_group::name(group.name()))
            .members(load_balancer_group::LOAD_BALANCER)
            .build()
    }));
    rows.extend(gateway::exclusions(view, owner));
    let mut output = Output { rows, contributions, diagnostics: Vec::new() };
    policy::add_to_cluster(view, owner, &mut output);
    output
}
