//! Feature: what there is once in a cluster: the cluster router and the join switch, with the link between them.
//!
//! ```text
//! node switches -(rtos)- ovn_cluster_router -(rtoj | jtor)- join - gateway routers
//! ```
//!
//! Inputs: the configuration. Outputs: four rows of the owner Cluster.

use ipnet::IpNet;
use ovenbird_api::{Mac, address, name};
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::northbound::{
    logical_router as lr, logical_router_port as lrp, logical_switch as ls, logical_switch_port as lsp,
};
use ovsdb::{Atom, Uuid};

use crate::build::{self, RowBuilder, contribution};
use crate::kinds;
use crate::view::View;

/// Identity of the cluster router.
pub(crate) fn router() -> Uuid {
    build::id(&lr::TABLE, &kinds::cluster(), "")
}

/// The cluster's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let gateways = view.config().join_subnets().iter();
    let networks: Vec<IpNet> = gateways.filter_map(|s| Some(address::on_subnet(address::router(*s)?, *s))).collect();
    let Some(mac) = Mac::of_any(networks.iter().map(IpNet::addr)) else { return Output::default() };
    let router_port = name::router_to_join(name::CLUSTER_ROUTER);

    let router =
        RowBuilder::new(view, &lr::TABLE, owner, "", lr::EXTERNAL_IDS, &[("k8s-cluster-router", Atom::from("yes"))])
            .exactly(lr::name(name::CLUSTER_ROUTER))
            .keys(lr::OPTIONS, [("always_learn_from_arp_request", Some("false".into()))])
            .members(lr::PORTS)
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
    Output { rows: vec![router, join, to_join, to_router], contributions, diagnostics: Vec::new() }
}
