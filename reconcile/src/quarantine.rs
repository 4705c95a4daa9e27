//! Owners that are left alone for a while, because the database rejects their rows or another program undoes them.
//!
//! A delay doubles with each attempt, up to a bound. A new output of the owner ends it at once. Inputs: verdicts of the committer and
//! its time. Output: who is held, who is due, and the diagnostics. Must not: touch rows.

use std::sync::Arc;
use std::time::Duration;

use ovsdb::DbError;
use rustc_hash::FxHashMap;

use crate::dirty::{Cause, Dirt};
use crate::row::{Diagnostic, Owner};

/// Times that an owner's rows are healed at once; a writer that goes on undoing ours is then answered ever more slowly.
const PATIENCE: u32 = 20;

/// See the file header.
#[derive(Debug)]
pub(crate) struct Quarantine {
    first: Duration,
    last: Duration,
    owners: FxHashMap<Arc<Owner>, Sentence>,
    /// How often, and when last, the rows of an owner were healed.
    contested: FxHashMap<Arc<Owner>, (u32, Duration)>,
    /// Sentences passed since the start.
    pub(crate) count: u64,
}

#[derive(Debug)]
struct Sentence {
    attempts: u32,
    /// `None` while it is being tried again.
    until: Option<Duration>,
    diagnostic: Diagnostic,
}

/// Whether an owner may be written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Free,
    Held,
    /// It was held until now; its output has changed.
    Lifted,
}

impl Quarantine {
    /// Nobody; delays from `first` to `last`.
    pub(crate) fn new(first: Duration, last: Duration) -> Quarantine {
        Quarantine { first, last, owners: FxHashMap::default(), contested: FxHashMap::default(), count: 0 }
    }

    /// Status of an owner that has these dirty items.
    pub(crate) fn status(&mut self, owner: &Owner, items: &[Dirt]) -> Status {
        match self.owners.get(owner) {
            None => Status::Free,
            Some(sentence) if sentence.until.is_none() => Status::Free,
            Some(_) if items.iter().any(|(_, cause)| *cause == Cause::Desired) => {
                self.owners.remove(owner);
                Status::Lifted
            }
            Some(_) => Status::Held,
        }
    }

    /// The database rejects the owner's rows.
    pub(crate) fn reject(&mut self, owner: &Arc<Owner>, error: &DbError, now: Duration) -> Diagnostic {
        let attempts = self.owners.get(owner).map_or(0, |q| q.attempts);
        let message = format!(
            "the database rejects this object's rows ({error}); change the object or remove what is in its way"
        );
        let diagnostic = Diagnostic::error("RejectedByDatabase", "", message);
        self.hold(owner, attempts, diagnostic.clone(), now);
        diagnostic
    }

    /// A hand edit of the owner's rows was healed. True when that happened too often, so that the owner is held now.
    pub(crate) fn contest(&mut self, owner: &Arc<Owner>, now: Duration) -> bool {
        let quiet = self.last.saturating_mul(2);
        self.contested.retain(|_, (_, last)| now.saturating_sub(*last) < quiet);
        let (times, last) = self.contested.entry(owner.clone()).or_default();
        (*times, *last) = (times.saturating_add(1), now);
        let times = *times;
        if times <= PATIENCE {
            return false;
        }
        let message = format!("another program has undone this object's rows {times} times; find it and stop it");
        let diagnostic = Diagnostic::warning("RowsContested", "", message);
        self.hold(owner, times - PATIENCE - 1, diagnostic, now);
        true
    }

    fn hold(&mut self, owner: &Arc<Owner>, attempts: u32, diagnostic: Diagnostic, now: Duration) {
        let delay = self.first.saturating_mul(1 << attempts.min(20)).min(self.last);
        let attempts = attempts.saturating_add(1);
        self.owners.insert(owner.clone(), Sentence { attempts, until: Some(now + delay), diagnostic });
        self.count += 1;
    }

    /// The owners whose time has come, sorted.
    pub(crate) fn due(&self, now: Duration) -> Vec<Arc<Owner>> {
        let due = self.owners.iter().filter(|(_, s)| s.until.is_some_and(|until| until <= now));
        let mut owners: Vec<_> = due.map(|(owner, _)| owner.clone()).collect();
        owners.sort_unstable();
        owners
    }

    /// The owner is tried again.
    pub(crate) fn try_again(&mut self, owner: &Owner) {
        if let Some(sentence) = self.owners.get_mut(owner) {
            sentence.until = None;
        }
    }

    /// The owner that was tried again is all right.
    pub(crate) fn acquit(&mut self, owner: &Owner) {
        if self.owners.get(owner).is_some_and(|s| s.until.is_none()) {
            self.owners.remove(owner);
        }
    }

    /// When the next owner is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.owners.values().filter_map(|s| s.until).min()
    }

    /// Who is held, and why.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Owner, &Diagnostic)> {
        self.owners.iter().filter(|(_, s)| s.until.is_some()).map(|(owner, s)| (&**owner, &s.diagnostic))
    }
}
