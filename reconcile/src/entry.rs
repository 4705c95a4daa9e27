//! What the desired store knows of one row: claims, members, holders; and the map of adopted rows.
//!
//! Plain bookkeeping for `desired`. Must not: look at the database.

use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Datum, Pairs, Row, Shape, TableDesc, Uuid};
use rustc_hash::FxHashMap;

use crate::identity::is_ours;
use crate::owners::{Contributors, OwnerId, Owners};
use crate::row::{Owner, RowId, Want};

/// One row, as far as anybody cares for it.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// The first is the winner.
    pub(crate) claims: Vec<Claim>,
    /// Who contributes members, by column.
    pub(crate) members: Vec<(ColumnId, Contributors)>,
    /// Where the row is referred to from: what keeps a non-root row alive, and what has to be written again after a row has
    /// gone and come back.
    pub(crate) holders: Vec<Holder>,
}

/// What refers to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A column that a claim wants exactly, of the row.
    Column(Uuid, ColumnId),
    /// The sets to which the owner contributes the row.
    Sets(OwnerId),
}

/// What one owner wants of a row.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) owner: Arc<Owner>,
    pub(crate) table: &'static TableDesc,
    pub(crate) id: RowId,
    pub(crate) columns: Vec<(ColumnId, Want)>,
}

/// Rows of others that a look-up found for a desired row: UUID in the database to desired UUID, and back.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    to_desired: FxHashMap<Uuid, Uuid>,
    to_actual: FxHashMap<Uuid, Uuid>,
}

impl Entry {
    /// The claim that counts.
    pub(crate) fn winner(&self) -> Option<&Claim> {
        self.claims.first()
    }

    /// Nobody cares for the row.
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.members.is_empty() && self.holders.is_empty()
    }

    /// Notes a reference to the row. Mostly it is the only one.
    pub(crate) fn held_by(&mut self, holder: Holder) {
        self.holders.reserve_exact(1);
        self.holders.push(holder);
    }

    /// Who contributes to a column.
    pub(crate) fn contributors(&self, column: ColumnId) -> Option<&Contributors> {
        self.members.iter().find(|(c, _)| *c == column).map(|(_, set)| set)
    }

    /// As before, of a column that may have none yet.
    pub(crate) fn contributors_mut(&mut self, column: ColumnId) -> &mut Contributors {
        let known = self.members.iter().position(|(c, _)| *c == column);
        let at = known.unwrap_or_else(|| {
            self.members.reserve_exact(1);
            self.members.push((column, Contributors::default()));
            self.members.len() - 1
        });
        &mut self.members[at].1
    }

    /// Column values of a row that is all ours.
    pub(crate) fn values(&self, uuid: Uuid, claim: &Claim, owners: &Owners) -> Vec<(ColumnId, Datum)> {
        let value = |(column, want): &(ColumnId, Want)| {
            let datum = match want {
                Want::Exactly(datum) => datum.clone(),
                Want::Keys(_) | Want::Pairs(_) => Datum::Map(want.pairs()),
                Want::Members => {
                    let members = self.contributors(*column).map(|set| owners.members(set, (uuid, *column)));
                    Datum::Set(members.into_iter().flatten().map(|(member, _)| member.clone()).collect())
                }
            };
            (*column, datum)
        };
        claim.columns.iter().map(value).collect()
    }
}

impl Claim {
    pub(crate) fn want(&self, column: ColumnId) -> Option<&Want> {
        let at = self.columns.binary_search_by_key(&column, |(c, _)| *c).ok()?;
        Some(&self.columns[at].1)
    }

    /// Takes texts and maps of a row that is as wanted in place of equal ones of its own: most of a large cluster's memory.
    pub(crate) fn share(&mut self, row: &Row) {
        for (column, want) in &mut self.columns {
            match (want, row.get(*column)) {
                (Want::Exactly(datum), Some(actual)) => datum.share(actual),
                (Want::Pairs(pairs), Some(Datum::Map(actual))) if pairs == actual => *pairs = actual.clone(),
                _ => {}
            }
        }
    }

    pub(crate) fn member_columns(&self) -> impl Iterator<Item = ColumnId> + '_ {
        member_columns(&self.columns)
    }

    pub(crate) fn has_members(&self) -> bool {
        self.member_columns().next().is_some()
    }
}

impl Adopted {
    pub(crate) fn learn(&mut self, desired: Uuid, actual: Uuid) {
        self.to_desired.insert(actual, desired);
        self.to_actual.insert(desired, actual);
    }

    /// Forgets a desired row; true when it was adopted.
    pub(crate) fn forget(&mut self, desired: Uuid) -> bool {
        self.to_actual.remove(&desired).map(|actual| self.to_desired.remove(&actual)).is_some()
    }

    /// Desired UUID of a row in the database.
    pub(crate) fn desired(&self, actual: Uuid) -> Uuid {
        if self.to_desired.is_empty() { actual } else { *self.to_desired.get(&actual).unwrap_or(&actual) }
    }

    /// UUID in the database of a desired row.
    pub(crate) fn actual(&self, desired: Uuid) -> Uuid {
        if self.to_actual.is_empty() { desired } else { *self.to_actual.get(&desired).unwrap_or(&desired) }
    }

    /// An atom of the database with references as desired.
    pub(crate) fn desired_atom(&self, atom: &Atom) -> Atom {
        match atom {
            Atom::Uuid(u) => Atom::Uuid(self.desired(*u)),
            other => other.clone(),
        }
    }

    /// A desired atom with references as the database has them.
    pub(crate) fn actual_atom(&self, atom: &Atom) -> Atom {
        match atom {
            Atom::Uuid(u) => Atom::Uuid(self.actual(*u)),
            other => other.clone(),
        }
    }

    /// True when no reference needs to be replaced.
    pub(crate) fn is_empty(&self) -> bool {
        self.to_actual.is_empty()
    }
}

/// The columns that are fed by contributions.
pub(crate) fn member_columns(columns: &[(ColumnId, Want)]) -> impl Iterator<Item = ColumnId> + '_ {
    columns.iter().filter(|(_, want)| matches!(want, Want::Members)).map(|(c, _)| *c)
}

/// References to rows of ours in columns wanted exactly.
pub(crate) fn references(table: &TableDesc, columns: &[(ColumnId, Want)]) -> Vec<(ColumnId, Uuid)> {
    let mut found = Vec::new();
    for (column, want) in columns {
        let ty = &table.column(*column).ty;
        let Want::Exactly(datum) = want else { continue };
        if ty.key.ref_table.is_some() {
            let keys = datum.atoms().iter().chain(datum.pairs().iter().map(|(k, _)| k));
            found.extend(keys.filter_map(Atom::as_uuid).map(|u| (*column, u)));
        }
        if ty.value.is_some_and(|v| v.ref_table.is_some()) {
            found.extend(datum.pairs().iter().filter_map(|(_, v)| v.as_uuid()).map(|u| (*column, u)));
        }
    }
    found.retain(|(_, uuid)| is_ours(uuid));
    found
}

/// Brings a wish into the canonical form of the column's type (see `ovsdb::value`), so that equal states compare equal.
pub(crate) fn canonical(table: &TableDesc, column: ColumnId, want: &mut Want) {
    match want {
        Want::Keys(keys) => {
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            if keys.iter().all(|(_, value)| value.is_some()) {
                *want = Want::Pairs(want.pairs());
            }
        }
        Want::Exactly(datum) => canonical_datum(table.column(column).ty.shape(), datum),
        Want::Pairs(_) | Want::Members => {}
    }
}

fn canonical_datum(shape: Shape, datum: &mut Datum) {
    let whole = match (shape, &mut *datum) {
        (Shape::Set, Datum::Atom(atom)) => Datum::Set([atom.clone()].into()),
        (Shape::Set, Datum::Set(v)) if !v.is_sorted_by(|a, b| a < b) => Datum::set(std::mem::take(v)),
        (Shape::Map, Datum::Map(v)) if !v.is_sorted_by(|a, b| a.0 < b.0) => Datum::map(v.to_vec()),
        (Shape::Map, Datum::Set(v)) if v.is_empty() => Datum::Map(Pairs::default()),
        (Shape::Atom, Datum::Set(v)) if v.len() == 1 => Datum::Atom(v[0].clone()),
        _ => return,
    };
    *datum = whole;
}
