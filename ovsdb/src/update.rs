//! An update as it travels from the connection to the replica: still text, so that the connection's task stays quick.
//!
//! Must not: decode rows (`decode` does, when the owner applies the update).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::value::Uuid;

/// The changes that one transaction made, or the contents at connect.
#[derive(Debug)]
pub struct Update {
    message: String,
    rows: Range<usize>,
    reset: bool,
    last_txn_id: Option<Uuid>,
    /// Counts the message as waiting for the owner, until the update is dropped.
    waiting: Option<Waiting>,
}

/// A share of the bytes that wait for the owner.
#[derive(Debug)]
struct Waiting {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Update {
    pub(crate) fn new(message: String, rows: Range<usize>, reset: bool, last_txn_id: Option<Uuid>) -> Update {
        Update { message, rows, reset, last_txn_id, waiting: None }
    }

    /// Adds the size of the update to `total` while it lives.
    pub(crate) fn count(&mut self, total: &Arc<AtomicUsize>) {
        let bytes = self.message.capacity();
        total.fetch_add(bytes, Ordering::Relaxed);
        self.waiting = Some(Waiting { total: total.clone(), bytes });
    }

    /// A difference from its `<table-updates>` or `<table-updates2>` text.
    pub fn from_text(text: &str) -> Update {
        Update::new(text.to_owned(), 0..text.len(), false, None)
    }

    /// The same as the whole contents: rows that it does not name are gone.
    #[must_use]
    pub fn into_reset(self) -> Update {
        Update { reset: true, ..self }
    }

    /// True when the update holds the whole contents, so that rows it does not name are gone.
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Id of the transaction, on servers that keep a history (clustered and relay databases).
    pub fn last_txn_id(&self) -> Option<Uuid> {
        self.last_txn_id
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        self.message.get(self.rows.clone()).unwrap_or("")
    }
}
