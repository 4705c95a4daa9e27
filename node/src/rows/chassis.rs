//! What the node wants of the host as a whole: settings for ovn-controller, and br-int.
//!
//! In: plain values, and what Open_vSwitch says now. Out: rows, keys of others untouched. Must not: drop a mapping that is not ours.

use std::net::IpAddr;

use ovenbird_api::name::INTEGRATION_BRIDGE;
use ovenbird_reconcile::{DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::vswitch::{bridge, datapath, interface, open_vswitch, port};
use ovsdb::{Atom, ColumnId, TableDesc};

use super::{exactly, in_bridge, in_root, keys, root_id};
use crate::gateway::discover;
use crate::plug::Entered;
use crate::underlay::Mapped;

/// Owner of the chassis settings and of br-int.
pub const CHASSIS: OwnerKind = OwnerKind { rank: 0, name: "Chassis" };

/// Key of Open_vSwitch:external_ids: physical networks and their bridges (ovn-controller(8)).
pub const BRIDGE_MAPPINGS: &str = "ovn-bridge-mappings";

/// Key of Open_vSwitch:external_ids: those of the mappings that are ProviderNetworks', so that they can be taken out again.
pub const PROVIDER_MAPPINGS: &str = "ovenbird.io/provider-networks";

/// Key of Open_vSwitch:external_ids: Networks that pods have come to, each with a number that changes when one comes where none was. ovn-controller
/// of OVN 23.03 overlooks the localnet port of a switch that comes to a chassis with a pod, and tunnels the switch's broadcasts, which other
/// chassis put on the wire again; a change of this row makes it look at everything anew. So nothing is written when a daemon starts.
pub const ENTERED: &str = "ovenbird.io/networks";

/// Key of Datapath:capabilities that ovn-controller reads: connections may be committed with a source address of zero, to keep their own.
/// In user space such a connection is kept twice under one key until OVS 3.1.3, and 3.2.3 of 3.2 ("conntrack: Remove nat_conn introducing key
/// directionality"), and a packet that finds the wrong one is an assertion that fails.
const ZERO_SNAT: &str = "ct_zero_snat";

/// Settings that ovn-controller reads from `Open_vSwitch:external_ids` (ovn-controller(8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chassis {
    /// `system-id`: name of the Chassis.
    pub system_id: String,
    /// Node name, as `hostname`: what `requested-chassis` of ports names.
    pub node: String,
    /// `ovn-remote`: Southbound servers.
    pub sb_address: String,
    /// `geneve` or `vxlan`.
    pub encap_type: &'static str,
    /// Tunnel endpoint.
    pub encap_ip: IpAddr,
    /// `ovn-bridge-mappings`; `None` for those that are there.
    pub bridge_mappings: Option<String>,
    /// External bridge of the gateway, which is added to the mappings.
    pub external_bridge: Option<String>,
    /// Bridges of ProviderNetworks, which are added to the mappings; `None` leaves those that are there.
    pub providers: Mapped,
    /// What is to stand under [`ENTERED`]; empty leaves what is there.
    pub entered: Entered,
    /// `ovn-monitor-all`.
    pub monitor_all: bool,
    /// True when OVS forwards in user space (`ovn-bridge-datapath-type=netdev`).
    pub userspace: bool,
}

/// What Open_vSwitch says that the rows of a [`Chassis`] depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// `ovn-bridge-mappings`.
    pub mappings: Option<String>,
    /// [`PROVIDER_MAPPINGS`].
    pub provider_mappings: Option<String>,
    /// There is one Datapath, of an OVS whose userspace connection tracking ends ovs-vswitchd on [`ZERO_SNAT`].
    pub fragile: bool,
}

impl Chassis {
    /// Owner of these rows.
    pub fn owner() -> Owner {
        Owner::new(CHASSIS, "")
    }

    /// The rows.
    pub fn output(&self, known: &Known) -> Output {
        let owner = Chassis::owner();
        let named = |table: &'static TableDesc, column, columns| DesiredRow {
            zone: Zone(0),
            table,
            id: named_id(table, column, &owner),
            columns,
        };
        let local = |table: &'static TableDesc| row_uuid(table.name, &owner, INTEGRATION_BRIDGE);
        let mut bridge_columns = vec![
            exactly(bridge::name(INTEGRATION_BRIDGE)),
            exactly(bridge::fail_mode(Some(bridge::FailMode::Secure))),
            (bridge::PORTS, Want::Members),
        ];
        if self.userspace {
            bridge_columns.push(exactly(bridge::datapath_type("netdev")));
        }
        let mut out = Output::default();
        out.rows.push(DesiredRow {
            zone: Zone(0),
            table: &open_vswitch::TABLE,
            id: root_id(),
            columns: vec![
                (open_vswitch::BRIDGES, Want::Members),
                (open_vswitch::EXTERNAL_IDS, Want::Keys(self.external_ids(known).into())),
            ],
        });
        if self.userspace && known.fragile {
            out.rows.push(DesiredRow {
                zone: Zone(0),
                table: &datapath::TABLE,
                id: RowId::Singleton(row_uuid(datapath::TABLE.name, &owner, "")),
                columns: vec![(datapath::CAPABILITIES, Want::Keys(keys([(ZERO_SNAT, "false".into())]).into()))],
            });
        }
        out.rows.push(named(&bridge::TABLE, bridge::NAME, bridge_columns));
        out.rows.push(named(
            &port::TABLE,
            port::NAME,
            vec![exactly(port::name(INTEGRATION_BRIDGE)), exactly(port::interfaces([local(&interface::TABLE)]))],
        ));
        out.rows.push(named(
            &interface::TABLE,
            interface::NAME,
            vec![exactly(interface::name(INTEGRATION_BRIDGE)), exactly(interface::type_("internal"))],
        ));
        out.contributions.push(in_root(local(&bridge::TABLE)));
        out.contributions.push(in_bridge(INTEGRATION_BRIDGE, local(&port::TABLE)));
        out
    }

    /// Our keys of Open_vSwitch:external_ids; `None` takes one out.
    pub(super) fn external_ids(&self, known: &Known) -> Vec<(Atom, Option<Atom>)> {
        let mut ids = vec![
            ("hostname", self.node.clone()),
            ("ovn-encap-ip", self.encap_ip.to_string()),
            ("ovn-encap-type", self.encap_type.into()),
            ("ovn-monitor-all", self.monitor_all.to_string()),
            ("ovn-openflow-probe-interval", "180".into()),
            ("ovn-remote", self.sb_address.clone()),
            ("ovn-remote-probe-interval", "100000".into()),
            ("system-id", self.system_id.clone()),
        ];
        let (mappings, ours) = self.mappings(known);
        let mut ids: Vec<_> = ids.drain(..).map(|(key, value)| (key, Some(value))).collect();
        ids.extend(mappings.map(|text| (BRIDGE_MAPPINGS, Some(text).filter(|text| !text.is_empty()))));
        let entered: Vec<String> = self.entered.iter().map(|(network, count)| format!("{network}={count}")).collect();
        ids.extend((!entered.is_empty()).then(|| (ENTERED, Some(entered.join(",")))));
        ids.extend(ours.map(|text| (PROVIDER_MAPPINGS, Some(text).filter(|text| !text.is_empty()))));
        let mut ids: Vec<_> = ids.into_iter().map(|(k, v)| (Atom::from(k), v.map(Atom::from))).collect();
        ids.sort_unstable();
        ids
    }

    /// `ovn-bridge-mappings`, and the part of it that is ProviderNetworks'; `None` leaves what is there, an empty text takes it out.
    fn mappings(&self, known: &Known) -> (Option<String>, Option<String>) {
        let base = self.bridge_mappings.as_deref();
        let there = base.or(known.mappings.as_deref());
        let before = known.provider_mappings.as_deref().unwrap_or_default();
        let Some(providers) = &self.providers else {
            let kept = Some(before).filter(|_| base.is_some());
            let there = there.map(|text| joined([text, kept.unwrap_or_default()]));
            let with_gateway = self.external_bridge.as_ref().map(|bridge| discover::mappings(there.as_deref(), bridge));
            return (with_gateway.or_else(|| there.filter(|_| base.is_some())), None);
        };
        let is_before = |mapping: &str| before.split(',').any(|own| own == mapping);
        let is_now = |mapping: &str| mapping.split(':').next().is_some_and(|name| providers.contains_key(name));
        let all = there.unwrap_or_default().split(',').map(str::trim);
        let others = joined(all.filter(|mapping| !is_before(mapping) && !is_now(mapping)));
        let ours = providers.iter().map(|(name, bridge)| format!("{name}:{bridge}")).collect::<Vec<_>>().join(",");
        let with_gateway = match &self.external_bridge {
            Some(bridge) => discover::mappings(Some(&others), bridge),
            None => others,
        };
        let whole = joined([&*with_gateway, &*ours]);
        let concerned = base.is_some() || self.external_bridge.is_some() || !ours.is_empty() || !before.is_empty();
        (concerned.then_some(whole), Some(ours))
    }
}

/// Parts of a text with commas, without the empty ones.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
}

/// A row of br-int's name, whoever made it.
fn named_id(table: &'static TableDesc, column: ColumnId, owner: &Owner) -> RowId {
    RowId::Named { column, value: INTEGRATION_BRIDGE.into(), uuid: row_uuid(table.name, owner, INTEGRATION_BRIDGE) }
}
