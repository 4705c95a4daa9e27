//! A recorded schema (RFC 7047 section 3.2), as `get_schema` reports it.
//!
//! Must not: judge. Types keep the shape of the JSON; `merge` gives them meaning.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// `<database-schema>`.
#[derive(Deserialize)]
pub struct Schema {
    /// Database.
    pub name: String,
    /// Version of the schema, not of the product.
    pub version: String,
    /// Tables by name.
    pub tables: BTreeMap<String, Table>,
}

/// `<table-schema>`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Columns by name.
    pub columns: BTreeMap<String, Column>,
    /// Most rows.
    pub max_rows: Option<u64>,
    /// True when rows live without being referenced.
    #[serde(default)]
    pub is_root: bool,
    /// Unique sets of columns.
    #[serde(default)]
    pub indexes: Vec<Vec<String>>,
}

/// `<column-schema>`.
#[derive(Deserialize)]
pub struct Column {
    /// Type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// False when fixed at insertion.
    #[serde(default = "yes")]
    pub mutable: bool,
}

/// `<type>`.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Type {
    /// `"string"`: exactly one.
    Atomic(String),
    /// With multiplicity, or a map.
    Full(Box<FullType>),
}

/// `<type>` with multiplicity.
#[derive(Deserialize)]
pub struct FullType {
    /// Elements or keys.
    pub key: Base,
    /// Values of a map.
    pub value: Option<Base>,
    /// Fewest.
    #[serde(default = "one")]
    pub min: u8,
    /// Most.
    #[serde(default)]
    pub max: Max,
}

/// `<base-type>`.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Base {
    /// `"string"`.
    Atomic(String),
    /// With constraints.
    Full(Constrained),
}

/// `<base-type>` with constraints.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Constrained {
    /// Atomic type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Permitted strings.
    #[serde(rename = "enum")]
    pub enumeration: Option<Enumeration>,
    /// Least integer.
    pub min_integer: Option<i64>,
    /// Greatest integer.
    pub max_integer: Option<i64>,
    /// Table referred to.
    pub ref_table: Option<String>,
    /// `strong` (the default) or `weak`.
    pub ref_type: Option<String>,
}

/// A set of strings on the wire.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Enumeration {
    /// A set of one is a bare atom.
    One(String),
    /// `["set", [...]]`.
    Set(String, Vec<String>),
}

/// `max` of a type.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub enum Max {
    /// A number.
    Count(u32),
    /// `"unlimited"`.
    Unlimited(Unlimited),
}

/// The word `unlimited`.
#[derive(Clone, Copy, Deserialize)]
pub enum Unlimited {
    /// No bound.
    #[serde(rename = "unlimited")]
    Unlimited,
}

impl Default for Max {
    fn default() -> Self {
        Max::Count(1)
    }
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

/// Reads a recorded schema.
pub fn load(path: &Path) -> Result<Schema> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}
