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

mod adds;
mod references;
mod removes;

use std::collections::VecDeque;
use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Replica, Str, TableDesc, Uuid};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::desired::{Desired, WaitReason};
use crate::dirty::{Dirt, Item};
use crate::plan::{Action, Group, Plan, PlannedOp, Why};
use crate::row::{Owner, OwnerKind};

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
    /// Plans that follow each other within these limits.
    pub(crate) plans: usize,
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
    let limits =
        Limits { rows: usize::MAX, bytes: usize::MAX, plans: 1, removals: true, only: None, held: &mut |_, _| false };
    let mut plan = Plan::default();
    plan_within(desired, replica, limits, &mut |whole| plan = whole);
    plan.waiting = desired.waiting();
    plan
}

/// Makes plans to be carried out one after the other, and tells each as soon as it is made; none of them is empty.
pub(crate) fn plan_within<'a>(
    desired: &'a mut Desired,
    replica: &'a Replica,
    limits: Limits<'a>,
    ready: &'a mut dyn FnMut(Plan),
) {
    if desired.audit_due {
        desired.audit(replica);
    }
    let mut planner = Planner {
        desired,
        replica,
        limits,
        ready,
        groups: Vec::new(),
        plans: 1,
        seen: FxHashSet::default(),
        inserts: FxHashSet::default(),
        rows: FxHashSet::default(),
        bytes: 0,
    };
    planner.run();
    planner.tell();
}

/// A plan in the making.
struct Planner<'a> {
    desired: &'a mut Desired,
    replica: &'a Replica,
    limits: Limits<'a>,
    ready: &'a mut dyn FnMut(Plan),
    /// Of the plan that is not told yet.
    groups: Vec<Group>,
    /// Its number.
    plans: usize,
    /// Items planned already, by whichever plan.
    seen: FxHashSet<Item>,
    /// Rows that the plans insert, by desired UUID.
    inserts: FxHashSet<Uuid>,
    /// Rows that the last plan writes, by UUID in the database.
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
    fn run(&mut self) {
        if let Some(only) = self.limits.only {
            for owner in only {
                self.visit_adds(owner);
            }
            if self.limits.removals {
                only.iter().rev().for_each(|owner| self.visit_removes(owner));
            }
            return;
        }
        while !self.desired.dirty.adds.is_empty() {
            if self.is_full() && !self.is_rest_small() && !self.cut() {
                return;
            }
            let Some((owner, items)) = self.desired.dirty.adds.pop_first() else { break };
            let set = self.smallest_set(&items);
            self.draw_adds(&owner, items);
            set.iter().for_each(|set| self.draw_near(owner.kind, *set));
        }
        self.desired.dirty.near = FxHashMap::default();
        while self.limits.removals && !self.desired.dirty.removes.is_empty() {
            if self.is_full() && !self.cut() {
                return;
            }
            let Some((owner, items)) = self.desired.dirty.removes.pop_last() else { break };
            self.draw_removes(&owner, items);
        }
    }

    /// Of the rows to whose sets there are members among the items, the one for which the fewest wait: they have most in common, for small
    /// sets mostly lie within large ones (pods of an app, of a namespace, of the cluster).
    fn smallest_set(&self, items: &[Dirt]) -> Option<Uuid> {
        let waiting = |row: &Uuid| self.desired.dirty.near.get(row).map_or(0, VecDeque::len);
        items.iter().filter_map(|(item, _)| item.set()).min_by_key(waiting)
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

    /// What is left is not worth a transaction of its own.
    fn is_rest_small(&self) -> bool {
        self.desired.dirty.adds.len() <= self.limits.rows / 2 && self.bytes < self.limits.bytes
    }

    /// Begins a further plan, if there may be one. What the owners so far depend on is planned with them.
    fn cut(&mut self) -> bool {
        let more = self.plans < self.limits.plans;
        if more {
            self.tell();
            self.plans += 1;
            self.rows.clear();
            self.bytes = 0;
        }
        more
    }

    /// The plan is made.
    fn tell(&mut self) {
        if !self.groups.is_empty() {
            (self.ready)(Plan::of(std::mem::take(&mut self.groups)));
        }
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
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ovenbird_schema::northbound::{DATABASE, load_balancer as lb};
    use ovsdb::{MonitorSpec, TableSpec};

    use super::*;
    use crate::identity::row_uuid;
    use crate::row::{DesiredRow, Output, RowId, Want, Zone};

    const KIND: OwnerKind = OwnerKind { rank: 1, name: "Service" };

    #[test]
    fn a_plan_is_told_before_the_next_is_made() {
        let replica = Replica::new(&DATABASE, &MonitorSpec::new().with(TableSpec::all(&lb::TABLE)));
        let mut desired = Desired::new(Zone(0), &DATABASE);
        for n in 0..35 {
            let owner = Owner::new(KIND, format!("ns/{n:02}"));
            let id = RowId::Ours(row_uuid("Load_Balancer", &owner, ""));
            let (column, name) = lb::name(&*owner.key);
            let columns = vec![(column, Want::Exactly(name))];
            let row = DesiredRow { zone: Zone(0), table: &lb::TABLE, id, columns };
            desired.set(&owner, Output { rows: vec![row], ..Output::default() });
        }
        let seen = Cell::new(0);
        let mut held = |_: &Arc<Owner>, _: &[Dirt]| {
            seen.set(seen.get() + 1);
            false
        };
        let limits = Limits { rows: 10, bytes: usize::MAX, plans: 9, removals: false, only: None, held: &mut held };
        let mut told = Vec::new();
        plan_within(&mut desired, &replica, limits, &mut |plan| told.push((plan.groups.len(), seen.get())));
        // The last five are not worth a plan of their own.
        assert_eq!(told, [(10, 10), (10, 20), (15, 35)], "groups of each plan, and owners looked at so far");
    }
}
