//! The epoch that fences other leaders out: raised by the first transaction of a term, lost when another leader raises it.
//!
//! In: replies and the replica. Out: the fence that every later transaction carries. Must not: send anything by itself.

use ovenbird_reconcile::Fence;
use ovenbird_reconcile::epoch::{self, takeover};
use ovenbird_schema::northbound::nb_global;
use ovsdb::{Op, TxnReply, Uuid};

use super::{Failure, Northbound};

/// Whether the database knows that we lead.
#[derive(Debug, PartialEq)]
pub(super) enum Epoch {
    /// It does not.
    None,
    /// It does.
    Ours(u64),
    /// Another leader came after us.
    Lost,
}

/// The operations that raise it, which come first in their transaction.
#[derive(Debug)]
pub(super) struct Raise {
    fence: Fence,
    ops: usize,
    term: u64,
}

impl Northbound {
    /// Takes the results that belong to raising the epoch off a reply. What is left is the rows' own.
    pub(super) fn on_raised(&mut self, raise: Raise, result: Result<TxnReply, Failure>) -> Result<TxnReply, Failure> {
        let mut reply = result?;
        match reply.error() {
            Some((Some(at), _)) if at < raise.ops => Err("another leader raised the epoch at the same time".into()),
            error => {
                if error.is_none() && raise.term == self.term {
                    tracing::info!(epoch = raise.fence.epoch(), "the Northbound is ours to write");
                    self.epoch = Epoch::Ours(raise.fence.epoch());
                    self.committer.set_fence(Some(raise.fence));
                }
                reply.ops.drain(..raise.ops.min(reply.ops.len()));
                Ok(reply)
            }
        }
    }

    /// Our epoch is not in the database: another leader's is, or the database is not the one it was (emptied, restored).
    pub(super) fn on_fenced(&mut self) {
        if self.epoch == Epoch::None {
            // Another transaction of the same burst was told first.
            return self.committer.set_fence(None);
        }
        let rows = self.replica.rows(&nb_global::TABLE);
        let texts = rows.filter_map(|(_, row)| nb_global::Ref(row).external_ids().get(epoch::KEY)?.parse().ok());
        let there: Option<u64> = texts.max();
        if there > self.epoch() {
            self.epoch = Epoch::Lost;
        } else {
            tracing::warn!(epoch = self.epoch(), ?there, "the Northbound has forgotten our epoch; raising it again");
            self.epoch = Epoch::None;
            self.committer.set_fence(None);
        }
    }

    pub(super) fn takeover(&self) -> (Raise, Vec<Op>) {
        // Should we have to make the row, it is not marked as ours: nobody wants it, and yet it must stay.
        let uuid = Uuid::new_v4();
        let (fence, ops) = takeover(&self.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
        (Raise { fence, ops: ops.len(), term: self.term }, ops)
    }
}
