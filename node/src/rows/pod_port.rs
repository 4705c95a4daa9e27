//! A pod's port, from plain values to rows, and back from a row to the attachment that it was made for.
//!
//! An Interface carries everything that a later daemon must know of its attachment, so nothing is kept elsewhere. Must not: ask the kernel.

use std::path::PathBuf;

use ipnet::IpNet;
use ovenbird_api::bandwidth::Bandwidth;
use ovenbird_api::name::{INTEGRATION_BRIDGE, lsp_name};
use ovenbird_api::{Mac, PodNetwork};
use ovenbird_cni_server::Attachment;
use ovenbird_reconcile::{DesiredRow, Output, Owner, OwnerKind, RowId, Want, Zone, row_uuid};
use ovenbird_schema::vswitch::{interface, port, qos};

use super::{exactly, keys, port_rows};
use crate::net::NetnsId;

/// Owner of a pod's port: key `<container id>/<interface>`.
pub const SANDBOX: OwnerKind = OwnerKind { rank: 20, name: "Sandbox" };

const IFNAME: &str = "ovenbird.io/ifname";
const NETNS: &str = "ovenbird.io/netns";
const NETNS_ID: &str = "ovenbird.io/netns-id";
const NETWORK: &str = "ovenbird.io/network";
const VLAN_TAG: &str = "ovenbird.io/tag";
const INGRESS: &str = "ovenbird.io/ingress-bandwidth";
const EGRESS: &str = "ovenbird.io/egress-bandwidth";

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
    /// Addresses; none when a DHCP server gives them.
    pub addresses: Vec<IpNet>,
    /// The Network that it is on, unless that is the node's.
    pub on: Option<String>,
    /// Limits.
    pub bandwidth: Bandwidth,
    /// On a nested node: VLAN.
    pub tag: Option<u16>,
}

impl PodPort {
    /// The attachment of a pod with a network of its own.
    pub fn new(
        attachment: Attachment,
        netns: (PathBuf, NetnsId),
        pod: (&str, &str, &str),
        (network, on): (&PodNetwork, Option<&str>),
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
            on: on.map(str::to_owned),
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
        let texts = get("ip_addresses")?.split(',').filter(|text| !text.is_empty());
        let (dev, ino) = get(NETNS_ID)?.split_once(':')?;
        Some(PodPort {
            attachment: Attachment { container_id: text("sandbox")?, ifname: text(IFNAME)? },
            netns: text(NETNS)?.into(),
            netns_id: NetnsId { dev: dev.parse().ok()?, ino: ino.parse().ok()? },
            lsp: text("iface-id")?,
            uid: text("iface-id-ver")?,
            mac: get("attached_mac")?.parse().ok()?,
            addresses: texts.map(|a| a.parse().ok()).collect::<Option<_>>()?,
            on: text(NETWORK),
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
        ids.extend(self.on.clone().map(|network| (NETWORK, network)));
        ids.extend(self.bandwidth.ingress.map(|bits| (INGRESS, bits.to_string())));
        ids.extend(self.bandwidth.egress.map(|bits| (EGRESS, bits.to_string())));
        ids.extend(self.tag.map(|tag| (VLAN_TAG, tag.to_string())));
        ids
    }
}
