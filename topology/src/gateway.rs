//! Feature: a node's gateway router, by which traffic enters and leaves the cluster.
//!
//! ```text
//! switch N - ovn_cluster_router - join -(jtor | rtoj)- GR_N -(rtoe | etor)- ext_N - <bridge>_N (localnet) - br-ex - wire
//! ```
//!
//! Inputs: the Node with its id, chassis and what it tells of its external bridge; the configuration. Outputs: further rows
//! of the owner Node. Without id, chassis or a bridge there are none, and pods have no way out. Complaints, and no gateway,
//! when an address or the id is an older node's, or an address is inside one of the cluster's networks.
//!
//! Traffic of a node's pods has a route table of its own on the cluster router (by its port `rtos-N`): so the way out of
//! one node never competes with routes to another, whatever the lengths of their subnets.

mod claims;
mod external;
mod nat;
mod router;
mod routes;
mod way_back;

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::annotation::{HOST_CIDRS, L3_GATEWAY_CONFIG, NODE_ID, POD_MTU};
use ovenbird_api::{GatewayMode, L3Gateway, Mac, address, name};
use ovenbird_reconcile::{DesiredRow, Output, Owner, Severity};
use ovenbird_schema::northbound::{logical_router as lr, static_mac_binding};
use ovsdb::{ColumnId, Str, TableDesc, Uuid};

pub(crate) use claims::{GatewayError, host_addresses, judge};
pub(crate) use nat::exclusions;
pub(crate) use way_back::{ANSWERS, Answering, INSIDE, answers, inside};

use crate::build::{self, RowBuilder, complaint, contribution};
use crate::config::{Config, is_v4};
use crate::facts::NodeFact;
use crate::kinds;
use crate::node::check;
use crate::view::View;

/// Identity of a node's gateway router.
pub(crate) fn router(node: &str) -> Uuid {
    build::id(&lr::TABLE, &Owner::new(kinds::NODE, node), ROLE)
}

/// The route table of what enters the cluster router from a node's switch: it holds the node's way out.
pub(crate) fn route_table(node: &str) -> String {
    name::router_to_switch(node)
}

/// The role of the gateway router among the node's rows, and the stem of those of its parts.
const ROLE: &str = "gateway";

/// What all parts of a node's gateway need to know.
struct Gateway<'a> {
    view: &'a View<'a>,
    owner: &'a Owner,
    node: &'a NodeFact,
    l3: &'a L3Gateway,
    chassis: &'a Str,
    /// MTU of the node's pods.
    mtu: Option<u32>,
    /// At least one, IPv4 first.
    families: Vec<Family>,
    /// All addresses of the host, its own on the bridge first.
    host: Vec<IpAddr>,
}

/// A family that both pods and the bridge have.
#[derive(Clone, Copy)]
struct Family {
    v4: bool,
    /// The node's subnet.
    subnet: IpNet,
    /// The node's own address on the bridge.
    uplink: IpNet,
    /// The gateway router's address on the join switch.
    join: IpNet,
    /// The cluster router's address on the join switch.
    cluster: IpAddr,
}

/// Adds the rows of the node's gateway. `subnets` are those that the node may use.
pub(crate) fn translate(
    view: &View<'_>,
    owner: &Owner,
    node: &NodeFact,
    subnets: &[IpNet],
    chassis: Option<&Str>,
    output: &mut Output,
) {
    let Some(l3) = check(&node.gateway, L3_GATEWAY_CONFIG, Severity::Error, &mut output.diagnostics) else { return };
    let id = check(&node.id, NODE_ID, Severity::Error, &mut output.diagnostics);
    let refused = view.gateway_errors(&node.name);
    output
        .diagnostics
        .extend(refused.iter().map(|e| complaint(Severity::Error, "GatewayRefused", L3_GATEWAY_CONFIG, e)));
    let (Some(id), Some(chassis), []) = (id, chassis, refused) else { return };
    let host_cidrs = check(&node.host_cidrs, HOST_CIDRS, Severity::Warning, &mut output.diagnostics);
    let mtu = check(&node.pod_mtu, POD_MTU, Severity::Warning, &mut output.diagnostics).copied();

    let families = families(view.config(), l3, *id, subnets);
    for subnet in subnets.iter().filter(|net| families.iter().all(|f| f.v4 != is_v4(net))) {
        let problem = format!("no address of the family of {subnet}: its pods have no way out; give the bridge one");
        output.diagnostics.push(complaint(Severity::Warning, "GatewayFamily", L3_GATEWAY_CONFIG, &problem));
    }
    if families.is_empty() {
        return;
    }
    let host = claims::host_addresses(view.config(), &l3.addresses, host_cidrs.map_or(&[][..], Vec::as_slice));
    let gateway = Gateway { view, owner, node, l3, chassis, mtu, families, host };
    router::add(&gateway, output);
    external::add(&gateway, output);
    routes::add(&gateway, output);
    nat::add(&gateway, output);
    if gateway.l3.mode == GatewayMode::Local {
        way_back::add(&gateway, output);
    }
}

/// How others reach a node that has a gateway router, or is a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its addresses, those on the bridge first.
    pub addresses: Vec<IpAddr>,
    /// The gateway router's addresses on the join switch, to which answers must go that are its own.
    pub join: Vec<IpAddr>,
    /// What leaves the node's switch goes to the host, not to the gateway router (mode local).
    pub local: bool,
    /// Next hops of the cluster's router for what leaves the cluster here, one of each family: the gateway router, in mode local the host.
    pub ways_out: Vec<IpAddr>,
    /// It has a gateway router.
    pub router: bool,
}

/// How others reach a node, `None` when it has no gateway router. `subnets` are those that the node may use, `refused` is what is wrong
/// with its gateway.
pub(crate) fn host(config: &Config, node: &NodeFact, subnets: &[IpNet], refused: &[GatewayError]) -> Option<Host> {
    let l3 = node.gateway.as_ref()?.as_ref().ok()?;
    let id = node.id.as_ref()?.as_ref().ok()?;
    node.chassis.as_ref()?.as_ref().ok()?;
    let families = families(config, l3, *id, subnets);
    if !refused.is_empty() || families.is_empty() {
        return None;
    }
    let host_cidrs = node.host_cidrs.as_ref().and_then(|cidrs| cidrs.as_ref().ok());
    Some(Host {
        addresses: claims::host_addresses(config, &l3.addresses, host_cidrs.map_or(&[][..], Vec::as_slice)),
        join: families.iter().map(|family| family.join.addr()).collect(),
        local: l3.mode == GatewayMode::Local,
        ways_out: families.iter().filter_map(|family| family.way_out(l3.mode)).collect(),
        router: true,
    })
}

fn families(config: &Config, l3: &L3Gateway, id: u16, subnets: &[IpNet]) -> Vec<Family> {
    let family = |v4: bool| {
        let join = *config.join_subnets().iter().find(|net| is_v4(net) == v4)?;
        Some(Family {
            v4,
            subnet: *subnets.iter().find(|net| is_v4(net) == v4)?,
            uplink: l3.address(v4)?,
            join: address::on_subnet(address::nth(join, u128::from(id))?, join),
            cluster: address::router(join)?,
        })
    };
    [true, false].into_iter().filter_map(family).collect()
}

impl Family {
    /// The next hop of the cluster's router for what leaves the cluster by this gateway.
    fn way_out(&self, mode: GatewayMode) -> Option<IpAddr> {
        match mode {
            GatewayMode::Shared => Some(self.join.addr()),
            GatewayMode::Local => address::management(self.subnet),
        }
    }
}

impl Gateway<'_> {
    /// Adds a row that a set of another row refers to.
    fn add_to(
        &self,
        output: &mut Output,
        row: DesiredRow,
        (table, container, column): (&'static TableDesc, Uuid, ColumnId),
    ) {
        output.contributions.push(contribution(table, container, column, row.id.uuid()));
        output.rows.push(row);
    }

    /// The MAC of a neighbour of one of the router's ports, which need not be asked for it.
    fn neighbour(&self, role: &str, port: &str, address: IpAddr, mac: Mac) -> DesiredRow {
        RowBuilder::unnamed(self.view, &static_mac_binding::TABLE, self.owner, role)
            .exactly(static_mac_binding::logical_port(port))
            .exactly(static_mac_binding::ip(address.to_string()))
            .exactly(static_mac_binding::mac(mac.to_string()))
            .exactly(static_mac_binding::override_dynamic_mac(true))
            .build()
    }

    /// Identity of the gateway router.
    fn router(&self) -> Uuid {
        router(&self.node.name)
    }
}

/// `ip4` or `ip6`, as matches name a family.
fn ip(v4: bool) -> &'static str {
    if v4 { "ip4" } else { "ip6" }
}
