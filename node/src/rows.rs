//! What this node wants of Open_vSwitch: pure functions from plain values to rows, and back from a row to the attachment that
//! it was made for.
//!
//! ```text
//! Chassis --> Open_vSwitch (our keys), Bridge br-int with its local port
//! ManagementPort --> Port, Interface (internal)        PodPort <--> Port, Interface, QoS
//! ```
//!
//! An Interface carries everything that a later daemon must know of its attachment, so nothing is kept elsewhere. Must not: do
//! I/O; name a row's UUID other than by `row_uuid`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use ovenbird_api::annotation::PARENT_PORT;
use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_api::name::{INTEGRATION_BRIDGE, MANAGEMENT_INTERFACE, lsp_name, management_port};
use ovenbird_api::nested::MANAGEMENT_TAG;
use ovenbird_api::{Mac, PodNetwork};
use ovenbird_cni_server::Attachment;
use ovenbird_reconcile::{Contribution, DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::vswitch::{bridge, datapath, interface, open_vswitch, port, qos};
use ovsdb::{Atom, ColumnId, Datum, TableDesc, Uuid};

use crate::gateway::discover;
use crate::net::NetnsId;
use crate::plug::Entered;
use crate::underlay::Mapped;

/// Owner of the chassis settings and of br-int.
pub const CHASSIS: OwnerKind = OwnerKind { rank: 0, name: "Chassis" };
/// Owner of what is wanted of a VM's bridge: key is its name.
pub const TRUNK: OwnerKind = OwnerKind { rank: 0, name: "Trunk" };
/// Owner of the management port.
pub const MANAGEMENT: OwnerKind = OwnerKind { rank: 10, name: "ManagementPort" };
/// Owner of a bridge for the NIC of a physical network, by the NIC.
pub const PROVIDER: OwnerKind = OwnerKind { rank: 5, name: "ProviderBridge" };
/// Owner of a pod's port: key `<container id>/<interface>`.
pub const SANDBOX: OwnerKind = OwnerKind { rank: 20, name: "Sandbox" };

/// Key of Open_vSwitch:external_ids: physical networks and their bridges (ovn-controller(8)).
pub const BRIDGE_MAPPINGS: &str = "ovn-bridge-mappings";

/// Key of Open_vSwitch:external_ids: those of the mappings that are ProviderNetworks', so that they can be taken out again.
pub const PROVIDER_MAPPINGS: &str = "ovenbird.io/provider-networks";

/// Key of Open_vSwitch:external_ids: Networks that have pods here, with the first one's port each. ovn-controller of OVN 23.03 overlooks the
/// localnet port of a switch that comes to a chassis with a pod, and tunnels the switch's broadcasts, which other chassis put on the wire
/// again; a change of this row makes it look at everything anew.
pub const ENTERED: &str = "ovenbird.io/networks";

/// Key of Bridge:external_ids: the NIC for which we made it.
pub const MADE_FOR: &str = "ovenbird.io/made-for";

/// Key of Datapath:capabilities that ovn-controller reads: connections may be committed with a source address of zero, to keep their own.
/// In user space such a connection is kept twice under one key until OVS 3.1.3, and 3.2.3 of 3.2 ("conntrack: Remove nat_conn introducing key
/// directionality"), and a packet that finds the wrong one is an assertion that fails.
const ZERO_SNAT: &str = "ct_zero_snat";

const IFNAME: &str = "ovenbird.io/ifname";
const NETNS: &str = "ovenbird.io/netns";
const NETNS_ID: &str = "ovenbird.io/netns-id";
const VLAN_TAG: &str = "ovenbird.io/tag";
const INGRESS: &str = "ovenbird.io/ingress-bandwidth";
const EGRESS: &str = "ovenbird.io/egress-bandwidth";

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
    /// Networks that have pods here, each with what changes when one comes anew (see [`ENTERED`]).
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

/// An attachment of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Sandbox and interface.
    pub attachment: Attachment,
    /// Path of the sandbox's network namespace.
    pub netns: PathBuf,
    /// Its identity.
    pub netns_id: NetnsId,
    /// `<namespace>_<pod>`: name of the Logical_Switch_Port.
    pub lsp: String,
    /// UID of the pod in the API.
    pub uid: String,
    /// MAC.
    pub mac: Mac,
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Limits.
    pub bandwidth: Bandwidth,
    /// On a nested node: VLAN.
    pub tag: Option<u16>,
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
        out.contributions.push(Contribution {
            zone: Zone(0),
            table: &open_vswitch::TABLE,
            row: root_id(),
            column: open_vswitch::BRIDGES,
            member: local(&bridge::TABLE).into(),
        });
        out.contributions.push(in_bridge(INTEGRATION_BRIDGE, local(&port::TABLE)));
        out
    }

    fn external_ids(&self, known: &Known) -> Vec<(Atom, Option<Atom>)> {
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
        let entered: Vec<String> = self.entered.iter().map(|(network, port)| format!("{network}={port}")).collect();
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
    output.contributions.push(Contribution {
        zone: Zone(0),
        table: &open_vswitch::TABLE,
        row: root_id(),
        column: open_vswitch::BRIDGES,
        member: ours(&bridge::TABLE, "").into(),
    });
    (owner, output)
}

/// Parts of a text with commas, without the empty ones.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
}

/// UUID of an owner's Interface.
pub fn interface_uuid(owner: &Owner) -> Uuid {
    row_uuid(interface::TABLE.name, owner, "")
}

impl PodPort {
    /// The attachment of a pod with a network of its own.
    pub fn new(
        attachment: Attachment,
        netns: (PathBuf, NetnsId),
        pod: (&str, &str, &str),
        network: &PodNetwork,
        bandwidth: Bandwidth,
    ) -> PodPort {
        let (namespace, name, uid) = pod;
        PodPort {
            attachment,
            netns: netns.0,
            netns_id: netns.1,
            lsp: lsp_name(namespace, name),
            uid: uid.to_owned(),
            mac: network.mac,
            addresses: network.addresses.clone(),
            bandwidth,
            tag: network.tag,
        }
    }

    /// Owner of the rows of an attachment.
    pub fn owner_of(attachment: &Attachment) -> Owner {
        Owner::new(SANDBOX, format!("{}/{}", attachment.container_id, attachment.ifname))
    }

    /// Name of the host end: `ov` and the first 12 digits of the row's identity, which fit in 15 bytes and differ between attachments.
    pub fn host_name(attachment: &Attachment) -> String {
        let text = row_uuid(port::TABLE.name, &PodPort::owner_of(attachment), "").simple().to_string();
        format!("ov{}", &text[..12])
    }

    /// Namespace and name of the pod. Neither contains `_`.
    pub fn pod(&self) -> (&str, &str) {
        self.lsp.split_once('_').unwrap_or(("", &self.lsp))
    }

    /// The rows, on OVN's integration bridge.
    pub fn output(&self) -> Output {
        self.output_in(INTEGRATION_BRIDGE, None)
    }

    /// The rows: a port of a bridge, in a VLAN.
    pub fn output_in(&self, bridge: &str, tag: Option<u16>) -> Output {
        let owner = PodPort::owner_of(&self.attachment);
        let mut interface_columns = vec![(interface::EXTERNAL_IDS, Want::Keys(keys(self.external_ids()).into()))];
        // Both in kilobits per second; the burst is a tenth, as ovn-kubernetes has it.
        if let Some(rate) = self.bandwidth.egress.map(|bits| i64::try_from(bits / 1000).unwrap_or(i64::MAX)) {
            interface_columns.push(exactly(interface::ingress_policing_rate(rate)));
            interface_columns.push(exactly(interface::ingress_policing_burst((rate / 10).max(1))));
        }
        let mut port_columns = vec![(port::OTHER_CONFIG, Want::Keys(keys([("transient", "true".to_owned())]).into()))];
        let queue = row_uuid(qos::TABLE.name, &owner, "");
        port_columns.extend(self.bandwidth.ingress.map(|_| exactly(port::qos(Some(queue)))));
        port_columns.extend(tag.map(|tag| exactly(port::tag(Some(i64::from(tag))))));
        let place = (&*PodPort::host_name(&self.attachment), bridge);
        let mut out = port_rows(&owner, place, port_columns, interface_columns);
        if let Some(bits) = self.bandwidth.ingress {
            out.rows.push(DesiredRow {
                zone: Zone(0),
                table: &qos::TABLE,
                id: RowId::Ours(queue),
                columns: vec![
                    exactly(qos::type_("linux-htb")),
                    exactly(qos::other_config([("max-rate", bits.to_string())])),
                    (qos::EXTERNAL_IDS, Want::Keys(keys([("sandbox", self.attachment.container_id.clone())]).into())),
                ],
            });
        }
        out
    }

    /// What an Interface of ours says of its attachment; `None` when it is none of a pod, or when keys are missing.
    pub fn from_interface(row: interface::Ref<'_>) -> Option<PodPort> {
        let ids = row.external_ids();
        PodPort::from_ids(|key| ids.get(key))
    }

    /// An attachment from what [`PodPort::external_ids`] said of it.
    pub fn from_ids<'a>(get: impl Fn(&'static str) -> Option<&'a str>) -> Option<PodPort> {
        let text = |key| get(key).map(str::to_owned);
        let bits = |key| get(key).and_then(|v| v.parse().ok());
        let (dev, ino) = get(NETNS_ID)?.split_once(':')?;
        Some(PodPort {
            attachment: Attachment { container_id: text("sandbox")?, ifname: text(IFNAME)? },
            netns: text(NETNS)?.into(),
            netns_id: NetnsId { dev: dev.parse().ok()?, ino: ino.parse().ok()? },
            lsp: text("iface-id")?,
            uid: text("iface-id-ver")?,
            mac: get("attached_mac")?.parse().ok()?,
            addresses: get("ip_addresses")?.split(',').map(|a| a.parse().ok()).collect::<Option<_>>()?,
            bandwidth: Bandwidth { ingress: bits(INGRESS), egress: bits(EGRESS) },
            tag: get(VLAN_TAG).and_then(|v| v.parse().ok()),
        })
    }

    /// All that a later daemon must know of it, as external_ids.
    pub fn external_ids(&self) -> Vec<(&'static str, String)> {
        let addresses: Vec<String> = self.addresses.iter().map(IpNet::to_string).collect();
        let mut ids = vec![
            ("attached_mac", self.mac.to_string()),
            ("iface-id", self.lsp.clone()),
            ("iface-id-ver", self.uid.clone()),
            ("ip_addresses", addresses.join(",")),
            ("sandbox", self.attachment.container_id.clone()),
            (IFNAME, self.attachment.ifname.clone()),
            (NETNS, self.netns.to_string_lossy().into_owned()),
            (NETNS_ID, format!("{}:{}", self.netns_id.dev, self.netns_id.ino)),
        ];
        ids.extend(self.bandwidth.ingress.map(|bits| (INGRESS, bits.to_string())));
        ids.extend(self.bandwidth.egress.map(|bits| (EGRESS, bits.to_string())));
        ids.extend(self.tag.map(|tag| (VLAN_TAG, tag.to_string())));
        ids
    }
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

fn root_id() -> RowId {
    RowId::Singleton(row_uuid(open_vswitch::TABLE.name, &Chassis::owner(), ""))
}

/// The bridge of a name, whoever made it.
fn bridge_id(name: &str) -> RowId {
    let uuid = row_uuid(bridge::TABLE.name, &Chassis::owner(), name);
    RowId::Named { column: bridge::NAME, value: name.into(), uuid }
}

/// A row of br-int's name, whoever made it.
fn named_id(table: &'static TableDesc, column: ColumnId, owner: &Owner) -> RowId {
    RowId::Named { column, value: INTEGRATION_BRIDGE.into(), uuid: row_uuid(table.name, owner, INTEGRATION_BRIDGE) }
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
