//! The `_Server` database (ovsdb-server(5)): what a server says of its databases, and whether we want to stay with it.
//!
//! Input: the monitored row of our database. Output: a verdict, and what to remember for the next server. Must not: do I/O.

use crate::desc::{AtomKind, BaseType, ColumnDesc, ColumnId, ColumnType, DatabaseDesc, TableDesc};
use crate::error::SessionError;
use crate::replica::Replica;
use crate::row::Row;
use crate::spec::{MonitorSpec, TableSpec};
use crate::transaction::Condition;
use crate::value::{Atom, Datum, Uuid};

const fn column(name: &'static str, kind: AtomKind, min: u8) -> ColumnDesc {
    let ty = ColumnType { key: BaseType::plain(kind), value: None, min, max: 1 };
    ColumnDesc { name, ty, mutable: true, versions: &[] }
}

const CID: ColumnId = ColumnId(0);
const CONNECTED: ColumnId = ColumnId(1);
const INDEX: ColumnId = ColumnId(2);
const LEADER: ColumnId = ColumnId(3);
const MODEL: ColumnId = ColumnId(4);

/// The columns that matter here.
static DATABASE: TableDesc = TableDesc {
    name: "Database",
    index: 0,
    is_root: true,
    is_singleton: false,
    columns: &[
        column("cid", AtomKind::Uuid, 0),
        column("connected", AtomKind::Boolean, 1),
        column("index", AtomKind::Integer, 0),
        column("leader", AtomKind::Boolean, 1),
        column("model", AtomKind::String, 1),
        column("name", AtomKind::String, 1),
    ],
    indexes: &[],
    versions: &[],
};

pub(crate) static SERVER: DatabaseDesc = DatabaseDesc { name: "_Server", tables: &[&DATABASE] };

/// What has been learnt of the cluster, over all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Cluster id.
    cluster: Option<Uuid>,
    /// Largest Raft index seen: a server that shows less lags behind.
    index: i64,
}

/// The monitor of the row of `database`.
pub(crate) fn monitor(database: &str) -> MonitorSpec {
    let condition = Condition::equal("name", Datum::from(database));
    MonitorSpec::new().with(TableSpec::all(&DATABASE).matching(vec![condition]))
}

/// Whether the server will do, by the replica of its `_Server`.
pub(crate) fn judge(
    replica: &Replica,
    database: &'static str,
    leader_only: bool,
    memory: &mut Memory,
) -> Result<(), SessionError> {
    let (_, row) = replica.rows(&DATABASE).next().ok_or(SessionError::NoDatabase(database))?;
    if row.get(MODEL).and_then(text) != Some("clustered") {
        return Ok(());
    }
    if !flag(row, CONNECTED) {
        return Err(SessionError::CutOff);
    }
    if leader_only && !flag(row, LEADER) {
        return Err(SessionError::NotLeader);
    }
    if let Some(Datum::Atom(Atom::Uuid(cluster))) = row.get(CID)
        && *memory.cluster.get_or_insert(*cluster) != *cluster
    {
        return Err(SessionError::OtherCluster);
    }
    if let Some(Datum::Atom(Atom::Integer(index))) = row.get(INDEX) {
        if *index < memory.index {
            return Err(SessionError::Stale);
        }
        memory.index = *index;
    }
    Ok(())
}

fn flag(row: &Row, column: ColumnId) -> bool {
    matches!(row.get(column), Some(Datum::Atom(Atom::Boolean(true))))
}

fn text(value: &Datum) -> Option<&str> {
    value.atoms().first().and_then(Atom::as_str)
}
