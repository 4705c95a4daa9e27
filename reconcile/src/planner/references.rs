//! What a row depends on: the rows it refers to, a set that holds it, and its unique name being free.
//!
//! Must not: decide whether a row is written.

use ovsdb::{Atom, ColumnId, Datum, TableDesc, Uuid};

use super::{Draft, Planner};
use crate::desired::WaitReason;
use crate::diff::{actual_datum, is_strong, refers};
use crate::dirty::{Cause, Item};
use crate::identity::is_ours;
use crate::row::Want;

impl Planner<'_> {
    /// The values to write, references resolved: all of a new row, or the exact columns that differ from `row`. `None` when
    /// the row has to wait.
    pub(super) fn values(
        &mut self,
        draft: &mut Draft,
        table: &'static TableDesc,
        uuid: Uuid,
        row: Option<&ovsdb::Row>,
    ) -> Option<Vec<(ColumnId, Datum)>> {
        let claim = self.desired.rows.get(&uuid).and_then(|e| e.winner())?;
        let mut values = Vec::with_capacity(claim.columns.len());
        for (column, want) in claim.columns.iter().filter(|(c, _)| self.replica.has_column(table, *c)) {
            match want {
                Want::Exactly(datum) if row.is_none_or(|r| r.get(*column) != Some(datum)) => {
                    values.push((*column, datum.clone()));
                }
                Want::Keys(_) | Want::Pairs(_) if row.is_none() => values.push((*column, Datum::Map(want.pairs()))),
                _ => {}
            }
        }
        for (column, datum) in &mut values {
            if refers(table, *column) {
                self.settle(draft, table, uuid, *column, datum);
                if datum.is_empty() && !table.column(*column).ty.is_optional() {
                    return None;
                }
            }
            self.clear_name(draft, table, uuid, *column, datum)?;
        }
        Some(values)
    }

    /// Makes sure that what a value refers to exists, takes out what will not, and translates to UUIDs of the database.
    fn settle(
        &mut self,
        draft: &mut Draft,
        table: &'static TableDesc,
        uuid: Uuid,
        column: ColumnId,
        datum: &mut Datum,
    ) {
        let ty = table.column(column).ty;
        let key = ty.key.ref_table.is_some();
        let value = ty.value.is_some_and(|v| v.ref_table.is_some());
        let mut exists = |atom: &Atom, refers: bool| {
            let target = atom.as_uuid().filter(|u| refers && is_ours(u));
            let ok = target.is_none_or(|t| self.ensure(t));
            if let Some(target) = target.filter(|_| !ok) {
                self.park(draft, target, Item::Row(uuid), WaitReason::NoRow);
            }
            ok
        };
        match datum {
            Datum::Atom(atom) if !exists(atom, key) => *datum = Datum::Set(Box::default()),
            Datum::Atom(_) => {}
            Datum::Set(v) => *v = v.iter().filter(|a| exists(a, key)).cloned().collect(),
            Datum::Map(v) => *v = v.iter().filter(|(k, a)| exists(k, key) && exists(a, value)).cloned().collect(),
        }
        *datum = actual_datum(table, column, datum, &self.desired.adopted);
    }

    /// Another row of ours may have the unique value that this one needs: it is changed or removed in the same transaction.
    /// `None` when that is not possible yet.
    fn clear_name(
        &mut self,
        draft: &mut Draft,
        table: &'static TableDesc,
        uuid: Uuid,
        column: ColumnId,
        datum: &Datum,
    ) -> Option<()> {
        let Datum::Atom(value) = datum else { return Some(()) };
        if !table.indexes.iter().any(|i| *i == [column]) {
            return Some(());
        }
        let Some((other, _)) = self.replica.find(table, column, value) else { return Some(()) };
        if other == self.desired.adopted.actual(uuid) || !is_ours(&other) {
            return Some(());
        }
        if let Some(owner) = self.desired.rows.get(&other).and_then(|e| e.winner()).map(|c| c.owner.clone()) {
            self.visit_adds(&owner);
            return Some(());
        }
        if !self.limits.removals {
            self.park(draft, other, Item::Row(uuid), WaitReason::NameTaken);
            return None;
        }
        if let Some(owner) = self.desired.unwanted.get(&other).map(|(o, _)| o.clone()) {
            self.visit_removes(&owner);
        }
        Some(())
    }

    /// Plans the references to a new row, of which one has to keep it alive unless it is a root; false when none does.
    pub(super) fn hold(&mut self, draft: &mut Draft, table: &TableDesc, uuid: Uuid, cause: Cause) -> bool {
        let mut held = table.is_root;
        for (row, column) in self.desired.holders(uuid) {
            let Some(claim) = self.desired.rows.get(&row).and_then(|e| e.winner()) else { continue };
            let item = match claim.want(column) {
                Some(Want::Members) => Item::Member(row, column, Atom::Uuid(uuid)),
                // Not behind the back of a quarantine.
                Some(Want::Exactly(_)) if !self.desired.benched.contains_key(&claim.owner) => Item::Row(row),
                _ => continue,
            };
            let strong = is_strong(claim.table, column);
            held |= strong && self.ensure(row);
            draft.todo.push_back((item, cause));
        }
        if !held {
            self.park(draft, uuid, Item::Row(uuid), WaitReason::NoHolder);
        }
        held
    }

    /// True when a desired row exists or is inserted by this plan; pulls in its owner.
    pub(super) fn ensure(&mut self, uuid: Uuid) -> bool {
        if self.inserts.contains(&uuid) {
            return true;
        }
        let Some(claim) = self.desired.rows.get(&uuid).and_then(|e| e.winner()) else {
            // Not desired; it may exist, and be removed later.
            return self.desired.unwanted.get(&uuid).is_some_and(|(_, t)| self.replica.row(t, &uuid).is_some());
        };
        let owner = claim.owner.clone();
        if self.desired.locate(self.replica, uuid).is_some() {
            return true;
        }
        self.desired.dirty.push(&owner, true, Item::Row(uuid), Cause::Follows);
        self.visit_adds(&owner);
        self.inserts.contains(&uuid)
    }
}
