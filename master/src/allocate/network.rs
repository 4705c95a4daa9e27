//! Networks: whose pods are on which, and the pools of their addresses.
//!
//! ```text
//! pod -> its namespace's labels -> Network -> home `/NETWORK`, a pool for all nodes
//!                                  none    -> home is the node; where pods are on Networks alone, it waits
//! ```
//!
//! A pod's home is chosen with its addresses and then stays: it is in the annotation. Must not: judge a Network (`topology` does).

use ovenbird_api::PodNetwork;
use ovenbird_api::annotation::{NETWORK, POD_NETWORKS};
use ovenbird_topology::allocate::attachment;
use ovenbird_topology::config::OnNetworks;
use ovenbird_topology::underlay::{self, Networks, scope};
use ovenbird_topology::{Config, Fact, NamespaceFact, NetworkFact, PodFact, ProviderNetworkFact};
use ovsdb::Str;

use super::{Allocator, Effects};

/// Where a pod waits whose namespace is not known yet.
const NOWHERE: &str = "/";

/// Where a pod waits that no Network takes, when pods are on Networks alone.
pub(super) const NO_NETWORK: &str = "//";

/// The Network that is a home, or a place to wait; `None` when that is a node.
pub(super) fn network_of(home: &str) -> Option<&str> {
    home.strip_prefix('/')
}

/// What a pod at home there is told in its annotations; `None` without addresses, or when the home is gone.
pub(super) fn told(
    config: &Config,
    networks: &Networks,
    (home, subnets): (&str, &[ipnet::IpNet]),
    (uid, addresses): (&str, &[std::net::IpAddr]),
    tag: Option<u16>,
) -> Option<(PodNetwork, Vec<(&'static str, String)>)> {
    let Some(name) = network_of(home) else {
        let network = PodNetwork { tag, ..attachment(config, subnets, addresses)? };
        let text = network.format();
        return Some((network, vec![(POD_NETWORKS, text)]));
    };
    let network = underlay::attachment(config, networks, networks.usable(name)?, (uid, addresses))?;
    let network = PodNetwork { tag, ..network };
    let text = network.format();
    Some((network, vec![(POD_NETWORKS, text), (NETWORK, name.to_owned())]))
}

impl Allocator {
    /// A Network is there, new or changed.
    pub fn upsert_network(&mut self, fact: NetworkFact, fx: &mut Effects) {
        let name = fact.name.clone();
        fx.facts.push(Fact::Network(fact.clone()));
        if self.networks.set(&name, Some(fact)) {
            self.networks_changed(fx);
        }
        self.evict_all(&name, fx);
    }

    /// Looks after the pods of a Network that have addresses of others.
    pub(super) fn evict_all(&self, name: &str, fx: &mut Effects) {
        if !self.settled || self.networks.usable(name).is_none_or(|network| network.in_use.is_empty()) {
            return;
        }
        let mut keys: Vec<&Str> = self.nodes.get(&*scope(name)).iter().flat_map(|home| &home.pods).collect();
        keys.sort_unstable();
        keys.into_iter().for_each(|key| self.evict(key, fx));
    }

    pub(super) fn delete_network(&mut self, name: &Str, fx: &mut Effects) {
        if self.networks.set(name, None) {
            self.networks_changed(fx);
        }
    }

    /// A ProviderNetwork is there, new or changed.
    pub fn upsert_provider(&mut self, fact: ProviderNetworkFact, fx: &mut Effects) {
        fx.facts.push(Fact::ProviderNetwork(fact.clone()));
        self.networks.set_provider(&fact.name.clone(), Some(fact));
    }

    /// A Namespace is there, new or changed.
    pub fn upsert_namespace(&mut self, fact: NamespaceFact, fx: &mut Effects) {
        if self.namespaces.get(&fact.name) != Some(&fact.labels) {
            self.namespaces.insert(fact.name.clone(), fact.labels.clone());
            self.rehome(Some(&fact.name), fx);
        }
        fx.facts.push(Fact::Namespace(fact));
    }

    /// Judges all Networks, opens and closes their pools, and moves the pods that wait.
    pub(super) fn networks_changed(&mut self, fx: &mut Effects) {
        if !self.settled {
            return;
        }
        self.networks.settle(&self.config);
        let opened = self.nodes.values().filter_map(|home| Some(home.network.as_ref()?.name.clone()));
        let mut names: Vec<Str> = opened.chain(self.networks.names().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let home: Str = scope(&name).into();
            let fact = self.networks.usable(&name);
            let entry = self.nodes.entry(home.clone()).or_default();
            let same = |a: &NetworkFact, b: &NetworkFact| {
                a.subnets == b.subnets
                    && a.excluded == b.excluded
                    && a.in_use == b.in_use
                    && a.dhcp == b.dhcp
                    && a.gateways().eq(b.gateways())
            };
            if !match (&entry.network, fact) {
                (Some(before), Some(now)) => same(before, now),
                (before, now) => before.is_none() && now.is_none(),
            } {
                entry.network = fact.map(|fact| Box::new(fact.clone()));
                entry.pool = fact.map(NetworkFact::pool);
                self.reopen(&home, fx);
            }
            if self.nodes.get(&home).is_some_and(|entry| entry.network.is_none() && entry.pods.is_empty()) {
                self.nodes.remove(&home);
            }
        }
        self.rehome(None, fx);
    }

    /// Where a pod on a node is to get addresses.
    pub(super) fn home(&self, fact: &PodFact, node: &Str) -> Str {
        let alone = self.config.on_networks() == OnNetworks::Everybody;
        if !alone && self.networks.all_usable().next().is_none() {
            return node.clone();
        }
        match self.namespaces.get(fact.namespace()) {
            // Its watch is behind.
            None => NOWHERE.into(),
            Some(labels) => match self.networks.of_namespace(labels) {
                Some(network) => scope(&network.name).into(),
                None if alone => NO_NETWORK.into(),
                None => node.clone(),
            },
        }
    }

    /// Moves pods for which nothing is chosen yet to where they belong now; those of one namespace, or all.
    pub(super) fn rehome(&mut self, namespace: Option<&str>, fx: &mut Effects) {
        if !self.settled {
            return;
        }
        let of_namespace =
            |key: &str| namespace.is_none_or(|name| key.split_once('/').is_some_and(|(own, _)| own == name));
        let waiting = self.pods.iter().filter(|(key, _)| of_namespace(key));
        let moved = waiting.filter_map(|(key, pod)| {
            let home = self.home(pod.unchosen()?, &pod.node);
            (home != pod.home).then(|| (pod.created, key.clone(), home))
        });
        let mut moved: Vec<(i64, Str, Str)> = moved.collect();
        moved.sort_unstable();
        for (_, key, home) in moved {
            self.move_pod(&key, home, fx);
        }
    }
}
