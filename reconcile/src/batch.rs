//! From planned operations to the operations of one transaction.
//!
//! Rows are inserted before anything else: a mutate of a row that is not there yet changes nothing (RFC 7047 section 5.2.4), and plans go
//! where references lead, which may be in circles. Operations on one row are joined: one update, one mutate, so that a hundred pods of a switch
//! are one mutate of its ports.
//! Must not: decide what is written.

use std::sync::Arc;

use ovsdb::{Atom, ColumnId, Condition, Datum, Mutation, Mutator, NamedColumns, Op, TableDesc, Uuid};
use rustc_hash::FxHashMap;

use crate::plan::{Action, Group, KeyChange};
use crate::row::Owner;

/// The operations of a transaction, and for each the owners it serves.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) ops: Vec<Op>,
    pub(crate) owners: Vec<Vec<Arc<Owner>>>,
}

/// Joined operations on one row that exists.
#[derive(Default)]
struct Joined {
    update: Option<usize>,
    mutate: Option<usize>,
    members: Vec<(ColumnId, Vec<Atom>, Vec<Atom>)>,
}

/// Joins and converts.
pub(crate) fn build(groups: &[Group]) -> Built {
    let mut built = Built::default();
    let mut rows: FxHashMap<Uuid, (&'static TableDesc, Joined)> = FxHashMap::default();
    let (inserts, others): (Vec<_>, Vec<_>) = groups
        .iter()
        .flat_map(|group| group.ops.iter().map(move |op| (group, op)))
        .partition(|(_, op)| matches!(op.action, Action::Insert(_)));
    for (group, op) in inserts.into_iter().chain(others) {
        let (table, uuid) = (op.table, op.uuid);
        let name = |c: &ColumnId| table.column(*c).name;
        let joined = &mut rows.entry(uuid).or_insert_with(|| (table, Joined::default())).1;
        match &op.action {
            Action::Insert(columns) => {
                let row = columns.iter().map(|(c, d)| (name(c), d.clone())).collect();
                built.add(Op::Insert { table: table.name, uuid: Some(uuid), row }, group);
            }
            Action::Delete => {
                built.add(Op::Delete { table: table.name, conditions: vec![Condition::uuid(uuid)] }, group);
            }
            Action::Update { column, new, .. } => {
                let fresh =
                    || Op::Update { table: table.name, conditions: vec![Condition::uuid(uuid)], row: Vec::new() };
                let at = built.join(&mut joined.update, fresh, group);
                if let Op::Update { row, .. } = &mut built.ops[at] {
                    NamedColumns::push(row, (name(column), new.clone()));
                }
            }
            Action::Keys { column, changes } => {
                let at = built.join(&mut joined.mutate, || empty_mutate(table, uuid), group);
                if let Op::Mutate { mutations, .. } = &mut built.ops[at] {
                    key_mutations(name(column), changes, mutations);
                }
            }
            Action::Members { column, add, remove } => {
                built.join(&mut joined.mutate, || empty_mutate(table, uuid), group);
                let at = joined.members.iter().position(|(c, ..)| c == column).unwrap_or_else(|| {
                    joined.members.push((*column, Vec::new(), Vec::new()));
                    joined.members.len() - 1
                });
                joined.members[at].1.extend_from_slice(add);
                joined.members[at].2.extend_from_slice(remove);
            }
        }
    }
    for (table, joined) in rows.into_values() {
        let Some(Op::Mutate { mutations, .. }) = joined.mutate.and_then(|at| built.ops.get_mut(at)) else { continue };
        for (column, add, remove) in joined.members {
            let sides = [(Mutator::Insert, add), (Mutator::Delete, remove)].into_iter().filter(|(_, v)| !v.is_empty());
            mutations.extend(sides.map(|(m, v)| Mutation::new(table.column(column).name, m, Datum::set(v))));
        }
    }
    built
}

/// An insert leaves a key that is there as it was, so changed keys are deleted first.
fn key_mutations(column: &'static str, changes: &[KeyChange], mutations: &mut Vec<Mutation>) {
    let gone = changes.iter().filter(|k| k.old.is_some()).map(|k| k.key.clone());
    let set: Vec<(Atom, Atom)> = changes.iter().filter_map(|k| Some((k.key.clone(), k.new.clone()?))).collect();
    let gone = Datum::set(gone);
    if !gone.is_empty() {
        mutations.push(Mutation { column, mutator: Mutator::Delete, value: gone });
    }
    if !set.is_empty() {
        mutations.push(Mutation { column, mutator: Mutator::Insert, value: Datum::map(set) });
    }
}

fn empty_mutate(table: &TableDesc, uuid: Uuid) -> Op {
    Op::Mutate { table: table.name, conditions: vec![Condition::uuid(uuid)], mutations: Vec::new() }
}

impl Built {
    fn add(&mut self, op: Op, group: &Group) -> usize {
        self.ops.push(op);
        self.owners.push(vec![group.owner.clone()]);
        self.ops.len() - 1
    }

    fn join(&mut self, slot: &mut Option<usize>, fresh: impl FnOnce() -> Op, group: &Group) -> usize {
        let at = match *slot {
            Some(at) => at,
            None => self.add(fresh(), group),
        };
        *slot = Some(at);
        if self.owners[at].last() != Some(&group.owner) {
            self.owners[at].push(group.owner.clone());
        }
        at
    }
}
