//! What to replicate: tables, columns, rows by condition, and the indexes kept over them.
//!
//! Input: descriptions of the crate `schema`. Output: the monitor requests of RFC 7047 section 4.1.5 and ovsdb-server(7)
//! 4.1.12, restricted to what the server has. Must not: do I/O.

use crate::desc::{ColumnId, DatabaseDesc, TableDesc};
use crate::server::ServerInfo;
use crate::transaction::{Condition, list};
use crate::value::write_string;

/// The tables that a client replicates.
#[derive(Clone, Debug, Default)]
pub struct MonitorSpec {
    pub(crate) tables: Vec<TableSpec>,
}

/// One table of a [`MonitorSpec`].
#[derive(Clone, Debug)]
pub struct TableSpec {
    pub(crate) table: &'static TableDesc,
    pub(crate) columns: Vec<ColumnId>,
    pub(crate) indexes: Vec<ColumnId>,
    pub(crate) conditions: Vec<Condition>,
}

impl MonitorSpec {
    /// Nothing: a client that only transacts.
    pub const fn new() -> MonitorSpec {
        MonitorSpec { tables: Vec::new() }
    }

    /// Every described column of every table.
    pub fn everything(database: &'static DatabaseDesc) -> MonitorSpec {
        MonitorSpec { tables: database.tables.iter().map(|t| TableSpec::all(t)).collect() }
    }

    /// Adds a table, or replaces what was said of it.
    #[must_use]
    pub fn with(mut self, table: TableSpec) -> MonitorSpec {
        self.tables.retain(|t| t.table != table.table);
        self.tables.push(table);
        self
    }

    /// What is replicated of a table.
    pub fn table(&self, table: &'static TableDesc) -> Option<&TableSpec> {
        self.tables.iter().find(|t| t.table == table)
    }

    /// The parameters `[database, id, {table: [request]}]` of a monitor, whose id is the database's name. What the server lacks is
    /// left out.
    pub(crate) fn request(&self, database: &str, server: Option<&ServerInfo>, conditional: bool) -> Vec<u8> {
        let mut out = b"[".to_vec();
        for _ in 0..2 {
            write_string(database, &mut out);
            out.push(b',');
        }
        let present = self.tables.iter().filter(|t| server.is_none_or(|s| s.has_table(t.table)));
        for (i, table) in present.enumerate() {
            out.push(if i == 0 { b'{' } else { b',' });
            write_string(table.table.name, &mut out);
            out.extend_from_slice(b":[{\"columns\":");
            let has = |c: &&ColumnId| server.is_none_or(|s| s.has_column(table.table, **c));
            let columns: Vec<_> = table.columns.iter().filter(has).map(|c| table.table.column(*c).name).collect();
            list(&columns, &mut out, |name, out| write_string(name, out));
            if conditional && !table.conditions.is_empty() {
                out.extend_from_slice(b",\"where\":");
                list(&table.conditions, &mut out, |c, out| c.write_json(out));
            }
            out.extend_from_slice(b"}]");
        }
        if out.ends_with(b",") {
            out.push(b'{');
        }
        out.extend_from_slice(b"}]");
        out
    }
}

impl TableSpec {
    /// All described columns.
    pub fn all(table: &'static TableDesc) -> TableSpec {
        TableSpec::columns(table, (0..table.columns.len() as u16).map(ColumnId))
    }

    /// Some columns.
    pub fn columns(table: &'static TableDesc, columns: impl IntoIterator<Item = ColumnId>) -> TableSpec {
        TableSpec { table, columns: columns.into_iter().collect(), indexes: Vec::new(), conditions: Vec::new() }
    }

    /// Keeps an index over a scalar column, for `Replica::find`. Of rows with equal values it finds one, so the column
    /// should be unique in the rows looked up.
    #[must_use]
    pub fn index(mut self, column: ColumnId) -> TableSpec {
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        self.indexes.push(column);
        self
    }

    /// Only rows that match one of the conditions (a disjunction, unlike the `where` of an operation). Servers without
    /// `monitor_cond` send all rows.
    #[must_use]
    pub fn matching(mut self, conditions: Vec<Condition>) -> TableSpec {
        self.conditions = conditions;
        self
    }
}
