//! A row as the replica keeps it: only the columns that differ from their default, sorted by column.
//!
//! Sparse rows are small (a Logical_Switch_Port has 20 columns, 6 of them set) and generic code can walk them. Typed access
//! is generated on top by the crate `schema`. Must not: know a table's meaning.

use crate::desc::{AtomKind, ColumnId, ColumnType, Shape};
use crate::value::{Atom, Datum, Uuid};

/// Column values of one row. A column that is absent has its default: nothing for an optional scalar, the empty set or map,
/// and 0, 0.0, false, "" or the nil UUID for a scalar. (So an optional boolean that holds `false` is present.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    columns: Vec<(ColumnId, Datum)>,
}

impl Row {
    /// A row of defaults.
    pub const fn new() -> Row {
        Row { columns: Vec::new() }
    }

    /// A row of columns that are sorted, unique, and none of them default.
    pub(crate) fn from_sorted(columns: Vec<(ColumnId, Datum)>) -> Row {
        Row { columns }
    }

    /// Value of a column, `None` for its default.
    pub fn get(&self, column: ColumnId) -> Option<&Datum> {
        self.position(column).ok().map(|i| &self.columns[i].1)
    }

    /// Mutable value of a column, `None` for its default. The caller keeps it canonical.
    pub fn get_mut(&mut self, column: ColumnId) -> Option<&mut Datum> {
        let at = self.position(column).ok()?;
        Some(&mut self.columns[at].1)
    }

    /// Sets a column. A default value removes it, so that equality of rows is equality of states.
    pub fn set(&mut self, column: ColumnId, ty: &ColumnType, value: Datum) {
        let default = is_default(ty, &value);
        match (self.position(column), default) {
            (Ok(i), true) => drop(self.columns.remove(i)),
            (Ok(i), false) => self.columns[i].1 = value,
            (Err(_), true) => {}
            (Err(i), false) => self.columns.insert(i, (column, value)),
        }
    }

    /// Resets a column to its default.
    pub fn clear(&mut self, column: ColumnId) {
        if let Ok(i) = self.position(column) {
            self.columns.remove(i);
        }
    }

    /// The columns that are set, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ColumnId, &Datum)> {
        self.columns.iter().map(|(c, d)| (*c, d))
    }

    /// Gives unused capacity back; called once a row has been decoded.
    pub fn shrink(&mut self) {
        self.columns.shrink_to_fit();
    }

    fn position(&self, column: ColumnId) -> Result<usize, usize> {
        self.columns.binary_search_by_key(&column, |(c, _)| *c)
    }
}

/// True for the value that RFC 7047 section 5.2.1 gives a column of this type when an insert leaves it out.
pub fn is_default(ty: &ColumnType, value: &Datum) -> bool {
    match value {
        Datum::Set(v) => v.is_empty(),
        Datum::Map(v) => v.is_empty(),
        Datum::Atom(_) if ty.is_optional() => false,
        Datum::Atom(Atom::Integer(v)) => *v == 0,
        Datum::Atom(Atom::Real(v)) => *v == 0.0,
        Datum::Atom(Atom::Boolean(v)) => !v,
        Datum::Atom(Atom::String(v)) => v.is_empty(),
        Datum::Atom(Atom::Uuid(v)) => v.is_nil(),
    }
}

/// The value that RFC 7047 section 5.2.1 gives a column of this type when an insert leaves it out; for an optional scalar the empty
/// set.
pub fn default_value(ty: &ColumnType) -> Datum {
    match ty.shape() {
        Shape::Map => Datum::Map(Vec::new()),
        Shape::Set => Datum::Set(Vec::new()),
        Shape::Atom if ty.is_optional() => Datum::Set(Vec::new()),
        Shape::Atom => match ty.key.kind {
            AtomKind::Integer => 0.into(),
            AtomKind::Real => 0.0.into(),
            AtomKind::Boolean => false.into(),
            AtomKind::String => "".into(),
            AtomKind::Uuid => Uuid::nil().into(),
        },
    }
}
