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
//! One burst of transactions is in flight, mostly of one; what becomes dirty meanwhile is the next, so load raises its size and not a
//! queue's length.
//! Brakes: nothing is removed before [`Committer::allow_deletes`], and no large share of the owned rows before [`Committer::release`].
//!
//! Inputs: the desired store, the replica, replies, and `now` (time since a start that the caller chose). Outputs: transactions.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::{DbError, Op, Replica, TxnReply};

use crate::batch::build;
use crate::brake::{Brake, Brakes};
use crate::desired::Desired;
use crate::dirty::Dirt;
use crate::epoch::Fence;
use crate::plan::{Group, Plan, Why};
use crate::planner::{Limits, plan_within};
use crate::quarantine::{Quarantine, Status};
use crate::row::{Diagnostic, Owner};

/// Replies in a row that may be blamed on a replica that lags, before they are blamed on an owner.
const STALE_REPLIES: u32 = 3;

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
            bytes: 128 << 10,
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
    brakes: Brakes,
    /// In the order in which they were sent.
    in_flight: VecDeque<InFlight>,
    /// One of the burst has failed; that may be why later ones do.
    failed: bool,
    /// Parts of a rejected transaction still to be tried, last one first.
    suspects: Vec<Suspects>,
    quarantine: Quarantine,
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

impl InFlight {
    fn of(plan: Plan, fence: Option<&Fence>) -> (InFlight, Batch) {
        let built = build(&plan.groups);
        let rows = built.ops.len();
        let mut ops: Vec<Op> = fence.map(Fence::test).into_iter().collect();
        let fences = ops.len();
        ops.extend(built.ops);
        let bytes = ops.iter().map(Op::approximate_size).sum();
        (InFlight { plan, owners: built.owners, rows, bytes, fences, probe: None }, Batch { ops, rows, bytes })
    }
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
            brakes: Brakes::new(config.brake_percent, config.brake_rows),
            in_flight: VecDeque::new(),
            failed: false,
            suspects: Vec::new(),
            quarantine: Quarantine::new(config.retry_first, config.retry_last),
            stale: 0,
            not_before: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// The next transaction, if one is needed and none is in flight. Call it after every change of the desired store or the
    /// replica, after every reply, and at [`Committer::next_wake`].
    pub fn next(&mut self, desired: &mut Desired, replica: &Replica, now: Duration) -> Option<Batch> {
        let mut next = None;
        self.burst(desired, replica, now, 1, &mut |batch| next = Some(batch));
        next
    }

    /// As [`Committer::next`], but up to `most` transactions, to be sent in this order without waiting for replies. Each is whole once
    /// those before it are committed. `send` gets each as soon as it is made, so that the server works on it while the next is.
    pub fn burst(
        &mut self,
        desired: &mut Desired,
        replica: &Replica,
        now: Duration,
        most: usize,
        send: &mut dyn FnMut(Batch),
    ) {
        if !self.in_flight.is_empty() || self.fenced || now < self.not_before {
            return;
        }
        self.not_before = Duration::ZERO;
        self.failed = false;
        self.retry(desired, now);
        loop {
            let removals = self.brakes.are_open(desired, replica, self.counters.transactions);
            let probe = self.suspects.pop();
            // Where something is wrong, each step follows from the reply to the one before.
            let most = if probe.is_none() && self.stale == 0 { most } else { 1 };
            self.plan(desired, replica, removals, probe.as_ref(), most, send);
            let Some(probe) = probe else { return };
            if let Some(flight) = self.in_flight.front_mut() {
                flight.probe = Some(probe);
                return;
            }
            probe.owners.iter().for_each(|owner| self.quarantine.acquit(owner));
        }
    }

    /// Takes the reply to the oldest transaction in flight, after the replica has had the updates that came before it.
    pub fn on_reply(
        &mut self,
        desired: &mut Desired,
        reply: Result<&TxnReply, &(dyn Error + 'static)>,
        now: Duration,
    ) -> Option<Outcome> {
        let flight = self.in_flight.pop_front()?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.counters.errors += 1;
                self.failed = true;
                self.not_before = now + self.config.retry_first;
                requeue(desired, flight.plan.groups);
                return Some(Outcome::Unknown(error.to_string()));
            }
        };
        let Some((at, error)) = reply.error() else { return Some(self.committed(desired, &flight, now)) };
        self.counters.errors += 1;
        let follows = std::mem::replace(&mut self.failed, true);
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
        if follows {
            requeue(desired, flight.plan.groups);
            return Some(Outcome::Stale(error.to_string()));
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
        for flight in self.in_flight.drain(..) {
            requeue(desired, flight.plan.groups);
        }
        self.suspects.clear();
        self.stale = 0;
        self.not_before = Duration::ZERO;
        desired.request_audit();
    }

    /// Says whether the desired store is complete, so that what it does not hold may be removed.
    pub fn allow_deletes(&mut self, desired: &mut Desired, allowed: bool) {
        if allowed && !self.brakes.complete {
            desired.request_audit();
        }
        self.brakes.complete = allowed;
    }

    /// Lets the removal that is held happen.
    pub fn release(&mut self, desired: &mut Desired) {
        self.brakes.released = true;
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
        self.brakes.held
    }

    /// The plans in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = &Plan> {
        self.in_flight.iter().map(|f| &f.plan)
    }

    /// Owners that are left alone for a while, and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Owner, &Diagnostic)> {
        self.quarantine.iter()
    }

    /// When [`Committer::next`] should be called even if nothing happens, on the clock of its `now`.
    pub fn next_wake(&self) -> Option<Duration> {
        if self.fenced || !self.in_flight.is_empty() {
            return None;
        }
        let retry = self.quarantine.next();
        let pause = Some(self.not_before).filter(|t| !t.is_zero());
        [retry.map(|r| r.max(self.not_before)), pause].into_iter().flatten().min()
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        Counters { quarantined: self.quarantine.count, held: self.brakes.count, ..self.counters }
    }

    /// Plans, and sends each plan as it is made.
    fn plan(
        &mut self,
        desired: &mut Desired,
        replica: &Replica,
        removals: bool,
        probe: Option<&Suspects>,
        most: usize,
        send: &mut dyn FnMut(Batch),
    ) {
        let Committer { quarantine, fence, counters, in_flight, .. } = self;
        let mut lifted = Vec::new();
        let mut held = |owner: &Arc<Owner>, items: &[Dirt]| {
            let status = quarantine.status(owner, items);
            if status == Status::Lifted {
                lifted.push(owner.clone());
            }
            status == Status::Held
        };
        let limits = Limits {
            rows: self.config.rows,
            bytes: self.config.bytes,
            plans: most,
            removals,
            only: probe.map(|p| &p.owners[..]),
            held: &mut held,
        };
        plan_within(desired, replica, limits, &mut |plan| {
            let (flight, batch) = InFlight::of(plan, fence.as_ref());
            counters.transactions += 1;
            in_flight.push_back(flight);
            send(batch);
        });
        for owner in lifted {
            desired.unbench(&owner);
        }
    }

    fn committed(&mut self, desired: &mut Desired, flight: &InFlight, now: Duration) -> Outcome {
        if !self.failed {
            self.stale = 0;
        }
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
            self.quarantine.acquit(&group.owner);
            if group.ops.iter().any(|op| op.why == Why::Healed) && self.quarantine.contest(&group.owner, now) {
                desired.bench(&group.owner);
            }
        }
        Outcome::Committed { rows: flight.rows }
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
        for owner in guilty {
            desired.bench(&owner);
            told.push((Owner::clone(&owner), self.quarantine.reject(&owner, error, now)));
        }
        Outcome::Quarantined(told)
    }

    /// Takes the owners whose time has come, each to be tried alone.
    fn retry(&mut self, desired: &mut Desired, now: Duration) {
        for owner in self.quarantine.due(now).into_iter().rev() {
            self.quarantine.try_again(&owner);
            desired.unbench(&owner);
            self.suspects.push(Suspects { owners: vec![owner], last: false });
        }
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
