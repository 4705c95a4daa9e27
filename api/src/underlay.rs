//! Physical networks beside the overlay, as their objects have them: `ProviderNetwork` and `Network` of `ovenbird.io/v1alpha1`.
//!
//! ```text
//! ProviderNetwork   a name for a physical network, and on which bridge or NIC of which nodes it is; what became of that, by node
//! Network           a VLAN of a ProviderNetwork with its subnets and gateway, and the namespaces whose pods are on it
//! ```
//!
//! Inputs: JSON of these objects. Outputs: plain values, texts not judged. The namespaces' selector is Kubernetes' own type, so
//! [`NetworkSpec`] leaves it to a type parameter. Must not: know who is selected.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// API group of both kinds.
pub const GROUP: &str = "ovenbird.io";
/// Version of both kinds.
pub const VERSION: &str = "v1alpha1";
/// Kind of [`ProviderNetworkSpec`].
pub const PROVIDER_NETWORK: &str = "ProviderNetwork";
/// Its plural, as paths have it.
pub const PROVIDER_NETWORKS: &str = "providernetworks";
/// Kind of [`NetworkSpec`].
pub const NETWORK: &str = "Network";
/// Its plural.
pub const NETWORKS: &str = "networks";

/// `spec` of a ProviderNetwork. Its name is `network_name` of localnet ports and stands in `ovn-bridge-mappings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProviderNetworkSpec {
    /// Where it is on nodes; of several entries that fit a node the first counts.
    pub nodes: Vec<Uplink>,
    /// MTU of the physical network, in bytes.
    pub mtu: Option<u32>,
}

/// Where a physical network is on some nodes: a bridge or a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Uplink {
    /// Labels that a node must have; without any, every node is meant.
    pub node_selector: BTreeMap<String, String>,
    /// An OVS bridge that the operator has made.
    pub bridge: Option<String>,
    /// A NIC that is put into a bridge of its own.
    pub interface: Option<String>,
}

impl ProviderNetworkSpec {
    /// What is meant for a node with these labels.
    pub fn on<'a, 'b>(&'a self, label: impl Fn(&str) -> Option<&'b str>) -> Option<&'a Uplink> {
        let fits = |uplink: &&Uplink| uplink.node_selector.iter().all(|(key, value)| label(key) == Some(value));
        self.nodes.iter().find(fits)
    }
}

/// `status` of a ProviderNetwork.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderNetworkStatus {
    /// By the name of each node that is meant; written by that node.
    pub nodes: BTreeMap<String, NodeStatus>,
}

/// What became of a physical network on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Pods of the node can be on it.
    pub ready: bool,
    /// The bridge, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Why not, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `spec` of a Network; `S` is a label selector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de> + Default"))]
pub struct NetworkSpec<S> {
    /// The physical network that it is on.
    pub provider_network: String,
    /// VLAN there, 1 to 4094; absent or 0 for frames without a tag.
    pub vlan: Option<u16>,
    /// Where pods' addresses are from.
    pub addresses: AddressSource,
    /// Subnets: one, or one of each family; with [`AddressSource::Dhcp`] the IPv4 one that the server serves.
    pub subnets: Vec<String>,
    /// Who routes.
    pub gateway: Gateway,
    /// Addresses and ranges `FIRST-LAST` that no pod gets.
    #[serde(rename = "excludeIPs")]
    pub exclude_ips: Vec<String>,
    /// MTU of pods, in bytes, instead of what follows from the ProviderNetwork.
    pub mtu: Option<u32>,
    /// Whether addresses are probed on the network before a pod has them; absent for yes.
    pub probe_addresses: Option<bool>,
    /// Namespaces whose pods are on it.
    pub namespace_selector: Option<S>,
    /// The pods of all other namespaces are on it, too.
    #[serde(rename = "default")]
    pub is_default: bool,
}

/// Where the addresses of a Network's pods are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AddressSource {
    /// The master chooses them.
    #[default]
    Pool,
    /// A DHCP server on the network gives them (RFC 2131).
    #[serde(rename = "DHCP")]
    Dhcp,
}

/// `status` of a Network, without its conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkStatus {
    /// By address: who has it that is none of our pods; written by the node that has found it. No pod gets it.
    pub in_use: BTreeMap<String, Holder>,
}

/// Who has an address of a Network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// Its MAC.
    pub mac: String,
    /// The node that has heard of it.
    pub node: String,
    /// When it did last, as RFC 3339 has it.
    pub seen: String,
}

/// Who routes what leaves a Network: at most one address of each family for either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// A router of the physical network: the pods' default gateway.
    pub physical: Vec<String>,
    /// Addresses that OVN's router gets on the network: the way to the cluster's other networks, and without a physical gateway the default one.
    pub ovn: Vec<String>,
}

/// Addresses from the first to the last, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    /// The first.
    pub first: IpAddr,
    /// The last; not before the first.
    pub last: IpAddr,
}

/// A text that is neither an address nor two with `-` between them, in order and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a range such as 192.168.100.1-192.168.100.20")]
pub struct RangeError;

impl FromStr for IpRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<IpRange, RangeError> {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| RangeError);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (parse(first)?, parse(last)?);
        let ordered = first.is_ipv4() == last.is_ipv4() && first <= last;
        if ordered { Ok(IpRange { first, last }) } else { Err(RangeError) }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for text in ["192.168.100.1", "192.168.100.1-192.168.100.20", "fd00::1-fd00::ff"] {
            assert_eq!(text.parse::<IpRange>().unwrap().to_string(), text);
        }
        for text in ["", "-", "192.168.100.2-192.168.100.1", "192.168.100.1-fd00::1", "192.168.100.0/24"] {
            assert_eq!(text.parse::<IpRange>(), Err(RangeError), "{text}");
        }
    }

    #[test]
    fn the_first_entry_that_fits_a_node_counts() {
        let spec: ProviderNetworkSpec = serde_json::from_str(
            r#"{"nodes":[{"nodeSelector":{"rack":"a"},"bridge":"br-fabric"},{"interface":"eth1"}],"mtu":9000,"more":1}"#,
        )
        .unwrap();
        let on = |rack: Option<&'static str>| spec.on(|key| rack.filter(|_| key == "rack")).cloned().unwrap();
        assert_eq!(on(Some("a")).bridge.as_deref(), Some("br-fabric"));
        assert_eq!(on(Some("b")).interface.as_deref(), Some("eth1"));
        assert_eq!(on(None).interface.as_deref(), Some("eth1"));
    }
}
