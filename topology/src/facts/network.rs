//! The facts of a Network and of the ProviderNetwork that it is on.
//!
//! What is wrong with a Network in itself makes it useless as a whole: its pods would get addresses that mean something else on the wire.
//! Must not: judge it against other networks or the cluster's own (`underlay`), or know which pods there are.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as K8sSelector, ObjectMeta};
use ovenbird_api::underlay::{AddressSource, IpRange, NetworkSpec as Spec, NetworkStatus};
use ovenbird_api::{ProviderNetworkSpec, ProviderNetworkStatus, address, name};
use ovsdb::Str;

use super::{Labels, created};
use crate::config::is_v4;
use crate::intern::Interner;
use crate::selection::{LabelSelector, Problem};

/// `spec` of a Network.
pub type NetworkSpec = Spec<K8sSelector>;

/// Largest VLAN.
const LARGEST_VLAN: u16 = 4094;
/// Prefix lengths of subnets: IPv4, IPv6.
const PREFIXES: [std::ops::RangeInclusive<u8>; 2] = [8..=30, 8..=126];
/// MTU of pods, in bytes.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65535;

/// A Network: a VLAN of a physical network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFact {
    /// `metadata.name`.
    pub name: Str,
    /// `metadata.creationTimestamp`, seconds since 1970; the older of two that conflict wins.
    pub created: i64,
    /// `spec.providerNetwork`.
    pub provider: Str,
    /// `spec.vlan`; `None` for frames without a tag.
    pub vlan: Option<u16>,
    /// `spec.addresses`: a DHCP server gives them.
    pub dhcp: bool,
    /// `spec.subnets`: one, or one of each family, IPv4 first.
    pub subnets: Box<[IpNet]>,
    /// `spec.gateway.physical`: at most one of each family.
    pub physical: Box<[IpAddr]>,
    /// `spec.gateway.ovn`: at most one of each family, with the subnet's prefix length.
    pub routers: Box<[IpNet]>,
    /// `spec.excludeIPs`.
    pub excluded: Box<[IpRange]>,
    /// Addresses that others have, by `status.inUse`, sorted.
    pub in_use: Box<[IpAddr]>,
    /// `spec.probeAddresses`.
    pub probe: bool,
    /// `spec.mtu`.
    pub mtu: Option<u32>,
    /// `spec.namespaceSelector`.
    pub namespaces: Option<LabelSelector>,
    /// `spec.default`.
    pub is_default: bool,
    /// What is wrong with it; if anything is, it has no effect.
    pub problems: Box<[Problem]>,
}

/// A ProviderNetwork: a physical network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderNetworkFact {
    /// `metadata.name`.
    pub name: Str,
    /// `spec.mtu`.
    pub mtu: Option<u32>,
    /// The nodes that say that it is there: those of `status.nodes` that are ready, sorted.
    pub ready: Box<[Str]>,
}

impl NetworkFact {
    /// The fact of a Network from its `metadata` (name, creationTimestamp), `spec` and `status`.
    pub fn new(meta: &ObjectMeta, spec: &NetworkSpec, status: &NetworkStatus, interner: &mut Interner) -> NetworkFact {
        let mut problems = Vec::new();
        let selector = spec.namespace_selector.as_ref();
        let namespaces =
            selector.map(|s| LabelSelector::from_k8s(s, "spec.namespaceSelector", interner, &mut problems));
        let mut reader = Reader { problems };
        let subnets = reader.subnets(&spec.subnets);
        let physical = reader.gateways("spec.gateway.physical", &spec.gateway.physical, &subnets);
        let routers = reader.gateways("spec.gateway.ovn", &spec.gateway.ovn, &subnets);
        let excluded = reader.ranges(&spec.exclude_ips);
        let dhcp = spec.addresses == AddressSource::Dhcp;
        if dhcp {
            reader.leave_to_server(spec, &subnets);
        }
        if spec.provider_network.is_empty() {
            reader.problem("spec.providerNetwork", "is missing; name a ProviderNetwork");
        }
        if spec.vlan.is_some_and(|vlan| vlan > LARGEST_VLAN) {
            reader.problem("spec.vlan", format!("is not from 0 to {LARGEST_VLAN}"));
        }
        if spec.mtu.is_some_and(|mtu| !MTUS.contains(&mtu)) {
            reader.problem("spec.mtu", format!("is not from {} to {}", MTUS.start(), MTUS.end()));
        }
        // What cannot be read nobody has.
        let mut in_use: Vec<IpAddr> = status.in_use.keys().filter_map(|text| text.parse().ok()).collect();
        in_use.sort_unstable();
        NetworkFact {
            name: meta.name.as_deref().unwrap_or_default().into(),
            created: created(meta),
            provider: interner.intern(&spec.provider_network),
            dhcp,
            vlan: spec.vlan.filter(|vlan| *vlan > 0),
            physical: physical.iter().map(IpNet::addr).collect(),
            routers,
            subnets,
            excluded,
            in_use: in_use.into(),
            probe: spec.probe_addresses.unwrap_or(true),
            mtu: spec.mtu,
            namespaces,
            is_default: spec.is_default,
            problems: reader.problems.into(),
        }
    }

    /// True when it is for the pods of a namespace with these labels, or for those of all that no other is for.
    pub fn admits(&self, labels: &Labels) -> bool {
        self.is_default || self.selects(labels)
    }

    /// True when it is for the pods of a namespace with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.namespaces.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// The addresses that the network itself has: its gateways.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.physical.iter().copied().chain(self.routers.iter().map(IpNet::addr))
    }
}

impl ProviderNetworkFact {
    /// The fact of a ProviderNetwork from its `metadata` (name), `spec` and `status`.
    pub fn new(
        meta: &ObjectMeta,
        spec: &ProviderNetworkSpec,
        status: &ProviderNetworkStatus,
        interner: &mut Interner,
    ) -> ProviderNetworkFact {
        let ready = status.nodes.iter().filter(|(_, node)| node.ready);
        ProviderNetworkFact {
            name: meta.name.as_deref().unwrap_or_default().into(),
            mtu: spec.mtu.filter(|mtu| MTUS.contains(mtu)),
            ready: ready.map(|(node, _)| interner.intern(node)).collect(),
        }
    }

    /// False for a name that stands for something else in `ovn-bridge-mappings`.
    pub fn is_free(name: &str) -> bool {
        name != name::PHYSICAL_NETWORK
    }
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), message: message.into() });
    }

    /// What a DHCP server decides is not said a second time.
    fn leave_to_server(&mut self, spec: &NetworkSpec, subnets: &[IpNet]) {
        if !matches!(subnets, [IpNet::V4(_)]) {
            self.problem(
                "spec.subnets",
                "is not one IPv4 subnet; with addresses DHCP write the one that the server serves, and no other",
            );
        }
        if !spec.exclude_ips.is_empty() {
            self.problem(
                "spec.excludeIPs",
                "has no meaning with addresses DHCP; remove it, and exclude addresses in the server's range",
            );
        }
        if !spec.gateway.physical.is_empty() {
            self.problem(
                "spec.gateway.physical",
                "has no meaning with addresses DHCP; remove it, and have the server name the router (option 3)",
            );
        }
    }

    fn subnets(&mut self, texts: &[String]) -> Box<[IpNet]> {
        let mut subnets: Vec<IpNet> = Vec::new();
        if texts.is_empty() {
            self.problem("spec.subnets", "is empty; write one subnet, or one of each family");
        }
        for (index, text) in texts.iter().enumerate() {
            let field = format!("spec.subnets[{index}]");
            let Ok(net) = text.parse::<IpNet>() else {
                self.problem(field, "is not a subnet; write e.g. 192.168.100.0/24");
                continue;
            };
            let prefixes = &PREFIXES[usize::from(!is_v4(&net))];
            if net != net.trunc() {
                self.problem(field, format!("has host bits; write {}", net.trunc()));
            } else if !prefixes.contains(&net.prefix_len()) {
                let (least, most) = (prefixes.start(), prefixes.end());
                self.problem(field, format!("has a prefix length that is not from {least} to {most}"));
            } else if subnets.iter().any(|other| is_v4(other) == is_v4(&net)) {
                self.problem(field, "is a second subnet of one family; make a Network of its own of it");
            } else {
                subnets.push(net);
            }
        }
        subnets.sort_by_key(|net| !is_v4(net));
        subnets.into()
    }

    /// Gateways with the prefix length of their subnet.
    fn gateways(&mut self, field: &str, texts: &[String], subnets: &[IpNet]) -> Box<[IpNet]> {
        let mut gateways: Vec<IpNet> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Ok(ip) = text.parse::<IpAddr>() else {
                self.problem(field, "is not an address");
                continue;
            };
            let position =
                |net: &IpNet| address::index_of(*net, ip).filter(|n| (1..=address::last_pod(*net)).contains(n));
            match subnets.iter().find(|net| position(net).is_some()) {
                None => self.problem(field, "is no host's address in spec.subnets"),
                Some(_) if gateways.iter().any(|other| is_v4(other) == ip.is_ipv4()) => {
                    self.problem(field, "is a second address of one family; remove it");
                }
                Some(net) => gateways.push(address::on_subnet(ip, *net)),
            }
        }
        gateways.sort_by_key(|net| !is_v4(net));
        gateways.into()
    }

    fn ranges(&mut self, texts: &[String]) -> Box<[IpRange]> {
        let mut ranges = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(range) => ranges.push(range),
                Err(error) => self.problem(format!("spec.excludeIPs[{index}]"), format!("is {error}")),
            }
        }
        ranges.sort_unstable();
        ranges.into()
    }
}
