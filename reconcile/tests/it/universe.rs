//! A little cluster that exercises every way of owning rows: what its objects want, by kind, number and variant.
//!
//! Must not: depend on `topology`; the writer knows no networking.

use ovenbird_reconcile::{Contribution, DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::northbound::{
    acl, address_set, ha_chassis_group as group, logical_router as router, logical_router_static_route as route,
    logical_switch as switch, logical_switch_port as port, meter, nb_global, port_group,
};
use ovsdb::{Atom, ColumnId, TableDesc, Uuid};

const CLUSTER: OwnerKind = OwnerKind { rank: 0, name: "Cluster" };
const SWITCH: OwnerKind = OwnerKind { rank: 10, name: "Switch" };
const SELECTOR: OwnerKind = OwnerKind { rank: 20, name: "Selector" };
const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };

/// Pods 0..PODS and so on exist in the universe.
pub const PODS: usize = 12;
pub const SWITCHES: usize = 3;
pub const SELECTORS: usize = 2;

/// One of the universe's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Cluster,
    Switch(usize),
    Selector(usize),
    Pod(usize),
}

impl Object {
    pub fn owner(self) -> Owner {
        match self {
            Object::Cluster => Owner::new(CLUSTER, ""),
            Object::Switch(n) => Owner::new(SWITCH, format!("sw{n}")),
            Object::Selector(n) => Owner::new(SELECTOR, format!("sel{n}")),
            Object::Pod(n) => Owner::new(POD, format!("default/pod{n}")),
        }
    }

    /// What the object wants in one of its variants.
    pub fn output(self, variant: usize) -> Output {
        match self {
            Object::Cluster => cluster(variant),
            Object::Switch(n) => switch_of(n, variant),
            Object::Selector(n) => selector(n, variant),
            Object::Pod(n) => pod(n, variant),
        }
    }
}

pub fn row(table: &'static TableDesc, id: RowId, columns: Vec<(ColumnId, Want)>) -> DesiredRow {
    DesiredRow { zone: Zone(0), table, id, columns }
}

pub fn contribution(table: &'static TableDesc, row: Uuid, column: ColumnId, member: Atom) -> Contribution {
    Contribution { zone: Zone(0), table, row: RowId::Ours(row), column, member }
}

pub fn exactly((column, value): (ColumnId, ovsdb::Datum)) -> (ColumnId, Want) {
    (column, Want::Exactly(value))
}

pub fn keys(column: ColumnId, keys: &[(&str, Option<&str>)]) -> (ColumnId, Want) {
    (column, Want::Keys(keys.iter().map(|(k, v)| ((*k).into(), v.map(Atom::from))).collect()))
}

pub fn switch_uuid(n: usize) -> Uuid {
    row_uuid("Logical_Switch", &Object::Switch(n).owner(), "")
}

pub fn port_uuid(n: usize) -> Uuid {
    row_uuid("Logical_Switch_Port", &Object::Pod(n).owner(), "")
}

pub fn addresses_uuid(n: usize) -> Uuid {
    row_uuid("Address_Set", &Object::Selector(n).owner(), "")
}

pub fn ports_uuid(n: usize) -> Uuid {
    row_uuid("Port_Group", &Object::Selector(n).owner(), "")
}

fn group_uuid() -> Uuid {
    row_uuid("HA_Chassis_Group", &Object::Cluster.owner(), "")
}

/// A singleton, a router with routes that it alone refers to, a row found by name, and a root that others refer to strongly.
fn cluster(variant: usize) -> Output {
    let owner = Object::Cluster.owner();
    let routes: Vec<Uuid> =
        (0..variant).map(|i| row_uuid("Logical_Router_Static_Route", &owner, &i.to_string())).collect();
    let mut rows: Vec<DesiredRow> = routes
        .iter()
        .enumerate()
        .map(|(i, uuid)| {
            let prefix = route::ip_prefix(format!("10.{i}.0.0/16"));
            row(
                &route::TABLE,
                RowId::Ours(*uuid),
                vec![exactly(prefix), exactly(route::nexthop(format!("100.64.0.{variant}")))],
            )
        })
        .collect();
    let named =
        RowId::Named { column: meter::NAME, value: "logging".into(), uuid: row_uuid("Meter", &owner, "logging") };
    let band = row_uuid("Meter_Band", &owner, "logging");
    use ovenbird_schema::northbound::meter_band;
    rows.push(row(
        &meter_band::TABLE,
        RowId::Ours(band),
        vec![exactly(meter_band::action(meter_band::Action::Drop)), exactly(meter_band::rate(20 + variant as i64))],
    ));
    rows.extend([
        row(
            &nb_global::TABLE,
            RowId::Singleton(row_uuid("NB_Global", &owner, "")),
            vec![keys(nb_global::OPTIONS, &[("mac_prefix", Some("0a:58")), ("old", (variant == 1).then_some("x"))])],
        ),
        row(
            &router::TABLE,
            RowId::Ours(row_uuid("Logical_Router", &owner, "")),
            vec![exactly(router::name("ovn_cluster_router")), exactly(router::static_routes(routes))],
        ),
        row(&group::TABLE, RowId::Ours(group_uuid()), vec![exactly(group::name("group"))]),
        row(
            &meter::TABLE,
            named,
            vec![
                exactly(meter::name("logging")),
                exactly(meter::unit(meter::Unit::Pktps)),
                exactly(meter::bands([band])),
            ],
        ),
    ]);
    Output { rows, ..Output::default() }
}

fn switch_of(n: usize, variant: usize) -> Output {
    let subnet = format!("10.244.{variant}.0/24");
    let columns = vec![
        exactly(switch::name(format!("sw{n}"))),
        keys(switch::OTHER_CONFIG, &[("subnet", Some(&subnet)), ("exclude_ips", (variant > 1).then_some("10.0.0.1"))]),
        (switch::PORTS, Want::Members),
    ];
    Output { rows: vec![row(&switch::TABLE, RowId::Ours(switch_uuid(n)), columns)], ..Output::default() }
}

/// Sets fed by pods, and ACLs that the selector's own port group holds.
fn selector(n: usize, variant: usize) -> Output {
    let owner = Object::Selector(n).owner();
    let acls: Vec<Uuid> = (0..variant).map(|i| row_uuid("ACL", &owner, &i.to_string())).collect();
    let mut rows: Vec<DesiredRow> = acls
        .iter()
        .map(|uuid| {
            let columns = vec![
                exactly(acl::action(acl::Action::Allow)),
                exactly(acl::direction(acl::Direction::ToLport)),
                exactly(acl::match_(format!("ip4.src == $sel{n}"))),
                exactly(acl::priority(1000 + variant as i64)),
            ];
            row(&acl::TABLE, RowId::Ours(*uuid), columns)
        })
        .collect();
    rows.push(row(
        &address_set::TABLE,
        RowId::Ours(addresses_uuid(n)),
        vec![exactly(address_set::name(format!("sel{n}"))), (address_set::ADDRESSES, Want::Members)],
    ));
    rows.push(row(
        &port_group::TABLE,
        RowId::Ours(ports_uuid(n)),
        vec![
            exactly(port_group::name(format!("pg{n}"))),
            exactly(port_group::acls(acls)),
            (port_group::PORTS, Want::Members),
        ],
    ));
    Output { rows, ..Output::default() }
}

/// A port on a switch; variants move it, readdress it, and change the sets it belongs to. Pods 0 and 1 share an address.
fn pod(n: usize, variant: usize) -> Output {
    let address = if n < 2 { "10.244.9.9".to_owned() } else { format!("10.244.{variant}.{n}") };
    let mut columns = vec![
        exactly(port::name(format!("default_pod{n}"))),
        exactly(port::addresses([format!("0a:58:00:00:00:{n:02x} {address}")])),
        keys(port::OPTIONS, &[("requested-chassis", Some("node")), ("tag", (variant == 2).then_some("y"))]),
    ];
    if n.is_multiple_of(4) {
        columns.push(exactly(port::ha_chassis_group((variant == 1).then(group_uuid))));
    }
    let uuid = port_uuid(n);
    let mut contributions =
        vec![contribution(&switch::TABLE, switch_uuid((n + variant) % SWITCHES), switch::PORTS, uuid.into())];
    for s in (0..SELECTORS).filter(|s| !(n + s + variant).is_multiple_of(3)) {
        contributions.push(contribution(
            &address_set::TABLE,
            addresses_uuid(s),
            address_set::ADDRESSES,
            address.clone().into(),
        ));
        contributions.push(contribution(&port_group::TABLE, ports_uuid(s), port_group::PORTS, uuid.into()));
    }
    Output { rows: vec![row(&port::TABLE, RowId::Ours(uuid), columns)], contributions, ..Output::default() }
}
