//! What tables and columns mean, in our own words (`schema/docs/<db>.toml`).
//!
//! ```toml
//! [_common]                 # columns that mean the same in every table
//! external_ids = "..."
//! [Logical_Switch]
//! _table = "..."            # the table itself
//! name = "..."
//! ```
//!
//! Every table and column has a text, and every text a table or column.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::merge::Union;

const COMMON: &str = "_common";
const TABLE: &str = "_table";

/// The texts of one database.
pub struct Docs(BTreeMap<String, BTreeMap<String, String>>);

impl Docs {
    /// Reads the texts and compares them with the database: none may be missing, none left over.
    pub fn load(path: &Path, database: &Union) -> Result<Docs> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let docs = Docs(toml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?);
        let complaints = docs.complaints(database);
        if !complaints.is_empty() {
            bail!("{} does not fit {}:\n{}", path.display(), database.name, complaints.join("\n"));
        }
        Ok(docs)
    }

    /// Text of a table.
    pub fn table(&self, table: &str) -> &str {
        self.get(table, TABLE).unwrap_or_default()
    }

    /// Text of a column.
    pub fn column(&self, table: &str, column: &str) -> &str {
        self.get(table, column).or_else(|| self.get(COMMON, column)).unwrap_or_default()
    }

    fn get(&self, table: &str, key: &str) -> Option<&str> {
        self.0.get(table)?.get(key).map(String::as_str)
    }

    fn complaints(&self, database: &Union) -> Vec<String> {
        let mut out = Vec::new();
        for (name, table) in &database.tables {
            if self.table(name).is_empty() {
                out.push(format!("missing: [{name}] {TABLE}"));
            }
            let missing = table.columns.keys().filter(|c| self.column(name, c).is_empty());
            out.extend(missing.map(|c| format!("missing: [{name}] {c}")));
        }
        for (name, texts) in self.0.iter().filter(|(name, _)| *name != COMMON) {
            let columns = database.tables.get(name).map(|t| &t.columns);
            let known = |key: &str| columns.is_some_and(|c| key == TABLE || c.contains_key(key));
            out.extend(texts.keys().filter(|key| !known(key)).map(|key| format!("left over: [{name}] {key}")));
        }
        out
    }
}
