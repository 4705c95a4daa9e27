//! All Networks: which of them may be, who is on which, and which addresses their pods get.
//!
//! Of two that contradict each other the older has effect, then the first by name. Inputs: facts, the configuration. Outputs: values. Shared by
//! translation, the master's allocator and `ovenbird render`. Must not: make rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::underlay::IpRange;
use ovenbird_api::{Mac, PodNetwork, PodRoute, address};
use ovsdb::Str;

use crate::Config;
use crate::allocate::AddressPool;
use crate::config::OnNetworks;
use crate::facts::{Labels, NetworkFact, ProviderNetworkFact};

/// A Network that cannot be beside the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The cluster's network has none.
    #[error(
        "in network mode classic no pods are on VLANs, and its pods are on the network of the others; delete it, or change the network mode"
    )]
    NotInMode,
    /// The name of the physical network stands for another one.
    #[error("{0:?} is the network of the gateways' bridges; name a ProviderNetwork of another name")]
    Reserved(Str),
    /// The subnet would shadow a part of the cluster.
    #[error("{net} and {setting} {other} overlap; choose a subnet outside")]
    Inside {
        /// The subnet.
        net: IpNet,
        /// What names the other one.
        setting: &'static str,
        /// The other one.
        other: IpNet,
    },
    /// An older Network is this VLAN.
    #[error(
        "Network {0} is this VLAN of the ProviderNetwork, and is older; choose another VLAN, or delete one of the two"
    )]
    VlanTaken(Str),
    /// An older Network that OVN routes has these addresses.
    #[error(
        "{net} overlaps a subnet of Network {other}, which is older, and OVN routes to one of them only; remove spec.gateway.ovn of one"
    )]
    Overlap {
        /// The subnet.
        net: IpNet,
        /// The older Network.
        other: Str,
    },
    /// An older Network is the default.
    #[error("Network {0} is the default already, and is older; remove spec.default of one")]
    SecondDefault(Str),
}

impl NetworkError {
    /// The field that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            NetworkError::NotInMode => "spec",
            NetworkError::Reserved(_) => "spec.providerNetwork",
            NetworkError::Inside { .. } | NetworkError::Overlap { .. } => "spec.subnets",
            NetworkError::VlanTaken(_) => "spec.vlan",
            NetworkError::SecondDefault(_) => "spec.default",
        }
    }
}

/// See the file header.
#[derive(Debug, Default)]
pub struct Networks {
    facts: BTreeMap<Str, NetworkFact>,
    providers: BTreeMap<Str, ProviderNetworkFact>,
    /// Those that have effect, the oldest first.
    usable: Vec<Str>,
    refused: BTreeMap<Str, Vec<NetworkError>>,
}

impl Networks {
    /// A Network that is there, whatever it is worth.
    pub fn get(&self, name: &str) -> Option<&NetworkFact> {
        self.facts.get(name)
    }

    /// Names of all there are.
    pub fn names(&self) -> impl Iterator<Item = &Str> {
        self.facts.keys()
    }

    /// A Network that has effect.
    pub fn usable(&self, name: &str) -> Option<&NetworkFact> {
        self.facts.get(name).filter(|fact| self.usable.contains(&fact.name))
    }

    /// All that have effect, the oldest first.
    pub fn all_usable(&self) -> impl Iterator<Item = &NetworkFact> {
        self.usable.iter().filter_map(|name| self.facts.get(name))
    }

    /// What is wrong with a Network beside the others.
    pub fn errors(&self, name: &str) -> &[NetworkError] {
        self.refused.get(name).map_or(&[], Vec::as_slice)
    }

    /// A ProviderNetwork.
    pub fn provider(&self, name: &str) -> Option<&ProviderNetworkFact> {
        self.providers.get(name)
    }

    /// The Network for the pods of a namespace with these labels: the oldest that selects it, else the default.
    pub fn of_namespace(&self, labels: &Labels) -> Option<&NetworkFact> {
        let selecting = self.all_usable().find(|network| network.selects(labels));
        selecting.or_else(|| self.all_usable().find(|network| network.is_default))
    }

    /// Takes a Network in, or out. True when something changed.
    pub fn set(&mut self, name: &Str, fact: Option<NetworkFact>) -> bool {
        set(&mut self.facts, name, fact)
    }

    /// Takes a ProviderNetwork in, or out. True when something changed.
    pub fn set_provider(&mut self, name: &Str, fact: Option<ProviderNetworkFact>) -> bool {
        set(&mut self.providers, name, fact)
    }

    /// Judges all anew, after changes. Returns the names of those that came into effect or lost it.
    pub fn settle(&mut self, config: &Config) -> Vec<Str> {
        let mut sorted: Vec<&NetworkFact> = self.facts.values().filter(|fact| fact.problems.is_empty()).collect();
        sorted.sort_by_key(|fact| (fact.created, fact.name.clone()));
        let mut usable: Vec<&NetworkFact> = Vec::new();
        let mut refused = BTreeMap::new();
        for fact in sorted {
            let errors = judge(config, fact, &usable);
            if errors.is_empty() {
                usable.push(fact);
            } else {
                refused.insert(fact.name.clone(), errors);
            }
        }
        let usable: Vec<Str> = usable.into_iter().map(|fact| fact.name.clone()).collect();
        let (before, after): (BTreeSet<&Str>, BTreeSet<&Str>) = (self.usable.iter().collect(), usable.iter().collect());
        let changed = before.symmetric_difference(&after).map(|name| Str::clone(name)).collect();
        (self.usable, self.refused) = (usable, refused);
        changed
    }

    /// MTU of a Network's pods, in bytes: as it says, else that of the physical network; not more than the overlay's where OVN routes to it.
    pub fn mtu(&self, config: &Config, network: &NetworkFact) -> Option<u32> {
        let physical = self.provider(&network.provider).and_then(|provider| provider.mtu);
        let routed = !network.routers.is_empty();
        let overlay = u32::from(config.mtu());
        network.mtu.or_else(|| physical.map(|mtu| if routed { mtu.min(overlay) } else { mtu }))
    }
}

fn set<T: PartialEq>(all: &mut BTreeMap<Str, T>, name: &Str, fact: Option<T>) -> bool {
    if all.get(name) == fact.as_ref() {
        return false;
    }
    match fact {
        Some(fact) => drop(all.insert(name.clone(), fact)),
        None => drop(all.remove(name)),
    }
    true
}

/// What is wrong with a Network beside the older ones.
fn judge(config: &Config, fact: &NetworkFact, older: &[&NetworkFact]) -> Vec<NetworkError> {
    if config.on_networks() == OnNetworks::Nobody {
        return vec![NetworkError::NotInMode];
    }
    let mut errors = Vec::new();
    if !ProviderNetworkFact::is_free(&fact.provider) {
        errors.push(NetworkError::Reserved(fact.provider.clone()));
    }
    for net in &fact.subnets {
        if let Some((setting, other)) = config.networks().find(|(_, other)| address::overlap(*net, *other)) {
            errors.push(NetworkError::Inside { net: *net, setting, other });
        }
    }
    if let Some(other) = older.iter().find(|other| (&other.provider, other.vlan) == (&fact.provider, fact.vlan)) {
        errors.push(NetworkError::VlanTaken(other.name.clone()));
    }
    let routed = |fact: &NetworkFact| -> Vec<IpNet> { fact.routers.iter().map(IpNet::trunc).collect() };
    for net in routed(fact) {
        let meets = |other: &&&NetworkFact| routed(other).iter().any(|own| address::overlap(*own, net));
        if let Some(other) = older.iter().find(meets) {
            errors.push(NetworkError::Overlap { net, other: other.name.clone() });
        }
    }
    if let Some(other) = older.iter().find(|other| fact.is_default && other.is_default) {
        errors.push(NetworkError::SecondDefault(other.name.clone()));
    }
    errors
}

/// Where addresses of a Network's pods are unique; no node is called so.
pub fn scope(network: &str) -> String {
    ["/", network].concat()
}

/// True when the address may be a pod's.
pub(super) fn is_pods(network: &NetworkFact, ip: IpAddr) -> bool {
    let inside = |net: &IpNet| address::index_of(*net, ip).is_some_and(|n| (1..=address::last_pod(*net)).contains(&n));
    network.subnets.iter().any(inside) && !taken(network).any(|range| range.first <= ip && ip <= range.last)
}

/// Addresses that no pod gets.
fn taken(network: &NetworkFact) -> impl Iterator<Item = IpRange> + Clone {
    let own = network.gateways().map(|ip| IpRange { first: ip, last: ip });
    network.excluded.iter().copied().chain(own)
}

impl NetworkFact {
    /// The free pool of its pods' addresses; nothing is in that of a network with a DHCP server.
    pub fn pool(&self) -> AddressPool {
        let others = self.in_use.iter().map(|ip| IpRange { first: *ip, last: *ip });
        let subnets: &[IpNet] = if self.dhcp { &[] } else { &self.subnets };
        AddressPool::without(subnets, &taken(self).chain(others))
    }
}

/// The pod annotation for addresses on a Network: by OVN's router to the cluster's networks, by the physical gateway, if there is one, to all others.
/// `None` without addresses, but where a DHCP server gives them: it names the gateway, too, and the MAC follows from the pod's UID.
pub fn attachment(
    config: &Config,
    networks: &Networks,
    network: &NetworkFact,
    (uid, addresses): (&str, &[IpAddr]),
) -> Option<PodNetwork> {
    let on_subnet = |ip: &IpAddr| {
        let net = network.subnets.iter().find(|net| net.contains(ip))?;
        Some(address::on_subnet(*ip, *net))
    };
    let router = |v4: bool| network.routers.iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == v4);
    let physical = |v4: bool| network.physical.iter().copied().find(|ip| ip.is_ipv4() == v4);
    let destinations = config.cluster_subnets().iter().map(|s| s.net);
    let destinations =
        destinations.chain(config.service_cidrs().iter().copied()).chain(config.join_subnets().iter().copied());
    let route = |dest: IpNet| Some(PodRoute { dest, next_hop: Some(router(dest.addr().is_ipv4())?) });
    let families = network.subnets.iter().map(|net| net.addr().is_ipv4());
    Some(PodNetwork {
        mac: if network.dhcp { Mac::of_uid(uid) } else { Mac::of_any(addresses.iter().copied())? },
        addresses: addresses.iter().filter_map(on_subnet).collect(),
        gateways: families.filter(|_| !network.dhcp).filter_map(|v4| physical(v4).or(router(v4))).collect(),
        routes: destinations.filter_map(route).collect(),
        dhcp: network.dhcp,
        tag: None,
        probe: network.probe,
        mtu: networks.mtu(config, network),
    })
}
