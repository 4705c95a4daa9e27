//! Fencing: a writer that has lost its leadership cannot write any more.
//!
//! OVSDB locks live in one server process, so they fence nothing across a Raft cluster. Instead an epoch, a number, is kept under a
//! key of a map column of a singleton row (`external_ids:ovenbird.io/epoch` of NB_Global). A new leader raises it
//! ([`takeover`]); every transaction begins with a test that it is still ours ([`Fence::test`]), so a paused old leader's next
//! transaction fails whole, on whichever server it arrives. Tried on ovsdb-server 3.1, 3.5 and 3.7 (tests/server.rs).
//!
//! Must not: do I/O; the caller sends the operations.

use ovsdb::{
    Atom, ColumnId, Condition, Datum, Function, Mutation, Mutator, Op, Replica, TableDesc, TxnReply, Until, Uuid,
};

/// Key under which the epoch is kept.
pub const KEY: &str = "ovenbird.io/epoch";

/// An epoch that is ours, as long as the database agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    table: &'static TableDesc,
    column: ColumnId,
    epoch: u64,
}

impl Fence {
    /// The epoch's number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The operation that fails a transaction when the epoch is no longer ours: the rows that hold our pair must not be none.
    /// Other keys may be anything.
    pub fn test(&self) -> Op {
        let pair = Datum::map([self.pair()]);
        Op::Wait {
            table: self.table.name,
            conditions: vec![Condition::Column { column: self.name(), function: Function::Includes, value: pair }],
            columns: vec!["_uuid"],
            until: Until::NotEqual,
            rows: Vec::new(),
            timeout_ms: Some(0),
        }
    }

    /// True when the reply to a transaction that began with [`Fence::test`] says that the epoch is not ours.
    pub fn is_fenced(reply: &TxnReply) -> bool {
        matches!(reply.error(), Some((Some(0), error)) if error.error == "timed out")
    }

    fn name(&self) -> &'static str {
        self.table.column(self.column).name
    }

    fn pair(&self) -> (Atom, Atom) {
        (KEY.into(), self.epoch.to_string().into())
    }
}

/// The transaction that raises the epoch kept in `column` of the singleton `table`, and the fence that holds once it has committed.
/// When another one was faster it fails with "timed out": then the replica will change, and the caller tries again. `uuid` is the
/// row's identity if there is none yet.
pub fn takeover(replica: &Replica, table: &'static TableDesc, column: ColumnId, uuid: Uuid) -> (Fence, Vec<Op>) {
    let name = table.column(column).name;
    let row = replica.rows(table).next();
    let map = row.and_then(|(_, r)| r.get(column));
    let old = map.and_then(|m| m.get_str(KEY));
    let epoch = old.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0).saturating_add(1);
    let fence = Fence { table, column, epoch };
    let columns = vec![name];
    let wait = |conditions, rows| Op::Wait {
        table: table.name,
        conditions,
        columns: columns.clone(),
        until: Until::Equal,
        rows,
        timeout_ms: Some(0),
    };
    let Some((actual, _)) = row else {
        let new = vec![(name, Datum::map([fence.pair()]))];
        return (
            fence,
            vec![wait(Vec::new(), Vec::new()), Op::Insert { table: table.name, uuid: Some(uuid), row: new }],
        );
    };
    let so_far = map.cloned().unwrap_or(Datum::map([]));
    let conditions = vec![Condition::uuid(actual)];
    let pair = Datum::map([fence.pair()]);
    let mutations = vec![
        Mutation::new(name, Mutator::Delete, Datum::set([KEY.into()])),
        Mutation::new(name, Mutator::Insert, pair),
    ];
    let ops = vec![
        wait(conditions.clone(), vec![vec![(name, so_far)]]),
        Op::Mutate { table: table.name, conditions, mutations },
    ];
    (fence, ops)
}
