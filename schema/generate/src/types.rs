//! Column types with their differences between versions resolved.
//!
//! Inputs: a schema's `<type>`. Outputs: the widest of several. Must not: know Rust source; `render` does.

use anyhow::{Result, bail, ensure};

use crate::input::{self, Base, Enumeration, Max};

/// `<type>` of RFC 7047 section 3.2.
#[derive(Debug, PartialEq)]
pub struct Type {
    /// Elements or keys.
    pub key: BaseType,
    /// Values of a map.
    pub value: Option<BaseType>,
    /// Fewest.
    pub min: u8,
    /// Most; `u32::MAX` is unlimited.
    pub max: u32,
}

/// `<base-type>` of RFC 7047 section 3.2.
#[derive(Debug, PartialEq)]
pub struct BaseType {
    /// Atomic type.
    pub kind: Kind,
    /// Table referred to, and whether strongly.
    pub reference: Option<(String, bool)>,
    /// Permitted strings in the order in which schemas brought them, with the versions that permit each.
    pub enumeration: Vec<(String, Vec<&'static str>)>,
    /// Least and greatest integer of the newest version.
    pub range: (Option<i64>, Option<i64>),
}

/// `<atomic-type>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit signed.
    Integer,
    /// Double.
    Real,
    /// true or false.
    Boolean,
    /// UTF-8.
    String,
    /// UUID.
    Uuid,
}

impl Type {
    /// A type as one version has it.
    pub fn new(ty: &input::Type, version: &'static str) -> Result<Type> {
        match ty {
            input::Type::Atomic(kind) => {
                Ok(Type { key: BaseType::new(&Base::Atomic(kind.clone()), version)?, value: None, min: 1, max: 1 })
            }
            input::Type::Full(full) => {
                let input::FullType { key, value, min, max } = &**full;
                let max = match max {
                    Max::Count(n) => *n,
                    Max::Unlimited(_) => u32::MAX,
                };
                let value = value.as_ref().map(|v| BaseType::new(v, version)).transpose()?;
                Ok(Type { key: BaseType::new(key, version)?, value, min: *min, max })
            }
        }
    }

    /// Widens to hold what `newer` holds too.
    pub fn widen(&mut self, newer: &Type) -> Result<()> {
        ensure!(self.is_atom() == newer.is_atom(), "a scalar became a set");
        self.min = self.min.min(newer.min);
        self.max = self.max.max(newer.max);
        self.key.widen(&newer.key)?;
        match (&mut self.value, &newer.value) {
            (Some(value), Some(newer)) => value.widen(newer),
            (None, None) => Ok(()),
            _ => bail!("a set became a map"),
        }
    }

    fn is_atom(&self) -> bool {
        self.max == 1
    }
}

impl BaseType {
    fn new(base: &Base, version: &'static str) -> Result<BaseType> {
        let full = match base {
            Base::Atomic(kind) => input::Constrained { kind: kind.clone(), ..Default::default() },
            Base::Full(full) => full.clone(),
        };
        let kind = match full.kind.as_str() {
            "integer" => Kind::Integer,
            "real" => Kind::Real,
            "boolean" => Kind::Boolean,
            "string" => Kind::String,
            "uuid" => Kind::Uuid,
            other => bail!("unknown atomic type {other}"),
        };
        let strong = full.ref_type.as_deref() != Some("weak");
        let values = match full.enumeration {
            None => Vec::new(),
            Some(Enumeration::One(value)) => vec![value],
            Some(Enumeration::Set(_, values)) => values,
        };
        Ok(BaseType {
            kind,
            reference: full.ref_table.map(|table| (table, strong)),
            enumeration: values.into_iter().map(|v| (v, vec![version])).collect(),
            range: (full.min_integer, full.max_integer),
        })
    }

    fn widen(&mut self, newer: &BaseType) -> Result<()> {
        ensure!(self.kind == newer.kind, "{:?} became {:?}", self.kind, newer.kind);
        ensure!(self.reference == newer.reference, "the reference changed");
        ensure!(self.enumeration.is_empty() == newer.enumeration.is_empty(), "an enumeration came or went");
        for (value, versions) in &newer.enumeration {
            match self.enumeration.iter_mut().find(|(v, _)| v == value) {
                Some((_, known)) => known.extend(versions),
                None => self.enumeration.push((value.clone(), versions.clone())),
            }
        }
        self.range = newer.range;
        Ok(())
    }
}
