//! What a connected server has: its schema, seen through the descriptions this program was compiled with.
//!
//! Input: the text of a `<database-schema>` (RFC 7047 section 3.2). Output: [`ServerInfo`], which tables and columns may be read
//! and written. Must not: keep the schema text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::decode::DecodeError;
use crate::desc::{AtomKind, ColumnId, ColumnType, DatabaseDesc, TableDesc};

/// A server's schema, compared with the described one. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Endpoint that we are connected to, as text; empty in tests without one.
    pub endpoint: String,
    /// Version of the schema, e.g. `7.3.1`; may be empty.
    pub version: String,
    tables: Arc<[Option<Vec<Presence>>]>,
}

/// How the server has a described column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Absent,
    Present,
    /// Present, and single-valued there although described as a set or map: `modify` brings new values, not differences.
    Replaced,
}

#[derive(Deserialize)]
struct SchemaText {
    #[serde(default)]
    version: String,
    tables: BTreeMap<String, TableText>,
}

#[derive(Deserialize)]
struct TableText {
    columns: BTreeMap<String, ColumnText>,
}

#[derive(Deserialize)]
struct ColumnText {
    #[serde(rename = "type")]
    ty: TypeText,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TypeText {
    Plain(String),
    Full { key: BaseText, value: Option<BaseText>, max: Option<Limit> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BaseText {
    Plain(String),
    Full {
        #[serde(rename = "type")]
        kind: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Limit {
    Number(u32),
    #[allow(dead_code, reason = "any text means unlimited; the parser still has to accept it")]
    Unlimited(String),
}

impl ServerInfo {
    /// Compares the schema that a server reported with the described one.
    pub fn from_schema(schema: &str, database: &'static DatabaseDesc) -> Result<ServerInfo, DecodeError> {
        let fail = |e: serde_json::Error| DecodeError {
            place: format!("schema of {}", database.name),
            problem: e.to_string(),
        };
        let schema: SchemaText = serde_json::from_str(schema).map_err(fail)?;
        let presence = |table: &TableText, name: &str, ty: &ColumnType| {
            table.columns.get(name).map_or(Presence::Absent, |column| column.ty.presence(ty))
        };
        let table = |desc: &&'static TableDesc| {
            let table = schema.tables.get(desc.name)?;
            Some(desc.columns.iter().map(|c| presence(table, c.name, &c.ty)).collect())
        };
        let tables = database.tables.iter().map(table).collect();
        Ok(ServerInfo { endpoint: String::new(), version: schema.version, tables })
    }

    /// True when the server has the table.
    pub fn has_table(&self, table: &TableDesc) -> bool {
        self.columns(table).is_some()
    }

    /// True when the server has the column with the described kinds of elements.
    pub fn has_column(&self, table: &TableDesc, column: ColumnId) -> bool {
        self.presence(table, column) != Presence::Absent
    }

    /// True when `modify` updates bring this column's new value instead of the difference.
    pub(crate) fn is_replaced(&self, table: &TableDesc, column: ColumnId) -> bool {
        self.presence(table, column) == Presence::Replaced
    }

    fn columns(&self, table: &TableDesc) -> Option<&Vec<Presence>> {
        self.tables.get(usize::from(table.index))?.as_ref()
    }

    fn presence(&self, table: &TableDesc, column: ColumnId) -> Presence {
        let presence = self.columns(table).and_then(|columns| columns.get(usize::from(column.0)));
        presence.copied().unwrap_or(Presence::Absent)
    }
}

impl TypeText {
    fn presence(&self, described: &ColumnType) -> Presence {
        let (key, value, max) = match self {
            TypeText::Plain(key) => (key.as_str(), None, 1),
            TypeText::Full { key, value, max } => {
                let max = match max {
                    None => 1,
                    Some(Limit::Number(n)) => *n,
                    Some(Limit::Unlimited(_)) => u32::MAX,
                };
                (key.kind(), value.as_ref().map(BaseText::kind), max)
            }
        };
        let same_kinds = kind_name(described.key.kind) == key && described.value.map(|v| kind_name(v.kind)) == value;
        match (same_kinds, max > 1, described.max > 1) {
            (false, ..) | (_, true, false) => Presence::Absent,
            (_, false, true) => Presence::Replaced,
            _ => Presence::Present,
        }
    }
}

impl BaseText {
    fn kind(&self) -> &str {
        match self {
            BaseText::Plain(kind) | BaseText::Full { kind } => kind,
        }
    }
}

const fn kind_name(kind: AtomKind) -> &'static str {
    match kind {
        AtomKind::Integer => "integer",
        AtomKind::Real => "real",
        AtomKind::Boolean => "boolean",
        AtomKind::String => "string",
        AtomKind::Uuid => "uuid",
    }
}
