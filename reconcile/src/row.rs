//! What a translation yields: the rows an owner wants, what it contributes to rows of others, and what it has to complain of.
//!
//! These are plain values. A row names only the columns, and in maps only the keys, that we own; nothing else is ever
//! compared or written. Must not: do I/O, know a table's meaning.

use ovsdb::{Atom, ColumnId, Datum, Pairs, Str, TableDesc, Uuid};

/// A class of owners, e.g. `OwnerKind { name: "Pod", rank: 30 }`.
///
/// `rank` orders commits: rows of a lower rank are created before, and removed after, those of a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKind {
    /// Commit order.
    pub rank: u8,
    /// Name as the Kubernetes API spells the kind, e.g. `Pod`; part of identity, so frozen once released.
    pub name: &'static str,
}

/// The object that rows answer for: a kind and a key (`name`, or `namespace/name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Class.
    pub kind: OwnerKind,
    /// `name` for cluster-scoped objects, `namespace/name` otherwise; empty for the cluster itself.
    pub key: Str,
}

/// The Northbound (or other database) that a row belongs to. Zone 0 is the central one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub u16);

/// How a row is found in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowId {
    /// Ours by its deterministic UUID (see `identity`).
    Ours(Uuid),
    /// The only row of a `maxRows: 1` table, whoever made it; inserted under `.0` when the table is empty.
    Singleton(Uuid),
    /// The row whose unique `column` has `value`, whoever made it (e.g. Bridge `br-int`); inserted under `uuid` when absent.
    /// An adopted row that we did not create is never deleted.
    Named {
        /// Column of a unique index.
        column: ColumnId,
        /// Value looked up.
        value: Atom,
        /// UUID used for an insert.
        uuid: Uuid,
    },
}

/// The wish for one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// We own the column: it must be exactly this (an empty set or map clears it).
    Exactly(Datum),
    /// We own these keys of a map: `Some` must be so, `None` must be absent. Sorted by key. Other keys are not ours.
    Keys(Box<[(Atom, Option<Atom>)]>),
    /// [`Want::Keys`] of which none must be absent, in the form in which [`crate::Desired`] keeps them.
    Pairs(Pairs),
    /// A set fed by contributions. We own the members that are contributed, and those whose UUID carries our tag (for
    /// columns of references) or all members (for columns of strings). Members of strangers stay.
    Members,
}

/// A row that an owner wants to exist.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRow {
    /// Zone whose database holds the row.
    pub zone: Zone,
    /// Table.
    pub table: &'static TableDesc,
    /// Identity.
    pub id: RowId,
    /// Columns that we own, sorted by column.
    pub columns: Vec<(ColumnId, Want)>,
}

/// A member that an owner adds to a set column ([`Want::Members`]) of a row that may be another owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Zone of the container row.
    pub zone: Zone,
    /// Table of the container row.
    pub table: &'static TableDesc,
    /// The container row.
    pub row: RowId,
    /// The set column.
    pub column: ColumnId,
    /// The member.
    pub member: Atom,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Told for information: the object works.
    Note,
    /// Part of the object is ignored or done another way.
    Warning,
    /// The object has no effect until it is changed.
    Error,
}

/// A complaint about the owner's object. It becomes an Event on it, so `message` says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic {
    /// Severity.
    pub severity: Severity,
    /// CamelCase reason as Kubernetes Events have it, e.g. `InvalidAnnotation`.
    pub reason: &'static str,
    /// Path of the field, e.g. `metadata.annotations[k8s.ovn.org/pod-networks]`.
    pub field: String,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl Diagnostic {
    /// What keeps the object from having the effect that it asks for.
    pub fn error(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, reason, field: field.into(), message: message.into() }
    }

    /// What has another effect than its owner may think.
    pub fn warning(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, reason, field: field.into(), message: message.into() }
    }
}

/// All that one owner yields. Equal inputs give equal outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Rows wanted.
    pub rows: Vec<DesiredRow>,
    /// Members added to rows of others (or own).
    pub contributions: Vec<Contribution>,
    /// Complaints.
    pub diagnostics: Vec<Diagnostic>,
}

impl Want {
    /// The keys of a map, each with its value; `None` must be absent.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&Atom, Option<&Atom>)> {
        let (keys, pairs) = match self {
            Want::Keys(keys) => (&keys[..], &[][..]),
            Want::Pairs(pairs) => (&[][..], &pairs[..]),
            Want::Exactly(_) | Want::Members => (&[][..], &[][..]),
        };
        let keys = keys.iter().map(|(key, value)| (key, value.as_ref()));
        keys.chain(pairs.iter().map(|(key, value)| (key, Some(value))))
    }

    /// The pairs of a map that must be there.
    pub fn pairs(&self) -> Pairs {
        match self {
            Want::Pairs(pairs) => pairs.clone(),
            _ => self.keys().filter_map(|(key, value)| Some((key.clone(), value?.clone()))).collect(),
        }
    }
}

impl RowId {
    /// The deterministic UUID, whatever the row's UUID in the database may be. References to the row use it, too.
    pub fn uuid(&self) -> Uuid {
        match self {
            RowId::Ours(uuid) | RowId::Singleton(uuid) | RowId::Named { uuid, .. } => *uuid,
        }
    }
}

impl Owner {
    /// An owner by kind and key.
    pub fn new(kind: OwnerKind, key: impl Into<Str>) -> Owner {
        Owner { kind, key: key.into() }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name, self.key)
    }
}
