//! What a master has written, as it says itself.
//!
//! Input: its status. Must not: be asked while a time is taken (an answer costs the master about as much as it holds).

use anyhow::{Context as _, ensure};

use crate::cluster::{Master, SELDOM};

/// Sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Transactions that were committed.
    pub transactions: u64,
    /// About the bytes that they sent.
    pub bytes: u64,
}

impl Written {
    /// By a master since its start, once it is at rest.
    pub fn so_far(master: &Master) -> anyhow::Result<Written> {
        let (status, _) = master.settle(SELDOM)?;
        let of = |name: &str| status["northbound"][name].as_u64().with_context(|| format!("no {name} in the status"));
        ensure!(status["drift"]["findings"] == 0, "the master has found drift");
        Ok(Written { transactions: of("transactions")?, bytes: of("bytes")? })
    }

    /// Adds what was written between two moments.
    pub fn add(&mut self, before: &Written, after: &Written) {
        self.transactions += after.transactions - before.transactions;
        self.bytes += after.bytes - before.bytes;
    }
}
