//! What is replicated of the Northbound: the tables that translation writes, without the columns that others fill.
//!
//! Every column left out saves the server's and our own work on each of its changes (`up` changes for every pod). Must not:
//! leave out a table or column that a translation writes, or the differ would write it for ever: a new table is added here by hand.

use ovenbird_schema::northbound::{
    acl, address_set, chassis_template_var, gateway_chassis, load_balancer, load_balancer_group, logical_router,
    logical_router_policy, logical_router_port, logical_router_static_route, logical_switch,
    logical_switch_port as lsp, meter, meter_band, nat, nb_global, port_group, static_mac_binding,
};
use ovsdb::{ColumnId, MonitorSpec, TableDesc, TableSpec};

/// Columns that northd, ovn-controller or ovn-nbctl fill and that are nobody's wish.
const FILLED_BY_OTHERS: [&str; 9] =
    ["up", "dynamic_addresses", "tag", "status", "hv_cfg", "hv_cfg_timestamp", "nb_cfg", "nb_cfg_timestamp", "sb_cfg"];

/// The tables and columns.
pub fn spec() -> MonitorSpec {
    let tables: [&'static TableDesc; 18] = [
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
        &meter::TABLE,
        &meter_band::TABLE,
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

#[cfg(test)]
mod tests {
    use ovenbird_topology::{Change, Config, Engine, Fact, Interner, NetworkPolicyFact, NodeFact, ServiceFact, kinds};
    use serde_json::json;

    use super::*;

    /// A cluster in which every feature has rows.
    fn engine() -> Engine {
        let config = Config::parse("10.128.0.0/14/23", "", "100.64.0.0/16,fd98::/64", 1400).expect("a configuration");
        let mut engine = Engine::new(config);
        let node = json!({"metadata": {"name": "n1", "annotations": {
            "k8s.ovn.org/node-subnets": r#"{"default":["10.128.0.0/23"]}"#, "k8s.ovn.org/node-id": "2",
            "k8s.ovn.org/node-chassis-id": "c1", "k8s.ovn.org/l3-gateway-config": r#"{"default":{"mode":"shared",
                "interface-id":"br-ex_n1","mac-address":"0a:58:00:00:00:01","ip-addresses":["172.18.0.4/16"],"next-hops":["172.18.0.1"]}}"#,
        }}});
        let service = json!({"metadata": {"namespace": "ns", "name": "s"},
            "spec": {"clusterIPs": ["10.96.0.7"], "ports": [{"port": 80, "nodePort": 30080}]}});
        let policy = json!({"metadata": {"namespace": "ns", "name": "p"},
            "spec": {"ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}});
        let mut texts = Interner::default();
        let facts = [
            Fact::Node(NodeFact::from_k8s(&serde_json::from_value(node).expect("a Node"))),
            Fact::Service(ServiceFact::from_k8s(&serde_json::from_value(service).expect("a Service"), &mut texts)),
            Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(
                &serde_json::from_value(policy).expect("a NetworkPolicy"),
                &mut texts,
            )),
        ];
        facts.into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
        engine
    }

    #[test]
    fn what_is_written_is_replicated() {
        let (mut engine, spec) = (engine(), spec());
        let mut written = std::collections::BTreeSet::new();
        for owner in engine.take_dirty() {
            let output = engine.translate(&owner);
            assert!(!output.rows.is_empty() || owner.kind == kinds::PEER, "{owner} has no rows");
            written.extend(output.rows.iter().map(|row| row.table.name));
            for row in &output.rows {
                assert!(spec.table(row.table).is_some(), "{} of {owner} is not replicated", row.table.name);
            }
        }
        // All that is replicated but the row of the epoch.
        assert_eq!(written.len(), spec_tables() - 1, "{written:?}");
    }

    fn spec_tables() -> usize {
        ovenbird_schema::northbound::DATABASE.tables.iter().filter(|table| spec().table(table).is_some()).count()
    }
}
