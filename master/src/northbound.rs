//! One Northbound database: what it should hold, what it holds, and the transactions that are under way.
//!
//! ```text
//! Output --> desired --> committer --Batch--> OVSDB client --> server
//!               ^            ^                     |
//!              mark        reply <---- events -----+---> replica
//! ```
//!
//! Nothing is written before we lead and the replica is complete. The epoch that fences out other leaders is raised by the
//! first transaction: alone and at once when another master led before us and may wake up, otherwise together with the first
//! rows, so that a restart which finds nothing to do writes nothing. Must not: read a clock (the caller tells the time),
//! know Kubernetes.

mod hand_over;
mod raise;

use std::collections::VecDeque;
use std::time::Duration;

use ovenbird_reconcile::{CommitConfig, Committer, Counters, Desired, Diagnostic, Outcome, Output, Owner, Zone};
use ovenbird_schema::northbound;
use ovsdb::{ClientError, ColumnId, Event, Handle, Op, Replica, RowChange, TableDesc, TxnId, TxnReply};

use crate::lease::Leading;
use crate::monitor;
use crate::pace::Pace;
use hand_over::hand_over;
use raise::{Epoch, Raise};

type Failure = Box<dyn std::error::Error>;

/// Transactions sent without waiting for replies: the server is not idle while we plan the next, and read the echo of the one before.
const BURST: usize = 16;
/// Owners that one transaction has room for.
const LITTLE: usize = 100;

/// See the file header.
#[derive(Debug)]
pub struct Northbound {
    handle: Handle,
    replica: Replica,
    desired: Desired,
    committer: Committer,
    changes: Vec<RowChange>,
    /// All that is wanted is told; the committer learns it when little is left to write, for it compares everything then.
    complete: bool,
    leading: Leading,
    /// Counts changes of `leading`.
    term: u64,
    link: Link,
    epoch: Epoch,
    /// In the order in which they were sent.
    flights: VecDeque<Flight>,
    pace: Pace,
    /// The last `pump` did nothing until then.
    paused_until: Option<Duration>,
    /// When the oldest change that is not sent yet arrived.
    waiting_since: Option<Duration>,
    /// When the server was last heard of.
    heard: Duration,
    /// Differences that an audit finds now are a surprise.
    audit: Audit,
    audited: u64,
    findings: u64,
}

/// How far the session is.
#[derive(Clone, Debug, PartialEq)]
enum Link {
    /// Not connected; the last reason.
    Down(String),
    /// Connected to a server; its contents are on the way.
    Syncing(String),
    /// The replica is complete.
    Up(String),
}

#[derive(Debug, Default)]
struct Flight {
    id: Option<TxnId>,
    sent: Duration,
    since: Option<Duration>,
    rows: usize,
    bytes: usize,
    /// It comes from the committer, and does not only raise the epoch.
    batch: bool,
    /// Its first operations raise the epoch.
    raise: Option<Raise>,
}

impl Flight {
    /// Sends its operations.
    fn take_off(self, handle: &Handle, ops: &[Op], now: Duration) -> Flight {
        let bytes = ops.iter().map(Op::approximate_size).sum();
        Flight { id: Some(handle.transact(ops)), sent: now, bytes, ..self }
    }
}

#[derive(Debug, PartialEq)]
enum Audit {
    /// The first comparison after a start, a takeover or a reconnect: differences are expected.
    Expected,
    /// A comparison on the timer: differences are drift.
    Periodic,
}

/// A transaction that ended.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Rows written.
    pub rows: usize,
    /// About the bytes sent.
    pub bytes: usize,
    /// From sending it to its reply.
    pub took: Duration,
    /// From the arrival of the oldest change in it to its reply.
    pub queued: Option<Duration>,
    /// What became of it; `None` when it only raised the epoch.
    pub outcome: Option<Outcome>,
}

/// The session, for people.
#[derive(Clone, Debug)]
pub struct LinkState {
    /// The replica is complete.
    pub up: bool,
    /// The server, or why there is none.
    pub detail: String,
}

impl Northbound {
    /// Not connected yet. `handle` writes to the database that `replica` will show.
    pub fn new(zone: Zone, handle: Handle) -> Northbound {
        Northbound {
            handle,
            replica: Replica::new(&northbound::DATABASE, &monitor::spec()),
            desired: Desired::new(zone, &northbound::DATABASE),
            committer: Committer::new(CommitConfig::default(), None),
            changes: Vec::new(),
            complete: false,
            leading: Leading::No,
            term: 0,
            link: Link::Down("not connected yet".into()),
            epoch: Epoch::None,
            flights: VecDeque::new(),
            pace: Pace::default(),
            paused_until: None,
            waiting_since: None,
            heard: Duration::ZERO,
            audit: Audit::Expected,
            audited: 0,
            findings: 0,
        }
    }

    /// Replaces what an owner wants. `patient`: in a storm of such changes, it can wait a little for others. Returns complaints.
    pub fn set(&mut self, owner: &Owner, output: Output, patient: bool, now: Duration) -> Vec<Diagnostic> {
        let diagnostics = self.desired.set(owner, output);
        if self.desired.is_dirty() {
            self.waiting_since.get_or_insert(now);
            self.pace.note(now, patient);
        }
        diagnostics
    }

    /// Whether rows that nobody wants may be removed: every list is complete.
    pub fn allow_deletes(&mut self) {
        self.complete = true;
    }

    /// We lead, or do no more.
    pub fn set_leading(&mut self, leading: Leading) {
        self.leading = leading;
        self.term += 1;
        self.committer.set_fence(None);
        self.epoch = Epoch::None;
        self.desired.request_audit();
        self.audit = Audit::Expected;
    }

    /// Compares everything, though nobody should have reason to. False, and nothing is done, unless all is at rest.
    pub fn audit(&mut self) -> bool {
        let rest = self.is_settled();
        if rest {
            self.audit = Audit::Periodic;
            self.desired.request_audit();
        }
        rest
    }

    /// Lets the mass removal that is held happen. False when none is.
    pub fn release(&mut self) -> bool {
        let held = self.committer.held().is_some();
        if held {
            self.committer.release(&mut self.desired);
        }
        held
    }

    /// Takes what the client tells. A transaction that ended is returned.
    pub fn on_event(&mut self, event: Event, now: Duration) -> Option<Commit> {
        match event {
            Event::Connected(server) => {
                self.link = Link::Syncing(server.endpoint.clone());
                self.replica.set_server(&server);
                self.heard = now;
            }
            Event::Update(update) => self.on_update(&update, now),
            Event::Reply { id, result } => return self.on_reply(id, result, now),
            Event::Locked(_) | Event::Stolen(_) => {}
            Event::Disconnected(error) => {
                self.link = Link::Down(text_of(&error));
                self.audit = Audit::Expected;
            }
        }
        None
    }

    fn on_update(&mut self, update: &ovsdb::Update, now: Duration) {
        self.heard = now;
        self.changes.clear();
        if let Err(error) = self.replica.apply(update, &mut self.changes) {
            tracing::error!(%error, "cannot read an update of the Northbound; connecting anew");
            self.link = Link::Down(error.to_string());
            return self.handle.force_reconnect();
        }
        if update.is_reset() {
            self.committer.reset(&mut self.desired);
            self.audit = Audit::Expected;
        } else {
            for change in &self.changes {
                self.desired.mark(change, &self.replica);
            }
        }
        if let Link::Syncing(server) = &self.link {
            self.link = Link::Up(server.clone());
        }
    }

    fn on_reply(&mut self, id: TxnId, result: Result<TxnReply, ClientError>, now: Duration) -> Option<Commit> {
        self.heard = now;
        self.flights.front().filter(|flight| flight.id == Some(id))?;
        let flight = self.flights.pop_front()?;
        self.pace.replied();
        let mut result = result.map_err(|error| Box::new(error) as Failure);
        if let Some(raise) = flight.raise {
            result = self.on_raised(raise, result);
        }
        let reply = result.as_ref().map_err(|error| &**error);
        let outcome = if flight.batch { self.committer.on_reply(&mut self.desired, reply, now) } else { None };
        self.note(outcome.as_ref());
        Some(Commit {
            rows: flight.rows,
            bytes: flight.bytes,
            took: now.saturating_sub(flight.sent),
            queued: flight.since.map(|since| now.saturating_sub(since)),
            outcome,
        })
    }

    fn note(&mut self, outcome: Option<&Outcome>) {
        match outcome {
            Some(Outcome::Fenced) => self.on_fenced(),
            Some(Outcome::Committed { .. }) => {
                let audited = self.committer.counters().audited;
                let found = audited - std::mem::replace(&mut self.audited, audited);
                if self.audit == Audit::Periodic {
                    self.findings += found;
                }
            }
            _ => {}
        }
    }

    /// True when the server's schema has a column.
    pub fn has_column(&self, table: &TableDesc, column: ColumnId) -> bool {
        self.replica.has_column(table, column)
    }

    /// Sends the next transaction if there is one to send.
    pub fn pump(&mut self, now: Duration) {
        if self.leading == Leading::No || !self.is_up() || self.is_busy() {
            return;
        }
        match self.epoch {
            Epoch::None if self.leading == Leading::Succeeded => {
                let (raise, ops) = self.takeover();
                let flight = Flight { raise: Some(raise), ..Flight::default() };
                self.flights.push_back(flight.take_off(&self.handle, &ops, now));
            }
            Epoch::None | Epoch::Ours(_) => self.pump_batch(now),
            Epoch::Lost => {}
        }
    }

    fn pump_batch(&mut self, now: Duration) {
        let opens = self.pace.opens();
        if now < opens {
            self.paused_until = Some(opens);
            return;
        }
        self.send_burst(now);
        if self.complete && self.desired.backlog() <= LITTLE {
            self.complete = false;
            self.audit = Audit::Expected;
            self.committer.allow_deletes(&mut self.desired, true);
            // What is on its way comes first: to compare everything takes longer than that.
            if !self.is_busy() {
                self.send_burst(now);
            }
        }
    }

    fn send_burst(&mut self, now: Duration) {
        // Until the epoch is ours nothing may follow: it would not be fenced.
        let most = if self.epoch == Epoch::None { 1 } else { BURST };
        let mut raise = (self.epoch == Epoch::None).then(|| self.takeover());
        let Northbound { handle, flights, committer, desired, replica, .. } = self;
        let since = self.waiting_since;
        committer.burst(desired, replica, now, most, &mut |batch| {
            let mut flight = Flight { batch: true, rows: batch.rows, since, ..Flight::default() };
            let mut ops = batch.ops;
            if let Some((raise, first)) = raise.take() {
                flight.raise = Some(raise);
                ops.splice(..0, first);
            }
            let full = flight.rows >= LITTLE;
            flights.push_back(flight.take_off(handle, &ops, now));
            if full {
                // The next one will take a while.
                hand_over();
            }
        });
        if self.flights.is_empty() {
            self.pace.clear();
            if !self.desired.is_dirty() {
                self.waiting_since = None;
                self.audit = Audit::Periodic;
            }
            return;
        }
        let owners = self.committer.in_flight().map(|plan| plan.groups.len()).sum();
        self.pace.sent(now, owners, self.desired.is_dirty());
        if !self.desired.is_dirty() {
            self.waiting_since = None;
        }
    }

    /// When [`Northbound::pump`], which was called last, should be called again even if nothing happens.
    pub fn next_wake(&mut self) -> Option<Duration> {
        let due = [self.committer.next_wake(), self.paused_until.take()].into_iter().flatten().min();
        due.filter(|_| self.leading != Leading::No && self.is_up())
    }

    /// The replica is complete.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// We lead, the replica is complete, nothing is under way and nothing is left to compare.
    pub fn is_settled(&self) -> bool {
        self.leading != Leading::No && self.is_up() && !self.is_busy() && !self.complete && !self.desired.is_dirty()
    }

    /// A transaction is under way.
    pub fn is_busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Another leader has fenced us out.
    pub fn is_fenced(&self) -> bool {
        matches!(self.epoch, Epoch::Lost)
    }

    /// The session.
    pub fn link(&self) -> LinkState {
        let (up, detail) = match &self.link {
            Link::Down(why) => (false, why.clone()),
            Link::Syncing(server) => (false, format!("reading the contents of {server}")),
            Link::Up(server) => (true, server.clone()),
        };
        LinkState { up, detail }
    }

    /// The epoch, once it is ours.
    pub fn epoch(&self) -> Option<u64> {
        match self.epoch {
            Epoch::Ours(epoch) => Some(epoch),
            _ => None,
        }
    }

    /// Time since the server was last heard of.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// What is wanted.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What writes.
    pub fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        self.committer.counters()
    }

    /// Operations that periodic audits found necessary.
    pub fn findings(&self) -> u64 {
        self.findings
    }

    /// Ends the session.
    pub fn shutdown(&self) {
        self.handle.shutdown();
    }
}

fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
