//! What is replicated of the Northbound: the tables that translation writes, without the columns that others fill.
//!
//! Every column left out saves the server's and our own work on each of its changes (`up` changes for every pod). Must not:
//! leave out a table or column that a translation writes, or the differ would write it for ever: a new table is added here by hand.

use ovenbird_schema::northbound::{
    acl, address_set, chassis_template_var, gateway_chassis, load_balancer, load_balancer_group, logical_router,
    logical_router_policy, logical_router_port, logical_router_static_route, logical_switch,
    logical_switch_port as lsp, nat, nb_global, port_group, static_mac_binding,
};
use ovsdb::{ColumnId, MonitorSpec, TableDesc, TableSpec};

/// Columns that northd, ovn-controller or ovn-nbctl fill and that are nobody's wish.
const FILLED_BY_OTHERS: [&str; 9] =
    ["up", "dynamic_addresses", "tag", "status", "hv_cfg", "hv_cfg_timestamp", "nb_cfg", "nb_cfg_timestamp", "sb_cfg"];

/// The tables and columns.
pub fn spec() -> MonitorSpec {
    let tables: [&'static TableDesc; 16] = [
        &nb_global::TABLE,
        &logical_router::TABLE,
        &logical_router_port::TABLE,
        &logical_switch::TABLE,
        &lsp::TABLE,
        &gateway_chassis::TABLE,
        &load_balancer::TABLE,
        &load_balancer_group::TABLE,
        &logical_router_static_route::TABLE,
        &logical_router_policy::TABLE,
        &nat::TABLE,
        &static_mac_binding::TABLE,
        &chassis_template_var::TABLE,
        &address_set::TABLE,
        &port_group::TABLE,
        &acl::TABLE,
    ];
    tables.into_iter().fold(MonitorSpec::new(), |spec, table| spec.with(whole(table)))
}

/// The table without the columns of others, with an index for each unique column.
fn whole(table: &'static TableDesc) -> TableSpec {
    let columns = table.columns.iter().enumerate();
    let wanted = columns.filter(|(_, c)| !FILLED_BY_OTHERS.contains(&c.name)).map(|(i, _)| ColumnId(i as u16));
    let unique = table.indexes.iter().filter_map(|index| match index {
        [column] => Some(*column),
        _ => None,
    });
    unique.fold(TableSpec::columns(table, wanted), TableSpec::index)
}
