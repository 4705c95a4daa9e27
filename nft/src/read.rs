//! From what `nft -j list table FAMILY NAME` prints (libnftables-json(5)) to a table.
//!
//! Rules and declarations of sets come back as their marks, elements in full. What others have put into the table is read like ours, so it
//! goes with the next write. Must not: fail on what it does not understand: an element that cannot be said is one that differs.

use serde_json::Value;

use crate::table::{Base, Set, Table, Text};

/// The text is no list of a table.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no JSON.
    #[error("reading what nft lists")]
    Json(#[source] serde_json::Error),
    /// It is another JSON.
    #[error("nft lists no objects")]
    Form,
}

/// The table, as far as this package compares it.
///
/// # Errors
/// When the text is not nft's.
pub fn read(id: &str, listed: &str) -> Result<Table, ReadError> {
    let listed: Value = serde_json::from_str(listed).map_err(ReadError::Json)?;
    let mut table = Table::new(id.to_owned());
    for object in listed.get("nftables").and_then(Value::as_array).ok_or(ReadError::Form)? {
        let Some((kind, object)) = object.as_object().and_then(|o| o.iter().next()) else { continue };
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        match (kind.as_str(), text("name"), text("chain")) {
            ("set" | "map", Some(name), _) => drop(table.sets.insert(name.to_owned(), set(kind == "map", object))),
            // Rules may have made it.
            ("chain", Some(name), _) => table.chain(name).base = base(object),
            ("rule", _, Some(chain)) => drop(table.chain(chain).rule(Text::unseen(text("comment")))),
            _ => {}
        }
    }
    Ok(table)
}

fn base(object: &Value) -> Option<Base> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).map(|text| text.to_owned().into());
    // One with another policy is none of ours.
    let priority = object.get("prio").and_then(Value::as_i64).and_then(|n| n.try_into().ok());
    let accepts = object.get("policy").and_then(Value::as_str) == Some("accept");
    let priority = priority.filter(|_| accepts).unwrap_or(i32::MIN);
    Some(Base { kind: text("type")?, hook: text("hook")?, priority })
}

fn set(map: bool, object: &Value) -> Set {
    let comment = object.get("comment").and_then(Value::as_str);
    let mut set = Set { spec: Text::unseen(comment), map, ..Set::default() };
    for element in object.get("elem").and_then(Value::as_array).into_iter().flatten() {
        let (key, value) = match element.as_array().map(Vec::as_slice) {
            Some([key, value]) => (said(key), said(value)),
            _ => (said(element), String::new()),
        };
        set.elements.insert(key, value);
    }
    set
}

/// A key or a value, as it is written.
fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => object.iter().next().map_or_else(String::new, |(kind, inner)| expression(kind, inner)),
        other => other.to_string(),
    }
}

fn expression(kind: &str, inner: &Value) -> String {
    let field = |name: &str| inner.get(name).map(said).unwrap_or_default();
    let all = |between: &str| inner.as_array().into_iter().flatten().map(said).collect::<Vec<_>>().join(between);
    match kind {
        "concat" => all(" . "),
        "range" => all("-"),
        "prefix" => format!("{}/{}", field("addr"), field("len")),
        // One with a timeout or a counter.
        "elem" => field("val"),
        "goto" | "jump" => format!("{kind} {}", field("target")),
        // `drop`, `accept`, `return`
        verdict => verdict.to_owned(),
    }
}
