//! Keeps this node on its physical networks, and their objects told.
//!
//! Everything is computed anew on each change; what is as it should be stays untouched. Must not: decide where a network is (`place`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use ovenbird_api::underlay::NodeStatus;
use ovenbird_daemon::rights;
use ovenbird_reconcile::Owner;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::objects::{self, Providers, Segment, Segments};
use super::place::{Fault, Host, Placement, bridge_for, place};
use super::{Mapped, Moves, Shared};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::gateway::discover::own_vlan;
use crate::net::{NetOps, causes};
use crate::vswitch::{State, Vswitch};

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What the task works with.
pub struct Task<N> {
    /// Settings: name of the node, bridge of the gateway.
    pub config: Config,
    /// The kernel.
    pub net: Arc<N>,
    /// Open_vSwitch.
    pub vswitch: Vswitch,
    /// Access to the API.
    pub client: Client,
    /// The Node.
    pub node: watch::Receiver<NodeFact>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// ProviderNetworks.
    pub providers: watch::Receiver<Providers>,
    /// Networks.
    pub segments: watch::Receiver<Segments>,
    /// Told which networks are where.
    pub mapped: watch::Sender<Mapped>,
    /// Told which are on the gateway's bridge.
    pub shared: watch::Sender<Shared>,
    /// Takes NICs over.
    pub moves: Moves,
    /// Cancelled by others once the rest of what should stay in Open_vSwitch is wanted.
    pub declared: CancellationToken,
    /// Cancelled once the bridges that should be there are wanted, too.
    pub all_declared: CancellationToken,
}

impl<N: NetOps> Task<N> {
    /// Runs until the daemon stops.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut state = self.vswitch.state();
        let mut wanted: BTreeMap<String, Owner> = BTreeMap::new();
        let mut told: BTreeMap<String, NodeStatus> = BTreeMap::new();
        loop {
            let providers = self.providers.wait_for(Option::is_some).await?.clone().unwrap_or_default();
            let segments = self.segments.wait_for(Option::is_some).await?.clone().unwrap_or_default();
            let now = state.wait_for(|s| s.synced).await?.clone();
            self.host_changes.borrow_and_update();
            let (mut done, mut declared, mut moved) = (true, false, false);
            match self.placements(&providers, &segments, &now).await {
                Some(placements) => {
                    done &= self.apply(&placements, &now, &mut wanted).await;
                    self.share(&placements, &segments);
                    declared = true;
                    for (name, placement) in &placements {
                        let status = placement.status();
                        if told.insert(name.clone(), status.clone()).as_ref() != Some(&status) {
                            say(name, placement);
                        }
                    }
                    done &= self.write(&providers, &placements).await;
                    moved = self.moves.follow(&placements).await;
                }
                None => done = false,
            }
            if moved {
                continue;
            }
            let next = self.moves.next();
            tokio::select! {
                changed = self.providers.changed() => changed?,
                changed = self.segments.changed() => changed?,
                changed = self.node.changed() => changed?,
                changed = self.host_changes.changed() => changed?,
                changed = state.changed() => changed?,
                () = self.declared.cancelled(), if declared && !self.all_declared.is_cancelled() => {
                    self.all_declared.cancel();
                }
                () = tokio::time::sleep(RETRY), if !done => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Says which Networks are on the gateway's bridge, and with which VLANs.
    fn share(&self, placements: &BTreeMap<String, Placement>, segments: &BTreeMap<String, Segment>) {
        let gateway = self.config.gateway.mode.map(|_| &self.config.gateway.bridge);
        let here = |segment: &Segment| {
            let bridge = placements.get(&segment.provider).and_then(|placement| placement.bridge.as_ref());
            bridge.is_some() && bridge == gateway
        };
        let shared = segments.iter().filter(|(_, segment)| here(segment));
        let shared = Some(shared.map(|(name, segment)| (name.clone(), segment.vlan)).collect());
        self.shared.send_if_modified(|old| std::mem::replace(old, shared.clone()) != shared);
    }

    async fn placements(
        &mut self,
        providers: &BTreeMap<String, objects::Provider>,
        segments: &BTreeMap<String, Segment>,
        state: &State,
    ) -> Option<BTreeMap<String, Placement>> {
        if providers.is_empty() {
            return Some(BTreeMap::new());
        }
        let network = match self.net.host_network().await {
            Ok(network) => network,
            Err(e) => {
                warn!("the host's network: {e}: {}", causes(&e));
                return None;
            }
        };
        // Labels decide where a network is: without the Node nothing is known.
        let node = self.node.wait_for(|node| node.known).await.ok()?.clone();
        self.node.borrow_and_update();
        let gateway = &self.config.gateway;
        let own_vlan = || state.bridges.get(&gateway.bridge).and_then(|bridge| own_vlan(gateway, bridge));
        let host = Host {
            labels: &node.labels,
            bridges: &state.bridges,
            network: &network,
            gateway: gateway.mode.map(|_| (gateway.bridge.as_str(), own_vlan())),
            segments,
            taken: &self.moves.taken(),
            refused: &self.moves.refused(),
            userspace: state.userspace,
        };
        let placed = providers.iter().filter_map(|(name, p)| Some((name.clone(), place(name, &p.spec, &host)?)));
        Some(placed.collect())
    }

    /// Wants the bridges that should be there, sets NICs up, and says which networks are where. True when all of it is done.
    async fn apply(
        &self,
        placements: &BTreeMap<String, Placement>,
        state: &State,
        wanted: &mut BTreeMap<String, Owner>,
    ) -> bool {
        let nics: BTreeSet<&String> = placements.values().filter_map(|p| p.nic.as_ref()).collect();
        for nic in &nics {
            let (owner, output) = bridge_for(nic, state.userspace);
            self.vswitch.set(owner.clone(), output);
            wanted.insert((*nic).clone(), owner);
        }
        let mapped = placements.iter().filter_map(|(name, p)| Some((name.clone(), p.bridge.clone()?))).collect();
        self.mapped.send_if_modified(|old| {
            let new = Some(mapped);
            std::mem::replace(old, new.clone()) != new
        });
        wanted.retain(|nic, owner| {
            let stays = nics.contains(nic);
            if !stays {
                // It goes when it can; nobody waits for it.
                drop(self.vswitch.remove(owner));
            }
            stays
        });
        let mut done = true;
        for nic in nics {
            if let Err(e) = self.net.set_up(nic).await {
                warn!("setting {nic} up: {e}: {}", causes(&e));
                done = false;
            }
        }
        done
    }

    /// Writes what differs from what the objects say; true when all of it is there.
    async fn write(
        &self,
        providers: &BTreeMap<String, objects::Provider>,
        placements: &BTreeMap<String, Placement>,
    ) -> bool {
        let mut done = true;
        for (name, provider) in providers {
            let status = placements.get(name).map(Placement::status);
            if status == provider.said {
                continue;
            }
            if let Err(e) = objects::say(&self.client, name, &self.config.node, status.as_ref()).await {
                done = false;
                if !rights::was_told(&e) {
                    warn!("writing the status of ProviderNetwork {name}: {e}");
                }
            }
        }
        done
    }
}

fn say(name: &str, placement: &Placement) {
    match (&placement.fault, placement.note(), &placement.bridge) {
        (Some(fault @ Fault::TakingOver(_)), ..) => info!("ProviderNetwork {name}: {fault}"),
        (Some(fault), ..) => warn!("ProviderNetwork {name}: {fault}"),
        (None, Some(note), _) => warn!("ProviderNetwork {name}: {note}"),
        (None, None, bridge) => info!(bridge = bridge.as_deref(), "ProviderNetwork {name} is here"),
    }
}
