//! Typed views of column values: what the generated getters call.
//!
//! Inputs: rows that the replica decoded by the same descriptions. Outputs: plain Rust values. A value of another kind than
//! described cannot come from the replica; it reads as the column's default. Must not: allocate, know any table.

use ovsdb::{Atom, ColumnId, Datum, Row, Uuid};

/// A map from text to text, e.g. `options` or `external_ids`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strings<'a>(Option<&'a Datum>);

impl<'a> Strings<'a> {
    /// Value of a key.
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.0?.get_str(key)
    }

    /// The pairs, sorted by key.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.map_or(&[][..], Datum::pairs).iter().filter_map(|(k, v)| Some((k.as_str()?, v.as_str()?)))
    }

    /// Number of pairs.
    pub fn len(self) -> usize {
        self.0.map_or(0, Datum::len)
    }

    /// True when there is no pair.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What an atom can be read as.
pub(crate) trait FromAtom<'a>: Sized {
    fn from_atom(atom: &'a Atom) -> Option<Self>;
}

impl<'a> FromAtom<'a> for &'a str {
    fn from_atom(atom: &'a Atom) -> Option<Self> {
        atom.as_str()
    }
}

impl FromAtom<'_> for i64 {
    fn from_atom(atom: &Atom) -> Option<Self> {
        atom.as_integer()
    }
}

impl FromAtom<'_> for bool {
    fn from_atom(atom: &Atom) -> Option<Self> {
        atom.as_bool()
    }
}

impl FromAtom<'_> for Uuid {
    fn from_atom(atom: &Atom) -> Option<Self> {
        atom.as_uuid()
    }
}

/// An optional scalar.
pub(crate) fn optional<'a, T: FromAtom<'a>>(row: &'a Row, column: ColumnId) -> Option<T> {
    match row.get(column)? {
        Datum::Atom(atom) => T::from_atom(atom),
        _ => None,
    }
}

/// A scalar; a row leaves out defaults.
pub(crate) fn scalar<'a, T: FromAtom<'a> + Default>(row: &'a Row, column: ColumnId) -> T {
    optional(row, column).unwrap_or_default()
}

/// A set, sorted.
pub(crate) fn set<'a, T: FromAtom<'a> + 'a>(row: &'a Row, column: ColumnId) -> impl Iterator<Item = T> + 'a {
    row.get(column).map_or(&[][..], Datum::atoms).iter().filter_map(T::from_atom)
}

/// A map, sorted by key.
pub(crate) fn map<'a, K: FromAtom<'a> + 'a, V: FromAtom<'a> + 'a>(
    row: &'a Row,
    column: ColumnId,
) -> impl Iterator<Item = (K, V)> + 'a {
    row.get(column).map_or(&[][..], Datum::pairs).iter().filter_map(|(k, v)| Some((K::from_atom(k)?, V::from_atom(v)?)))
}

/// A map from text to text.
pub(crate) fn strings(row: &Row, column: ColumnId) -> Strings<'_> {
    Strings(row.get(column))
}
