//! The comparison of wishes with the replica: one row, one set, or everything (the audit).
//!
//! Inputs: the desired store and the replica. Outputs: what differs, as actions on one row or as dirty items. Only columns that a
//! claim lists, keys that it names and members that are ours are looked at. Must not: order or batch anything.

use ovsdb::{Atom, ColumnId, Datum, Replica, Row, TableDesc, Uuid, is_default};
use rustc_hash::FxHashSet;

use crate::desired::{Desired, orphan};
use crate::dirty::{Cause, Item};
use crate::entry::{Adopted, Claim};
use crate::identity::is_ours;
use crate::plan::{Action, KeyChange};
use crate::row::{RowId, Want};

/// Below this, a set is written whole; it is cheaper to read for people, too.
const SMALL_SET: usize = 16;

/// True when the row is not as the claim wants it, members aside.
fn differs(claim: &Claim, row: &Row, replica: &Replica, adopted: &Adopted) -> bool {
    claim.columns.iter().any(|(column, want)| {
        replica.has_column(claim.table, *column)
            && match want {
                Want::Exactly(datum) if adopted.is_empty() => !same(claim.table, *column, row.get(*column), datum),
                Want::Exactly(datum) => {
                    !same(claim.table, *column, row.get(*column), &actual_datum(claim.table, *column, datum, adopted))
                }
                Want::Keys(_) | Want::Pairs(_) => {
                    let map = row.get(*column);
                    want.keys().any(|(key, value)| map.and_then(|m| m.get(key)) != value)
                }
                Want::Members => false,
            }
    })
}

/// A value with references as the database has them.
pub(crate) fn actual_datum(table: &TableDesc, column: ColumnId, datum: &Datum, adopted: &Adopted) -> Datum {
    if adopted.is_empty() || !refers(table, column) {
        return datum.clone();
    }
    match datum {
        Datum::Atom(a) => Datum::Atom(adopted.actual_atom(a)),
        Datum::Set(v) => Datum::set(v.iter().map(|a| adopted.actual_atom(a))),
        Datum::Map(v) => Datum::map(v.iter().map(|(k, a)| (adopted.actual_atom(k), adopted.actual_atom(a)))),
    }
}

/// True when the column holds references.
pub(crate) fn refers(table: &TableDesc, column: ColumnId) -> bool {
    let ty = &table.column(column).ty;
    ty.key.ref_table.is_some() || ty.value.is_some_and(|v| v.ref_table.is_some())
}

/// True when the column's references must have targets, and keep these alive.
pub(crate) fn is_strong(table: &TableDesc, column: ColumnId) -> bool {
    let ty = &table.column(column).ty;
    ty.key.strong || ty.value.is_some_and(|v| v.strong)
}

/// True when a member of a contributed column is ours to remove.
pub(crate) fn is_our_member(table: &TableDesc, column: ColumnId, member: &Atom) -> bool {
    match member.as_uuid() {
        Some(uuid) if refers(table, column) => is_ours(&uuid),
        _ => true,
    }
}

fn same(table: &TableDesc, column: ColumnId, actual: Option<&Datum>, wanted: &Datum) -> bool {
    match actual {
        Some(actual) => actual == wanted,
        None => is_default(&table.column(column).ty, wanted),
    }
}

/// The action that makes a column exactly `new`; `None` when it is. Unless `removals`, references to rows of ours stay.
pub(crate) fn exactly(
    table: &TableDesc,
    column: ColumnId,
    old: Option<&Datum>,
    new: Datum,
    removals: bool,
) -> Option<Action> {
    if same(table, column, old, &new) {
        return None;
    }
    if let (Datum::Set(wanted), Some(Datum::Set(have))) = (&new, old) {
        let add: Vec<Atom> = wanted.iter().filter(|a| have.binary_search(a).is_err()).cloned().collect();
        let mut remove: Vec<Atom> = have.iter().filter(|a| wanted.binary_search(a).is_err()).cloned().collect();
        let strong = table.column(column).ty.key.strong;
        let kept = strong && !removals && !remove.is_empty();
        if kept {
            remove.retain(|a| !is_our_member(table, column, a));
        }
        if kept || wanted.len().max(have.len()) > SMALL_SET && add.len() + remove.len() < wanted.len() {
            return (add.len() + remove.len() > 0).then_some(Action::Members { column, add, remove });
        }
    }
    if let (Datum::Map(wanted), Some(Datum::Map(have))) = (&new, old) {
        let gone = have.iter().filter(|(key, _)| new.get(key).is_none()).map(|(key, _)| (key, None));
        let all = gone.chain(wanted.iter().map(|(key, value)| (key, Some(value))));
        if let Some(Action::Keys { changes, .. }) = keys(column, old, all)
            && changes.len() < wanted.len()
        {
            return Some(Action::Keys { column, changes });
        }
    }
    Some(Action::Update { column, old: old.cloned(), new })
}

/// The action that sets the keys of a map; `None` when they are so.
pub(crate) fn keys<'a>(
    column: ColumnId,
    old: Option<&Datum>,
    wanted: impl Iterator<Item = (&'a Atom, Option<&'a Atom>)>,
) -> Option<Action> {
    let have = |key: &Atom| old.and_then(|m| m.get(key));
    let changed = wanted.filter(|(key, value)| have(key) != *value);
    let change =
        |(key, new): (&Atom, Option<&Atom>)| KeyChange { key: key.clone(), old: have(key).cloned(), new: new.cloned() };
    let changes: Vec<KeyChange> = changed.map(change).collect();
    (!changes.is_empty()).then_some(Action::Keys { column, changes })
}

impl Desired {
    /// UUID under which the database has a desired row, `None` when it has not. Learns adopted rows.
    pub(crate) fn locate(&mut self, replica: &Replica, uuid: Uuid) -> Option<Uuid> {
        let Claim { table, id, .. } = self.rows.get(&uuid).and_then(|e| e.winner())?;
        let found = match id {
            RowId::Ours(_) => return replica.row(table, &uuid).map(|_| uuid),
            RowId::Singleton(_) => replica.rows(table).next().map(|(u, _)| u),
            RowId::Named { column, value, .. } => {
                let scan =
                    || replica.rows(table).find(|(_, r)| r.get(*column).is_some_and(|d| d.atoms() == [value.clone()]));
                replica.find(table, *column, value).or_else(scan).map(|(u, _)| u)
            }
        };
        self.adopted.forget(uuid);
        if let Some(actual) = found.filter(|a| *a != uuid) {
            self.adopted.learn(uuid, actual);
        }
        found
    }

    /// True when a row is not as it is desired, members aside. When it is, the desired values share its memory from now on.
    pub(crate) fn differs(&mut self, replica: &Replica, uuid: Uuid, row: &Row) -> bool {
        let Some(claim) = self.rows.get_mut(&uuid).and_then(|e| e.claims.first_mut()) else { return false };
        let differs = differs(claim, row, replica, &self.adopted);
        if !differs {
            claim.share(row);
        }
        differs
    }

    /// Queues the members of a row's contributed sets that differ; of an absent row, all that are wanted.
    pub(crate) fn compare_sets(&mut self, replica: &Replica, uuid: Uuid, cause: Cause) {
        let cause = if cause == Cause::Desired { Cause::Follows } else { cause };
        let actual = self.locate(replica, uuid);
        let Desired { rows, owners, dirty, adopted, .. } = self;
        let Some(entry) = rows.get(&uuid) else { return };
        let Some(claim) = entry.winner() else { return };
        let row = actual.and_then(|a| replica.row(claim.table, &a));
        for column in claim.member_columns().filter(|c| replica.has_column(claim.table, *c)) {
            let wanted = entry.contributors(column).map(|c| owners.members(c, (uuid, column))).unwrap_or_default();
            let have = row.and_then(|r| r.get(column));
            for (member, owner) in &wanted {
                if !have.is_some_and(|h| h.contains(&adopted.actual_atom(member))) {
                    let member = Atom::clone(member);
                    dirty.push(owner, true, Item::Member(uuid, column, member), cause);
                }
            }
            for member in have.map_or(&[][..], Datum::atoms) {
                let member = adopted.desired_atom(member);
                if wanted.binary_search_by_key(&&member, |(m, _)| m).is_err()
                    && is_our_member(claim.table, column, &member)
                {
                    dirty.push(&claim.owner, false, Item::Member(uuid, column, member), cause);
                }
            }
        }
    }

    /// Compares the union of desired and owned rows, and queues what differs.
    pub(crate) fn audit(&mut self, replica: &Replica) {
        self.audit_due = false;
        // What still waits is found anew; what nobody wants any more is forgotten.
        self.parked.clear();
        let mut all: Vec<Uuid> = self.rows.iter().filter(|(_, e)| e.winner().is_some()).map(|(u, _)| *u).collect();
        // Look-ups first: references to adopted rows compare by what these find.
        all.sort_by_key(|u| self.rows.get(u).and_then(|e| e.winner()).is_some_and(|c| matches!(c.id, RowId::Ours(_))));
        for uuid in all {
            let actual = self.locate(replica, uuid);
            let Some(claim) = self.rows.get(&uuid).and_then(|e| e.winner()) else { continue };
            let row = actual.and_then(|a| replica.row(claim.table, &a));
            let (owner, sets) = (claim.owner.clone(), claim.has_members());
            if row.is_none_or(|row| self.differs(replica, uuid, row)) {
                self.dirty.push(&owner, true, Item::Row(uuid), Cause::Audit);
            }
            if sets {
                self.compare_sets(replica, uuid, Cause::Audit);
            }
        }
        self.audit_orphans(replica);
    }

    fn audit_orphans(&mut self, replica: &Replica) {
        let mut stranded: FxHashSet<Uuid> = FxHashSet::default();
        for table in self.db.tables {
            for (uuid, _) in replica.rows(table).filter(|(u, _)| is_ours(u)) {
                if self.rows.get(&uuid).and_then(|e| e.winner()).is_some() {
                    continue;
                }
                if !table.is_root {
                    stranded.insert(uuid);
                }
                let (owner, _) = self.unwanted.entry(uuid).or_insert_with(|| (orphan(table, uuid), table));
                self.dirty.push(owner, false, Item::Row(uuid), Cause::Audit);
            }
        }
        if !stranded.is_empty() {
            self.audit_strays(replica, &stranded);
        }
    }

    /// Finds references to unwanted rows in columns that no claim lists; a row that is not a root lives as long as it has one.
    fn audit_strays(&mut self, replica: &Replica, stranded: &FxHashSet<Uuid>) {
        for table in self.db.tables {
            let strong =
                (0..).map(ColumnId).zip(table.columns).filter(|(_, c)| c.ty.key.strong && c.ty.value.is_none());
            for (column, _) in strong {
                for (uuid, row) in replica.rows(table) {
                    let claim = self.rows.get(&self.adopted.desired(uuid)).and_then(|e| e.winner());
                    let listed = claim.is_some_and(|c| c.want(column).is_some());
                    if listed || claim.is_none() && is_ours(&uuid) {
                        continue;
                    }
                    for member in row.get(column).map_or(&[][..], Datum::atoms) {
                        let target = member.as_uuid().filter(|u| stranded.contains(u));
                        let Some((owner, _)) = target.and_then(|t| self.unwanted.get(&t)) else { continue };
                        let item = Item::Stray(table.index, uuid, column, member.clone());
                        self.dirty.push(owner, false, item, Cause::Audit);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ovenbird_schema::northbound::load_balancer as lb;

    use super::*;

    fn change(old: &[(&str, &str)], new: &[(&str, &str)]) -> String {
        let (_, old) = lb::vips(old.iter().copied());
        let (_, new) = lb::vips(new.iter().copied());
        match exactly(&lb::TABLE, lb::VIPS, Some(&old), new, true) {
            None => "nothing".to_owned(),
            Some(Action::Update { new, .. }) => format!("all {}", new.len()),
            Some(Action::Keys { changes, .. }) => {
                let text = |atom: &Option<Atom>| atom.as_ref().and_then(Atom::as_str).unwrap_or("-").to_owned();
                changes
                    .iter()
                    .map(|c| format!("{}:{}>{} ", c.key.as_str().unwrap(), text(&c.old), text(&c.new)))
                    .collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_a_map_only_the_keys_that_differ_are_written() {
        let old = [("a", "1"), ("b", "2"), ("c", "3")];
        assert_eq!(change(&old, &old), "nothing");
        assert_eq!(change(&old, &[("a", "1"), ("b", "9"), ("c", "3")]), "b:2>9 ");
        assert_eq!(change(&old, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]), "d:->4 ");
        assert_eq!(change(&old, &[("a", "1"), ("c", "3")]), "b:2>- ");
        assert_eq!(change(&old, &[("a", "5")]), "all 1", "no less would be written");
        assert_eq!(change(&old, &[]), "all 0");
    }
}
