//! When what is moved: at the daemon's start, at boot, at the clean-up; and what is shown of it beforehand.
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

use anyhow::{Context as _, bail};
use ovenbird_api::Masquerade;
use ovsdb::Endpoint;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::apply::apply;
use super::choose::{Choice, choose, others};
use super::host::Host;
use super::item::{Item, Kind};
use super::journal::{Journal, Phase, Store, Uplink};
use super::kernel;
use super::plan::{Step, list, standing, to_bridge, to_nic};
use crate::config::Config;
use crate::gateway::GatewaySettings;
use crate::net::{OUR_PROTOCOL, causes};

/// Time that one question to the API server may take.
const TRY: Duration = Duration::from_secs(5);
/// Pause between questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after the first take-over that failed; it doubles.
const FIRST_PAUSE: u64 = 60;
/// The longest.
const LONGEST_PAUSE: u64 = 3600;

/// The take-over of this host's uplink.
pub struct Task {
    ovs: Vec<Endpoint>,
    masquerade: Masquerade,
    patience: Duration,
    store: Store,
}

impl Task {
    /// As configured.
    pub fn new(config: &Config) -> Task {
        Task {
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
        let Journal { uplink, phase, failures } = journal;
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
                self.store.remove()?;
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

    /// At boot: what the journal says was taken over is so again. Needs neither the API server nor the daemon.
    ///
    /// # Errors
    /// When Open_vSwitch does not come, or a step fails; it can be called again.
    pub async fn restore(&self) -> anyhow::Result<()> {
        match self.store.read()? {
            None => info!("no interface is taken over"),
            Some(Journal { uplink, phase: Phase::Failed { .. }, .. }) => info!("{} is not taken over", uplink.nic),
            Some(Journal { uplink, phase: phase @ (Phase::Taken | Phase::Restoring), .. }) => {
                self.again(&uplink, phase == Phase::Restoring).await?;
            }
            Some(Journal { uplink, .. }) => {
                warn!("moving {} back: its take-over, or its return, was cut short", uplink.nic);
                self.back(&uplink).await?;
                self.store.remove()?;
            }
        }
        Ok(())
    }

    /// At the clean-up: a NIC that was taken over gets back what it had, as it is now, and the bridge goes.
    ///
    /// # Errors
    /// When others' ports are in the bridge, or a step fails; it can be called again.
    pub async fn give_back(&self) -> anyhow::Result<()> {
        let Some(journal) = self.store.read()? else { return Ok(()) };
        if !matches!(journal.phase, Phase::Failed { .. }) {
            let host = self.host().await?;
            let uplink = self.returning(&host, journal);
            let others = others(&host.bridges, &uplink);
            if !others.is_empty() {
                bail!("bridge {} has other ports ({}): remove them first", uplink.bridge, others.join(", "));
            }
            self.note(&uplink, Phase::Returning, 0)?;
            self.back(&uplink).await?;
            info!("{} is as it was; bridge {} is deleted", uplink.nic, uplink.bridge);
        }
        Ok(self.store.remove()?)
    }

    /// The external bridge that is meant: that of the NIC that was taken over, when its name is given or none.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn bridge(&self, gateway: &GatewaySettings) -> anyhow::Result<String> {
        let journal = self.store.read()?.filter(|j| !gateway.named || j.uplink.nic == gateway.bridge);
        Ok(journal.map_or_else(|| gateway.bridge.clone(), |j| j.uplink.bridge))
    }

    /// The steps that a start would take, or with `back` the clean-up: a list for a person.
    ///
    /// # Errors
    /// When the host cannot be read, or the NIC must not be taken over.
    pub async fn show(&self, name: &str, back: bool) -> anyhow::Result<String> {
        let host = self.host().await?;
        if back {
            let journal = self.store.read()?.filter(|j| !matches!(j.phase, Phase::Failed { .. }));
            let Some(journal) = journal else { return Ok("Nothing to do: no interface is taken over.\n".into()) };
            return Ok(list(&to_nic(&host, &self.returning(&host, journal))));
        }
        let journal = self.journal(name)?.filter(|j| !matches!(j.phase, Phase::Failed { .. }));
        let steps = match journal {
            Some(Journal { uplink, phase: Phase::Taking | Phase::Returning, .. }) => to_nic(&host, &uplink),
            Some(Journal { uplink, phase, .. }) => {
                let items = standing(&host, &uplink, phase == Phase::Restoring, |item| self.is_ours(item));
                to_bridge(&host, &Uplink { items, ..uplink })
            }
            None => match choose(&host, name)? {
                Choice::Bridge(bridge) => {
                    return Ok(format!("Nothing to do: {bridge} is a bridge of Open_vSwitch, used as it is.\n"));
                }
                Choice::Absent => return Ok(format!("Nothing to do: there is no bridge or interface {name}.\n")),
                Choice::TakeOver(uplink) => to_bridge(&host, &uplink),
            },
        };
        Ok(if steps.is_empty() { "Nothing to do: everything is on the bridge.\n".into() } else { list(&steps) })
    }

    /// The journal, when it is about `name`.
    fn journal(&self, name: &str) -> anyhow::Result<Option<Journal>> {
        match self.store.read()? {
            Some(j) if j.uplink.nic != name && j.uplink.bridge != name => match j.phase {
                Phase::Failed { .. } => Ok(None),
                _ => bail!(
                    "--gateway-interface {name}: {nic} is taken over; give it back first (ovenbird-node --cleanup \
                     --gateway-interface {nic})",
                    nic = j.uplink.nic
                ),
            },
            journal => Ok(journal),
        }
    }

    async fn host(&self) -> anyhow::Result<Host> {
        Ok(kernel::read(&self.ovs, self.patience).await?)
    }

    fn note(&self, uplink: &Uplink, phase: Phase, failures: u32) -> anyhow::Result<()> {
        Ok(self.store.write(&Journal { uplink: uplink.clone(), phase, failures })?)
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
        if let Choice::TakeOver(uplink) = choose(&self.host().await?, name)? {
            info!("{name} will be taken over into {} once the API server answers", uplink.bridge);
            while let Err(why) = asked(answers, stop, self.patience).await {
                if stop.is_cancelled() {
                    bail!("stopped before the API server answered");
                }
                warn!("{name} stays as it is until the API server answers: {why}");
            }
        }
        // Time has passed.
        match choose(&self.host().await?, name)? {
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
            self.store.remove()?;
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

/// Asks the API server until it answers, for as long as `patience`.
async fn asked<F: Future<Output = Result<(), String>>>(
    answers: &impl Fn() -> F,
    stop: &CancellationToken,
    patience: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        let why = tokio::select! {
            answer = timeout(TRY.min(patience), answers()) => match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {TRY:?}"),
            },
            () = stop.cancelled() => return Err("the daemon was stopped".into()),
        };
        if Instant::now() >= deadline {
            return Err(format!("the API server does not answer within {patience:?}: {why}"));
        }
        sleep(PAUSE).await;
    }
}

/// Whether the API server answers, be it that it refuses.
///
/// # Errors
/// What is in the way.
pub async fn answers(client: kube::Client) -> Result<(), String> {
    match client.apiserver_version().await {
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(e) => Err(format!("{e}: {}", causes(&e))),
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
