//! Values: atoms, sets and maps by the column's type (RFC 7047 section 5.1, `<value>`).
//!
//! Inputs: one value's text and its type. Outputs: a canonical [`Datum`]. Must not: know rows or tables.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Unexpected, Visitor};

use super::{Decoder, Name, deserialize_as};
use crate::desc::{AtomKind, BaseType, ColumnType, Shape};
use crate::intern::Interner;
use crate::value::{Atom, Datum, Uuid};

/// A column's value: an atom, `["set",[...]]` or `["map",[...]]`. An optional scalar that is empty is an empty set.
pub(super) struct Value<'a> {
    pub(super) decoder: &'a mut Decoder,
    pub(super) ty: &'a ColumnType,
}

deserialize_as!(Value<'_>, Datum, deserialize_any);

impl Value<'_> {
    fn one<E: serde::de::Error>(self, atom: Result<Atom, E>) -> Result<Datum, E> {
        match self.ty.shape() {
            Shape::Atom => atom.map(Datum::Atom),
            Shape::Set => atom.map(|a| Datum::Set([a].into())),
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
                None => Ok(Datum::Set(Box::default())),
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
