//! Keeps the table of policies of the classic network (`ovenbird_classic::policy`), and says which pods it covers: no other may become a port.
//!
//! ```text
//! watch Pods, Nodes, Namespaces, policies --> Policies --> table --> nft, one transaction --> Covered --> [ports]
//!       Pods --> [weights] --> [services]
//! ```
//!
//! Must not: write before everything has been listed: a start changes nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client};
use ovenbird_classic::policy::{Pod, Policies, TABLE};
use ovenbird_nft::Table;
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config as Topology, Fact, FactKey, Interner, NamespaceFact, NetworkPolicyFact,
    NodeFact, PodFact,
};
use ovenbird_watch::object::admin_policy::{Anp, Banp, Cnp, SlimAdmin};
use ovenbird_watch::object::{NamespaceKind, NodeKind, PodKind, Slim, Told};
use ovenbird_watch::{Batch, Change as Seen, Keyed, Object};
use ovsdb::Str;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::weights::Weighing;
use crate::config::Config;
use crate::net::causes;
use crate::nft;
use crate::rows::PodPort;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Batches of changes that watches may be ahead.
const AHEAD: usize = 16;
/// Kinds that are watched.
const KINDS: usize = 7;
/// The first of them.
const PODS: usize = 0;

/// Which pods may have a port.
#[derive(Clone, Debug, Default)]
pub enum Covered {
    /// None yet: the table is not known to stand.
    #[default]
    Nobody,
    /// Those of which the table knows, by `namespace/name`.
    Pods(Arc<FxHashMap<Str, Pod>>),
    /// All: policies are not enforced.
    Everybody,
}

/// What the table follows from.
pub struct Task {
    /// Settings.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// Told what the table covers, after each write.
    pub covered: watch::Sender<Covered>,
    /// Told which weights pods ask for.
    pub weights: Weighing,
}

/// A batch of changes of a kind.
struct News {
    kind: usize,
    changes: Vec<Change>,
    complete: bool,
}

/// The table in the making.
struct Keeper {
    policies: Policies,
    /// What the kernel has, if that is known.
    stored: Option<Table>,
    /// Kinds that are listed.
    listed: [bool; KINDS],
    covered: watch::Sender<Covered>,
    weights: Weighing,
}

impl Covered {
    /// The pod with its port's identity and addresses is covered.
    pub fn covers(&self, port: &PodPort) -> bool {
        let addresses = || port.addresses.iter().map(|net| net.addr());
        match self {
            Covered::Nobody => false,
            Covered::Everybody => true,
            Covered::Pods(pods) => pods.get(&*port.lsp.replacen('_', "/", 1)).is_some_and(|pod| {
                let known = |ip: &IpAddr| pod.addresses.contains(ip);
                *pod.uid == *port.uid && addresses().all(|ip| known(&ip))
            }),
        }
    }
}

impl Task {
    /// Runs until the daemon stops; the table stays. Where policies are not enforced there is none.
    ///
    /// # Errors
    /// When the networks of pods cannot be used.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let Config { node, cluster_subnets, network_policy, acl_logging_rate, audit_interval, .. } = &self.config;
        // As long as it lives the watches run.
        let (_generation, current) = watch::channel(0);
        let mut news = spawn_watches(&self.client, &current, *network_policy);
        if !network_policy {
            self.remove().await;
            self.covered.send_replace(Covered::Everybody);
            loop {
                let news = news.recv().await.context("the watches have ended")?;
                self.weights.take(&news.changes, news.complete);
            }
        }
        let networks: Vec<_> = cluster_subnets.iter().map(ipnet::IpNet::trunc).collect();
        let config = Topology::of_pods(&networks, true, *acl_logging_rate).context("networks of pods")?;
        let mut keeper = Keeper {
            policies: Policies::new(node, config),
            stored: None,
            listed: [false; KINDS],
            covered: self.covered,
            weights: self.weights,
        };
        let mut wait = *audit_interval;
        loop {
            tokio::select! {
                first = news.recv() => {
                    keeper.take(first.context("the watches have ended")?);
                    while let Ok(more) = news.try_recv() {
                        keeper.take(more);
                    }
                }
                // Somebody else may have changed something.
                () = tokio::time::sleep(wait) => keeper.stored = None,
            }
            if keeper.listed.contains(&false) {
                continue;
            }
            wait = match keeper.write().await {
                Ok(()) => *audit_interval,
                Err(e) => {
                    warn!("the table of policies: {e}: {}", causes(&e));
                    keeper.stored = None;
                    RETRY
                }
            };
        }
    }

    /// Removes a table that an earlier daemon has left.
    async fn remove(&self) {
        while let Err(e) = nft::apply(&ovenbird_nft::delete(TABLE)).await {
            warn!("removing the table of policies: {e}: {}", causes(&e));
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Keeper {
    fn take(&mut self, news: News) {
        if news.kind == PODS {
            self.weights.take(&news.changes, news.complete);
        }
        news.changes.into_iter().for_each(|change| self.policies.apply(change));
        self.listed[news.kind] |= news.complete;
    }

    /// Makes the kernel's table follow, and tells whom it covers.
    async fn write(&mut self) -> Result<(), nft::NftError> {
        if !self.policies.settle() && self.stored.is_some() {
            return Ok(());
        }
        for unreadable in self.policies.unreadable() {
            error!("a rule is not enforced: {unreadable}");
        }
        let table = self.policies.table();
        let known = self.stored.take();
        let unknown = known.is_none();
        let old = match known {
            Some(table) => table,
            None => nft::stored(TABLE).await?,
        };
        let written = nft::write(&old, &table).await?;
        if unknown && written {
            info!(chains = table.chains.len(), sets = table.sets.len(), "the table of policies is written");
        }
        self.stored = Some(table);
        let pods = self.policies.pods().map(|pod| (pod.key.clone(), pod)).collect();
        self.covered.send_replace(Covered::Pods(Arc::new(pods)));
        Ok(())
    }
}

/// One watch for each kind, until the reader is gone; where there are no policies, for pods alone.
fn spawn_watches(client: &Client, current: &watch::Receiver<u64>, policies: bool) -> mpsc::Receiver<News> {
    let (tx, news) = mpsc::channel(AHEAD);
    let watches = Watches { client, current, tx };
    let pod = |told: Told<PodFact>| Fact::Pod(told.fact);
    let node = |told: Told<NodeFact>| Fact::Node(told.fact);
    watches.spawn(PODS, false, Slim::<PodKind>::tell, pod, FactKey::Pod);
    if !policies {
        return news;
    }
    watches.spawn(1, false, |object: Slim<NodeKind>, _: &mut Interner| object.tell(), node, FactKey::Node);
    watches.spawn::<_, NamespaceFact>(2, false, Slim::<NamespaceKind>::tell, Fact::Namespace, FactKey::Namespace);
    let policy = |policy: NetworkPolicy, texts: &mut Interner| NetworkPolicyFact::from_k8s(&policy, texts);
    watches.spawn(3, false, policy, Fact::NetworkPolicy, FactKey::NetworkPolicy);
    let key = |kind| move |name| FactKey::AdminPolicy((kind, name));
    let fact = Fact::AdminPolicy;
    watches.spawn::<_, AdminPolicyFact>(4, true, SlimAdmin::<Anp>::tell, fact, key(AdminKind::AdminNetworkPolicy));
    watches.spawn(5, true, SlimAdmin::<Banp>::tell, fact, key(AdminKind::BaselineAdminNetworkPolicy));
    watches.spawn(6, true, SlimAdmin::<Cnp>::tell, fact, key(AdminKind::ClusterNetworkPolicy));
    news
}

/// What all watches share.
struct Watches<'a> {
    client: &'a Client,
    current: &'a watch::Receiver<u64>,
    tx: mpsc::Sender<News>,
}

impl Watches<'_> {
    fn spawn<O: Object, T: Keyed + Send + 'static>(
        &self,
        kind: usize,
        optional: bool,
        mut tell: impl FnMut(O, &mut Interner) -> T + Send + 'static,
        fact: impl Fn(T) -> Fact + Send + Sync + 'static,
        key: impl Fn(Str) -> FactKey + Send + Sync + 'static,
    ) {
        let (api, mut texts) = (Api::all(self.client.clone()), Interner::default());
        let slim = move |object| tell(object, &mut texts);
        let change = move |seen| match seen {
            Seen::Upsert(object) => Change::Upsert(fact(object)),
            Seen::Delete(name) => Change::Delete(key(name)),
        };
        let wrap = move |batch: Batch<T>| News {
            kind,
            changes: batch.changes.into_iter().map(&change).collect(),
            complete: batch.complete.is_some(),
        };
        tokio::spawn(ovenbird_watch::run(api, optional, self.current.clone(), slim, wrap, self.tx.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(lsp: &str, uid: &str, address: &str) -> PodPort {
        let attachment = ovenbird_cni_server::Attachment { container_id: "c".into(), ifname: "eth0".into() };
        PodPort {
            attachment,
            netns: "/run/netns/x".into(),
            netns_id: crate::net::NetnsId { dev: 1, ino: 1 },
            lsp: lsp.into(),
            uid: uid.into(),
            mac: "0a:58:0a:80:00:03".parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            on: None,
            bandwidth: Default::default(),
            tag: None,
        }
    }

    #[test]
    fn the_very_pod_at_its_addresses_is_covered() {
        let addresses = vec!["10.128.0.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        let pod = Pod { key: "ns/web-0".into(), uid: "u1".into(), addresses };
        let covered = Covered::Pods(Arc::new([(pod.key.clone(), pod)].into_iter().collect()));
        assert!(covered.covers(&port("ns_web-0", "u1", "10.128.0.3/24")));
        for other in [
            port("ns_web-0", "u2", "10.128.0.3/24"),
            port("ns_web-0", "u1", "10.128.0.4/24"),
            port("ns_web-1", "u1", "10.128.0.3/24"),
        ] {
            assert!(!covered.covers(&other), "{other:?}");
            assert!(!Covered::Nobody.covers(&other) && Covered::Everybody.covers(&other));
        }
    }
}
