//! Brakes on removals: nothing goes before the desired store is complete, and no large share of the owned rows without consent.
//!
//! Inputs: the desired store, the replica, consent. Output: whether removals may be planned. Must not: change either.

use std::sync::Arc;

use ovsdb::{Replica, TableDesc, Uuid};

use crate::desired::Desired;
use crate::identity::is_ours;
use crate::row::Owner;

/// A removal that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Rows that would go.
    pub removals: usize,
    /// Rows that are ours in the database.
    pub owned: usize,
}

/// See the file header.
#[derive(Debug)]
pub(crate) struct Brakes {
    percent: usize,
    rows: usize,
    /// The desired store is complete.
    pub(crate) complete: bool,
    /// A person has agreed to the removal that is held.
    pub(crate) released: bool,
    pub(crate) held: Option<Brake>,
    /// Unwanted rows and transactions when `held` was found out.
    weighed: (usize, u64),
    /// Times that a removal was held.
    pub(crate) count: u64,
}

impl Brakes {
    /// Holds a removal of more than `percent` of the owned rows, if it is at least `rows`.
    pub(crate) fn new(percent: usize, rows: usize) -> Brakes {
        Brakes { percent, rows, complete: false, released: false, held: None, weighed: (0, 0), count: 0 }
    }

    /// True when removals may be planned. `transactions` so far tell whether the database may have changed since the last call.
    pub(crate) fn are_open(&mut self, desired: &mut Desired, replica: &Replica, transactions: u64) -> bool {
        let state = (desired.unwanted.len(), transactions);
        if self.complete && (self.weighed != state || self.released) {
            self.weighed = state;
            let before = self.held.take();
            self.held = self.weigh(desired, replica);
            self.count += u64::from(before.is_none() && self.held.is_some());
            if before.is_some() && self.held.is_none() {
                // References that were left in place meanwhile.
                desired.request_audit();
            }
        }
        self.complete && self.held.is_none()
    }

    /// The removal that is due, if it is too large.
    fn weigh(&mut self, desired: &Desired, replica: &Replica) -> Option<Brake> {
        let there = |(uuid, (_, table)): &(&Uuid, &(Arc<Owner>, &TableDesc))| replica.row(table, uuid).is_some();
        let few = desired.unwanted.len() < self.rows;
        let removals = if few { 0 } else { desired.unwanted.iter().filter(there).count() };
        if removals < self.rows {
            self.released = false;
            return None;
        }
        let owned = desired.db.tables.iter().flat_map(|t| replica.rows(t)).filter(|(u, _)| is_ours(u)).count();
        let large = removals * 100 > owned * self.percent;
        (large && !self.released).then_some(Brake { removals, owned })
    }
}
