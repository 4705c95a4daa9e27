//! When what is moved: at the daemon's start or when a physical network wants it, at boot, at the clean-up; and what is shown of it beforehand.
//!
//! ```text
//! start:  journal --> nothing  : choose --> take over --> the API server answers --> taken
//!                                                     \-> it does not, or a step fails --> everything back --> failed
//!                 --> taking   : everything is there and the API server answers --> taken, else back, and anew
//!                 --> taken    : what the NIC has got again, or what was lost, goes to the bridge
//!                 --> returning: the rest of the way back, and anew
//!                 --> failed   : an error until a pause is over, then anew
//! ```
//!
//! Must not: move anything while the API server does not answer beforehand: nobody could tell whether the move broke the way to it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use ovenbird_api::Masquerade;
use ovsdb::Endpoint;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::apply::apply;
use super::ask::{PAUSE, asked};
use super::choose::{Choice, choose, others};
use super::host::Host;
use super::item::{Item, Kind};
use super::journal::{Journal, JournalError, Phase, Purpose, Store, Uplink};
use super::kernel;
use super::plan::{Step, list, standing, to_bridge, to_nic};
use crate::config::Config;
use crate::gateway::GatewaySettings;
use crate::net::{OUR_PROTOCOL, causes};

/// Pause after the first take-over that failed; it doubles.
const FIRST_PAUSE: u64 = 60;
/// The longest.
const LONGEST_PAUSE: u64 = 3600;

/// The take-over of this host's uplinks.
#[derive(Clone)]
pub struct Task {
    purpose: Purpose,
    ovs: Vec<Endpoint>,
    masquerade: Masquerade,
    patience: Duration,
    store: Store,
}

impl Task {
    /// As configured, for one purpose.
    pub fn new(config: &Config, purpose: Purpose) -> Task {
        Task {
            purpose,
            ovs: config.ovs.clone(),
            masquerade: config.gateway.masquerade,
            patience: config.takeover_timeout,
            store: Store::new(&config.state_dir),
        }
    }

    /// Sees to it that `name`, a bridge or a NIC, is or is in a bridge, which is returned. `answers` asks the API server.
    ///
    /// # Errors
    /// When the NIC must not be taken over, or was and had to be moved back.
    pub async fn start<F: Future<Output = Result<(), String>>>(
        &self,
        name: &str,
        answers: impl Fn() -> F,
        stop: &CancellationToken,
    ) -> anyhow::Result<String> {
        let Some(journal) = self.journal(name)? else { return self.anew(name, 0, &answers, stop).await };
        if journal.purpose != self.purpose {
            self.store.write(&Journal { purpose: self.purpose, ..journal.clone() })?;
        }
        let Journal { uplink, phase, failures, .. } = journal;
        match phase {
            Phase::Taken | Phase::Restoring => {
                self.again(&uplink, phase == Phase::Restoring).await?;
                Ok(uplink.bridge)
            }
            Phase::Taking if to_bridge(&self.host().await?, &uplink).is_empty() && answers().await.is_ok() => {
                info!("{} was taken over into {} before the daemon ended", uplink.nic, uplink.bridge);
                self.note(&uplink, Phase::Taken, 0)?;
                Ok(uplink.bridge)
            }
            Phase::Taking | Phase::Returning => {
                warn!("moving {} back: its take-over, or its return, was cut short", uplink.nic);
                self.back(&uplink).await?;
                self.store.remove(&uplink.nic)?;
                self.anew(&uplink.nic, failures, &answers, stop).await
            }
            Phase::Failed { at, why } => {
                let left = (at + pause(failures)).saturating_sub(now());
                if left > 0 {
                    bail!(
                        "{} was not taken over: {why}; the next try is in {left} s, or at once after --cleanup",
                        uplink.nic
                    );
                }
                self.anew(&uplink.nic, failures, &answers, stop).await
            }
        }
    }

    /// The failure after which the NIC of this name is left alone, and how much longer.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn failed(&self, nic: &str) -> anyhow::Result<Option<(String, Duration)>> {
        Ok(match self.store.find(nic)? {
            Some(Journal { phase: Phase::Failed { at, why }, failures, .. }) => {
                let left = (at + pause(failures)).saturating_sub(now());
                (left > 0).then(|| (why, Duration::from_secs(left)))
            }
            _ => None,
        })
    }

    /// What is taken over for this purpose, or was tried; what cannot be read is told and left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn journals(&self) -> anyhow::Result<Vec<Journal>> {
        Ok(self.every()?.into_iter().filter(|journal| journal.purpose == self.purpose).collect())
    }

    fn every(&self) -> anyhow::Result<Vec<Journal>> {
        let told = |e: &JournalError| warn!("{e}: {}", causes(e));
        Ok(self.store.all()?.into_iter().filter_map(|journal| journal.inspect_err(told).ok()).collect())
    }

    /// At boot: what the journals say was taken over is so again. Needs neither the API server nor the daemon.
    ///
    /// # Errors
    /// When Open_vSwitch does not come, or a step fails, once all were tried; it can be called again.
    pub async fn restore(&self) -> anyhow::Result<()> {
        let all = self.store.all()?;
        if all.is_empty() {
            info!("no interface is taken over");
        }
        let mut ended = Ok(());
        for journal in all {
            let done = match journal {
                Ok(journal) => self.restore_one(journal).await,
                Err(e) => Err(e.into()),
            };
            ended = first(ended, done);
        }
        ended
    }

    async fn restore_one(&self, journal: Journal) -> anyhow::Result<()> {
        let Journal { uplink, phase, purpose, .. } = journal;
        // What is written of it goes on being for what it was for.
        let task = Task { purpose, ..self.clone() };
        match phase {
            Phase::Failed { .. } => info!("{} is not taken over", uplink.nic),
            Phase::Taken | Phase::Restoring => task.again(&uplink, phase == Phase::Restoring).await?,
            Phase::Taking | Phase::Returning => {
                warn!("moving {} back: its take-over, or its return, was cut short", uplink.nic);
                task.back(&uplink).await?;
                self.store.remove(&uplink.nic)?;
            }
        }
        Ok(())
    }

    /// At the clean-up: all NICs that were taken over, for whatever, get back what they had, as it is now, and their bridges go.
    ///
    /// # Errors
    /// When others' ports are in a bridge, or a step fails, once all were tried; it can be called again.
    pub async fn give_all_back(&self) -> anyhow::Result<()> {
        let mut ended = Ok(());
        for journal in self.store.all()? {
            let done = match journal {
                Ok(journal) => self.give_back(journal).await,
                Err(e) => Err(e.into()),
            };
            ended = first(ended, done);
        }
        ended
    }

    /// A NIC that was taken over gets back what it had, as it is now, and its bridge goes.
    ///
    /// # Errors
    /// As [`Task::give_all_back`].
    pub async fn give_back(&self, journal: Journal) -> anyhow::Result<()> {
        let (nic, purpose) = (journal.uplink.nic.clone(), journal.purpose);
        if !matches!(journal.phase, Phase::Failed { .. }) {
            let host = self.host().await?;
            let uplink = self.returning(&host, journal);
            let others = others(&host.bridges, &uplink);
            if !others.is_empty() {
                bail!("bridge {} has other ports ({}): remove them first", uplink.bridge, others.join(", "));
            }
            Task { purpose, ..self.clone() }.note(&uplink, Phase::Returning, 0)?;
            self.back(&uplink).await?;
            info!("{nic} is as it was; bridge {} is deleted", uplink.bridge);
        }
        Ok(self.store.remove(&nic)?)
    }

    /// The external bridge that is meant: that of the NIC that was taken over, when its name is given or none.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn bridge(&self, gateway: &GatewaySettings) -> anyhow::Result<String> {
        let journal = if gateway.named {
            self.store.find(&gateway.bridge)?
        } else {
            self.every()?.into_iter().find(|journal| journal.purpose == Purpose::Gateway)
        };
        Ok(journal.map_or_else(|| gateway.bridge.clone(), |j| j.uplink.bridge))
    }

    /// The steps that a start would take, or with `back` the clean-up: a list for a person.
    ///
    /// # Errors
    /// When the host cannot be read, or the NIC must not be taken over.
    pub async fn show(&self, name: &str, back: bool) -> anyhow::Result<String> {
        let host = self.host().await?;
        if back {
            let mut text = String::new();
            for journal in self.every()?.into_iter().filter(|j| !matches!(j.phase, Phase::Failed { .. })) {
                text.push_str(&list(&to_nic(&host, &self.returning(&host, journal))));
            }
            return Ok(if text.is_empty() { "Nothing to do: no interface is taken over.\n".into() } else { text });
        }
        let journal = self.journal(name)?.filter(|j| !matches!(j.phase, Phase::Failed { .. }));
        let steps = match journal {
            Some(Journal { uplink, phase: Phase::Taking | Phase::Returning, .. }) => to_nic(&host, &uplink),
            Some(Journal { uplink, phase, .. }) => {
                let items = standing(&host, &uplink, phase == Phase::Restoring, |item| self.is_ours(item));
                to_bridge(&host, &Uplink { items, ..uplink })
            }
            None => match self.choose(&host, name)? {
                Choice::Bridge(bridge) => {
                    return Ok(format!("Nothing to do: {bridge} is a bridge of Open_vSwitch, used as it is.\n"));
                }
                Choice::Absent => return Ok(format!("Nothing to do: there is no bridge or interface {name}.\n")),
                Choice::TakeOver(uplink) => to_bridge(&host, &uplink),
            },
        };
        Ok(if steps.is_empty() { "Nothing to do: everything is on the bridge.\n".into() } else { list(&steps) })
    }

    /// The journal about `name`. A gateway has one NIC only.
    fn journal(&self, name: &str) -> anyhow::Result<Option<Journal>> {
        let found = self.store.find(name)?;
        if found.is_none() && self.purpose == Purpose::Gateway {
            let taken = |j: &Journal| j.purpose == Purpose::Gateway && !matches!(j.phase, Phase::Failed { .. });
            if let Some(other) = self.every()?.into_iter().find(taken) {
                bail!(
                    "--gateway-interface {name}: {nic} is taken over; give it back first (ovenbird-node --cleanup \
                     --gateway-interface {nic})",
                    nic = other.uplink.nic
                );
            }
        }
        Ok(found)
    }

    /// What `name` is; a refusal says who named it.
    fn choose(&self, host: &Host, name: &str) -> anyhow::Result<Choice> {
        let who = if self.purpose == Purpose::Gateway { "--gateway-interface" } else { "interface" };
        choose(host, name).map_err(|refusal| anyhow!("{who} {refusal}"))
    }

    async fn host(&self) -> anyhow::Result<Host> {
        Ok(kernel::read(&self.ovs, self.patience).await?)
    }

    fn note(&self, uplink: &Uplink, phase: Phase, failures: u32) -> anyhow::Result<()> {
        Ok(self.store.write(&Journal { uplink: uplink.clone(), phase, failures, purpose: self.purpose })?)
    }

    /// What the gateway put on the bridge: addresses and neighbours of the link to OVN, and routes to Services.
    fn is_ours(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Route => [&item.words, " "].concat().contains(&format!(" proto {} ", u8::from(OUR_PROTOCOL))),
            _ => {
                let address = item.subject().split('/').next().unwrap_or_default().parse::<IpAddr>();
                address.is_ok_and(|ip| self.masquerade.subnet(item.v4).contains(&ip))
            }
        }
    }

    /// What goes back to the NIC.
    fn returning(&self, host: &Host, journal: Journal) -> Uplink {
        let Journal { uplink, phase, .. } = journal;
        match phase {
            Phase::Taking | Phase::Returning => uplink,
            _ => {
                let items = standing(host, &uplink, phase == Phase::Restoring, |item| self.is_ours(item));
                Uplink { items, ..uplink }
            }
        }
    }

    /// Without a journal.
    async fn anew<F: Future<Output = Result<(), String>>>(
        &self,
        name: &str,
        failures: u32,
        answers: &impl Fn() -> F,
        stop: &CancellationToken,
    ) -> anyhow::Result<String> {
        if let Choice::TakeOver(uplink) = self.choose(&self.host().await?, name)? {
            info!("{name} will be taken over into {} once the API server answers", uplink.bridge);
            while let Err(why) = asked(answers, stop, self.patience).await {
                if stop.is_cancelled() {
                    bail!("stopped before the API server answered");
                }
                warn!("{name} stays as it is until the API server answers: {why}");
            }
        }
        // Time has passed.
        match self.choose(&self.host().await?, name)? {
            Choice::Bridge(bridge) => Ok(bridge),
            Choice::Absent => Ok(name.to_owned()),
            Choice::TakeOver(uplink) => self.take_over(uplink, failures, answers, stop).await,
        }
    }

    async fn take_over<F: Future<Output = Result<(), String>>>(
        &self,
        uplink: Uplink,
        failures: u32,
        answers: &impl Fn() -> F,
        stop: &CancellationToken,
    ) -> anyhow::Result<String> {
        warn_of_leases(&uplink);
        let steps = to_bridge(&self.host().await?, &uplink);
        self.note(&uplink, Phase::Taking, failures)?;
        let why = match self.carry_out(&steps).await {
            Ok(()) => match asked(answers, stop, self.patience).await {
                Ok(()) => {
                    info!("{} is taken over into {}, and the API server answers", uplink.nic, uplink.bridge);
                    self.note(&uplink, Phase::Taken, 0)?;
                    return Ok(uplink.bridge);
                }
                Err(why) => why,
            },
            Err(e) => format!("{e:#}"),
        };
        error!("moving {} back: {why}", uplink.nic);
        self.back(&uplink).await.with_context(|| format!("{why}; and moving {} back failed", uplink.nic))?;
        if stop.is_cancelled() {
            self.store.remove(&uplink.nic)?;
            bail!("stopped before the API server answered; {} is as it was", uplink.nic);
        }
        let failures = failures + 1;
        self.note(&uplink, Phase::Failed { at: now(), why: why.clone() }, failures)?;
        bail!(
            "{} was taken over and moved back: {why}; the next try is in {} s, or at once after --cleanup",
            uplink.nic,
            pause(failures)
        );
    }

    /// Once taken over: everything on the bridge again.
    async fn again(&self, uplink: &Uplink, cut_short: bool) -> anyhow::Result<()> {
        let mut host = self.host().await?;
        let deadline = Instant::now() + self.patience;
        // After a boot vswitchd may still be making it.
        while host.bridges.contains_key(&uplink.bridge) && host.interface(&uplink.bridge).is_none() {
            if Instant::now() > deadline {
                bail!("interface {} does not come; is ovs-vswitchd running?", uplink.bridge);
            }
            sleep(PAUSE).await;
            host = self.host().await?;
        }
        let items = standing(&host, uplink, cut_short, |item| self.is_ours(item));
        let now = Uplink { items, ..uplink.clone() };
        let steps = to_bridge(&host, &now);
        if !steps.is_empty() {
            warn_of_leases(&now);
            self.note(&now, Phase::Restoring, 0)?;
            self.carry_out(&steps).await?;
            info!("{} has again what belongs to {}", now.bridge, now.nic);
        }
        if cut_short || !steps.is_empty() || now != *uplink {
            self.note(&now, Phase::Taken, 0)?;
        }
        Ok(())
    }

    async fn carry_out(&self, steps: &[Step]) -> anyhow::Result<()> {
        let moving = apply(&self.ovs, steps).await?;
        info!("{} steps; addresses were on their way for {moving:?} at most", steps.len());
        Ok(())
    }

    /// Everything to the NIC, and the bridge away.
    async fn back(&self, uplink: &Uplink) -> anyhow::Result<()> {
        self.carry_out(&to_nic(&self.host().await?, uplink)).await?;
        let left = to_nic(&self.host().await?, uplink);
        if left.is_empty() {
            Ok(())
        } else {
            bail!("{} is not as it was; what is missing:\n{}", uplink.nic, list(&left))
        }
    }
}

/// The first error; what comes after it is told.
fn first(before: anyhow::Result<()>, now: anyhow::Result<()>) -> anyhow::Result<()> {
    match (before, now) {
        (Ok(()), now) => now,
        (Err(first), now) => {
            if let Err(e) = now {
                error!("{e:#}");
            }
            Err(first)
        }
    }
}

/// A client of DHCP, or the kernel, gives addresses to the NIC again when they have run out.
fn warn_of_leases(uplink: &Uplink) {
    let Uplink { nic, bridge, items, .. } = uplink;
    let leases: Vec<_> =
        items.iter().filter(|i| i.kind == Kind::Address && !i.lasts.is_empty()).map(Item::subject).collect();
    if !leases.is_empty() {
        warn!(
            "{} of {nic} will run out: whoever renews it (a DHCP client, systemd-networkd, NetworkManager, router \
             advertisements) does so on {nic}; let it configure {bridge} instead, see deploy/README.md",
            leases.join(", ")
        );
    }
}

/// Seconds to wait after so many failures.
fn pause(failures: u32) -> u64 {
    let doubled = FIRST_PAUSE.checked_shl(failures.saturating_sub(1)).unwrap_or(LONGEST_PAUSE);
    doubled.min(LONGEST_PAUSE)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
