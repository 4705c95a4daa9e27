//! What this node wants of Open_vSwitch: pure functions from plain values to rows.
//!
//! ```text
//! Chassis --> Open_vSwitch (our keys), Bridge br-int with its local port      [chassis]
//! PodPort <--> Port, Interface, QoS                                           [pod_port]
//! management port, bridges of VMs and physical networks --> Bridge, Port, Interface
//! ```
//!
//! Must not: do I/O; name a row's UUID other than by `row_uuid`.

mod chassis;
mod pod_port;

use ovenbird_api::Mac;
use ovenbird_api::annotation::PARENT_PORT;
use ovenbird_api::name::{INTEGRATION_BRIDGE, MANAGEMENT_INTERFACE, management_port};
use ovenbird_api::nested::MANAGEMENT_TAG;
use ovenbird_reconcile::{Contribution, DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::vswitch::{bridge, interface, open_vswitch, port};
use ovsdb::{Atom, ColumnId, Datum, TableDesc, Uuid};

pub use chassis::{BRIDGE_MAPPINGS, CHASSIS, Chassis, ENTERED, Known, PROVIDER_MAPPINGS};
pub use pod_port::{PodPort, SANDBOX};

/// Owner of what is wanted of a VM's bridge: key is its name.
pub const TRUNK: OwnerKind = OwnerKind { rank: 0, name: "Trunk" };
/// Owner of the management port.
pub const MANAGEMENT: OwnerKind = OwnerKind { rank: 10, name: "ManagementPort" };
/// Owner of a bridge for the NIC of a physical network, by the NIC.
pub const PROVIDER: OwnerKind = OwnerKind { rank: 5, name: "ProviderBridge" };

/// Key of Bridge:external_ids: the NIC for which we made it.
pub const MADE_FOR: &str = "ovenbird.io/made-for";

/// What is wanted of a VM's bridge: that it takes our ports.
pub fn trunk(name: &str) -> (Owner, Output) {
    let columns = vec![exactly(bridge::name(name)), (bridge::PORTS, Want::Members)];
    let row = DesiredRow { zone: Zone(0), table: &bridge::TABLE, id: bridge_id(name), columns };
    (Owner::new(TRUNK, name), Output { rows: vec![row], ..Output::default() })
}

/// The management port: owner and rows. On a nested node it is an access port of the VM's bridge, and says which port the VM has on its hypervisor.
pub fn management(node: &str, mac: Mac, mtu: u32, nested_in: Option<&str>, parent: Option<&str>) -> (Owner, Output) {
    let owner = Owner::new(MANAGEMENT, node);
    let mut ids = keys([("iface-id", management_port(node)), ("attached_mac", mac.to_string())]);
    ids.extend(nested_in.map(|_| (PARENT_PORT.into(), parent.map(Atom::from))));
    let columns = vec![
        exactly(interface::type_("internal")),
        exactly(interface::mac(Some(mac.to_string()))),
        exactly(interface::mtu_request(Some(i64::from(mtu)))),
        (interface::EXTERNAL_IDS, Want::Keys(ids.into())),
    ];
    let tag = nested_in.map(|_| exactly(port::tag(Some(i64::from(MANAGEMENT_TAG)))));
    let bridge = nested_in.unwrap_or(INTEGRATION_BRIDGE);
    let output = port_rows(&owner, (MANAGEMENT_INTERFACE, bridge), tag.into_iter().collect(), columns);
    (owner, output)
}

/// A bridge for the NIC of a physical network: owner and rows.
pub fn provider_bridge(name: &str, nic: &str, userspace: bool) -> (Owner, Output) {
    let owner = Owner::new(PROVIDER, nic);
    let ours = |table: &'static TableDesc, role: &str| row_uuid(table.name, &owner, role);
    let row = |table: &'static TableDesc, role: &str, columns| DesiredRow {
        zone: Zone(0),
        table,
        id: RowId::Ours(ours(table, role)),
        columns,
    };
    let mut columns = vec![
        exactly(bridge::name(name)),
        // ovn-controller's patch ports are there, too.
        (bridge::PORTS, Want::Members),
        (bridge::EXTERNAL_IDS, Want::Keys(keys([(MADE_FOR, nic.to_owned())]).into())),
    ];
    if userspace {
        columns.push(exactly(bridge::datapath_type("netdev")));
    }
    let mut output = Output { rows: vec![row(&bridge::TABLE, "", columns)], ..Output::default() };
    for (role, name, kind) in [("local", name, "internal"), ("nic", nic, "")] {
        let interface = exactly(port::interfaces([ours(&interface::TABLE, role)]));
        output.rows.push(row(&port::TABLE, role, vec![exactly(port::name(name)), interface]));
        let columns = vec![exactly(interface::name(name)), exactly(interface::type_(kind))];
        output.rows.push(row(&interface::TABLE, role, columns));
        output.contributions.push(Contribution {
            zone: Zone(0),
            table: &bridge::TABLE,
            row: RowId::Ours(ours(&bridge::TABLE, "")),
            column: bridge::PORTS,
            member: ours(&port::TABLE, role).into(),
        });
    }
    output.contributions.push(in_root(ours(&bridge::TABLE, "")));
    (owner, output)
}

/// UUID of an owner's Interface.
pub fn interface_uuid(owner: &Owner) -> Uuid {
    row_uuid(interface::TABLE.name, owner, "")
}

/// A port of a bridge with one interface of the same name.
fn port_rows(
    owner: &Owner,
    (name, bridge): (&str, &str),
    port: Vec<(ColumnId, Want)>,
    interface: Vec<(ColumnId, Want)>,
) -> Output {
    let ours = |table: &'static TableDesc| row_uuid(table.name, owner, "");
    let mut port_columns = vec![exactly(port::name(name)), exactly(port::interfaces([ours(&interface::TABLE)]))];
    port_columns.extend(port);
    let mut interface_columns = vec![exactly(interface::name(name))];
    interface_columns.extend(interface);
    let row =
        |table: &'static TableDesc, columns| DesiredRow { zone: Zone(0), table, id: RowId::Ours(ours(table)), columns };
    Output {
        rows: vec![row(&port::TABLE, port_columns), row(&interface::TABLE, interface_columns)],
        contributions: vec![in_bridge(bridge, ours(&port::TABLE))],
        diagnostics: Vec::new(),
    }
}

fn in_bridge(bridge: &str, port: Uuid) -> Contribution {
    Contribution {
        zone: Zone(0),
        table: &bridge::TABLE,
        row: bridge_id(bridge),
        column: bridge::PORTS,
        member: port.into(),
    }
}

fn in_root(bridge: Uuid) -> Contribution {
    Contribution {
        zone: Zone(0),
        table: &open_vswitch::TABLE,
        row: root_id(),
        column: open_vswitch::BRIDGES,
        member: bridge.into(),
    }
}

fn root_id() -> RowId {
    RowId::Singleton(row_uuid(open_vswitch::TABLE.name, &Chassis::owner(), ""))
}

/// The bridge of a name, whoever made it.
fn bridge_id(name: &str) -> RowId {
    let uuid = row_uuid(bridge::TABLE.name, &Chassis::owner(), name);
    RowId::Named { column: bridge::NAME, value: name.into(), uuid }
}

fn exactly((column, value): (ColumnId, Datum)) -> (ColumnId, Want) {
    (column, Want::Exactly(value))
}

fn keys<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Vec<(Atom, Option<Atom>)> {
    let mut all: Vec<_> = pairs.into_iter().map(|(k, v)| (Atom::from(k), Some(Atom::from(v)))).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
