//! What should not exist: root rows are deleted, members are taken out of sets; other rows vanish with their last reference.
//!
//! Must not: remove what is not ours, or what somebody wants again.

use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Datum, TableDesc, Uuid};

use super::{Draft, Planner, Set};
use crate::diff::is_our_member;
use crate::dirty::{Dirt, Item};
use crate::plan::{Action, Why};
use crate::row::{Owner, Want};

impl Planner<'_> {
    pub(super) fn visit_removes(&mut self, owner: &Arc<Owner>) {
        if let Some(items) = self.desired.dirty.removes.remove(owner) {
            self.draw_removes(owner, items);
        }
    }

    pub(super) fn draw_removes(&mut self, owner: &Arc<Owner>, items: Vec<Dirt>) {
        let Some(mut draft) = self.draft(owner, items, false) else { return };
        while let Some((item, cause)) = draft.todo.pop_front() {
            let why = Why::of(cause, false);
            if self.seen.insert(item.clone()) {
                match &item {
                    Item::Row(uuid) => self.remove_row(&mut draft, *uuid, why),
                    Item::Member(row, column, member) => self.remove_member(&mut draft, *row, *column, member, why),
                    // What was unwanted when it was found may have found an owner since, as after a restart.
                    Item::Stray(_, _, _, member)
                        if !member.as_uuid().is_some_and(|target| self.desired.unwanted.contains_key(&target)) => {}
                    Item::Stray(table, uuid, column, member) => {
                        let table = self.desired.db.tables[usize::from(*table)];
                        let set = Set { table, uuid: *uuid, column: *column };
                        self.push_member(&mut draft, set, member.clone(), false, why);
                    }
                    Item::Sets(_) => {}
                }
            }
            draft.group.items.push((false, (item, cause)));
        }
        self.finish(draft);
    }

    fn remove_row(&mut self, draft: &mut Draft, uuid: Uuid, why: Why) {
        let Some((_, table)) = self.desired.unwanted.get(&uuid) else { return };
        let table = *table;
        if self.replica.row(table, &uuid).is_none() {
            self.desired.unwanted.remove(&uuid);
        } else if table.is_root || self.pins_unwanted_root(table, uuid) {
            self.push(draft, table, uuid, Action::Delete, why);
        }
    }

    /// True when a row refers strongly to a root row that is to be deleted too. The server checks references before it drops rows
    /// that nothing refers to (ovsdb/transaction.c), so such a row must be deleted in words.
    fn pins_unwanted_root(&self, table: &'static TableDesc, uuid: Uuid) -> bool {
        let strong = |(column, _): &(ColumnId, &Datum)| table.column(*column).ty.key.strong;
        let unwanted_root = |target| self.desired.unwanted.get(&target).is_some_and(|(_, t)| t.is_root);
        let row = self.replica.row(table, &uuid);
        row.is_some_and(|r| {
            r.iter().filter(strong).any(|(_, d)| d.atoms().iter().filter_map(Atom::as_uuid).any(unwanted_root))
        })
    }

    fn remove_member(&mut self, draft: &mut Draft, row: Uuid, column: ColumnId, member: &Atom, why: Why) {
        let Some(actual) = self.desired.locate(self.replica, row) else { return };
        let Some(entry) = self.desired.rows.get(&row) else { return };
        let Some(claim) = entry.winner() else { return };
        let listed = matches!(claim.want(column), Some(Want::Members));
        let table = claim.table;
        let wanted = self.desired.contributor((row, column), member).is_some();
        // A reference to an adopted row stays: the row would go with it.
        let member = self.desired.adopted.actual_atom(member);
        if !listed || wanted || !is_our_member(table, column, &member) {
            return;
        }
        if self.replica.row(table, &actual).and_then(|r| r.get(column)).is_some_and(|d| d.contains(&member)) {
            self.push_member(draft, Set { table, uuid: actual, column }, member, false, why);
        }
    }
}
