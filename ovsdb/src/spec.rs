//! What to replicate: tables, columns, rows by condition, and the indexes kept over them.
//!
//! Input: descriptions of the crate `schema`. Output: the monitor requests of RFC 7047 section 4.1.5 and ovsdb-server(7)
//! 4.1.12, restricted to what the server has. Must not: do I/O.

use crate::desc::{ColumnId, DatabaseDesc, TableDesc};
use crate::transaction::Condition;

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
