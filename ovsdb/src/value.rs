//! OVSDB values: atoms and the three shapes a column can hold (RFC 7047 section 5.1).
//!
//! A value here is canonical: one column state has exactly one representation, so `==` is OVSDB equality.
//!
//! | column type                  | empty              | one element     | more                |
//! |------------------------------|--------------------|-----------------|---------------------|
//! | scalar (min 1, max 1)        | -                  | `Datum::Atom`   | -                   |
//! | optional scalar (min 0, max 1) | absent from the row | `Datum::Atom` | -                   |
//! | set (max > 1)                | absent from the row | `Datum::Set`   | `Datum::Set`, sorted |
//! | map                          | absent from the row | `Datum::Map`   | `Datum::Map`, sorted by key |
//!
//! Inputs: JSON text (see `decode`) or Rust values. Outputs: JSON text (`write_json`). It must not know any table.

use std::sync::Arc;

pub use uuid::Uuid;

/// An immutable shared string. Cloning is a reference count; repeated texts are shared by the replica's interner.
pub type Str = Arc<str>;

/// The pairs of a map. Cloning is a reference count: what is wanted and what the database has are in memory once.
pub type Pairs = Arc<[(Atom, Atom)]>;

/// One atomic value (RFC 7047 section 5.1, `<atom>`).
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    /// A signed 64-bit integer.
    Integer(i64),
    /// An IEEE 754 double; never NaN. Servers write 15 digits, so a value may come back changed in its last bits.
    Real(f64),
    /// A boolean.
    Boolean(bool),
    /// UTF-8 text without NUL.
    String(Str),
    /// A row reference or a plain UUID.
    Uuid(Uuid),
}

/// A column's whole value in canonical form (see the file header).
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A scalar, or the one element of an optional scalar.
    Atom(Atom),
    /// A set with more than one possible element: sorted, without duplicates, never empty inside a [`crate::Row`].
    Set(Box<[Atom]>),
    /// A map: sorted by key, keys unique, never empty inside a [`crate::Row`].
    Map(Pairs),
}

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl std::hash::Hash for Atom {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Atom::Integer(v) => v.hash(state),
            Atom::Real(v) => v.to_bits().hash(state),
            Atom::Boolean(v) => v.hash(state),
            Atom::String(v) => v.hash(state),
            Atom::Uuid(v) => v.hash(state),
        }
    }
}

impl Atom {
    /// Order of kinds in mixed sets, which no valid column has; it only makes `Ord` total.
    fn rank(&self) -> u8 {
        match self {
            Atom::Integer(_) => 0,
            Atom::Real(_) => 1,
            Atom::Boolean(_) => 2,
            Atom::String(_) => 3,
            Atom::Uuid(_) => 4,
        }
    }

    /// The text of a string atom.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Atom::String(s) => Some(s),
            _ => None,
        }
    }

    /// The value of a UUID atom.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Atom::Uuid(u) => Some(*u),
            _ => None,
        }
    }

    /// The value of an integer atom.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Atom::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The value of a boolean atom.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Atom::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// Takes the text of an equal atom in place of its own, so that it is in memory once.
    pub fn share(&mut self, equal: &Atom) {
        if let (Atom::String(own), Atom::String(text)) = (self, equal)
            && !Str::ptr_eq(own, text)
            && own == text
        {
            *own = text.clone();
        }
    }

    /// Appends the atom as OVSDB JSON: `7`, `"text"`, `["uuid","..."]`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        // Writing to a Vec cannot fail, so the results carry nothing.
        match self {
            Atom::Integer(v) => drop(write!(out, "{v}")),
            Atom::Real(v) => drop(write!(out, "{v:?}")),
            Atom::Boolean(v) => drop(write!(out, "{v}")),
            Atom::String(v) => write_string(v, out),
            Atom::Uuid(v) => drop(write!(out, "[\"uuid\",\"{v}\"]")),
        }
    }
}

impl Datum {
    /// A set from any order, duplicates dropped.
    pub fn set(atoms: impl IntoIterator<Item = Atom>) -> Datum {
        let mut v: Vec<Atom> = atoms.into_iter().collect();
        v.sort_unstable();
        v.dedup();
        Datum::Set(v.into())
    }

    /// A map from any order; of two equal keys the later one wins.
    pub fn map(pairs: impl IntoIterator<Item = (Atom, Atom)>) -> Datum {
        let mut v: Vec<(Atom, Atom)> = pairs.into_iter().collect();
        v.reverse();
        v.sort_by(|a, b| a.0.cmp(&b.0));
        v.dedup_by(|a, b| a.0 == b.0);
        Datum::Map(v.into())
    }

    /// Number of elements or pairs: 1 for an atom.
    pub fn len(&self) -> usize {
        match self {
            Datum::Atom(_) => 1,
            Datum::Set(v) => v.len(),
            Datum::Map(v) => v.len(),
        }
    }

    /// True for a set or map without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a set (an atom counts as a set of one); nothing for a map.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Datum::Atom(a) => std::slice::from_ref(a),
            Datum::Set(v) => v,
            Datum::Map(_) => &[],
        }
    }

    /// The pairs of a map; nothing for other shapes.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match self {
            Datum::Map(v) => v,
            _ => &[],
        }
    }

    /// Takes the texts of an equal value in place of its own, so that they are in memory once.
    pub fn share(&mut self, equal: &Datum) {
        match (self, equal) {
            (Datum::Atom(own), Datum::Atom(atom)) => own.share(atom),
            (Datum::Set(own), Datum::Set(atoms)) => own.iter_mut().zip(atoms).for_each(|(a, b)| a.share(b)),
            (Datum::Map(own), Datum::Map(pairs)) if own == pairs => *own = pairs.clone(),
            _ => {}
        }
    }

    /// Membership in a set, by binary search.
    pub fn contains(&self, atom: &Atom) -> bool {
        self.atoms().binary_search(atom).is_ok()
    }

    /// Value of a key in a map, by binary search.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        let pairs = self.pairs();
        pairs.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|i| &pairs[i].1)
    }

    /// Value of a string key in a map, by binary search.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        let pairs = self.pairs();
        let at = pairs.binary_search_by(|(k, _)| k.as_str().unwrap_or("").cmp(key)).ok()?;
        pairs[at].1.as_str()
    }

    /// Appends the value as OVSDB JSON: an atom bare, `["set",[...]]`, `["map",[[k,v],...]]`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Datum::Atom(a) => a.write_json(out),
            Datum::Set(v) => {
                out.extend_from_slice(b"[\"set\",[");
                for (i, a) in v.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    a.write_json(out);
                }
                out.extend_from_slice(b"]]");
            }
            Datum::Map(v) => {
                out.extend_from_slice(b"[\"map\",[");
                for (i, (k, a)) in v.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.push(b'[');
                    k.write_json(out);
                    out.push(b',');
                    a.write_json(out);
                    out.push(b']');
                }
                out.extend_from_slice(b"]]");
            }
        }
    }
}

/// Appends a JSON string literal. Control characters, quotes and backslashes are escaped; all else is copied.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut start = 0;
    let bytes = text.as_bytes();
    for (i, b) in bytes.iter().enumerate() {
        let short: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..i]);
        if short.is_empty() {
            use std::io::Write;
            drop(write!(out, "\\u{b:04x}"));
        } else {
            out.extend_from_slice(short);
        }
        start = i + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

impl From<&str> for Atom {
    fn from(v: &str) -> Self {
        Atom::String(v.into())
    }
}
impl From<String> for Atom {
    fn from(v: String) -> Self {
        Atom::String(v.into())
    }
}
impl From<Str> for Atom {
    fn from(v: Str) -> Self {
        Atom::String(v)
    }
}
impl From<i64> for Atom {
    fn from(v: i64) -> Self {
        Atom::Integer(v)
    }
}
impl From<bool> for Atom {
    fn from(v: bool) -> Self {
        Atom::Boolean(v)
    }
}
impl From<f64> for Atom {
    fn from(v: f64) -> Self {
        Atom::Real(v)
    }
}
impl From<Uuid> for Atom {
    fn from(v: Uuid) -> Self {
        Atom::Uuid(v)
    }
}
impl<T: Into<Atom>> From<T> for Datum {
    fn from(v: T) -> Self {
        Datum::Atom(v.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(d: &Datum) -> String {
        let mut out = Vec::new();
        d.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sets_and_maps_are_canonical() {
        assert_eq!(Datum::set(["b".into(), "a".into(), "b".into()]), Datum::Set(["a".into(), "b".into()].into()));
        let m = Datum::map([("k".into(), "1".into()), ("a".into(), "x".into()), ("k".into(), "2".into())]);
        assert_eq!(m.get_str("k"), Some("2"), "the later of two equal keys wins");
        assert_eq!(m.len(), 2);
    }

    /// A large cluster has a million of them.
    #[test]
    fn a_value_is_no_larger_than_an_atom() {
        assert_eq!((size_of::<Atom>(), size_of::<Datum>()), (24, 24));
    }

    #[test]
    fn json_forms_of_rfc_7047() {
        assert_eq!(json(&Datum::from(7)), "7");
        assert_eq!(json(&Datum::from(1.0)), "1.0");
        assert_eq!(json(&Datum::set([])), r#"["set",[]]"#);
        assert_eq!(json(&Datum::from("a\"b\\c\n\u{1}é")), "\"a\\\"b\\\\c\\n\\u0001é\"");
        let u = Uuid::nil();
        assert_eq!(json(&Datum::from(u)), r#"["uuid","00000000-0000-0000-0000-000000000000"]"#);
        assert_eq!(json(&Datum::map([("k".into(), true.into())])), r#"["map",[["k",true]]]"#);
    }
}
