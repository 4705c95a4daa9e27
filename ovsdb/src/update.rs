//! An update as it travels from the connection to the replica: still text, so that the connection's task stays quick.
//!
//! Must not: decode rows (`decode` does, when the owner applies the update).

use std::ops::Range;

use crate::value::Uuid;

/// The changes that one transaction made, or the contents at connect.
#[derive(Debug)]
pub struct Update {
    message: String,
    rows: Range<usize>,
    reset: bool,
    last_txn_id: Option<Uuid>,
}

impl Update {
    /// A difference from its `<table-updates>` or `<table-updates2>` text.
    pub fn from_text(text: &str) -> Update {
        Update { message: text.to_owned(), rows: 0..text.len(), reset: false, last_txn_id: None }
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
