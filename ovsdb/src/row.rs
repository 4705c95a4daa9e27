//! A row as the replica keeps it: only the columns that differ from their default, sorted by column.
//!
//! Sparse rows are small (a Logical_Switch_Port has 20 columns, 6 of them set) and generic code can walk them. Typed access
//! is generated on top by the crate `schema`. Must not: know a table's meaning.

use crate::desc::{AtomKind, ColumnId, ColumnType, Shape};
use crate::value::{Atom, Datum, Pairs, Uuid};

/// Most columns that a table may have: one bit each.
pub(crate) const MAX_COLUMNS: u16 = 64;

/// Column values of one row. A column that is absent has its default: nothing for an optional scalar, the empty set or map,
/// and 0, 0.0, false, "" or the nil UUID for a scalar. (So an optional boolean that holds `false` is present.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// One bit for each column that is set.
    present: u64,
    /// Their values, by column.
    values: Box<[Datum]>,
}

impl Row {
    /// A row of defaults.
    pub fn new() -> Row {
        Row::default()
    }

    /// A row of columns that are sorted, unique, below [`MAX_COLUMNS`], and none of them default; they are drained.
    pub(crate) fn from_sorted(columns: &mut Vec<(ColumnId, Datum)>) -> Row {
        let present = columns.iter().fold(0, |bits, (id, _)| bits | bit(*id));
        Row { present, values: columns.drain(..).map(|(_, value)| value).collect() }
    }

    /// Value of a column, `None` for its default.
    pub fn get(&self, column: ColumnId) -> Option<&Datum> {
        self.values.get(self.position(column).ok()?)
    }

    /// Mutable value of a column, `None` for its default. The caller keeps it canonical.
    pub fn get_mut(&mut self, column: ColumnId) -> Option<&mut Datum> {
        let at = self.position(column).ok()?;
        self.values.get_mut(at)
    }

    /// Sets a column. A default value removes it, so that equality of rows is equality of states.
    ///
    /// A row holds the first 64 columns of a table; no described table has more than 34.
    pub fn set(&mut self, column: ColumnId, ty: &ColumnType, value: Datum) {
        match (self.position(column), is_default(ty, &value)) {
            (_, true) => self.clear(column),
            (Ok(at), false) => self.values[at] = value,
            (Err(at), false) if column.0 < MAX_COLUMNS => {
                self.present |= bit(column);
                self.resize(|values| values.insert(at, value));
            }
            (Err(_), false) => {}
        }
    }

    /// Resets a column to its default.
    pub fn clear(&mut self, column: ColumnId) {
        if let Ok(at) = self.position(column) {
            self.present &= !bit(column);
            self.resize(|values| drop(values.remove(at)));
        }
    }

    /// The columns that are set, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ColumnId, &Datum)> {
        let ids = (0..MAX_COLUMNS).map(ColumnId).filter(|id| self.present & bit(*id) != 0);
        ids.zip(&self.values)
    }

    /// Where the value of a column is, or would be.
    fn position(&self, column: ColumnId) -> Result<usize, usize> {
        let bit = bit(column);
        let before = (self.present & bit.wrapping_sub(1)).count_ones() as usize;
        if self.present & bit != 0 { Ok(before) } else { Err(before) }
    }

    fn resize(&mut self, change: impl FnOnce(&mut Vec<Datum>)) {
        let mut values = std::mem::take(&mut self.values).into_vec();
        change(&mut values);
        self.values = values.into_boxed_slice();
    }
}

/// The bit of a column; none beyond [`MAX_COLUMNS`].
fn bit(column: ColumnId) -> u64 {
    1_u64.checked_shl(u32::from(column.0)).unwrap_or(0)
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
        Shape::Map => Datum::Map(Pairs::default()),
        Shape::Set => Datum::Set(Box::default()),
        Shape::Atom if ty.is_optional() => Datum::Set(Box::default()),
        Shape::Atom => match ty.key.kind {
            AtomKind::Integer => 0.into(),
            AtomKind::Real => 0.0.into(),
            AtomKind::Boolean => false.into(),
            AtomKind::String => "".into(),
            AtomKind::Uuid => Uuid::nil().into(),
        },
    }
}
