//! What is to be looked at: work queues of dirty rows and members, by owner.
//!
//! Two queues, because adds precede removes: `adds` holds what should exist, walked by rising rank; `removes` holds what
//! should not, walked by falling rank. An entry is a hint to compare, never an order to write: comparing twice, or something
//! that has changed its mind meanwhile, is harmless. Members of one set are found together (`near`): a server copies the
//! whole set for each transaction that changes it, so a transaction had better fill few sets than many. Must not: look at the
//! database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Uuid};
use rustc_hash::FxHashMap;

use crate::row::Owner;

/// A thing to compare with the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// Existence and columns of a desired row, by its desired UUID.
    Row(Uuid),
    /// All members of its [`crate::Want::Members`] columns.
    Sets(Uuid),
    /// One member of such a column.
    Member(Uuid, ColumnId, Atom),
    /// A reference to an unwanted row of ours in a column that no claim lists: table index, row in the database, column, member.
    Stray(u16, Uuid, ColumnId, Atom),
}

impl Item {
    /// The row to one of whose sets it is a member.
    pub(crate) fn set(&self) -> Option<Uuid> {
        match self {
            Item::Member(row, ..) => Some(*row),
            _ => None,
        }
    }
}

/// Who made an item dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cause {
    /// The owner wants something else than before.
    Desired,
    /// Another row is made, and this depends on it.
    Follows,
    /// The database changed.
    Database,
    /// An audit found a difference.
    Audit,
    /// A retry.
    Again,
}

/// So many items are looked through for one that is queued already.
const SHORT: usize = 16;

/// An item with its cause.
pub(crate) type Dirt = (Item, Cause);

/// Dirty items by owner. Ordered, so that plans are reproducible.
pub(crate) type Queue = BTreeMap<Arc<Owner>, Vec<Dirt>>;

/// The two queues.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// What should exist.
    pub(crate) adds: Queue,
    /// What should not.
    pub(crate) removes: Queue,
    /// By row, owners in `adds` that have members for its sets; some may have left the queue since.
    pub(crate) near: FxHashMap<Uuid, VecDeque<Arc<Owner>>>,
}

impl Dirty {
    /// Queues an item; `wanted` tells which queue. What an audit finds may well be queued already.
    pub(crate) fn push(&mut self, owner: &Arc<Owner>, wanted: bool, item: Item, cause: Cause) {
        let queue = if wanted { &mut self.adds } else { &mut self.removes };
        let queued = queue.get_mut(owner);
        let known = |items: &Vec<Dirt>| items.len() <= SHORT && items.iter().any(|(i, _)| *i == item);
        if cause == Cause::Audit && queued.as_deref().is_some_and(known) {
            return;
        }
        if let Some(row) = item.set().filter(|_| wanted) {
            self.near.entry(row).or_default().push_back(owner.clone());
        }
        match queued {
            Some(items) => items.push((item, cause)),
            None => drop(queue.insert(owner.clone(), vec![(item, cause)])),
        }
    }

    /// True when nothing is to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty()
    }
}
