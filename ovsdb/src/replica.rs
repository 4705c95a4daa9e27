//! The in-memory copy of a database, as the monitor tells it (OVS calls this the IDL).
//!
//! ```text
//! Connected(ServerInfo) --> set_server      Update --> apply --> rows, indexes, and what changed as RowChanges
//! ```
//!
//! Inputs: [`ServerInfo`] and [`Update`]s in the order of their events; nothing else, so tests need no server. Must not: do
//! I/O, or write to the database.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::decode::{DecodeError, Decoder, RowSink, RowUpdate};
use crate::desc::{ColumnId, ColumnType, DatabaseDesc, Shape, TableDesc};
use crate::row::{Row, default_value};
use crate::server::ServerInfo;
use crate::spec::MonitorSpec;
use crate::update::Update;
use crate::value::{Atom, Datum, Uuid};

/// What an update did to a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Table.
    pub table: &'static TableDesc,
    /// Row.
    pub uuid: Uuid,
    /// What happened; the row itself is in the replica.
    pub kind: ChangeKind,
}

/// The three ways in which a row changes.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeKind {
    /// The row is new.
    Inserted,
    /// The row is gone.
    Deleted,
    /// Columns changed, sorted. Sets and maps carry the difference (ovsdb-server(7) 4.1.14: elements that only one side has,
    /// and for a key with another value the new pair); single values the new one, or an empty set when nothing is left.
    Modified(Vec<(ColumnId, Datum)>),
}

/// The copy.
#[derive(Debug)]
pub struct Replica {
    tables: Vec<Option<Table>>,
    decoder: Decoder,
    server: Option<ServerInfo>,
}

#[derive(Debug)]
struct Table {
    desc: &'static TableDesc,
    rows: FxHashMap<Uuid, Row>,
    /// Rows from before a reset that it has not named yet; empty outside of `apply`.
    before: FxHashMap<Uuid, Row>,
    indexes: Vec<(ColumnId, FxHashMap<Atom, Uuid>)>,
}

impl Replica {
    /// An empty replica of the tables in `spec`.
    pub fn new(database: &'static DatabaseDesc, spec: &MonitorSpec) -> Replica {
        let table = |desc: &&'static TableDesc| {
            let indexes = spec.table(desc)?.indexes.iter().map(|c| (*c, FxHashMap::default())).collect();
            Some(Table { desc, rows: FxHashMap::default(), before: FxHashMap::default(), indexes })
        };
        Replica { tables: database.tables.iter().map(table).collect(), decoder: Decoder::new(), server: None }
    }

    /// Takes note of what the connected server has. Call it on every [`crate::Event::Connected`].
    pub fn set_server(&mut self, server: &ServerInfo) {
        self.server = Some(server.clone());
    }

    /// Applies an update, and appends what changed to `changes`.
    ///
    /// After an error the contents are those of no server: call [`crate::Handle::force_reconnect`], which ends in an
    /// update that sets all of them anew.
    pub fn apply(&mut self, update: &Update, changes: &mut Vec<RowChange>) -> Result<(), DecodeError> {
        let Replica { tables, decoder, server } = self;
        if update.is_reset() {
            tables.iter_mut().flatten().for_each(Table::begin_reset);
        }
        decoder.table_updates(update.text(), &mut Sink { tables, server: server.as_ref(), changes })?;
        tables.iter_mut().flatten().for_each(|t| t.end_reset(changes));
        Ok(())
    }

    /// Applies the text of a `<table-updates2>`, for tests: `{"Table":{"<uuid>":{"insert":{"column":value}}}}`.
    pub fn apply_json(&mut self, text: &str, changes: &mut Vec<RowChange>) -> Result<(), DecodeError> {
        self.apply(&Update::from_text(text), changes)
    }

    /// A row.
    pub fn row(&self, table: &TableDesc, uuid: &Uuid) -> Option<&Row> {
        self.table(table)?.rows.get(uuid)
    }

    /// All rows of a table, in no order.
    pub fn rows(&self, table: &TableDesc) -> impl Iterator<Item = (Uuid, &Row)> {
        self.table(table).into_iter().flat_map(|t| t.rows.iter().map(|(uuid, row)| (*uuid, row)))
    }

    /// Number of rows of a table.
    pub fn len(&self, table: &TableDesc) -> usize {
        self.table(table).map_or(0, |t| t.rows.len())
    }

    /// True when the table has no row.
    pub fn is_empty(&self, table: &TableDesc) -> bool {
        self.len(table) == 0
    }

    /// The row whose indexed column (`TableSpec::index`) has a value; `None` also when the column has no index.
    pub fn find(&self, table: &TableDesc, column: ColumnId, value: &Atom) -> Option<(Uuid, &Row)> {
        let table = self.table(table)?;
        let (_, index) = table.indexes.iter().find(|(c, _)| *c == column)?;
        let uuid = index.get(value)?;
        table.rows.get_key_value(uuid).map(|(uuid, row)| (*uuid, row))
    }

    /// True when the connected server has the table. Before any connection, all described tables count as there.
    pub fn has_table(&self, table: &TableDesc) -> bool {
        self.server.as_ref().is_none_or(|s| s.has_table(table))
    }

    /// True when the connected server has the column with the described type.
    pub fn has_column(&self, table: &TableDesc, column: ColumnId) -> bool {
        self.server.as_ref().is_none_or(|s| s.has_column(table, column))
    }

    fn table(&self, table: &TableDesc) -> Option<&Table> {
        self.tables.get(usize::from(table.index))?.as_ref()
    }
}

struct Sink<'a> {
    tables: &'a mut [Option<Table>],
    server: Option<&'a ServerInfo>,
    changes: &'a mut Vec<RowChange>,
}

impl RowSink for Sink<'_> {
    fn table(&self, name: &str) -> Option<&'static TableDesc> {
        self.tables.iter().flatten().map(|t| t.desc).find(|t| t.name == name)
    }

    fn row(&mut self, desc: &'static TableDesc, uuid: Uuid, update: RowUpdate) -> Result<(), &'static str> {
        let table = self.tables.get_mut(usize::from(desc.index)).and_then(Option::as_mut);
        let table = table.ok_or("belongs to a table that is not replicated")?;
        let kind = match update {
            RowUpdate::Whole(row) => table.put(uuid, row),
            RowUpdate::Delete => table.delete(uuid).then_some(ChangeKind::Deleted),
            RowUpdate::Modify(difference) => {
                let replaced = |id| self.server.is_some_and(|s| s.is_replaced(desc, id));
                Some(ChangeKind::Modified(table.modify(uuid, difference, replaced)?))
            }
        };
        self.changes.extend(kind.map(|kind| RowChange { table: desc, uuid, kind }));
        Ok(())
    }
}

impl Table {
    fn begin_reset(&mut self) {
        self.before = std::mem::take(&mut self.rows);
        self.indexes.iter_mut().for_each(|(_, index)| index.clear());
    }

    fn end_reset(&mut self, changes: &mut Vec<RowChange>) {
        let table = self.desc;
        let gone = std::mem::take(&mut self.before);
        changes.extend(gone.into_keys().map(|uuid| RowChange { table, uuid, kind: ChangeKind::Deleted }));
    }

    /// Sets a whole row; `None` when nothing changed.
    fn put(&mut self, uuid: Uuid, row: Row) -> Option<ChangeKind> {
        let before = if self.before.is_empty() { None } else { self.before.remove(&uuid) };
        self.leave(&uuid);
        enter(&mut self.indexes, uuid, &row);
        match self.rows.entry(uuid) {
            Entry::Vacant(entry) => {
                let kind = match before {
                    None => Some(ChangeKind::Inserted),
                    Some(old) if old == row => None,
                    Some(old) => Some(ChangeKind::Modified(difference(self.desc, &old, &row))),
                };
                entry.insert(row);
                kind
            }
            Entry::Occupied(mut entry) => {
                let old = entry.insert(row);
                let new = entry.get();
                (old != *new).then(|| ChangeKind::Modified(difference(self.desc, &old, new)))
            }
        }
    }

    fn delete(&mut self, uuid: Uuid) -> bool {
        self.leave(&uuid);
        self.rows.remove(&uuid).is_some()
    }

    /// Applies differences, and returns them sorted.
    fn modify(
        &mut self,
        uuid: Uuid,
        mut difference: Vec<(ColumnId, Datum)>,
        replaced: impl Fn(ColumnId) -> bool,
    ) -> Result<Vec<(ColumnId, Datum)>, &'static str> {
        self.leave(&uuid);
        let row = self.rows.get_mut(&uuid).ok_or("is modified but was never inserted")?;
        for (id, change) in &mut difference {
            let ty = &self.desc.columns[usize::from(id.0)].ty;
            apply_column(row, *id, ty, change, ty.max == 1 || replaced(*id));
        }
        enter(&mut self.indexes, uuid, row);
        difference.sort_unstable_by_key(|(id, _)| *id);
        Ok(difference)
    }

    /// Takes a row out of the indexes.
    fn leave(&mut self, uuid: &Uuid) {
        let Table { rows, indexes, .. } = self;
        for (column, index) in indexes {
            if let Some(Datum::Atom(atom)) = rows.get(uuid).and_then(|row| row.get(*column))
                && index.get(atom) == Some(uuid)
            {
                index.remove(atom);
            }
        }
    }
}

/// Takes a row into the indexes.
fn enter(indexes: &mut [(ColumnId, FxHashMap<Atom, Uuid>)], uuid: Uuid, row: &Row) {
    for (column, index) in indexes {
        if let Some(Datum::Atom(atom)) = row.get(*column) {
            index.insert(atom.clone(), uuid);
        }
    }
}

/// Applies one column of a `modify`. When the server sent the new value (`replaced`) of a set or map, `change` becomes
/// the difference, so that owners always see differences.
fn apply_column(row: &mut Row, id: ColumnId, ty: &ColumnType, change: &mut Datum, replaced: bool) {
    if ty.shape() == Shape::Atom {
        match change {
            Datum::Atom(_) => row.set(id, ty, change.clone()),
            _ => row.clear(id),
        }
        return;
    }
    let empty = default_value(ty);
    let mut value = row.get_mut(id).map_or_else(|| empty.clone(), |old| std::mem::replace(old, empty.clone()));
    if replaced {
        let new = change.clone();
        value.toggle(&new);
        *change = value;
        row.set(id, ty, new);
    } else {
        value.toggle(change);
        row.set(id, ty, value);
    }
}

/// The columns in which two rows differ, in the form of [`ChangeKind::Modified`].
fn difference(desc: &TableDesc, old: &Row, new: &Row) -> Vec<(ColumnId, Datum)> {
    let mut ids: Vec<ColumnId> = old.iter().chain(new.iter()).map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    let changed = ids.into_iter().filter(|id| old.get(*id) != new.get(*id));
    let one = |id: ColumnId| {
        let ty = &desc.columns[usize::from(id.0)].ty;
        let value = |row: &Row| row.get(id).cloned().unwrap_or_else(|| default_value(ty));
        let mut both = value(old);
        both.toggle(&value(new));
        (id, both)
    };
    changed.map(one).collect()
}
