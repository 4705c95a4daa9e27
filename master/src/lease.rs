//! Leader election by a Lease: of all masters one writes.
//!
//! ```text
//! candidate --(free, expired, or ours)--> replace guarded by resourceVersion --> leader --renew--> leader
//!     ^                                          | conflict                       | deadline passed, or another holder
//!     +------------------------------------------+--------------------------------+
//! ```
//!
//! Expiry is measured on our own clock from the moment a change of the Lease was seen, as client-go does, so clocks need
//! not agree. [`Validity`] is what writers ask before each write: it ends by itself, also in a process that was paused.
//! It does not fence the Northbound: the epoch of `reconcile` does. Must not: know what the leader does.
//!
//! Inputs: the Lease, time. Outputs: a watch channel of [`Leading`], and the validity.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use ovenbird_daemon::{access, rights};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::LeaseConfig;

/// Answers "may I write at this moment": true until the renewal deadline that follows the last successful renewal.
#[derive(Clone, Debug)]
pub struct Validity {
    base: Instant,
    /// Milliseconds after `base`; 0 is never.
    until: Arc<AtomicU64>,
    revoked: Arc<AtomicBool>,
}

impl Validity {
    /// Not valid until the first renewal.
    pub(crate) fn new() -> Validity {
        Validity { base: Instant::now(), until: Arc::default(), revoked: Arc::default() }
    }

    /// True while the lease is ours beyond doubt.
    pub fn is_valid(&self) -> bool {
        !self.revoked.load(Ordering::Acquire)
            && Instant::now() < self.base + Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    /// Ends it for good: we are about to give the lease back.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    fn set(&self, until: Option<Instant>) {
        let millis = until.map_or(0, |t| t.saturating_duration_since(self.base).as_millis() as u64);
        self.until.store(millis, Ordering::Release);
    }
}

/// Whether we lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leading {
    /// Another does, or nobody.
    #[default]
    No,
    /// We do, and nobody else has since this process looked first.
    First,
    /// We do, after another one, who may not know yet that it does no more, and whose last writes we may not have seen.
    Succeeded,
}

/// The running election.
#[derive(Debug)]
pub struct Election {
    /// Whether we lead, and how we came to it.
    pub leading: watch::Receiver<Leading>,
    /// Asked before each write.
    pub validity: Validity,
    /// Who we are in the Lease.
    pub identity: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Election {
    /// Takes part in the election until [`Election::release`]. Returns when the Lease was read once, so that whatever is listed
    /// from then on holds all that was written by a leader who had stopped by then.
    pub async fn start(client: kube::Client, config: LeaseConfig) -> Election {
        let identity = config.identity.clone().unwrap_or_else(random_identity);
        let (leading_tx, leading) = watch::channel(Leading::No);
        let validity = Validity::new();
        let stop = CancellationToken::new();
        let mut candidate = Candidate {
            api: Api::namespaced(client, &config.namespace),
            config,
            identity: identity.clone(),
            seen: None,
            leading: leading_tx,
            validity: validity.clone(),
            others: false,
        };
        let next = candidate.read().await;
        let task = tokio::spawn(candidate.run(next, stop.clone()));
        Election { leading, validity, identity, stop, task }
    }

    /// Ends our part and, when we lead, hands the lease over at once. Call it after the last write.
    pub async fn release(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the election task ended badly");
        }
    }
}

fn random_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// The Lease as we last saw it, and when it last changed.
struct Seen {
    lease: Lease,
    at: Instant,
}

/// What to do next about the Lease.
#[derive(Debug, PartialEq)]
enum Move {
    /// There is none: create it.
    Create,
    /// Write ourselves into it, as a new holder or as a renewal.
    Take,
    /// Another holds it until then.
    Wait(Instant),
}

struct Candidate {
    api: Api<Lease>,
    config: LeaseConfig,
    identity: String,
    seen: Option<Seen>,
    leading: watch::Sender<Leading>,
    validity: Validity,
    /// Another holder was seen.
    others: bool,
}

/// The rule of the election, free of I/O.
fn next_move(seen: Option<&Seen>, identity: &str, now: Instant) -> Move {
    let Some(seen) = seen else { return Move::Create };
    let spec = seen.lease.spec.as_ref();
    match spec.and_then(|s| s.holder_identity.as_deref()).unwrap_or_default() {
        "" => Move::Take,
        holder if holder == identity => Move::Take,
        _ => {
            let seconds = spec.and_then(|s| s.lease_duration_seconds).unwrap_or(1).max(1);
            let expiry = seen.at + Duration::from_secs(seconds as u64);
            if now >= expiry { Move::Take } else { Move::Wait(expiry) }
        }
    }
}

impl Candidate {
    async fn run(mut self, mut next: Instant, stop: CancellationToken) {
        let only_ours = watcher::Config::default().fields(&format!("metadata.name={}", self.config.name));
        let mut changes =
            watcher(self.api.clone(), only_ours).backoff(access::watch_backoff()).touched_objects().boxed();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(next) => {}
                // Only a hint that something changed; errors have their backoff inside and end here.
                Ok(Some(lease)) = changes.try_next() => {
                    if !self.is_news(lease) {
                        continue;
                    }
                }
            }
            next = self.step().await;
        }
        self.hand_over().await;
    }

    /// Notes a change that the watch tells of. While we lead it is only a hint, for it may be older than our last write.
    fn is_news(&mut self, lease: Lease) -> bool {
        let known = self.seen.as_ref().and_then(|s| s.lease.metadata.resource_version.as_deref());
        let foreign = lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref()) != Some(&self.identity);
        let news = lease.metadata.resource_version.as_deref() != known;
        if self.leads() {
            return news && foreign;
        }
        if news {
            self.note(Some(lease), Instant::now());
        }
        news
    }

    fn note(&mut self, lease: Option<Lease>, at: Instant) {
        let holder = lease.as_ref().and_then(|l| l.spec.as_ref()?.holder_identity.as_deref());
        self.others |= holder.is_some_and(|h| !h.is_empty() && h != self.identity);
        self.seen = lease.map(|lease| Seen { lease, at });
    }

    /// Makes the next move. Returns when to make the one after it.
    async fn step(&mut self) -> Instant {
        let now = Instant::now();
        let result = match next_move(self.seen.as_ref(), &self.identity, now) {
            Move::Wait(until) => {
                self.set_leading(None);
                return until;
            }
            Move::Create => self.write(true).await,
            Move::Take => self.write(false).await,
        };
        let vanished = |code| code == 404 && self.seen.is_some();
        match result {
            Ok(lease) => {
                self.note(Some(lease), now);
                self.set_leading(Some(now + self.config.renew_deadline));
                now + self.config.retry_period
            }
            Err(kube::Error::Api(status)) if status.code == 409 || vanished(status.code) => self.read().await,
            Err(error) => {
                if !rights::was_told(&error) {
                    tracing::warn!(%error, lease = self.config.name, "cannot write the Lease; check that the API server \
                        is reachable and the namespace exists");
                }
                self.step_down_when_due();
                Instant::now() + self.config.retry_period
            }
        }
    }

    /// Reads the Lease afresh. Returns when to act on it.
    async fn read(&mut self) -> Instant {
        let now = Instant::now();
        match self.timed(self.api.get_opt(&self.config.name)).await {
            Ok(lease) => {
                let known = self.seen.as_ref().map(|s| &s.lease.metadata.resource_version);
                if lease.is_none() || lease.as_ref().map(|l| &l.metadata.resource_version) != known {
                    self.note(lease, now);
                }
                match next_move(self.seen.as_ref(), &self.identity, now) {
                    Move::Wait(until) => {
                        self.set_leading(None);
                        until
                    }
                    Move::Create | Move::Take => now,
                }
            }
            Err(error) => {
                if !rights::was_told(&error) {
                    tracing::warn!(%error, lease = self.config.name, "cannot read the Lease; check that the API server \
                        is reachable");
                }
                self.step_down_when_due();
                Instant::now() + self.config.retry_period
            }
        }
    }

    /// Creates the Lease, or replaces the version that we saw, with ourselves as the holder.
    async fn write(&self, create: bool) -> Result<Lease, kube::Error> {
        let mut lease = self.seen.as_ref().map(|s| s.lease.clone()).unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_default();
        let time = Some(MicroTime(jiff::Timestamp::now()));
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time.clone_from(&time);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.lease_duration_seconds = Some(self.config.duration.as_secs() as i32);
        spec.renew_time = time;
        let params = PostParams::default();
        if create {
            self.timed(self.api.create(&params, &lease)).await
        } else {
            self.timed(self.api.replace(&self.config.name, &params, &lease)).await
        }
    }

    /// Gives the lease back: empty holder, one second, as client-go does.
    async fn hand_over(&mut self) {
        let leading = self.leads();
        self.set_leading(None);
        let Some(seen) = self.seen.take().filter(|_| leading) else { return };
        let mut lease = seen.lease;
        let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            lease_transitions: transitions,
            renew_time: Some(MicroTime(jiff::Timestamp::now())),
            ..LeaseSpec::default()
        });
        if let Err(error) = self.timed(self.api.replace(&self.config.name, &PostParams::default(), &lease)).await
            && !rights::was_told(&error)
        {
            tracing::warn!(%error, "cannot hand the lease over; the next leader waits for it to expire");
        }
    }

    /// A request that hangs must not keep us from seeing our own deadline.
    async fn timed<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        let limit = self.config.renew_deadline / 2;
        tokio::time::timeout(limit, request).await.unwrap_or_else(|_| {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {limit:?}"));
            Err(kube::Error::Service(Box::new(late)))
        })
    }

    fn step_down_when_due(&self) {
        if !self.validity.is_valid() {
            self.set_leading(None);
        }
    }

    fn leads(&self) -> bool {
        *self.leading.borrow() != Leading::No
    }

    fn set_leading(&self, until: Option<Instant>) {
        self.validity.set(until);
        let now = match until {
            None => Leading::No,
            Some(_) if self.leads() => return,
            Some(_) if self.others => Leading::Succeeded,
            Some(_) => Leading::First,
        };
        if self.leading.send_replace(now) != now {
            tracing::info!(leading = ?now, identity = self.identity, "leadership");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, at: Instant) -> Seen {
        let spec =
            LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(8), ..LeaseSpec::default() };
        Seen { lease: Lease { spec: Some(spec), ..Lease::default() }, at }
    }

    #[test]
    fn a_missing_lease_is_created_and_a_free_one_taken() {
        let now = Instant::now();
        assert_eq!(next_move(None, "me", now), Move::Create);
        assert_eq!(next_move(Some(&seen("", now)), "me", now), Move::Take);
        let empty = Seen { lease: Lease::default(), at: now };
        assert_eq!(next_move(Some(&empty), "me", now), Move::Take);
    }

    #[test]
    fn another_holder_is_waited_for_until_it_expires_on_our_clock() {
        let at = Instant::now();
        let expiry = at + Duration::from_secs(8);
        assert_eq!(next_move(Some(&seen("other", at)), "me", at), Move::Wait(expiry));
        assert_eq!(next_move(Some(&seen("other", at)), "me", expiry), Move::Take);
        assert_eq!(next_move(Some(&seen("me", at)), "me", at), Move::Take);
    }

    #[test]
    fn validity_ends_by_itself() {
        let validity = Validity::new();
        assert!(!validity.is_valid());
        validity.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(validity.is_valid());
        validity.set(Some(Instant::now()));
        assert!(!validity.is_valid());
        validity.set(None);
        assert!(!validity.is_valid());
    }
}
