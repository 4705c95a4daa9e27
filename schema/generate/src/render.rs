//! The united database as Rust source: one file for the database, one per table.
//!
//! Inputs: the union and the doc texts. Output: paths below `schema/src/generated/` and their text, not yet formatted.
//! Must not: read or write files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Source;
use crate::column::Column;
use crate::docs::Docs;
use crate::merge::{Union, UnionTable};
use crate::names::{constant, snake};
use crate::prose;

/// All files of one database.
pub fn render(source: &Source, database: &Union, docs: &Docs) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    files.insert(PathBuf::from(format!("{}.rs", source.module)), render_database(source, database));
    for (index, (name, table)) in database.tables.iter().enumerate() {
        let text = Rendering { source, database, docs, name, table }
            .render(index)
            .with_context(|| format!("table {name} of {}", database.name))?;
        files.insert(PathBuf::from(format!("{}/{}.rs", source.module, snake(name))), text);
    }
    Ok(files)
}

fn render_database(source: &Source, database: &Union) -> String {
    let name = &database.name;
    let versions = source.versions.join(", ");
    let mut out = format!("//! {name}: the union of {} {versions}.\n//!\n", source.product);
    out.push_str(prose::GENERATED);
    out.push_str("\nuse ovsdb::DatabaseDesc;\n\n");
    let modules: Vec<String> = database.tables.keys().map(|t| snake(t)).collect();
    for module in &modules {
        out.push_str(&format!("pub mod {module};\n"));
    }
    let all: Vec<String> = source.versions.iter().map(|v| format!("{v:?}")).collect();
    out.push_str(&format!(
        "\n/// The versions that are united here.\npub const ALL: &[&str] = &[{}];\n",
        all.join(", ")
    ));
    let tables: String = modules.iter().map(|m| format!("&{m}::TABLE, ")).collect();
    out.push_str(&format!(
        "\n/// Description of {name}.\npub static DATABASE: DatabaseDesc = DatabaseDesc {{ name: {name:?}, tables: &[{tables}] }};\n"
    ));
    out
}

struct Rendering<'a> {
    source: &'a Source,
    database: &'a Union,
    docs: &'a Docs,
    name: &'a str,
    table: &'a UnionTable,
}

impl Rendering<'_> {
    fn render(&self, index: usize) -> Result<String> {
        let columns: Vec<Column<'_>> = self.table.columns.iter().map(|(n, c)| Column::new(n, c)).collect();
        let mut out = self.header();
        self.description(index, &columns, &mut out)?;
        for (id, column) in columns.iter().enumerate() {
            prose::wrap(&mut out, "/// ", self.docs.column(self.name, column.name));
            prose::wrap(&mut out, "/// ", column.facts(self.source).trim());
            writeln!(out, "pub const {}: ColumnId = ColumnId({id});\n", constant(column.name))?;
        }
        for column in &columns {
            column.enumeration(self.source, &mut out)?;
        }
        for column in &columns {
            column.writer(&mut out)?;
        }
        self.reader(&columns, &mut out)?;
        Ok(out)
    }

    fn header(&self) -> String {
        let mut out = String::new();
        let text = self.docs.table(self.name);
        let versions = prose::versions(self.source, &self.table.versions);
        let intro = format!("Table {} of {}. {text} {versions}", self.name, self.database.name);
        prose::wrap(&mut out, "//! ", intro.trim());
        out.push_str("//!\n");
        out.push_str(prose::GENERATED);
        let strings = self.table.columns.values().any(|c| Column::new("", c).takes_text());
        let references = self.table.columns.values().any(|c| Column::new("", c).takes_uuid());
        let maps = self.table.columns.values().any(|c| Column::new("", c).is_strings());
        let all = self.table.columns.values().any(|c| c.versions == self.source.versions)
            || self.table.versions == self.source.versions;
        out.push_str("\nuse ovsdb::{ColumnId, Datum, Row, TableDesc");
        out.push_str(if strings { ", Str" } else { "" });
        out.push_str(if references { ", Uuid" } else { "" });
        out.push_str("};\n\n");
        out.push_str(if all { "use super::ALL;\n" } else { "" });
        out.push_str("use crate::{describe as d, read, write};\n");
        out.push_str(if maps { "use crate::Strings;\n\n" } else { "\n" });
        out
    }

    fn description(&self, index: usize, columns: &[Column<'_>], out: &mut String) -> Result<()> {
        let UnionTable { is_root, is_singleton, .. } = self.table;
        writeln!(out, "/// Description of {}.", self.name)?;
        writeln!(out, "pub static TABLE: TableDesc = TableDesc {{ name: {:?}, index: {index},", self.name)?;
        writeln!(out, "is_root: {is_root}, is_singleton: {is_singleton}, columns: &[")?;
        for column in columns {
            writeln!(out, "{},", column.description(self.source))?;
        }
        let index = |names: &Vec<String>| {
            let ids: Vec<String> = names.iter().map(|n| constant(n)).collect();
            format!("&[{}]", ids.join(", "))
        };
        let indexes: Vec<String> = self.table.indexes.iter().map(index).collect();
        let versions = prose::version_list(self.source, &self.table.versions);
        writeln!(out, "], indexes: &[{}], versions: {versions} }};\n", indexes.join(", "))?;
        Ok(())
    }

    fn reader(&self, columns: &[Column<'_>], out: &mut String) -> Result<()> {
        writeln!(out, "/// A row of {}.", self.name)?;
        writeln!(out, "#[derive(Clone, Copy, Debug)]\npub struct Ref<'a>(pub &'a Row);\n\nimpl<'a> Ref<'a> {{")?;
        for column in columns {
            column.getter(out)?;
        }
        writeln!(out, "}}")?;
        Ok(())
    }
}
