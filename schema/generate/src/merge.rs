//! The union of one database's schemas over the versions.
//!
//! Inputs: one schema per version, oldest first. Output: tables and columns, each with the versions that have it and a type
//! wide enough for all of them. Two versions that cannot be united (a string that became an integer) are an error: such a
//! column needs a decision, not a guess.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::input::{Schema, Table};
use crate::types::Type;

/// A database.
pub struct Union {
    /// Name on the wire.
    pub name: String,
    /// Tables by name.
    pub tables: BTreeMap<String, UnionTable>,
}

/// A table.
pub struct UnionTable {
    /// `isRoot`.
    pub is_root: bool,
    /// `maxRows` is 1.
    pub is_singleton: bool,
    /// Unique indexes by column names.
    pub indexes: Vec<Vec<String>>,
    /// Columns by name.
    pub columns: BTreeMap<String, UnionColumn>,
    /// Versions that have the table, oldest first.
    pub versions: Vec<&'static str>,
}

/// A column.
pub struct UnionColumn {
    /// Widest type.
    pub ty: Type,
    /// Can be changed after insertion.
    pub mutable: bool,
    /// Versions that have the column, oldest first.
    pub versions: Vec<&'static str>,
}

/// Unites `schemas`, which belong to `versions` in order.
pub fn merge(schemas: &[Schema], versions: &[&'static str]) -> Result<Union> {
    let name = schemas.first().context("no schema to unite")?.name.clone();
    let mut tables = BTreeMap::new();
    for (schema, version) in schemas.iter().zip(versions) {
        ensure!(schema.name == name, "the schema of version {version} is of {}, not of {name}", schema.name);
        for (table_name, table) in &schema.tables {
            add_table(&mut tables, table_name, table, version)
                .with_context(|| format!("uniting {name} {version}, table {table_name}"))?;
        }
    }
    Ok(Union { name, tables })
}

fn add_table(
    tables: &mut BTreeMap<String, UnionTable>,
    name: &str,
    table: &Table,
    version: &'static str,
) -> Result<()> {
    let is_singleton = table.max_rows == Some(1);
    let union = tables.entry(name.to_owned()).or_insert_with(|| UnionTable {
        is_root: table.is_root,
        is_singleton,
        indexes: table.indexes.clone(),
        columns: BTreeMap::new(),
        versions: Vec::new(),
    });
    ensure!(union.is_root == table.is_root, "isRoot changed");
    ensure!(union.is_singleton == is_singleton, "maxRows changed");
    ensure!(union.indexes == table.indexes, "indexes changed");
    union.versions.push(version);
    for (name, column) in &table.columns {
        let ty = Type::new(&column.ty, version).with_context(|| format!("column {name}"))?;
        match union.columns.get_mut(name) {
            None => {
                let new = UnionColumn { ty, mutable: column.mutable, versions: vec![version] };
                union.columns.insert(name.clone(), new);
            }
            Some(known) => {
                known.ty.widen(&ty).with_context(|| format!("column {name}"))?;
                ensure!(known.mutable == column.mutable, "column {name} changed its mutability");
                known.versions.push(version);
            }
        }
    }
    Ok(())
}
