//! NICs that carry addresses: taken over for physical networks, and given back when none wants them any more.
//!
//! ```text
//! Placements, journals --> NICs to take over, or to look after once in this run --> uplink::Task::start  --> refused: why, by NIC
//!                      --> NICs that no ProviderNetwork names any more          --> uplink::Task::give_back
//! ```
//!
//! One move at a time, each in a task of its own: a daemon that ends waits for it ([`Turn`]). What the gateway has is not touched. Must not: decide
//! where a network is (`place`), or move anything itself (`uplink`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::place::Placement;
use crate::config::Config;
use crate::uplink::choose::bridge_name;
use crate::uplink::journal::{Journal, Phase};
use crate::uplink::{Purpose, Task, ask};

/// Pause after a refusal, which changes nothing.
const PAUSE: Duration = Duration::from_secs(30);

/// Held while a NIC is on its way.
pub type Turn = Arc<Mutex<()>>;

/// See the file header.
pub struct Moves {
    uplink: Task,
    client: Client,
    stop: CancellationToken,
    gateway: String,
    turn: Turn,
    /// NICs whose journal was followed in this run.
    followed: BTreeSet<String>,
    /// By NIC: why it is as it is, and when the next try is.
    refused: BTreeMap<String, (String, Instant)>,
}

impl Moves {
    /// Of this host; a cancelled `stop` moves back what is not taken over yet.
    pub fn new(config: &Config, client: &Client, stop: &CancellationToken) -> Moves {
        Moves {
            uplink: Task::new(config, Purpose::Network),
            client: client.clone(),
            stop: stop.clone(),
            gateway: config.gateway.bridge.clone(),
            turn: Turn::default(),
            followed: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    /// To be waited for at the daemon's end.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// NICs that could not be taken over, and why.
    pub fn refused(&self) -> BTreeMap<String, String> {
        self.refused.iter().map(|(nic, (why, _))| (nic.clone(), why.clone())).collect()
    }

    /// NICs that are taken over for physical networks.
    pub fn taken(&self) -> BTreeSet<String> {
        let is_moved = |journal: &Journal| !matches!(journal.phase, Phase::Failed { .. });
        self.journals().into_iter().filter(is_moved).map(|journal| journal.uplink.nic).collect()
    }

    /// When something is to be tried again.
    pub fn next(&self) -> Option<Instant> {
        self.refused.values().map(|(_, at)| *at).min()
    }

    /// Sees to all NICs. True when one was moved, or something new is known of one.
    pub async fn follow(&mut self, placements: &BTreeMap<String, Placement>) -> bool {
        let all = || placements.values();
        let named: BTreeSet<String> = all().filter_map(|p| p.interface.clone()).collect();
        let bridges: BTreeSet<&String> = all().filter_map(|p| p.bridge.as_ref()).collect();
        let mut wanted: BTreeSet<String> = all().filter_map(|p| p.take_over.clone()).collect();
        let before = self.refused();
        let mut moved = false;
        let mut left = Vec::new();
        for journal in self.journals() {
            let nic = &journal.uplink.nic;
            if named.contains(nic) || bridges.contains(&journal.uplink.bridge) {
                if !self.followed.contains(nic) && !matches!(journal.phase, Phase::Failed { .. }) {
                    wanted.insert(nic.clone());
                }
            } else {
                left.push(journal);
            }
        }
        self.refused.retain(|nic, _| wanted.contains(nic) || left.iter().any(|journal| journal.uplink.nic == *nic));
        for nic in wanted {
            moved |= self.take(nic).await;
        }
        for journal in left {
            moved |= self.give_back(journal).await;
        }
        moved || self.refused() != before
    }

    /// Journals but that of the gateway's bridge.
    fn journals(&self) -> Vec<Journal> {
        let all = self.uplink.journals().unwrap_or_else(|e| {
            warn!("journals of take-overs: {e:#}");
            Vec::new()
        });
        all.into_iter().filter(|journal| journal.uplink.bridge != self.gateway).collect()
    }

    fn is_early(&self, nic: &str) -> bool {
        self.refused.get(nic).is_some_and(|(_, at)| Instant::now() < *at)
    }

    async fn take(&mut self, nic: String) -> bool {
        if self.is_early(&nic) {
            return false;
        }
        match self.uplink.failed(&nic) {
            Ok(None) => {}
            Ok(Some((why, left))) => {
                self.refused.insert(nic, (why, Instant::now() + left));
                return false;
            }
            Err(e) => {
                self.refused.insert(nic, (format!("{e:#}"), Instant::now() + PAUSE));
                return false;
            }
        }
        let (uplink, client, stop, turn) =
            (self.uplink.clone(), self.client.clone(), self.stop.clone(), self.turn.clone());
        let name = nic.clone();
        let done = tokio::spawn(async move {
            let _turn = turn.lock().await;
            uplink.start(&name, || ask::answers(client.clone()), &stop).await
        });
        let why = match done.await {
            Ok(Ok(_)) => {
                self.refused.remove(&nic);
                self.followed.insert(nic);
                return true;
            }
            Ok(Err(e)) => format!("{e:#}"),
            Err(e) => format!("it was cut short: {e}"),
        };
        warn!("{why}");
        // Where it was moved back, the journal says why and for how long.
        let failed = self.uplink.failed(&nic).ok().flatten();
        let (why, pause) = failed.unwrap_or((why, PAUSE));
        self.refused.insert(nic, (why, Instant::now() + pause));
        true
    }

    async fn give_back(&mut self, journal: Journal) -> bool {
        let nic = journal.uplink.nic.clone();
        if self.is_early(&nic) {
            return false;
        }
        self.followed.remove(&nic);
        let still = matches!(journal.phase, Phase::Failed { .. });
        let (uplink, turn) = (self.uplink.clone(), self.turn.clone());
        let done = tokio::spawn(async move {
            let _turn = turn.lock().await;
            uplink.give_back(journal).await
        });
        let why = match done.await {
            Ok(Ok(())) => {
                self.refused.remove(&nic);
                return !still;
            }
            Ok(Err(e)) => format!("{e:#}"),
            Err(e) => format!("it was cut short: {e}"),
        };
        warn!("{nic} stays in {}, though no ProviderNetwork names it: {why}", bridge_name(&nic));
        self.refused.insert(nic, (why, Instant::now() + PAUSE));
        false
    }
}
