//! The committer: the one writer of a database. A state machine without I/O and without clock.
//!
//! ```text
//!            next --> batch in flight --> on_reply: committed ----------------------------------> next
//!                                                   stale replica: compare again ---------------> next
//!                                                   constraint error: bisect --> one owner left: quarantine with backoff
//!                                                   fenced: nothing more until a new fence
//!            reset (connection lost): forget what is in flight, compare everything
//! ```
//!
//! One transaction is in flight; what becomes dirty meanwhile is the next one, so load raises its size and not a queue's length.
//! Brakes: nothing is removed before [`Committer::allow_deletes`], and no large share of the owned rows before [`Committer::release`].
//!
//! Inputs: the desired store, the replica, replies, and `now` (time since a start that the caller chose). Outputs: transactions.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::{DbError, Op, Replica, TableDesc, TxnReply, Uuid};
use rustc_hash::FxHashMap;

use crate::batch::build;
use crate::desired::Desired;
use crate::dirty::{Cause, Dirt};
use crate::epoch::Fence;
use crate::identity::is_ours;
use crate::plan::{Group, Plan, Why};
use crate::planner::{Limits, plan_within};
use crate::row::{Diagnostic, Owner, Severity};

/// Replies in a row that may be blamed on a replica that lags, before they are blamed on an owner.
const STALE_REPLIES: u32 = 3;

/// Times that an owner's rows are healed at once; a writer that goes on undoing ours is then answered ever more slowly.
const PATIENCE: u32 = 20;

/// Sizes and times; the defaults suit one Northbound.
#[derive(Clone, Copy, Debug)]
pub struct CommitConfig {
    /// A transaction is not extended beyond so many rows. One owner's rows stay together, so it may become larger.
    pub rows: usize,
    /// Nor beyond so many bytes.
    pub bytes: usize,
    /// A removal of more than so many percent of the owned rows is held.
    pub brake_percent: usize,
    /// If it is at least so many rows.
    pub brake_rows: usize,
    /// First delay before a quarantined owner is tried again; doubled each time.
    pub retry_first: Duration,
    /// Longest delay.
    pub retry_last: Duration,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig {
            rows: 100,
            bytes: 64 << 10,
            brake_percent: 30,
            brake_rows: 50,
            retry_first: Duration::from_secs(1),
            retry_last: Duration::from_secs(300),
        }
    }
}

/// See the file header.
#[derive(Debug)]
pub struct Committer {
    config: CommitConfig,
    fence: Option<Fence>,
    fenced: bool,
    deletes: bool,
    released: bool,
    held: Option<Brake>,
    /// Unwanted rows and transactions when `held` was found out.
    weighed: (usize, u64),
    in_flight: Option<InFlight>,
    /// Parts of a rejected transaction still to be tried, last one first.
    suspects: Vec<Suspects>,
    quarantine: FxHashMap<Arc<Owner>, Quarantine>,
    /// How often, and when last, the rows of an owner were healed.
    contested: FxHashMap<Arc<Owner>, (u32, Duration)>,
    stale: u32,
    not_before: Duration,
    counters: Counters,
}

/// A transaction to be sent.
#[derive(Debug)]
pub struct Batch {
    /// Operations.
    pub ops: Vec<Op>,
    /// Rows that they write.
    pub rows: usize,
    /// About the bytes on the wire.
    pub bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    plan: Plan,
    owners: Vec<Vec<Arc<Owner>>>,
    rows: usize,
    bytes: usize,
    fences: usize,
    probe: Option<Suspects>,
}

#[derive(Debug)]
struct Suspects {
    owners: Vec<Arc<Owner>>,
    /// These cannot be told apart further.
    last: bool,
}

#[derive(Debug)]
struct Quarantine {
    attempts: u32,
    /// `None` while it is being tried again.
    until: Option<Duration>,
    diagnostic: Diagnostic,
}

/// A removal that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Rows that would go.
    pub removals: usize,
    /// Rows that are ours in the database.
    pub owned: usize,
}

/// What a reply meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in the database.
    Committed {
        /// Rows written.
        rows: usize,
    },
    /// The replica was behind; the same is compared again.
    Stale(String),
    /// Rejected; the guilty owner is being looked for.
    Rejected(String),
    /// Rejected because of these owners, which are left alone for a while.
    Quarantined(Vec<(Owner, Diagnostic)>),
    /// Another leader has raised the epoch: nothing was written, nothing will be.
    Fenced,
    /// No reply; whether it is in the database will show.
    Unknown(String),
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions sent.
    pub transactions: u64,
    /// Rows written by committed transactions.
    pub rows: u64,
    /// Bytes of committed transactions, about.
    pub bytes: u64,
    /// Transactions that failed.
    pub errors: u64,
    /// Operations that undid what others changed.
    pub healed: u64,
    /// Operations that only a comparison of everything found necessary.
    pub audited: u64,
    /// Times that an owner was quarantined.
    pub quarantined: u64,
    /// Times that a removal was held.
    pub held: u64,
}

impl Committer {
    /// A committer that removes nothing yet. Without a fence anybody may write beside it.
    pub fn new(config: CommitConfig, fence: Option<Fence>) -> Committer {
        Committer {
            config,
            fence,
            fenced: false,
            deletes: false,
            released: false,
            held: None,
            weighed: (0, 0),
            in_flight: None,
            suspects: Vec::new(),
            quarantine: FxHashMap::default(),
            contested: FxHashMap::default(),
            stale: 0,
            not_before: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// The next transaction, if one is needed and none is in flight. Call it after every change of the desired store or the
    /// replica, after every reply, and at [`Committer::next_wake`].
    pub fn next(&mut self, desired: &mut Desired, replica: &Replica, now: Duration) -> Option<Batch> {
        if self.in_flight.is_some() || self.fenced || now < self.not_before {
            return None;
        }
        self.not_before = Duration::ZERO;
        self.retry(desired, now);
        loop {
            let removals = self.deletes && !self.brake(desired, replica);
            let probe = self.suspects.pop();
            let plan = self.plan(desired, replica, removals, probe.as_ref());
            if !plan.is_empty() {
                return Some(self.send(plan, probe));
            }
            self.acquit(&probe?.owners);
        }
    }

    /// Takes the reply to the transaction in flight, after the replica has had the updates that came before it.
    pub fn on_reply(
        &mut self,
        desired: &mut Desired,
        reply: Result<&TxnReply, &(dyn Error + 'static)>,
        now: Duration,
    ) -> Option<Outcome> {
        let flight = self.in_flight.take()?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.counters.errors += 1;
                self.not_before = now + self.config.retry_first;
                requeue(desired, flight.plan.groups);
                return Some(Outcome::Unknown(error.to_string()));
            }
        };
        let Some((at, error)) = reply.error() else { return Some(self.committed(desired, &flight, now)) };
        self.counters.errors += 1;
        if flight.fences > 0 && Fence::is_fenced(reply) {
            self.fenced = true;
            requeue(desired, flight.plan.groups);
            return Some(Outcome::Fenced);
        }
        if is_transient(error) {
            self.not_before = now + self.config.retry_first;
            requeue(desired, flight.plan.groups);
            return Some(Outcome::Unknown(error.to_string()));
        }
        if is_stale(error) && flight.probe.is_none() && self.stale < STALE_REPLIES {
            self.not_before = now + Duration::from_millis(10 << self.stale);
            self.stale += 1;
            requeue(desired, flight.plan.groups);
            return Some(Outcome::Stale(error.to_string()));
        }
        Some(self.accuse(desired, flight, at, error, now))
    }

    /// Forgets what is in flight; everything is compared again. Call it when a connection has come back and the replica is
    /// complete.
    pub fn reset(&mut self, desired: &mut Desired) {
        if let Some(flight) = self.in_flight.take() {
            requeue(desired, flight.plan.groups);
        }
        self.suspects.clear();
        self.stale = 0;
        self.not_before = Duration::ZERO;
        desired.request_audit();
    }

    /// Says whether the desired store is complete, so that what it does not hold may be removed.
    pub fn allow_deletes(&mut self, desired: &mut Desired, allowed: bool) {
        if allowed && !self.deletes {
            desired.request_audit();
        }
        self.deletes = allowed;
    }

    /// Lets the removal that is held happen.
    pub fn release(&mut self, desired: &mut Desired) {
        self.released = true;
        desired.request_audit();
    }

    /// Replaces the fence, after a takeover.
    pub fn set_fence(&mut self, fence: Option<Fence>) {
        self.fence = fence;
        self.fenced = false;
    }

    /// True after [`Outcome::Fenced`], until a new fence is set.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// The removal that is held now.
    pub fn held(&self) -> Option<Brake> {
        self.held
    }

    /// The plan in flight.
    pub fn in_flight(&self) -> Option<&Plan> {
        self.in_flight.as_ref().map(|f| &f.plan)
    }

    /// Owners that are left alone for a while, and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Owner, &Diagnostic)> {
        self.quarantine.iter().map(|(owner, q)| (&**owner, &q.diagnostic))
    }

    /// When [`Committer::next`] should be called even if nothing happens, on the clock of its `now`.
    pub fn next_wake(&self) -> Option<Duration> {
        if self.fenced || self.in_flight.is_some() {
            return None;
        }
        let retry = self.quarantine.values().filter_map(|q| q.until).min();
        let pause = Some(self.not_before).filter(|t| !t.is_zero());
        [retry.map(|r| r.max(self.not_before)), pause].into_iter().flatten().min()
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn plan(&mut self, desired: &mut Desired, replica: &Replica, removals: bool, probe: Option<&Suspects>) -> Plan {
        let quarantine = &mut self.quarantine;
        let mut lifted = Vec::new();
        let mut held = |owner: &Owner, items: &[Dirt]| match quarantine.get(owner) {
            Some(q) if q.until.is_none() => false,
            Some(_) if items.iter().any(|(_, cause)| *cause == Cause::Desired) => {
                // The object has changed: a new chance, at once.
                lifted.extend(quarantine.remove_entry(owner).map(|(owner, _)| owner));
                false
            }
            found => found.is_some(),
        };
        let limits = Limits {
            rows: self.config.rows,
            bytes: self.config.bytes,
            removals,
            only: probe.map(|p| &p.owners[..]),
            held: &mut held,
        };
        let plan = plan_within(desired, replica, limits);
        for owner in lifted {
            desired.unbench(&owner);
        }
        plan
    }

    fn send(&mut self, plan: Plan, probe: Option<Suspects>) -> Batch {
        let built = build(&plan.groups);
        let rows = built.ops.len();
        let mut ops: Vec<Op> = self.fence.iter().map(Fence::test).collect();
        let fences = ops.len();
        ops.extend(built.ops);
        let bytes = ops.iter().map(Op::approximate_size).sum();
        self.counters.transactions += 1;
        self.in_flight = Some(InFlight { plan, owners: built.owners, rows, bytes, fences, probe });
        Batch { ops, rows, bytes }
    }

    fn committed(&mut self, desired: &mut Desired, flight: &InFlight, now: Duration) -> Outcome {
        self.stale = 0;
        self.counters.rows += flight.rows as u64;
        self.counters.bytes += flight.bytes as u64;
        for (_, op) in flight.plan.ops() {
            match op.why {
                Why::Healed => self.counters.healed += 1,
                Why::Audit => self.counters.audited += 1,
                _ => {}
            }
        }
        for group in &flight.plan.groups {
            self.acquit(std::slice::from_ref(&group.owner));
            if group.ops.iter().any(|op| op.why == Why::Healed) {
                self.contest(desired, &group.owner, now);
            }
        }
        Outcome::Committed { rows: flight.rows }
    }

    /// Counts a hand edit. Where another program undoes what we write, the two must not race each other.
    fn contest(&mut self, desired: &mut Desired, owner: &Arc<Owner>, now: Duration) {
        let quiet = self.config.retry_last.saturating_mul(2);
        self.contested.retain(|_, (_, last)| now.saturating_sub(*last) < quiet);
        let (times, last) = self.contested.entry(owner.clone()).or_default();
        (*times, *last) = (times.saturating_add(1), now);
        let excess = times.saturating_sub(PATIENCE);
        if excess > 0 {
            let message = format!("another program has undone this object's rows {times} times; find it and stop it");
            let diagnostic =
                Diagnostic { severity: Severity::Warning, reason: "RowsContested", field: String::new(), message };
            desired.bench(owner);
            self.sentence(owner.clone(), excess - 1, diagnostic, now);
        }
    }

    /// Ends the quarantine of owners that were tried again with success.
    fn acquit(&mut self, owners: &[Arc<Owner>]) {
        for owner in owners {
            if self.quarantine.get(owner).is_some_and(|q| q.until.is_none()) {
                self.quarantine.remove(owner);
            }
        }
    }

    /// Narrows a rejected transaction down, or quarantines whom it is narrowed down to.
    fn accuse(
        &mut self,
        desired: &mut Desired,
        flight: InFlight,
        at: Option<usize>,
        error: &DbError,
        now: Duration,
    ) -> Outcome {
        let mut owners: Vec<Arc<Owner>> = Vec::new();
        for group in &flight.plan.groups {
            if !owners.contains(&group.owner) {
                owners.push(group.owner.clone());
            }
        }
        // An error of one operation names those that the operation serves.
        let named = at.and_then(|at| flight.owners.get(at.checked_sub(flight.fences)?));
        let single_probe = flight.probe.as_ref().is_some_and(|p| p.owners.len() == 1);
        let exhausted = flight.probe.as_ref().is_some_and(|p| p.last);
        let guilty = match named {
            Some(named) if named.len() == 1 => named.clone(),
            _ if owners.len() == 1 || exhausted => owners.clone(),
            _ => {
                let right = owners.split_off(owners.len() / 2);
                self.suspects.push(Suspects { owners: right, last: single_probe });
                self.suspects.push(Suspects { owners, last: single_probe });
                requeue(desired, flight.plan.groups);
                return Outcome::Rejected(error.to_string());
            }
        };
        requeue(desired, flight.plan.groups);
        let mut told = Vec::new();
        let message = format!(
            "the database rejects this object's rows ({error}); change the object or remove what is in its way"
        );
        for owner in guilty {
            desired.bench(&owner);
            let reason = "RejectedByDatabase";
            let diagnostic =
                Diagnostic { severity: Severity::Error, reason, field: String::new(), message: message.clone() };
            told.push((Owner::clone(&owner), diagnostic.clone()));
            let attempts = self.quarantine.get(&owner).map_or(0, |q| q.attempts);
            self.sentence(owner, attempts, diagnostic, now);
        }
        Outcome::Quarantined(told)
    }

    /// Leaves an owner alone, the longer the more attempts there were.
    fn sentence(&mut self, owner: Arc<Owner>, attempts: u32, diagnostic: Diagnostic, now: Duration) {
        let delay = self.config.retry_first.saturating_mul(1 << attempts.min(20)).min(self.config.retry_last);
        let attempts = attempts.saturating_add(1);
        self.quarantine.insert(owner, Quarantine { attempts, until: Some(now + delay), diagnostic });
        self.counters.quarantined += 1;
    }

    /// Queues the quarantined owners whose time has come, each to be tried alone.
    fn retry(&mut self, desired: &mut Desired, now: Duration) {
        let due = |q: &Quarantine| q.until.is_some_and(|until| until <= now);
        let mut owners: Vec<Arc<Owner>> =
            self.quarantine.iter().filter(|(_, q)| due(q)).map(|(owner, _)| owner.clone()).collect();
        owners.sort_unstable();
        for owner in owners.into_iter().rev() {
            if desired.unbench(&owner) {
                self.quarantine.entry(owner.clone()).and_modify(|q| q.until = None);
                self.suspects.push(Suspects { owners: vec![owner], last: false });
            } else {
                self.quarantine.remove(&owner);
            }
        }
    }

    /// True when removals have to wait.
    fn brake(&mut self, desired: &mut Desired, replica: &Replica) -> bool {
        let state = (desired.unwanted.len(), self.counters.transactions);
        if self.weighed != state || self.released {
            self.weighed = state;
            let before = self.held.take();
            self.held = self.weigh(desired, replica);
            self.counters.held += u64::from(before.is_none() && self.held.is_some());
            if before.is_some() && self.held.is_none() {
                // References that were left in place meanwhile.
                desired.request_audit();
            }
        }
        self.held.is_some()
    }

    /// The removal that is due, if it is too large.
    fn weigh(&mut self, desired: &Desired, replica: &Replica) -> Option<Brake> {
        let there = |(uuid, (_, table)): &(&Uuid, &(Arc<Owner>, &TableDesc))| replica.row(table, uuid).is_some();
        let few = desired.unwanted.len() < self.config.brake_rows;
        let removals = if few { 0 } else { desired.unwanted.iter().filter(there).count() };
        if removals < self.config.brake_rows {
            self.released = false;
            return None;
        }
        let owned = desired.db.tables.iter().flat_map(|t| replica.rows(t)).filter(|(u, _)| is_ours(u)).count();
        let large = removals * 100 > owned * self.config.brake_percent;
        (large && !self.released).then_some(Brake { removals, owned })
    }
}

fn requeue(desired: &mut Desired, groups: Vec<Group>) {
    for group in groups {
        for (wanted, (item, cause)) in group.items {
            desired.dirty.push(&group.owner, wanted, item, cause);
        }
    }
}

/// Errors that a replica which lags behind the server explains.
fn is_stale(error: &DbError) -> bool {
    matches!(error.error.as_str(), "duplicate uuid" | "referential integrity violation")
}

/// Errors that are nobody's fault (ovsdb-server(7) 4.1.3, RFC 7047 section 4.1.3).
fn is_transient(error: &DbError) -> bool {
    matches!(
        error.error.as_str(),
        "canceled"
            | "resources exhausted"
            | "I/O error"
            | "not owner"
            | "timed out"
            | "cluster error"
            | "raft error"
            | "not leader"
            | "database removed"
            | "not allowed"
            | "permission error"
    )
}
