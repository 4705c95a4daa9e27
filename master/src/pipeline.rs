//! The pipeline: one loop that owns every fact, every wish and the replica. There are no locks.
//!
//! ```text
//! watches --Batch--> [allocator] --facts--> [engine] --owners--> translate --> [northbound] --transaction--> server
//!                      ^     |                                                   ^
//!             outcomes |     v requests                                          | events
//!                     annotator --PATCH--> API server                       OVSDB client
//! ```
//!
//! Whatever has arrived is taken in before anything is sent, so load raises the size of transactions and not the length of a
//! queue. Must not: block, do I/O by itself, or let a stage reach back into one before it.

mod commits;
mod ends;
mod seen;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

pub use ends::{Inputs, Outputs, Seen};
use ovenbird_reconcile::{Owner, OwnerKind, Zone};
use ovenbird_topology::check::answer::Enforcer;
use ovenbird_topology::check::{Answer, Query};
use ovenbird_topology::{Change as FactChange, Engine, kinds};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::admin::Question;
use crate::allocate::{Allocator, Effects};
use crate::annotate::{self, Done};
use crate::config::Config;
use crate::event::{Source, Subject};
use crate::lease::Leading;
use crate::lists::Lists;
use crate::northbound::Northbound;
use crate::report;
use crate::status;

/// Changes taken in before anything is sent.
const GULP: usize = 256;
/// Services translated at a time, once every list is complete: the server writes the first while the next are translated.
const PORTION: usize = 128;
/// Time that a stop waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(3);

/// Owners whose rows depend on all that may restrict a pod.
const POLICED: [OwnerKind; 7] = [
    kinds::NETPOL_NAMESPACE,
    kinds::PEER,
    kinds::NETWORK_POLICY,
    kinds::ADMIN_NETWORK_POLICY,
    kinds::BASELINE_ADMIN_NETWORK_POLICY,
    kinds::CLUSTER_NETWORK_POLICY,
    kinds::POD,
];
/// See the file header.
#[derive(Debug)]
pub struct Pipeline {
    began: Instant,
    audit_interval: Duration,
    enforcer: Enforcer,
    pub(crate) identity: String,
    engine: Engine,
    pub(crate) allocator: Allocator,
    pub(crate) northbound: Northbound,
    pub(crate) lists: Lists,
    /// Services that changed before every list was complete, and are not translated yet: what they would lose then is only not told
    /// yet.
    early: BTreeSet<Owner>,
    /// Pods and policies that changed before all policies were known, and are not translated yet.
    unjudged: Vec<Owner>,
    /// All that the lists told has become wishes.
    caught_up: bool,
    pub(crate) leading: Leading,
    pub(crate) commits: VecDeque<status::Commit>,
    pub(crate) audits: u64,
    requests_open: usize,
    /// The lists may lack the last writes of the leader before us, be it ourselves: an answer may have got lost, a request may still be
    /// under way. What we chose on them could have been given to another.
    outdated: bool,
    effects: Effects,
    out: Outputs,
}

impl Pipeline {
    /// A pipeline that has seen nothing yet.
    pub fn new(config: &Config, identity: String, out: Outputs) -> Pipeline {
        Pipeline {
            began: Instant::now(),
            audit_interval: config.audit_interval,
            enforcer: if config.northbound.is_some() { Enforcer::Ovn } else { Enforcer::Nodes },
            identity,
            engine: Engine::new(config.cluster.clone()),
            allocator: Allocator::new(config.cluster.clone()),
            northbound: Northbound::new(Zone::default(), out.handle.clone()),
            lists: Lists::default(),
            early: BTreeSet::new(),
            unjudged: Vec::new(),
            caught_up: false,
            leading: Leading::No,
            commits: VecDeque::new(),
            audits: 0,
            requests_open: 0,
            outdated: false,
            effects: Effects::default(),
            out,
        }
    }

    /// Runs until `stop`, then lets what is under way end.
    pub async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut audit = tokio::time::interval(self.audit_interval);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let leading = *inputs.leading.borrow_and_update();
        self.lead(leading);
        while !stop.is_cancelled() {
            self.work();
            let wake = self.northbound.next_wake().map(|at| self.began + at);
            let more = self.is_catching_up();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(event) = inputs.northbound.recv() => self.on_northbound(event),
                Ok(()) = inputs.leading.changed() => {
                    let leading = *inputs.leading.borrow_and_update();
                    self.lead(leading);
                }
                Some(done) = inputs.outcomes.recv() => self.on_outcome(done),
                Some(seen) = inputs.seen.recv() => drop(self.on_seen(seen)),
                Some(question) = inputs.questions.recv() => self.on_question(question),
                _ = second.tick() => self.on_second(),
                _ = audit.tick() => self.on_audit(),
                () = tokio::time::sleep_until(wake.unwrap_or(self.began)), if wake.is_some() => {}
                () = tokio::task::yield_now(), if more => {}
            }
            self.gulp(&mut inputs);
        }
        self.finish(inputs).await;
    }

    /// Takes in what else is there already.
    fn gulp(&mut self, inputs: &mut Inputs) {
        while let Ok(event) = inputs.northbound.try_recv() {
            self.on_northbound(event);
        }
        for _ in 0..GULP {
            let Ok(done) = inputs.outcomes.try_recv() else { break };
            self.on_outcome(done);
        }
        let mut taken = 0;
        while taken < GULP {
            let Ok(seen) = inputs.seen.try_recv() else { break };
            taken += self.on_seen(seen);
        }
    }

    /// Carries what was taken in to the end of the line.
    fn work(&mut self) {
        let now = self.now();
        let Effects { facts, requests, complaints } = std::mem::take(&mut self.effects);
        for fact in facts {
            self.engine.apply(FactChange::Upsert(fact));
        }
        for request in requests {
            self.requests_open += 1;
            // Only gone when we stop.
            let _ = self.out.requests.send(request);
        }
        for (subject, diagnostics) in complaints {
            self.out.reporter.set(Source::Allocation, subject, &diagnostics);
        }
        if !self.caught_up {
            // The server had better not wait for the next portion.
            self.pump(now);
        }
        for owner in self.take_dirty() {
            let output = self.engine.translate(&owner);
            // A pod that starts is waited for.
            let patient = owner.kind == kinds::SERVICE;
            let diagnostics = self.northbound.set(&owner, output, patient, now);
            self.out.conditions.set(&owner, &diagnostics);
            if let Some(subject) = Subject::of(&owner) {
                self.out.reporter.set(Source::Translation, subject, &diagnostics);
            }
        }
        if self.is_catching_up() && self.early.is_empty() {
            self.caught_up = true;
            self.northbound.allow_deletes();
        }
        self.pump(now);
    }

    fn pump(&mut self, now: Duration) {
        if self.out.validity.is_valid() {
            self.northbound.pump(now);
        }
    }

    /// The owners to translate now. A Service is not before its endpoints are known, or it would be cut off until they are; a pod
    /// is not before all policies are known, or it would be open until they are.
    fn take_dirty(&mut self) -> Vec<Owner> {
        let dirty = self.engine.take_dirty();
        if self.caught_up {
            return dirty;
        }
        let (early, mut owners): (Vec<Owner>, _) = dirty.into_iter().partition(|owner| owner.kind == kinds::SERVICE);
        if self.lists.have_policies() {
            owners.extend(std::mem::take(&mut self.unjudged));
            owners.sort_unstable();
            owners.dedup();
        } else {
            let (unjudged, rest) = owners.into_iter().partition(|owner| POLICED.contains(&owner.kind));
            owners = rest;
            self.unjudged.extend::<Vec<Owner>>(unjudged);
        }
        self.early.extend(early);
        if self.lists.are_complete() {
            owners.extend(std::iter::from_fn(|| self.early.pop_first()).take(PORTION));
        }
        owners
    }

    /// True when every list is complete, but not all of it is translated.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.lists.are_complete() && !self.caught_up
    }

    /// We may choose when we lead and have listed everything since the leader before us stopped, be it ourselves.
    fn activate(&mut self) {
        if self.outdated && self.leading != Leading::No && self.requests_open == 0 {
            self.outdated = false;
            self.out.generation.send_modify(|generation| *generation += 1);
        }
        let generation = *self.out.generation.borrow();
        let current = !self.outdated && self.lists.are_of(generation);
        self.allocator.set_active(self.leading != Leading::No && current, &mut self.effects);
    }

    fn lead(&mut self, leading: Leading) {
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        self.out.metrics.leader.set((leading != Leading::No).into());
        if leading != Leading::No {
            self.out.conditions.lead();
        }
        self.outdated |= leading != Leading::First;
        self.activate();
        self.northbound.set_leading(leading);
    }

    fn on_outcome(&mut self, done: Done) {
        self.requests_open = self.requests_open.saturating_sub(1);
        match &done.outcome {
            annotate::Outcome::Written => drop(self.out.metrics.annotations.inc()),
            annotate::Outcome::Refused(_) | annotate::Outcome::Failed(_) => {
                self.out.metrics.annotations_failed.inc();
            }
            _ => {}
        }
        self.allocator.outcome(done, &mut self.effects);
        if self.outdated {
            self.activate();
        }
    }

    fn on_question(&mut self, question: Question) {
        // Whoever asked may have gone.
        match question {
            Question::Status(answer) => drop(answer.send(report::status(self, self.now()))),
            Question::Release(answer) => drop(answer.send(self.northbound.release())),
            Question::CheckPolicy(query, answer) => drop(answer.send(self.check_policy(&query))),
        }
    }

    /// What policies say, once all of them and all pods are known.
    fn check_policy(&mut self, query: &Query) -> Result<Answer, String> {
        if let Some(watch) = self.lists.missing() {
            let why = watch.error.as_deref().unwrap_or("the first list is under way; ask again");
            return Err(format!("the master does not know every {} yet: {why}", watch.kind));
        }
        let mut answer = self.engine.check(query).map_err(|refusal| refusal.to_string())?;
        if let Answer::Decision(decision) = &mut answer {
            decision.enforced_by = self.enforcer;
        }
        Ok(answer)
    }

    fn on_second(&mut self) {
        self.allocator.retry(&mut self.effects);
        report::measure(self, &self.out.metrics, self.now());
    }

    fn on_audit(&mut self) {
        if !self.is_catching_up() && self.northbound.audit() {
            self.audits += 1;
            self.out.metrics.audits.inc();
        }
    }

    /// Time since the start.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Starts nothing new; waits for the transaction and the annotations that are under way.
    async fn finish(mut self, mut inputs: Inputs) {
        self.out.validity.revoke();
        let deadline = Instant::now() + PATIENCE;
        while self.northbound.is_busy() || self.requests_open > 0 {
            tokio::select! {
                Some(event) = inputs.northbound.recv() => self.on_northbound(event),
                Some(done) = inputs.outcomes.recv() => self.on_outcome(done),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.northbound.shutdown();
    }
}
