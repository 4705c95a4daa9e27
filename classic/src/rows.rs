//! Rows of Open_vSwitch: obr0 with its ports. Rows of these names that others made are taken as they are, and given what is missing.
//!
//! Must not: name a row's UUID other than by `row_uuid`.

use std::net::IpAddr;

use ovenbird_api::mark;
use ovenbird_reconcile::{Contribution, DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::vswitch::{bridge, interface, open_vswitch, port};
use ovsdb::{Atom, ColumnId, Datum, TableDesc, Uuid};

use crate::fabric::{Existing, Fabric};
use crate::settings::{Attach, Variant};

/// Owner of obr0 and of what joins it with kbr0.
pub const FABRIC: OwnerKind = OwnerKind { rank: 0, name: "Fabric" };
/// Owner of a tunnel port; its key is the peer's name, empty for the port that flows steer.
pub const TUNNEL: OwnerKind = OwnerKind { rank: 10, name: "Tunnel" };

/// Numbers of the ports, as the Kubernetes guide has them.
const ATTACH_PORT: i64 = 9;
const TUNNEL_PORT: i64 = 10;
/// Steps of STP and RSTP priorities.
const PRIORITY_STEP: usize = 0x1000;
/// What a bridge has that nobody prefers.
const PRIORITY_DEFAULT: usize = 0x8000;

impl Fabric {
    /// Owner of [`Fabric::rows`].
    pub fn owner() -> Owner {
        Owner::new(FABRIC, "")
    }

    /// obr0, and the port that joins it with kbr0.
    pub fn rows(&self) -> Output {
        let (name, owner) = (self.settings.ovs_bridge.as_str(), Fabric::owner());
        let mut output = Output::default();
        let mut columns = vec![
            exactly(bridge::name(name)),
            exactly(bridge::fail_mode(Some(bridge::FailMode::Secure))),
            exactly(bridge::stp_enable(self.settings.variant == Variant::Stp)),
            exactly(bridge::rstp_enable(self.settings.variant == Variant::Rstp)),
            (bridge::OTHER_CONFIG, Want::Keys(self.tree().into())),
            (bridge::EXTERNAL_IDS, Want::Keys(self.mark().into())),
            (bridge::PORTS, Want::Members),
        ];
        if self.userspace {
            columns.push(exactly(bridge::datapath_type("netdev")));
        }
        output.rows.push(DesiredRow {
            zone: Zone(0),
            table: &open_vswitch::TABLE,
            id: root(),
            columns: vec![(open_vswitch::BRIDGES, Want::Members)],
        });
        output.rows.push(named(&bridge::TABLE, bridge::NAME, name, &owner, columns));
        output.contributions.push(Contribution {
            zone: Zone(0),
            table: &open_vswitch::TABLE,
            row: root(),
            column: open_vswitch::BRIDGES,
            member: row_uuid(bridge::TABLE.name, &owner, name).into(),
        });
        let mtu = exactly(interface::mtu_request(Some(i64::from(self.mtu))));
        let internal = exactly(interface::type_("internal"));
        let number = exactly(interface::ofport_request(Some(ATTACH_PORT)));
        self.add_port(&mut output, &owner, name, vec![internal.clone(), mtu.clone()]);
        if let Some(port) = self.attachment().port {
            let columns = if self.settings.attach == Attach::Veth { vec![number] } else { vec![internal, mtu, number] };
            self.add_port(&mut output, &owner, port, columns);
        }
        output
    }

    /// The tunnel ports: owners, names and rows. Ports of `existing` keep their names.
    pub fn tunnels(&self, existing: &Existing) -> Vec<(Owner, String, Output)> {
        let tunnel = |key: &str, remote: Option<IpAddr>, default: String| {
            let (owner, name) = (Owner::new(TUNNEL, key), existing.get(&remote).cloned().unwrap_or(default));
            let mut output = Output::default();
            let remote_ip = remote.map_or_else(|| "flow".to_owned(), |ip| ip.to_string());
            let options = [("key", self.settings.key.map(|key| key.to_string())), ("remote_ip", Some(remote_ip))];
            let options = options.map(|(key, value)| (Atom::from(key), value.map(Atom::from)));
            let mut columns = vec![
                exactly(interface::type_(self.settings.tunnel.as_str())),
                (interface::OPTIONS, Want::Keys(options.into())),
                (interface::EXTERNAL_IDS, Want::Keys([(mark::PEER.into(), Some(key.into()))].into())),
            ];
            if remote.is_none() {
                columns.push(exactly(interface::ofport_request(Some(TUNNEL_PORT))));
            }
            self.add_port(&mut output, &owner, &name, columns);
            (owner, name, output)
        };
        let kind = self.settings.tunnel.as_str();
        if self.settings.variant == Variant::Flow {
            return vec![tunnel("", None, format!("{kind}0"))];
        }
        let of_peer = |name: &str| {
            // The first digits of the row's identity: names of interfaces have 15 characters.
            let text = row_uuid(port::TABLE.name, &Owner::new(TUNNEL, name), "").simple().to_string();
            format!("{}-{}", &kind[..3], &text[..8])
        };
        self.links().into_iter().map(|peer| tunnel(&peer.name, Some(peer.address), of_peer(&peer.name))).collect()
    }

    /// What `ovenbird status network` reads.
    fn mark(&self) -> Vec<(Atom, Option<Atom>)> {
        let peers: Vec<String> = self.peers.iter().map(|peer| format!("{}={}", peer.name, peer.address)).collect();
        let network = format!("classic {}", self.settings.variant.as_str());
        let keys = [(mark::NETWORK, network), (mark::PEERS, peers.join(" "))];
        keys.map(|(key, value)| (Atom::from(key), Some(Atom::from(value)))).into()
    }

    /// The first node by name is the root of the tree, the second is next; the others leave it to their MACs. OVS would give all nodes one MAC,
    /// made from the bridge's name, as internal ports and tunnels have none that count.
    fn tree(&self) -> Vec<(Atom, Option<Atom>)> {
        let priority = match self.place() {
            place @ 0..=1 => (place + 1) * PRIORITY_STEP,
            _ => PRIORITY_DEFAULT,
        };
        let of = |variant| self.settings.variant == variant;
        let delay = self.settings.forward_delay.map(|seconds| seconds.to_string());
        let keys = [
            ("hwaddr", self.own.switch_mac().map(|mac| mac.to_string())),
            ("rstp-forward-delay", delay.clone().filter(|_| of(Variant::Rstp))),
            ("rstp-priority", of(Variant::Rstp).then(|| priority.to_string())),
            ("stp-forward-delay", delay.filter(|_| of(Variant::Stp))),
            ("stp-priority", of(Variant::Stp).then(|| priority.to_string())),
        ];
        keys.map(|(key, value)| (Atom::from(key), value.map(Atom::from))).into()
    }

    /// A port of obr0 with one interface of the same name.
    fn add_port(&self, output: &mut Output, owner: &Owner, name: &str, columns: Vec<(ColumnId, Want)>) {
        let own = |table: &'static TableDesc| row_uuid(table.name, owner, name);
        let mut interface_columns = vec![exactly(interface::name(name))];
        interface_columns.extend(columns);
        let port_columns = vec![exactly(port::name(name)), exactly(port::interfaces([own(&interface::TABLE)]))];
        output.rows.push(named(&port::TABLE, port::NAME, name, owner, port_columns));
        output.rows.push(named(&interface::TABLE, interface::NAME, name, owner, interface_columns));
        let bridge = self.settings.ovs_bridge.as_str();
        output.contributions.push(Contribution {
            zone: Zone(0),
            table: &bridge::TABLE,
            row: by_name(bridge::NAME, bridge, row_uuid(bridge::TABLE.name, &Fabric::owner(), bridge)),
            column: bridge::PORTS,
            member: own(&port::TABLE).into(),
        });
    }
}

fn named(
    table: &'static TableDesc,
    column: ColumnId,
    name: &str,
    owner: &Owner,
    mut columns: Vec<(ColumnId, Want)>,
) -> DesiredRow {
    columns.sort_by_key(|(column, _)| *column);
    DesiredRow { zone: Zone(0), table, id: by_name(column, name, row_uuid(table.name, owner, name)), columns }
}

/// A row of this name, whoever made it.
fn by_name(column: ColumnId, name: &str, uuid: Uuid) -> RowId {
    RowId::Named { column, value: name.into(), uuid }
}

/// The one row of Open_vSwitch, which every installation has.
fn root() -> RowId {
    RowId::Singleton(row_uuid(open_vswitch::TABLE.name, &Fabric::owner(), ""))
}

fn exactly((column, value): (ColumnId, Datum)) -> (ColumnId, Want) {
    (column, Want::Exactly(value))
}
