//! Column values from typed arguments: what the generated functions call.
//!
//! Inputs: Rust values. Outputs: canonical [`Datum`]s. Must not: know any table.

use ovsdb::{Atom, ColumnId, Datum, Str};

/// A text as an atom, whatever owns it.
pub(crate) fn text(value: impl Into<Str>) -> Atom {
    Atom::String(value.into())
}

/// A scalar.
pub(crate) fn scalar(column: ColumnId, value: impl Into<Atom>) -> (ColumnId, Datum) {
    (column, Datum::Atom(value.into()))
}

/// An optional scalar; `None` is the empty set, which clears the column.
pub(crate) fn optional(column: ColumnId, value: Option<impl Into<Atom>>) -> (ColumnId, Datum) {
    (column, value.map_or(Datum::Set(Box::default()), |v| Datum::Atom(v.into())))
}

/// A set, from any order.
pub(crate) fn set(column: ColumnId, values: impl IntoIterator<Item = impl Into<Atom>>) -> (ColumnId, Datum) {
    (column, Datum::set(values.into_iter().map(Into::into)))
}

/// A map, from any order.
pub(crate) fn map<K: Into<Atom>, V: Into<Atom>>(
    column: ColumnId,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> (ColumnId, Datum) {
    (column, Datum::map(pairs.into_iter().map(|(k, v)| (k.into(), v.into()))))
}

/// A map from text to text, from any order.
pub(crate) fn strings(
    column: ColumnId,
    pairs: impl IntoIterator<Item = (impl Into<Str>, impl Into<Str>)>,
) -> (ColumnId, Datum) {
    map(column, pairs.into_iter().map(|(k, v)| (text(k), text(v))))
}
