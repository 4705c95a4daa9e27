//! Turns dirty items into a plan: takes owners in order, pulls in what their rows depend on, stops at a limit.
//!
//! ```text
//! adds, by rising rank:    row --> columns that differ --> references --> the rows referred to, first (their owners' items)
//!                          row that is not a root --> the set that holds it, in the same transaction
//! removes, falling rank:   root rows are deleted, members are taken out of sets; other rows vanish with their last reference
//! ```
//!
//! What cannot be written yet is parked under the row it waits for, and comes back when that row does. Inputs: the desired store,
//! whose queues it empties, and the replica. Output: a [`Plan`]. Must not: keep anything between two plans.

use std::collections::VecDeque;
use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Datum, Replica, Str, TableDesc, Uuid};
use rustc_hash::FxHashSet;

use crate::desired::{Desired, WaitReason};
use crate::diff::{actual_datum, exactly, is_our_member, is_strong, keys, refers};
use crate::dirty::{Cause, Dirt, Item};
use crate::entry::pairs;
use crate::identity::is_ours;
use crate::plan::{Action, Group, Plan, PlannedOp, Why};
use crate::row::{Owner, OwnerKind, Want};

/// What a plan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What is marked dirty.
    Dirty,
    /// The union of desired and owned rows: finds hand edits made while nobody watched, and rows to be removed.
    All,
}

/// Bounds of a plan.
pub(crate) struct Limits<'a> {
    /// No further owner is taken after so many rows.
    pub(crate) rows: usize,
    /// Or so many bytes.
    pub(crate) bytes: usize,
    /// False: nothing is removed.
    pub(crate) removals: bool,
    /// Only these owners, and what they depend on.
    pub(crate) only: Option<&'a [Arc<Owner>]>,
    /// Owners that must not be written for. Gets the owner's items.
    pub(crate) held: &'a mut dyn FnMut(&Arc<Owner>, &[Dirt]) -> bool,
}

/// The plan that makes the replica agree with the desired store. The dirty items are consumed: what fails to be executed has to be
/// marked again (the committer does so), or found by [`Scope::All`].
pub fn plan(desired: &mut Desired, replica: &Replica, scope: Scope) -> Plan {
    if scope == Scope::All {
        desired.request_audit();
    }
    let limits = Limits { rows: usize::MAX, bytes: usize::MAX, removals: true, only: None, held: &mut |_, _| false };
    let mut plan = plan_within(desired, replica, limits);
    plan.waiting = desired.waiting();
    plan
}

pub(crate) fn plan_within<'a>(desired: &'a mut Desired, replica: &'a Replica, limits: Limits<'a>) -> Plan {
    if desired.audit_due {
        desired.audit(replica);
    }
    let mut planner = Planner {
        desired,
        replica,
        limits,
        groups: Vec::new(),
        seen: FxHashSet::default(),
        inserts: FxHashSet::default(),
        rows: FxHashSet::default(),
        bytes: 0,
    };
    let truncated = planner.run();
    Plan { groups: planner.groups, waiting: Vec::new(), truncated }
}

struct Planner<'a> {
    desired: &'a mut Desired,
    replica: &'a Replica,
    limits: Limits<'a>,
    groups: Vec<Group>,
    /// Items planned already.
    seen: FxHashSet<Item>,
    /// Rows that the plan inserts, by desired UUID.
    inserts: FxHashSet<Uuid>,
    /// Rows that it writes, by UUID in the database.
    rows: FxHashSet<Uuid>,
    bytes: usize,
}

/// A group in the making.
struct Draft {
    group: Group,
    todo: VecDeque<Dirt>,
}

/// A set column of a row in the database.
#[derive(Clone, Copy)]
struct Set {
    table: &'static TableDesc,
    uuid: Uuid,
    column: ColumnId,
}

impl Planner<'_> {
    /// True when a limit cut the plan short.
    fn run(&mut self) -> bool {
        if let Some(only) = self.limits.only {
            for owner in only {
                self.visit_adds(owner);
            }
            if self.limits.removals {
                only.iter().rev().for_each(|owner| self.visit_removes(owner));
            }
            return false;
        }
        while !self.desired.dirty.adds.is_empty() {
            if self.is_full() {
                return true;
            }
            let Some((owner, items)) = self.desired.dirty.adds.pop_first() else { break };
            let set = items.iter().find_map(|(item, _)| item.set());
            self.draw_adds(&owner, items);
            set.iter().for_each(|set| self.draw_near(owner.kind, *set));
        }
        self.desired.dirty.near.clear();
        while self.limits.removals && !self.desired.dirty.removes.is_empty() {
            if self.is_full() {
                return true;
            }
            let Some((owner, items)) = self.desired.dirty.removes.pop_last() else { break };
            self.draw_removes(&owner, items);
        }
        false
    }

    /// Goes on with owners of the same kind that have members for the same row's sets.
    fn draw_near(&mut self, kind: OwnerKind, row: Uuid) {
        let Some(mut near) = self.desired.dirty.near.remove(&row) else { return };
        while !self.is_full() {
            let Some(owner) = near.pop_front() else { return };
            if owner.kind == kind {
                self.visit_adds(&owner);
            }
        }
        self.desired.dirty.near.insert(row, near);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limits.rows || self.bytes >= self.limits.bytes
    }

    /// Begins a group with an owner's items; `None` when the owner is held, and its items are set aside.
    fn draft(&mut self, owner: &Arc<Owner>, mut items: Vec<Dirt>, wanted: bool) -> Option<Draft> {
        if (self.limits.held)(owner, &items) {
            self.desired.benched.entry(owner.clone()).or_default()[usize::from(!wanted)].append(&mut items);
            return None;
        }
        items.sort_unstable();
        items.dedup_by(|a, b| a.0 == b.0);
        let group = Group { owner: owner.clone(), ops: Vec::new(), items: Vec::new() };
        Some(Draft { group, todo: items.into() })
    }

    fn finish(&mut self, draft: Draft) {
        if !draft.group.ops.is_empty() {
            self.groups.push(draft.group);
        }
    }

    fn visit_adds(&mut self, owner: &Arc<Owner>) {
        if let Some(items) = self.desired.dirty.adds.remove(owner) {
            self.draw_adds(owner, items);
        }
    }

    fn draw_adds(&mut self, owner: &Arc<Owner>, items: Vec<Dirt>) {
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

    fn push(&mut self, draft: &mut Draft, table: &'static TableDesc, uuid: Uuid, action: Action, why: Why) {
        let name = table.column_id("name").and_then(|column| match &action {
            Action::Insert(columns) => columns.iter().find(|(c, _)| *c == column).map(|(_, d)| d),
            _ => self.replica.row(table, &uuid)?.get(column),
        });
        let name: Option<Str> = name.and_then(|d| d.atoms().first()).and_then(|a| match a {
            Atom::String(text) => Some(text.clone()),
            _ => None,
        });
        let op = PlannedOp { table, uuid, name, action, why };
        self.rows.insert(uuid);
        self.bytes += op.size();
        draft.group.ops.push(op);
    }

    fn park(&mut self, draft: &Draft, target: Uuid, item: Item, reason: WaitReason) {
        self.desired.parked.entry(target).or_default().insert((draft.group.owner.clone(), item), reason);
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
                if let Want::Keys(wanted) = want
                    && replica.has_column(table, *column)
                {
                    actions.extend(keys(*column, row.get(*column), wanted));
                }
            }
        }
        for action in actions {
            self.push(draft, table, actual, action, Why::of(cause, true));
        }
    }

    /// The values to write, references resolved: all of a new row, or the exact columns that differ from `row`. `None` when
    /// the row has to wait.
    fn values(
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
                Want::Keys(keys) if row.is_none() => values.push((*column, pairs(keys))),
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
            Datum::Atom(atom) if !exists(atom, key) => *datum = Datum::Set(Vec::new()),
            Datum::Atom(_) => {}
            Datum::Set(v) => v.retain(|a| exists(a, key)),
            Datum::Map(v) => v.retain(|(k, a)| exists(k, key) && exists(a, value)),
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
    fn hold(&mut self, draft: &mut Draft, table: &TableDesc, uuid: Uuid, cause: Cause) -> bool {
        let holders = self.desired.rows.get(&uuid).map(|e| e.holders.clone()).unwrap_or_default();
        let mut held = table.is_root;
        for (row, column) in holders {
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
    fn ensure(&mut self, uuid: Uuid) -> bool {
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

    fn add_member(&mut self, draft: &mut Draft, row: Uuid, column: ColumnId, member: &Atom, cause: Cause) {
        let item = Item::Member(row, column, member.clone());
        let Some(entry) = self.desired.rows.get(&row) else { return };
        if entry.contributor(column, member).is_none() || self.seen.contains(&item) {
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

    /// Adds a member to the last operation when that is on the same set, else to a new one.
    fn push_member(&mut self, draft: &mut Draft, set: Set, member: Atom, wanted: bool, why: Why) {
        let Set { table, uuid, column } = set;
        if let Some(PlannedOp { uuid: last, action: Action::Members { column: c, add, remove }, why: w, .. }) =
            draft.group.ops.last_mut()
            && (*last, *c, *w) == (uuid, column, why)
        {
            let list = if wanted { add } else { remove };
            return list.push(member);
        }
        let (add, remove) = if wanted { (vec![member], Vec::new()) } else { (Vec::new(), vec![member]) };
        self.push(draft, table, uuid, Action::Members { column, add, remove }, why);
    }

    fn visit_removes(&mut self, owner: &Arc<Owner>) {
        if let Some(items) = self.desired.dirty.removes.remove(owner) {
            self.draw_removes(owner, items);
        }
    }

    fn draw_removes(&mut self, owner: &Arc<Owner>, items: Vec<Dirt>) {
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
        let wanted = entry.contributor(column, member).is_some();
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
