//! From JSON text to typed values, without a tree in between (RFC 7047 section 5.1; ovsdb-server(7) 4.1.14).
//!
//! ```text
//! text of <table-updates> --> table by name --> row UUID --> column by name --> Datum by the column's type
//!                               unknown tables and columns are skipped        |
//!                                                                             v
//!                                                                 RowSink::row(table, uuid, RowUpdate)
//! ```
//!
//! Inputs: text that a server sent, so anything. Outputs: canonical values, or a [`DecodeError`] that names table, row and
//! column. Must not: keep rows (that is `replica`), panic, or trust a length.

mod value;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use self::value::Value;
use crate::desc::{ColumnId, TableDesc};
use crate::intern::Interner;
use crate::row::{MAX_COLUMNS, Row, is_default};
use crate::value::{Atom, Datum, Uuid};

/// Text that is not what the schema says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decode {place}: {problem}")]
pub struct DecodeError {
    /// Where: `Table`, `Table <uuid>` or `Table <uuid> column`.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

/// What an update says of one row.
#[derive(Debug)]
pub(crate) enum RowUpdate {
    /// The whole row.
    Whole(Row),
    /// Changed columns: differences for sets and maps, new values for single ones, an empty set where nothing is left.
    Modify(Vec<(ColumnId, Datum)>),
    /// The row is gone.
    Delete,
}

/// Takes decoded rows.
pub(crate) trait RowSink {
    /// The described table of this name, when it is replicated.
    fn table(&self, name: &str) -> Option<&'static TableDesc>;
    /// One row; an error text ends the decoding.
    fn row(&mut self, table: &'static TableDesc, uuid: Uuid, update: RowUpdate) -> Result<(), &'static str>;
}

/// Reusable buffers and caches of a decoder.
#[derive(Debug)]
pub(crate) struct Decoder {
    keys: Interner,
    texts: Interner,
    atoms: Vec<Atom>,
    pairs: Vec<(Atom, Atom)>,
    columns: Vec<(ColumnId, Datum)>,
    /// Columns of the row before, in the order in which they came: the next row mostly has the same.
    order: Vec<ColumnId>,
    place: Place,
}

#[derive(Debug, Default)]
struct Place {
    table: Option<&'static TableDesc>,
    row: Option<Uuid>,
    column: Option<&'static str>,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder {
            keys: Interner::new(256),
            texts: Interner::new(8192),
            atoms: Vec::new(),
            pairs: Vec::new(),
            columns: Vec::new(),
            order: Vec::new(),
            place: Place::default(),
        }
    }

    /// Decodes the text of a `<table-updates>` (RFC 7047 section 4.1.6) or `<table-updates2>`: the forms tell themselves apart.
    pub(crate) fn table_updates(&mut self, text: &str, sink: &mut dyn RowSink) -> Result<(), DecodeError> {
        self.place = Place::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let result = Tables { decoder: self, sink }.deserialize(&mut json).and_then(|()| json.end());
        result.map_err(|e| self.error(&e))
    }

    /// Decodes a `<row>` of a table, as a select returns it. Columns that are not described are skipped.
    pub(crate) fn row(&mut self, text: &str, table: &'static TableDesc) -> Result<Row, DecodeError> {
        self.place = Place { table: Some(table), ..Place::default() };
        let mut json = serde_json::Deserializer::from_str(text);
        let result = Columns { decoder: self, table, whole: true }.deserialize(&mut json).and_then(|()| json.end());
        result.map_err(|e| self.error(&e))?;
        Ok(self.take_row())
    }

    /// Looks a column up, first where the row before had it.
    fn column(&mut self, table: &'static TableDesc, name: &str, nth: Option<usize>) -> Option<ColumnId> {
        let nth = nth?;
        let expected = self.order.get(nth).and_then(|id| Some((*id, table.columns.get(usize::from(id.0))?)));
        if let Some((id, column)) = expected
            && column.name == name
        {
            return Some(id);
        }
        let found = table.column_id(name)?;
        self.order.truncate(nth);
        self.order.push(found);
        Some(found)
    }

    fn take_row(&mut self) -> Row {
        self.columns.sort_unstable_by_key(|(c, _)| *c);
        self.columns.dedup_by_key(|(c, _)| *c);
        Row::from_sorted(&mut self.columns)
    }

    fn error(&self, error: &serde_json::Error) -> DecodeError {
        let Place { table, row, column } = &self.place;
        let mut place = table.map_or("tables", |t| t.name).to_owned();
        if let Some(row) = row {
            place = format!("{place} {row}");
        }
        if let Some(column) = column {
            place = format!("{place} {column}");
        }
        DecodeError { place, problem: error.to_string() }
    }
}

/// `{table: {uuid: row-update}}`
struct Tables<'a> {
    decoder: &'a mut Decoder,
    sink: &'a mut dyn RowSink,
}

/// `{uuid: row-update}`
struct Rows<'a> {
    decoder: &'a mut Decoder,
    sink: &'a mut dyn RowSink,
    table: &'static TableDesc,
}

/// `{"initial"|"insert"|"modify"|"delete": row}` or `{"old": row, "new": row}`
struct OneRow<'a> {
    decoder: &'a mut Decoder,
    table: &'static TableDesc,
}

/// `{column: value}` into `decoder.columns`; defaults are left out of a whole row.
struct Columns<'a> {
    decoder: &'a mut Decoder,
    table: &'static TableDesc,
    whole: bool,
}

/// A name that is looked at and forgotten.
struct Name<F>(F);

macro_rules! deserialize_as {
    ($seed:ty, $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<$value, D::Error> {
                d.$method(self)
            }
        }
    };
}

use deserialize_as;

deserialize_as!(Tables<'_>, (), deserialize_map);
deserialize_as!(Rows<'_>, (), deserialize_map);
deserialize_as!(OneRow<'_>, RowUpdate, deserialize_map);
deserialize_as!(Columns<'_>, (), deserialize_map);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Name<F> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Name<F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, v: &str) -> Result<T, E> {
        Ok((self.0)(v))
    }
}

impl<'de> Visitor<'de> for Tables<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Tables { decoder, sink } = self;
        while let Some(table) = map.next_key_seed(Name(|name: &str| sink.table(name)))? {
            decoder.place = Place { table, ..Place::default() };
            match table {
                Some(table) => map.next_value_seed(Rows { decoder, sink, table })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of rows")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Rows { decoder, sink, table } = self;
        while let Some(uuid) = map.next_key_seed(Name(Uuid::try_parse))? {
            let uuid = uuid.map_err(A::Error::custom)?;
            decoder.place.row = Some(uuid);
            let update = map.next_value_seed(OneRow { decoder, table })?;
            sink.row(table, uuid, update).map_err(A::Error::custom)?;
        }
        decoder.place.row = None;
        Ok(())
    }
}

/// The members of a row update.
enum Part {
    Whole,
    Modify,
    Delete,
    Old,
    Unknown,
}

impl Part {
    fn of(name: &str) -> Part {
        match name {
            "initial" | "insert" | "new" => Part::Whole,
            "modify" => Part::Modify,
            "delete" => Part::Delete,
            "old" => Part::Old,
            _ => Part::Unknown,
        }
    }
}

impl<'de> Visitor<'de> for OneRow<'_> {
    type Value = RowUpdate;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row update")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowUpdate, A::Error> {
        let OneRow { decoder, table } = self;
        let mut update = None;
        while let Some(part) = map.next_key_seed(Name(Part::of))? {
            decoder.columns.clear();
            match part {
                Part::Whole => {
                    map.next_value_seed(Columns { decoder, table, whole: true })?;
                    update = Some(RowUpdate::Whole(decoder.take_row()));
                }
                Part::Modify => {
                    map.next_value_seed(Columns { decoder, table, whole: false })?;
                    update = Some(RowUpdate::Modify(decoder.columns.drain(..).collect()));
                }
                Part::Delete => {
                    map.next_value::<IgnoredAny>()?;
                    update = Some(RowUpdate::Delete);
                }
                // Only `old`: the row is gone. With `new`: that has every column, so `old` says nothing more.
                Part::Old => {
                    map.next_value::<IgnoredAny>()?;
                    update = update.or(Some(RowUpdate::Delete));
                }
                Part::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        update.ok_or_else(|| A::Error::custom("has none of initial, insert, modify, delete, old, new"))
    }
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of columns")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Columns { decoder, table, whole } = self;
        let mut nth = 0..;
        while let Some(id) = map.next_key_seed(Name(|name: &str| decoder.column(table, name, nth.next())))? {
            let Some(id) = id else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let column = &table.columns[usize::from(id.0)];
            decoder.place.column = Some(column.name);
            if id.0 >= MAX_COLUMNS {
                return Err(A::Error::custom("is beyond the columns that a row can hold"));
            }
            let value = map.next_value_seed(Value { decoder, ty: &column.ty })?;
            if !whole || !is_default(&column.ty, &value) {
                decoder.columns.push((id, value));
            }
            decoder.place.column = None;
        }
        Ok(())
    }
}
