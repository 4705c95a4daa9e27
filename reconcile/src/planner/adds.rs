//! What should exist: rows and members, each with what it depends on before it.
//!
//! Must not: remove anything by itself.

use std::sync::Arc;

use ovsdb::{Atom, ColumnId, TableDesc, Uuid};

use super::{Draft, Planner, Set};
use crate::desired::WaitReason;
use crate::diff::{exactly, keys, refers};
use crate::dirty::{Cause, Dirt, Item};
use crate::identity::is_ours;
use crate::plan::{Action, Why};
use crate::row::{Owner, Want};

impl Planner<'_> {
    pub(super) fn visit_adds(&mut self, owner: &Arc<Owner>) {
        if let Some(items) = self.desired.dirty.adds.remove(owner) {
            self.draw_adds(owner, items);
        }
    }

    pub(super) fn draw_adds(&mut self, owner: &Arc<Owner>, items: Vec<Dirt>) {
        let Some(mut draft) = self.draft(owner, items, true) else { return };
        loop {
            while let Some((item, cause)) = draft.todo.pop_front() {
                match &item {
                    Item::Row(uuid) => drop(self.add_row(&mut draft, *uuid, cause)),
                    Item::Sets(uuid) => self.desired.compare_sets(self.replica, *uuid, cause),
                    Item::Member(row, column, member) => self.add_member(&mut draft, *row, *column, member, cause),
                    Item::Stray(..) => {}
                }
                draft.group.items.push((true, (item, cause)));
            }
            // Items that the owner's own items led to belong into the same transaction.
            let Some(more) = self.desired.dirty.adds.remove(owner) else { break };
            draft.todo.extend(more);
        }
        self.finish(draft);
    }

    /// Plans a desired row's existence and columns. False when the row will not exist.
    fn add_row(&mut self, draft: &mut Draft, uuid: Uuid, cause: Cause) -> bool {
        let actual = self.desired.locate(self.replica, uuid);
        let Some(claim) = self.desired.rows.get(&uuid).and_then(|e| e.winner()) else { return actual.is_some() };
        let table = claim.table;
        if !self.seen.insert(Item::Row(uuid)) {
            return actual.is_some() || self.inserts.contains(&uuid);
        }
        if !self.replica.has_table(table) {
            self.park(draft, uuid, Item::Row(uuid), WaitReason::NoTable);
            return false;
        }
        match actual {
            None => self.insert(draft, table, uuid, cause),
            Some(actual) => {
                self.update(draft, table, uuid, actual, cause);
                true
            }
        }
    }

    fn insert(&mut self, draft: &mut Draft, table: &'static TableDesc, uuid: Uuid, cause: Cause) -> bool {
        // Before its references are followed, because these may lead back here.
        self.inserts.insert(uuid);
        let complete = self.values(draft, table, uuid, None);
        let Some(columns) = complete.filter(|_| self.hold(draft, table, uuid, cause)) else {
            self.inserts.remove(&uuid);
            self.seen.remove(&Item::Row(uuid));
            return false;
        };
        let columns = columns.into_iter().filter(|(c, d)| !ovsdb::is_default(&table.column(*c).ty, d)).collect();
        self.push(draft, table, uuid, Action::Insert(columns), Why::of(cause, true));
        self.desired.compare_sets(self.replica, uuid, cause);
        true
    }

    fn update(&mut self, draft: &mut Draft, table: &'static TableDesc, uuid: Uuid, actual: Uuid, cause: Cause) {
        let replica = self.replica;
        let Some(row) = replica.row(table, &actual) else { return };
        if !self.desired.differs(replica, uuid, row) {
            return;
        }
        let Some(values) = self.values(draft, table, uuid, Some(row)) else { return };
        let mut actions = Vec::new();
        for (column, datum) in values {
            let action = exactly(table, column, row.get(column), datum, self.limits.removals);
            if action.is_some() && !table.column(column).mutable {
                self.park(draft, uuid, Item::Row(uuid), WaitReason::Immutable);
                continue;
            }
            actions.extend(action);
        }
        if let Some(claim) = self.desired.rows.get(&uuid).and_then(|e| e.winner()) {
            for (column, want) in &claim.columns {
                if replica.has_column(table, *column) {
                    actions.extend(keys(*column, row.get(*column), want.keys()));
                }
            }
        }
        for action in actions {
            self.push(draft, table, actual, action, Why::of(cause, true));
        }
    }

    fn add_member(&mut self, draft: &mut Draft, row: Uuid, column: ColumnId, member: &Atom, cause: Cause) {
        let item = Item::Member(row, column, member.clone());
        let Some(entry) = self.desired.rows.get(&row) else { return };
        if self.desired.contributor((row, column), member).is_none() || self.seen.contains(&item) {
            return;
        }
        let Some(claim) = entry.winner() else { return self.park(draft, row, item, WaitReason::NoRow) };
        let table = claim.table;
        if !matches!(claim.want(column), Some(Want::Members)) {
            return self.park(draft, row, item, WaitReason::NotMembers);
        }
        if !self.replica.has_column(table, column) {
            return;
        }
        self.seen.insert(item.clone());
        let actual = self.desired.locate(self.replica, row);
        let have = actual.and_then(|a| self.replica.row(table, &a)).and_then(|r| r.get(column));
        if have.is_some_and(|h| h.contains(&self.desired.adopted.actual_atom(member))) {
            return;
        }
        if actual.is_none() && !self.ensure(row) {
            self.seen.remove(&item);
            return self.park(draft, row, item, WaitReason::NoRow);
        }
        let target = member.as_uuid().filter(|u| refers(table, column) && is_ours(u));
        if let Some(target) = target.filter(|t| !self.ensure(*t)) {
            self.seen.remove(&item);
            return self.park(draft, target, item, WaitReason::NoRow);
        }
        let uuid = self.desired.adopted.actual(row);
        let member = self.desired.adopted.actual_atom(member);
        self.push_member(draft, Set { table, uuid, column }, member, true, Why::of(cause, true));
    }
}
