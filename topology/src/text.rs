//! Rows as text for people: what `ovenbird render` prints and golden files hold.
//!
//! ```text
//! Logical_Switch_Port default_web-0  ...6f76656e
//!   addresses      0a:58:0a:80:00:03 10.128.0.3
//!   options        iface-id-ver=11-22
//!                  requested-chassis=n1
//! ```
//!
//! Sorted by table and name; one element or pair per line, so that a diff shows what changed; references by the name of the
//! row they mean. And as JSON for programs. Must not: leave out anything.

use std::fmt::Write;

use ovenbird_reconcile::WholeRow;
use ovsdb::{Atom, Datum, Uuid};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

/// The text of some rows. References to rows that are not among them show the UUID.
pub fn rows(rows: &[WholeRow]) -> String {
    let names: FxHashMap<Uuid, &str> = rows.iter().filter_map(|row| Some((row.uuid, name(row)?))).collect();
    let mut sorted: Vec<&WholeRow> = rows.iter().collect();
    sorted.sort_by_key(|row| (row.table.name, name(row), row.uuid));
    let mut out = String::new();
    for WholeRow { table, uuid, columns } in sorted {
        let title = names.get(uuid).map(|name| format!(" {name}")).unwrap_or_default();
        line(&mut out, &format!("{}{title}  {uuid}", table.name));
        let width = columns.iter().map(|(id, _)| table.column(*id).name.len()).max().unwrap_or(0);
        for (id, value) in columns {
            let mut label = table.column(*id).name;
            for element in elements(value, &names) {
                line(&mut out, &format!("  {label:width$}  {element}"));
                label = "";
            }
        }
        out.push('\n');
    }
    out
}

/// The rows as JSON, `{table: {uuid: {column: value}}}` with values in the notation of RFC 7047 section 5.1 as a server writes
/// them: a set of one is bare.
pub fn json(rows: &[WholeRow]) -> Value {
    let mut tables: Map<String, Value> = Map::new();
    for row in rows {
        let columns = row.columns.iter().filter(|(_, value)| !value.is_empty());
        let columns: Map<String, Value> =
            columns.map(|(id, value)| (row.table.column(*id).name.to_owned(), datum_json(value))).collect();
        tables.entry(row.table.name).or_insert_with(|| json!({}))[row.uuid.to_string()] = Value::Object(columns);
    }
    Value::Object(tables)
}

fn datum_json(value: &Datum) -> Value {
    match value {
        Datum::Atom(atom) => atom_json(atom),
        Datum::Set(atoms) if atoms.len() == 1 => atom_json(&atoms[0]),
        Datum::Set(atoms) => json!(["set", atoms.iter().map(atom_json).collect::<Vec<_>>()]),
        Datum::Map(pairs) => {
            json!(["map", pairs.iter().map(|(k, v)| json!([atom_json(k), atom_json(v)])).collect::<Vec<_>>()])
        }
    }
}

fn atom_json(atom: &Atom) -> Value {
    match atom {
        Atom::Integer(v) => json!(v),
        Atom::Real(v) => json!(v),
        Atom::Boolean(v) => json!(v),
        Atom::String(v) => json!(&**v),
        Atom::Uuid(v) => json!(["uuid", v.to_string()]),
    }
}

/// A row's `name`, if its table has that column.
pub fn name(row: &WholeRow) -> Option<&str> {
    let id = row.table.column_id("name")?;
    row.columns.iter().find(|(column, _)| *column == id)?.1.atoms().first()?.as_str()
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

fn elements(value: &Datum, names: &FxHashMap<Uuid, &str>) -> Vec<String> {
    let mut elements: Vec<String> = match value {
        Datum::Map(pairs) => pairs.iter().map(|(k, v)| format!("{}={}", atom(k, names), atom(v, names))).collect(),
        _ => value.atoms().iter().map(|a| atom(a, names)).collect(),
    };
    // Sets of references are in the order of UUIDs: that of names is the readable one.
    elements.sort();
    if elements.is_empty() { vec!["-".to_owned()] } else { elements }
}

fn atom(atom: &Atom, names: &FxHashMap<Uuid, &str>) -> String {
    match atom {
        Atom::String(text) if is_plain(text) => text.to_string(),
        Atom::String(text) => format!("{text:?}"),
        Atom::Uuid(uuid) => names.get(uuid).map_or_else(|| uuid.to_string(), |name| format!("<{name}>")),
        Atom::Integer(v) => v.to_string(),
        Atom::Real(v) => format!("{v:?}"),
        Atom::Boolean(v) => v.to_string(),
    }
}

/// True for texts that stay unmistakable without quotes.
fn is_plain(text: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '"' | '<' | '>' | '\\');
    !text.is_empty() && text != "-" && text.trim() == text && !text.contains(odd)
}
