//! Bridges as Open_vSwitch has them: ports, numbers, VLAN, datapath.
//!
//! In: the replica. Out: plain values. Must not: judge which bridge is meant (`discover`).

use std::collections::BTreeMap;

use ovenbird_api::name::{INTEGRATION_BRIDGE, PATCH_FROM_INTEGRATION};
use ovenbird_schema::vswitch::{bridge, interface, port};
use ovsdb::Replica;

use crate::rows::MADE_FOR;

/// A bridge other than br-int.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// `datapath_type` is `netdev`.
    pub userspace: bool,
    /// `external_ids:bridge-uplink`: name of the uplink's port, where the operator says it.
    pub uplink: Option<String>,
    /// The NIC for which a node daemon made it (see `underlay`).
    pub made_for: Option<String>,
    /// Its ports, with that of its own name (the host's), by name.
    pub ports: BTreeMap<String, BridgePort>,
}

/// A port of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// `tag`: the VLAN that it is in.
    pub vlan: Option<u16>,
    /// Number of its interfaces; more than one makes a bond.
    pub interfaces: usize,
    /// `type` of the interface, empty for one of the system.
    pub kind: String,
    /// `options:remote_ip` of a tunnel: an address, or `flow`.
    pub remote: Option<String>,
    /// Number in OpenFlow, once vswitchd has given one.
    pub ofport: Option<u16>,
}

/// All bridges but br-int, by name.
pub fn read(replica: &Replica) -> BTreeMap<String, Bridge> {
    let all = replica.rows(&bridge::TABLE).map(|(_, row)| bridge::Ref(row));
    all.filter(|row| row.name() != INTEGRATION_BRIDGE)
        .map(|row| (row.name().to_owned(), of_row(replica, row)))
        .collect()
}

/// Ports of br-int by which it is on physical networks, by localnet port: their numbers in OpenFlow, once they have one.
pub fn localnets(replica: &Replica) -> BTreeMap<String, u16> {
    let all = replica.rows(&interface::TABLE).map(|(_, row)| interface::Ref(row));
    all.filter_map(|row| {
        let localnet = row.name().strip_prefix(PATCH_FROM_INTEGRATION)?;
        Some((localnet.to_owned(), u16::try_from(row.ofport()?).ok()?))
    })
    .collect()
}

fn of_row(replica: &Replica, row: bridge::Ref<'_>) -> Bridge {
    let ports = row.ports().filter_map(|uuid| replica.row(&port::TABLE, &uuid)).map(port::Ref);
    Bridge {
        userspace: row.datapath_type() == "netdev",
        uplink: row.external_ids().get("bridge-uplink").map(str::to_owned),
        made_for: row.external_ids().get(MADE_FOR).map(str::to_owned),
        ports: ports.map(|port| (port.name().to_owned(), of_port(replica, port))).collect(),
    }
}

fn of_port(replica: &Replica, row: port::Ref<'_>) -> BridgePort {
    let first = row.interfaces().next().and_then(|uuid| replica.row(&interface::TABLE, &uuid)).map(interface::Ref);
    BridgePort {
        vlan: row.tag().and_then(|tag| u16::try_from(tag).ok()),
        interfaces: row.interfaces().count(),
        kind: first.map(|i| i.type_().to_owned()).unwrap_or_default(),
        remote: first.and_then(|i| i.options().get("remote_ip").map(str::to_owned)),
        // -1 is a port that could not be made.
        ofport: first.and_then(interface::Ref::ofport).and_then(|n| u16::try_from(n).ok()),
    }
}
