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

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::desc::{AtomKind, BaseType, ColumnId, ColumnType, Shape, TableDesc};
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

/// A column's value: an atom, `["set",[...]]` or `["map",[...]]`. An optional scalar that is empty is an empty set.
struct Value<'a> {
    decoder: &'a mut Decoder,
    ty: &'a ColumnType,
}

deserialize_as!(Value<'_>, Datum, deserialize_any);

impl Value<'_> {
    fn one<E: serde::de::Error>(self, atom: Result<Atom, E>) -> Result<Datum, E> {
        match self.ty.shape() {
            Shape::Atom => atom.map(Datum::Atom),
            Shape::Set => atom.map(|a| Datum::Set(vec![a])),
            Shape::Map => Err(E::custom("expected a map, found one atom")),
        }
    }

    fn elements<'de, A: SeqAccess<'de>>(self, seq: &mut A) -> Result<Datum, A::Error> {
        let Value { decoder, ty } = self;
        decoder.atoms.clear();
        required(seq.next_element_seed(Elements {
            texts: &mut decoder.texts,
            atoms: &mut decoder.atoms,
            ty: &ty.key,
        })?)?;
        match ty.shape() {
            Shape::Set => {
                decoder.atoms.sort_unstable();
                decoder.atoms.dedup();
                Ok(Datum::Set(decoder.atoms.drain(..).collect()))
            }
            Shape::Atom if decoder.atoms.len() > 1 => {
                Err(A::Error::custom("a set of more than one in a scalar column"))
            }
            Shape::Atom => match decoder.atoms.pop() {
                Some(atom) => Ok(Datum::Atom(atom)),
                None => Ok(Datum::Set(Vec::new())),
            },
            Shape::Map => Err(A::Error::custom("expected a map, found a set")),
        }
    }

    fn pairs<'de, A: SeqAccess<'de>>(self, seq: &mut A) -> Result<Datum, A::Error> {
        let Value { decoder, ty } = self;
        let Some(value) = &ty.value else {
            return Err(A::Error::custom("expected no map here"));
        };
        let Decoder { keys, texts, pairs, .. } = decoder;
        pairs.clear();
        required(seq.next_element_seed(Pairs { keys, texts, pairs, key: &ty.key, value })?)?;
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if pairs.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(A::Error::custom("a map with one key twice"));
        }
        Ok(Datum::Map(decoder.pairs.drain(..).collect()))
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Datum;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value with elements of type {:?}", self.ty.key.kind)
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<Datum, E> {
        let atom = OneAtom { texts: &mut self.decoder.texts, ty: &self.ty.key }.visit_bool(v);
        self.one(atom)
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Datum, E> {
        let atom = OneAtom { texts: &mut self.decoder.texts, ty: &self.ty.key }.visit_i64(v);
        self.one(atom)
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Datum, E> {
        let atom = OneAtom { texts: &mut self.decoder.texts, ty: &self.ty.key }.visit_u64(v);
        self.one(atom)
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Datum, E> {
        let atom = OneAtom { texts: &mut self.decoder.texts, ty: &self.ty.key }.visit_f64(v);
        self.one(atom)
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Datum, E> {
        let atom = OneAtom { texts: &mut self.decoder.texts, ty: &self.ty.key }.visit_str(v);
        self.one(atom)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let datum = match required(seq.next_element_seed(Name(Tag::of))?)? {
            Tag::Set => self.elements(&mut seq)?,
            Tag::Map => self.pairs(&mut seq)?,
            Tag::Uuid => {
                let atom = uuid_atom(&self.ty.key, &mut seq);
                self.one(atom)?
            }
            Tag::Unknown => return Err(A::Error::custom("an array that is no set, map or uuid")),
        };
        end(&mut seq)?;
        Ok(datum)
    }
}

/// First element of an array form.
enum Tag {
    Set,
    Map,
    Uuid,
    Unknown,
}

impl Tag {
    fn of(text: &str) -> Tag {
        match text {
            "set" => Tag::Set,
            "map" => Tag::Map,
            "uuid" => Tag::Uuid,
            _ => Tag::Unknown,
        }
    }
}

/// The elements of a set.
struct Elements<'a> {
    texts: &'a mut Interner,
    atoms: &'a mut Vec<Atom>,
    ty: &'a BaseType,
}

deserialize_as!(Elements<'_>, (), deserialize_seq);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of atoms")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Elements { texts, atoms, ty } = self;
        while let Some(atom) = seq.next_element_seed(OneAtom { texts, ty })? {
            atoms.push(atom);
        }
        Ok(())
    }
}

/// The pairs of a map.
struct Pairs<'a> {
    keys: &'a mut Interner,
    texts: &'a mut Interner,
    pairs: &'a mut Vec<(Atom, Atom)>,
    key: &'a BaseType,
    value: &'a BaseType,
}

deserialize_as!(Pairs<'_>, (), deserialize_seq);

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pairs")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Pairs { keys, texts, pairs, key, value } = self;
        while let Some(pair) = seq.next_element_seed(Pair { keys, texts, key, value })? {
            pairs.push(pair);
        }
        Ok(())
    }
}

/// `[key, value]`
struct Pair<'a> {
    keys: &'a mut Interner,
    texts: &'a mut Interner,
    key: &'a BaseType,
    value: &'a BaseType,
}

deserialize_as!(Pair<'_>, (Atom, Atom), deserialize_seq);

impl<'de> Visitor<'de> for Pair<'_> {
    type Value = (Atom, Atom);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(Atom, Atom), A::Error> {
        let Pair { keys, texts, key, value } = self;
        let key = required(seq.next_element_seed(OneAtom { texts: keys, ty: key })?)?;
        let value = required(seq.next_element_seed(OneAtom { texts, ty: value })?)?;
        end(&mut seq)?;
        Ok((key, value))
    }
}

/// One atom of a type.
struct OneAtom<'a> {
    texts: &'a mut Interner,
    ty: &'a BaseType,
}

deserialize_as!(OneAtom<'_>, Atom, deserialize_any);

impl<'de> Visitor<'de> for OneAtom<'_> {
    type Value = Atom;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an atom of type {:?}", self.ty.kind)
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<Atom, E> {
        match self.ty.kind {
            AtomKind::Boolean => Ok(Atom::Boolean(v)),
            _ => Err(E::invalid_type(Unexpected::Bool(v), &self)),
        }
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Atom, E> {
        match self.ty.kind {
            AtomKind::Integer => Ok(Atom::Integer(v)),
            // A real that is a whole number is written without a point.
            AtomKind::Real => Ok(Atom::Real(v as f64)),
            _ => Err(E::invalid_type(Unexpected::Signed(v), &self)),
        }
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Atom, E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) if self.ty.kind == AtomKind::Real => Ok(Atom::Real(v as f64)),
            Err(_) => Err(E::custom(format_args!("{v} is out of the range of 64-bit signed integers"))),
        }
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Atom, E> {
        match self.ty.kind {
            AtomKind::Real => Ok(Atom::Real(v)),
            _ => Err(E::invalid_type(Unexpected::Float(v), &self)),
        }
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Atom, E> {
        match self.ty.kind {
            AtomKind::String => Ok(Atom::String(self.texts.share(v))),
            _ => Err(E::invalid_type(Unexpected::Str(v), &self)),
        }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Atom, A::Error> {
        match required(seq.next_element_seed(Name(Tag::of))?)? {
            Tag::Uuid => {}
            _ => return Err(A::Error::custom("an array where an atom belongs")),
        }
        let atom = uuid_atom(self.ty, &mut seq)?;
        end(&mut seq)?;
        Ok(atom)
    }
}

fn uuid_atom<'de, A: SeqAccess<'de>>(ty: &BaseType, seq: &mut A) -> Result<Atom, A::Error> {
    let uuid = required(seq.next_element_seed(Name(Uuid::try_parse))?)?.map_err(A::Error::custom)?;
    match ty.kind {
        AtomKind::Uuid => Ok(Atom::Uuid(uuid)),
        kind => Err(A::Error::custom(format_args!("expected an atom of type {kind:?}, found a uuid"))),
    }
}

fn required<T, E: serde::de::Error>(element: Option<T>) -> Result<T, E> {
    element.ok_or_else(|| E::custom("an array that ends early"))
}

fn end<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    match seq.next_element::<IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(A::Error::custom("an array with too many elements")),
    }
}
