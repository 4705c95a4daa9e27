//! A plan: what will be written, for whom, in which order, and why. A plain value; it can be shown before it is executed.
//!
//! Groups are ordered: rows are created by rising rank (what a row refers to comes before it), then removed by falling rank.
//! `Display` is for people, [`Plan::to_json`] for programs. Must not: decide anything.

use std::fmt;
use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Datum, Str, TableDesc, Uuid};
use serde_json::{Value, json};

use crate::desired::Waiting;
use crate::dirty::{Cause, Dirt};
use crate::row::Owner;

/// See the file header.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of execution.
    pub groups: Vec<Group>,
    /// What is wanted and cannot be written yet.
    pub waiting: Vec<Waiting>,
}

/// What is written for one owner.
#[derive(Debug)]
pub struct Group {
    /// The owner.
    pub owner: Arc<Owner>,
    /// Operations in order.
    pub ops: Vec<PlannedOp>,
    /// What was compared to find them, to be compared again if the transaction fails.
    pub(crate) items: Vec<(bool, Dirt)>,
}

/// One operation on one row.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedOp {
    /// Table.
    pub table: &'static TableDesc,
    /// UUID in the database.
    pub uuid: Uuid,
    /// The row's `name`, if it has one.
    pub name: Option<Str>,
    /// What is done.
    pub action: Action,
    /// Why.
    pub why: Why,
}

/// What is done to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The row is created with these columns.
    Insert(Vec<(ColumnId, Datum)>),
    /// A column is replaced.
    Update {
        /// Column.
        column: ColumnId,
        /// Value so far; `None` is the default.
        old: Option<Datum>,
        /// New value.
        new: Datum,
    },
    /// Keys of a map are set or removed.
    Keys {
        /// Column.
        column: ColumnId,
        /// The keys.
        changes: Vec<KeyChange>,
    },
    /// Members of a set are added or removed.
    Members {
        /// Column.
        column: ColumnId,
        /// Added.
        add: Vec<Atom>,
        /// Removed.
        remove: Vec<Atom>,
    },
    /// The row is removed.
    Delete,
}

/// A change of one key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChange {
    /// Key.
    pub key: Atom,
    /// Value so far.
    pub old: Option<Atom>,
    /// New value; `None` removes the key.
    pub new: Option<Atom>,
}

/// Why an operation is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An owner wants it.
    Wanted,
    /// No owner wants it any more.
    Unwanted,
    /// Someone else changed the database.
    Healed,
    /// A comparison of everything found the difference.
    Audit,
    /// It failed before.
    Retry,
}

impl Plan {
    pub(crate) fn of(groups: Vec<Group>) -> Plan {
        Plan { groups, ..Plan::default() }
    }

    /// True when nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All operations with their owners, in order.
    pub fn ops(&self) -> impl Iterator<Item = (&Owner, &PlannedOp)> {
        self.groups.iter().flat_map(|g| g.ops.iter().map(|op| (&*g.owner, op)))
    }

    /// The plan as JSON: `{"groups":[{"owner","ops":[{"op","table","uuid","name","why",...}]}],"waiting":[..]}`.
    pub fn to_json(&self) -> Value {
        let group = |g: &Group| json!({"owner": g.owner.to_string(), "ops": g.ops.iter().map(PlannedOp::to_json).collect::<Vec<_>>()});
        let waiting = |w: &Waiting| json!({"owner": w.owner.to_string(), "row": w.row, "reason": w.to_string()});
        json!({
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "waiting": self.waiting.iter().map(waiting).collect::<Vec<_>>(),
        })
    }
}

impl PlannedOp {
    fn column(&self, id: ColumnId) -> &'static str {
        self.table.column(id).name
    }

    fn to_json(&self) -> Value {
        let mut op = json!({"table": self.table.name, "uuid": self.uuid, "why": self.why.to_string()});
        if let Some(name) = &self.name {
            op["name"] = json!(name);
        }
        match &self.action {
            Action::Insert(columns) => {
                op["op"] = json!("insert");
                let row = columns.iter().map(|(c, d)| (self.column(*c).to_owned(), datum_json(d)));
                op["row"] = Value::Object(row.collect());
            }
            Action::Update { column, old, new } => {
                op["op"] = json!("update");
                op["column"] = json!(self.column(*column));
                op["old"] = old.as_ref().map_or(Value::Null, datum_json);
                op["new"] = datum_json(new);
            }
            Action::Keys { column, changes } => {
                op["op"] = json!("keys");
                op["column"] = json!(self.column(*column));
                let change = |k: &KeyChange| json!({"key": atom_json(&k.key), "old": k.old.as_ref().map(atom_json), "new": k.new.as_ref().map(atom_json)});
                op["keys"] = changes.iter().map(change).collect();
            }
            Action::Members { column, add, remove } => {
                op["op"] = json!("members");
                op["column"] = json!(self.column(*column));
                op["add"] = add.iter().map(atom_json).collect();
                op["remove"] = remove.iter().map(atom_json).collect();
            }
            Action::Delete => op["op"] = json!("delete"),
        }
        op
    }

    /// About the number of bytes on the wire.
    pub(crate) fn size(&self) -> usize {
        let atom = |a: &Atom| a.as_str().map_or(48, |s| s.len() + 3);
        let atoms = |v: &[Atom]| v.iter().map(atom).sum::<usize>();
        let datum =
            |d: &Datum| atoms(d.atoms()) + d.pairs().iter().map(|(k, v)| atom(k) + atom(v) + 2).sum::<usize>() + 12;
        120 + self.table.name.len()
            + match &self.action {
                Action::Insert(columns) => columns.iter().map(|(c, d)| self.column(*c).len() + 4 + datum(d)).sum(),
                Action::Update { new, .. } => datum(new),
                Action::Keys { changes, .. } => {
                    changes.iter().map(|k| 2 * atom(&k.key) + k.new.as_ref().map_or(0, atom)).sum()
                }
                Action::Members { add, remove, .. } => atoms(add) + atoms(remove),
                Action::Delete => 0,
            }
    }
}

impl Why {
    pub(crate) fn of(cause: Cause, wanted: bool) -> Why {
        match cause {
            Cause::Desired | Cause::Follows if wanted => Why::Wanted,
            Cause::Desired | Cause::Follows => Why::Unwanted,
            Cause::Database => Why::Healed,
            Cause::Audit => Why::Audit,
            Cause::Again => Why::Retry,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Wanted => "wanted",
            Why::Unwanted => "owner gone or changed",
            Why::Healed => "hand edit healed",
            Why::Audit => "found by audit",
            Why::Retry => "retried",
        })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::desired::WaitReason as R;
        let row = self.row;
        match self.reason {
            R::NoRow => write!(f, "row {row} does not exist yet"),
            R::NotMembers => write!(f, "row {row} does not take contributions in that column"),
            R::NoHolder => write!(f, "nothing refers to row {row}, so it would vanish"),
            R::NameTaken => write!(f, "row {row}, which is to be removed, has the same name"),
            R::Immutable => {
                write!(f, "row {row} differs in a column that cannot be changed; remove the row to have it made anew")
            }
            R::NoTable => write!(f, "the server has no table for row {row}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            writeln!(f, "{}", group.owner)?;
            for op in &group.ops {
                writeln!(f, "  {op}")?;
            }
        }
        for w in &self.waiting {
            writeln!(f, "waiting: {}: {w}", w.owner)?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match &self.action {
            Action::Insert(_) => '+',
            Action::Delete => '-',
            _ => '~',
        };
        write!(f, "{sign} {} ", self.table.name)?;
        match &self.name {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "{}", self.uuid)?,
        }
        match &self.action {
            Action::Insert(columns) => {
                for (column, datum) in columns {
                    write!(f, " {}=", self.column(*column))?;
                    write_datum(f, datum)?;
                }
            }
            Action::Update { column, old, new } => {
                write!(f, " {}: ", self.column(*column))?;
                match old {
                    Some(old) => write_datum(f, old)?,
                    None => f.write_str("default")?,
                }
                f.write_str(" -> ")?;
                write_datum(f, new)?;
            }
            Action::Keys { column, changes } => {
                for KeyChange { key, old, new } in changes {
                    write!(f, " {}:", self.column(*column))?;
                    write_atom(f, key)?;
                    f.write_str(": ")?;
                    write_optional(f, old.as_ref())?;
                    f.write_str(" -> ")?;
                    write_optional(f, new.as_ref())?;
                }
            }
            Action::Members { column, add, remove } => {
                write!(f, " {}:", self.column(*column))?;
                for (sign, atoms) in [(" -", remove), (" +", add)] {
                    for atom in atoms {
                        f.write_str(sign)?;
                        write_atom(f, atom)?;
                    }
                }
            }
            Action::Delete => {}
        }
        write!(f, " ({})", self.why)
    }
}

fn write_atom(f: &mut fmt::Formatter<'_>, atom: &Atom) -> fmt::Result {
    match atom {
        Atom::Integer(v) => write!(f, "{v}"),
        Atom::Real(v) => write!(f, "{v:?}"),
        Atom::Boolean(v) => write!(f, "{v}"),
        Atom::String(v) => write!(f, "{v:?}"),
        Atom::Uuid(v) => write!(f, "{v}"),
    }
}

fn write_optional(f: &mut fmt::Formatter<'_>, atom: Option<&Atom>) -> fmt::Result {
    match atom {
        Some(atom) => write_atom(f, atom),
        None => f.write_str("absent"),
    }
}

fn write_datum(f: &mut fmt::Formatter<'_>, datum: &Datum) -> fmt::Result {
    match datum {
        Datum::Atom(atom) => write_atom(f, atom),
        Datum::Set(atoms) => {
            f.write_str("[")?;
            for (i, atom) in atoms.iter().enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                write_atom(f, atom)?;
            }
            f.write_str("]")
        }
        Datum::Map(pairs) => {
            f.write_str("{")?;
            for (i, (key, value)) in pairs.iter().enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                write_atom(f, key)?;
                f.write_str("=")?;
                write_atom(f, value)?;
            }
            f.write_str("}")
        }
    }
}

fn atom_json(atom: &Atom) -> Value {
    match atom {
        Atom::Integer(v) => json!(v),
        Atom::Real(v) => json!(v),
        Atom::Boolean(v) => json!(v),
        Atom::String(v) => json!(v),
        Atom::Uuid(v) => json!(v),
    }
}

/// Plain JSON: sets as arrays; maps with text keys as objects.
fn datum_json(datum: &Datum) -> Value {
    match datum {
        Datum::Atom(atom) => atom_json(atom),
        Datum::Set(atoms) => atoms.iter().map(atom_json).collect(),
        Datum::Map(pairs) => {
            let text = |k: &Atom| k.as_str().map_or_else(|| atom_json(k).to_string(), str::to_owned);
            Value::Object(pairs.iter().map(|(k, v)| (text(k), atom_json(v))).collect())
        }
    }
}
