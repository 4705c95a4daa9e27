//! Keeps Services of the classic network, and of the host in a VM: the table that the crate `ovenbird-classic` makes of them, health checks, and connections of UDP that
//! endpoints have left behind.
//!
//! ```text
//! watch Services, EndpointSlices --+--> [gateway::services, gateway::endpoints] --> [gateway::health]
//!                                  +--> Services --> what has changed --> nft, one transaction --> [conntrack]
//! Node, kernel, ServiceCIDRs, settings, weights of pods --^
//! ```
//!
//! Must not: write before everything has been listed: a start changes nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use ovenbird_classic::services::{Behind, Changed, Services, Settings, TABLE, Weights};
use ovenbird_daemon::rights;
use ovenbird_topology::{EndpointSliceFact, Interner, ServiceFact};
use ovenbird_watch::{Keys, key};
use ovsdb::Str;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::conntrack;
use crate::chassis;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::gateway::{endpoints, health, services};
use crate::known;
use crate::net::{NetOps, causes};
use crate::nft;
use crate::readiness::{Part, Readiness};

/// Label of a Node: the zone that it stands in.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Most events that one write waits for.
const BATCH: usize = 4096;

/// What Services follow from.
pub struct Task<N> {
    /// Settings.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// The kernel.
    pub net: Arc<N>,
    /// This Node.
    pub node: watch::Receiver<NodeFact>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Networks of Services, once they are known.
    pub service_cidrs: watch::Receiver<Option<Vec<IpNet>>>,
    /// Weights of pods, once all pods are listed.
    pub weights: watch::Receiver<Option<Weights>>,
    /// What pods are behind; `None` while it is not known.
    pub behind: fn(&Config, &NodeFact) -> Option<Option<Behind>>,
    /// Told when the table stands.
    pub readiness: Arc<Readiness>,
}

/// An event of one of the watches.
#[derive(Clone, Debug)]
pub enum Told {
    /// Of Services.
    Service(Box<Event<Service>>),
    /// Of EndpointSlices.
    Slice(Box<Event<EndpointSlice>>),
}

impl<N: NetOps> Task<N> {
    /// Runs until the daemon stops; the table stays.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(self) -> anyhow::Result<()> {
        let (tx, told) = mpsc::channel(BATCH);
        let all = services::follow_services(shared(self.client.clone(), tx.clone(), Told::Service));
        let slices = shared(self.client.clone(), tx, Told::Slice);
        let local = endpoints::follow_endpoints(slices, self.config.node.clone(), all.clone()).local;
        let (settings_tx, settings) = watch::channel(None);
        let keeper = Keeper {
            told,
            settings,
            weights: self.weights.clone(),
            audit: self.config.audit_interval,
            readiness: self.readiness.clone(),
        };
        tokio::try_join!(
            async { health::serve(all, local).await.context("answering health checks") },
            async { self.follow_settings(settings_tx).await.context("following the node") },
            async { keeper.run().await.context("keeping the table of Services") },
        )?;
        Ok(())
    }

    /// Tells what Services depend on beside themselves, once it is known.
    async fn follow_settings(mut self, tx: watch::Sender<Option<Settings>>) -> anyhow::Result<()> {
        self.service_cidrs.wait_for(Option::is_some).await?;
        loop {
            self.host_changes.borrow_and_update();
            let node = self.node.borrow_and_update().clone();
            let cidrs = self.service_cidrs.borrow_and_update().clone().unwrap_or_default();
            let mut failed = false;
            let behind = (self.behind)(&self.config, &node).filter(|_| !node.subnets.is_empty());
            if let Some(behind) = behind {
                match self.net.host_network().await {
                    Ok(host) => {
                        let addresses = chassis::host_cidrs(&host).iter().map(IpNet::addr).collect();
                        let new = Some(Settings { behind, ..settings(&self.config, node, addresses, cidrs) });
                        tx.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
                    }
                    Err(e) => {
                        warn!("the host's network: {e}: {}", causes(&e));
                        failed = true;
                    }
                }
            }
            tokio::select! {
                changed = self.node.changed() => changed?,
                changed = self.host_changes.changed() => changed?,
                changed = self.service_cidrs.changed() => changed?,
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }
}

fn settings(config: &Config, node: NodeFact, addresses: Vec<IpAddr>, service_cidrs: Vec<IpNet>) -> Settings {
    Settings {
        node: config.node.clone(),
        zone: node.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned(),
        pods: node.subnets,
        addresses,
        node_ports: config.gateway.node_port,
        node_port_addresses: config.gateway.node_port_addresses.clone(),
        service_cidrs,
        cluster: config.cluster_subnets.clone(),
        behind: None,
    }
}

/// One watch with two readers: whoever listens at `tx`, and the reader of what is returned.
fn shared<K>(
    client: Client,
    tx: mpsc::Sender<Told>,
    wrap: fn(Box<Event<K>>) -> Told,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (other, mut stream) = mpsc::channel(BATCH);
    tokio::spawn(async move {
        let mut all = std::pin::pin!(known::watch_all(Api::<K>::all(client)));
        while let Some(event) = all.next().await {
            match event {
                Ok(event) => {
                    let sent = (tx.send(wrap(Box::new(event.clone()))).await, other.send(Ok(event)).await);
                    if sent.0.is_err() || sent.1.is_err() {
                        return;
                    }
                }
                Err(e) if rights::was_told(&e) => {}
                Err(e) => warn!("watching {}: {e}", K::plural(&())),
            }
        }
    });
    futures::stream::poll_fn(move |context| stream.poll_recv(context))
}

/// Keeps the table, from what it is told.
pub struct Keeper {
    /// Events of the watches.
    pub told: mpsc::Receiver<Told>,
    /// What Services depend on beside themselves, once it is known.
    pub settings: watch::Receiver<Option<Settings>>,
    /// Weights of pods, once all pods are listed.
    pub weights: watch::Receiver<Option<Weights>>,
    /// Time after which the table is compared with the kernel's, when nothing happens.
    pub audit: Duration,
    /// Told when the table stands.
    pub readiness: Arc<Readiness>,
}

/// What the keeper has.
#[derive(Default)]
struct State {
    services: Option<Services>,
    interner: Interner,
    known: [Listed; 2],
    /// The kernel has what was last taken.
    written: bool,
    udp: Changed,
}

/// Keys of a kind, and whether they have been listed.
#[derive(Default)]
struct Listed {
    keys: Keys<Str>,
    complete: bool,
}

impl Keeper {
    /// Runs until the watches end.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut state = State::default();
        let first = self.settings.wait_for(Option::is_some).await?.clone();
        state.services = first.map(Services::new);
        self.weights.wait_for(Option::is_some).await?;
        self.weigh(&mut state);
        let mut batch = Vec::new();
        let mut again = self.audit;
        loop {
            tokio::select! {
                count = self.told.recv_many(&mut batch, BATCH) => {
                    anyhow::ensure!(count > 0, "the watches have ended");
                    batch.drain(..).for_each(|told| state.take(told));
                }
                changed = self.settings.changed() => {
                    changed?;
                    let new = self.settings.borrow_and_update().clone();
                    if let (Some(services), Some(new)) = (&mut state.services, new) {
                        services.set_settings(new);
                    }
                }
                changed = self.weights.changed() => {
                    changed?;
                    self.weigh(&mut state);
                }
                // Somebody else may have changed something: all is compared again.
                () = tokio::time::sleep(again) => state.written = false,
            }
            if state.known.iter().all(|kind| kind.complete) {
                again = match state.write().await {
                    Ok(()) => {
                        self.readiness.set(Part::Services, true);
                        self.audit
                    }
                    Err(e) => {
                        warn!("Services: {e}: {}", causes(&e));
                        state.written = false;
                        RETRY
                    }
                };
            }
        }
    }
}

impl Keeper {
    fn weigh(&mut self, state: &mut State) {
        let weights = self.weights.borrow_and_update().clone().unwrap_or_default();
        if let Some(services) = &mut state.services {
            services.set_weights(weights);
        }
    }
}

impl State {
    fn take(&mut self, told: Told) {
        let Some(services) = &mut self.services else { return };
        let interner = &mut self.interner;
        match told {
            Told::Service(event) => {
                let gone = self.known[0].take(&event);
                if let Event::InitApply(object) | Event::Apply(object) = *event {
                    services.set_service(ServiceFact::from_k8s(&object, interner));
                }
                gone.iter().for_each(|key| services.remove_service(key));
            }
            Told::Slice(event) => {
                let gone = self.known[1].take(&event);
                if let Event::InitApply(object) | Event::Apply(object) = *event {
                    services.set_slice(EndpointSliceFact::from_k8s(&object, interner));
                }
                gone.iter().for_each(|key| services.remove_slice(key));
            }
        }
    }

    /// Makes the kernel agree.
    async fn write(&mut self) -> Result<(), nft::NftError> {
        let Some(services) = &mut self.services else { return Ok(()) };
        let (mut old, mut new) = services.take_changes();
        if !self.written {
            (old, new) = (nft::stored(TABLE).await?, services.table());
        }
        let changed = nft::write(&old, &new).await?;
        if changed && !self.written {
            info!("nftables serves {} Services", services.services().len());
        }
        self.written = true;
        self.udp.extend(services.take_udp());
        if self.udp.is_empty() {
            return Ok(());
        }
        match conntrack::flush(&self.udp).await {
            Ok(0) => {}
            Ok(gone) => info!(gone, "connections of UDP to endpoints that are gone are forgotten"),
            Err(e) => {
                warn!("clients of UDP may not find another endpoint: {e}: {}", causes(&e));
            }
        }
        self.udp = Changed::default();
        Ok(())
    }
}

impl Listed {
    /// Follows an event. Returns the keys of objects that are gone.
    fn take<K: Resource>(&mut self, event: &Event<K>) -> Vec<Str> {
        match event {
            Event::Init => self.keys.begin(),
            Event::InitApply(object) | Event::Apply(object) => self.keys.insert(key(object)),
            Event::Delete(object) => {
                self.keys.remove(&key(object));
                return vec![key(object)];
            }
            Event::InitDone => {
                self.complete = true;
                return self.keys.finish().collect();
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
#[path = "services_real_tests.rs"]
mod tests;
