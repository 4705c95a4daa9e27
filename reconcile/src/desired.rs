//! The desired store of one zone: which rows should exist, who wants them, and which members their sets have.
//!
//! ```text
//! set(owner, Output), remove(owner) --> claims and contributions --> dirty items by owner --> plan
//! mark(RowChange) ----------------------------------------------------^
//! ```
//!
//! A row is *claimed* by the owners that yield it; the first claim wins while it lives. A set column that the winning claim
//! wants as [`Want::Members`] holds the members that owners contribute; each member knows its contributors and lives as long as
//! it has one. An event costs what its owner yields, never the size of a set. Contributions to a row that nobody claims, or
//! to a column that the claim does not list as `Members`, have no effect and are reported as waiting.
//!
//! Inputs: owners' outputs and changes of the replica. Output: dirty items. Must not: do I/O, know a table's meaning.

use std::sync::Arc;

use ovsdb::{Atom, ChangeKind, ColumnId, DatabaseDesc, Datum, Replica, Row, RowChange, TableDesc, Uuid};
use rustc_hash::FxHashMap;

use crate::dirty::{Cause, Dirt, Dirty, Item};
use crate::entry::{Adopted, Claim, Entry, Holder, canonical, member_columns, references};
use crate::identity::is_ours;
use crate::owners::{OwnerId, Owners, SetId, Yielded};
use crate::row::{DesiredRow, Diagnostic, Output, Owner, OwnerKind, RowId, Want, Zone};

/// Kind of the stand-in owner of a row that carries our tag but that nobody wants; its key is `Table/uuid`.
pub const ORPHAN: OwnerKind = OwnerKind { rank: u8::MAX, name: "Orphan" };

/// See the file header.
#[derive(Debug)]
pub struct Desired {
    pub(crate) zone: Zone,
    pub(crate) db: &'static DatabaseDesc,
    pub(crate) owners: Owners,
    pub(crate) rows: FxHashMap<Uuid, Box<Entry>>,
    pub(crate) dirty: Dirty,
    /// Items that wait until the row with this UUID exists.
    pub(crate) parked: FxHashMap<Uuid, FxHashMap<(Arc<Owner>, Item), WaitReason>>,
    /// Items of quarantined owners.
    pub(crate) benched: FxHashMap<Arc<Owner>, Bench>,
    /// Rows that nobody wants any more, with the owner under which they are queued; some may be gone already.
    pub(crate) unwanted: FxHashMap<Uuid, (Arc<Owner>, &'static TableDesc)>,
    /// Desired rows that are found by a look-up (`Singleton`, `Named`).
    special: Vec<Uuid>,
    /// Rows found so that others made: UUID in the database to desired UUID, and back.
    pub(crate) adopted: Adopted,
    /// The next plan must compare everything.
    pub(crate) audit_due: bool,
}

/// A desired row with the members of its sets.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeRow {
    /// Table.
    pub table: &'static TableDesc,
    /// Its deterministic UUID.
    pub uuid: Uuid,
    /// The columns that are wanted, sorted.
    pub columns: Vec<(ColumnId, Datum)>,
}

/// Items of a quarantined owner: adds, removes.
pub(crate) type Bench = [Vec<Dirt>; 2];

/// Why something that is wanted cannot be written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// The row it refers to, or that should hold it, does not exist, because nobody wants it, it waits itself or its owner is
    /// quarantined.
    NoRow,
    /// The row that should hold it does not list the column as [`Want::Members`].
    NotMembers,
    /// Nothing refers to the row, which is not a root: it would vanish at commit.
    NoHolder,
    /// A row that is to be removed still has the same unique value.
    NameTaken,
    /// A column whose value is fixed at insertion differs.
    Immutable,
    /// The server has no such table.
    NoTable,
}

/// Something wanted that cannot be written yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// Who wants it.
    pub owner: Owner,
    /// The row that is missing, or that cannot be written.
    pub row: Uuid,
    /// Why.
    pub reason: WaitReason,
}

impl Desired {
    /// An empty store for the rows of `zone`, in a database that `db` describes.
    pub fn new(zone: Zone, db: &'static DatabaseDesc) -> Desired {
        Desired {
            zone,
            db,
            owners: Owners::default(),
            rows: FxHashMap::default(),
            dirty: Dirty::default(),
            parked: FxHashMap::default(),
            benched: FxHashMap::default(),
            unwanted: FxHashMap::default(),
            special: Vec::new(),
            adopted: Adopted::default(),
            audit_due: false,
        }
    }

    /// Replaces what `owner` wants. Rows and contributions of other zones are ignored. Returns the output's diagnostics and one
    /// for each row that another owner claimed first; such a claim takes effect when the other one goes.
    pub fn set(&mut self, owner: &Owner, output: Output) -> Vec<Diagnostic> {
        let (id, owner, old) = self.owners.take(owner);
        let mut diagnostics = output.diagnostics;
        let mut rows = output.rows;
        rows.retain(|row| row.zone == self.zone);
        // Stable, so that of two rows with one UUID the first counts.
        rows.sort_by_key(|row| row.id.uuid());
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            self.claim(&owner, row, &mut claimed, &mut diagnostics);
        }
        let members = self.owners.contributed(self.zone, output.contributions);
        let new = Yielded { rows: claimed.into(), members };
        for uuid in old.rows.iter().filter(|u| new.rows.binary_search(u).is_err()) {
            self.release(&owner, *uuid);
        }
        for (set, member) in new.beyond(&old) {
            self.join(id, &owner, set, member);
        }
        for (set, member) in old.beyond(&new) {
            self.leave(id, &owner, set, member, &new);
        }
        for target in new.referred_beyond(&old) {
            self.rows.entry(target).or_default().held_by(Holder::Sets(id));
        }
        for target in old.referred_beyond(&new) {
            self.drop_holder(target, Holder::Sets(id));
        }
        self.owners.put(id, new);
        diagnostics
    }

    /// Withdraws all that `owner` wanted.
    pub fn remove(&mut self, owner: &Owner) {
        self.set(owner, Output::default());
    }

    /// Notes a change of the replica: what it touches and is not as wanted is compared again at the next plan, so that hand edits are
    /// healed; the echo of our own transaction is as wanted. Call it after the replica has applied the change.
    pub fn mark(&mut self, change: &RowChange, replica: &Replica) {
        let key = self.adopted.desired(change.uuid);
        if matches!(change.kind, ChangeKind::Inserted) {
            self.mark_special(change.table);
        }
        if !matches!(change.kind, ChangeKind::Modified(_)) {
            self.unpark(key);
        }
        let Some(claim) = self.rows.get(&key).and_then(|e| e.winner()) else { return self.mark_unclaimed(change, key) };
        let (owner, sets) = (claim.owner.clone(), claim.has_members());
        let located = !matches!(claim.id, RowId::Ours(_));
        let row = replica.row(change.table, &change.uuid);
        if let ChangeKind::Modified(columns) = &change.kind {
            self.mark_members(key, columns, row);
            let claim = self.rows.get(&key).and_then(|e| e.winner());
            let compared = |(column, _): &(ColumnId, Datum)| {
                claim.and_then(|c| c.want(*column)).is_some_and(|want| !matches!(want, Want::Members))
            };
            if !columns.iter().any(compared) {
                return;
            }
        }
        if located || row.is_none_or(|row| self.differs(replica, key, row)) {
            self.dirty.push(&owner, true, Item::Row(key), Cause::Database);
        }
        if sets && matches!(change.kind, ChangeKind::Inserted) {
            self.dirty.push(&owner, true, Item::Sets(key), Cause::Database);
        }
    }

    /// A row changed that nobody wants.
    fn mark_unclaimed(&mut self, change: &RowChange, key: Uuid) {
        match change.kind {
            ChangeKind::Deleted => drop(self.unwanted.remove(&key)),
            _ if is_ours(&key) && !self.unwanted.contains_key(&key) => {
                let owner = orphan(change.table, key);
                self.dirty.push(&owner, false, Item::Row(key), Cause::Database);
                self.unwanted.insert(key, (owner, change.table));
            }
            _ => {}
        }
    }

    /// Queues the members of a row's contributed sets that came or went, unless that is as wanted.
    fn mark_members(&mut self, key: Uuid, columns: &[(ColumnId, Datum)], row: Option<&Row>) {
        let Desired { rows, owners, dirty, adopted, .. } = self;
        let Some((entry, claim)) = rows.get(&key).and_then(|e| Some((e, e.winner()?))) else { return };
        for (column, difference) in columns.iter().filter(|(c, _)| matches!(claim.want(*c), Some(Want::Members))) {
            let there = row.and_then(|r| r.get(*column));
            let contributors = entry.contributors(*column);
            for actual in difference.atoms() {
                let atom = adopted.desired_atom(actual);
                if let Some(contributors) = contributors {
                    owners.share(contributors, &atom);
                }
                let contributor = contributors.and_then(|c| owners.contributor(c, (key, *column), &atom));
                if contributor.is_some() != there.is_some_and(|set| set.contains(actual)) {
                    let item = Item::Member(key, *column, atom);
                    dirty.push(contributor.unwrap_or(&claim.owner), contributor.is_some(), item, Cause::Database);
                }
            }
        }
    }

    /// What is wanted and cannot be written yet, sorted.
    pub fn waiting(&self) -> Vec<Waiting> {
        let wanted = |owner: &Owner, item: &Item| match item {
            Item::Member(row, column, member) => self.contributor((*row, *column), member).is_some(),
            Item::Row(row) | Item::Sets(row) => self.owner_of(*row) == Some(owner),
            Item::Stray(..) => false,
        };
        let parked = self.parked.iter().flat_map(|(row, list)| list.iter().map(move |((o, i), r)| (row, o, i, r)));
        let mut all: Vec<Waiting> = parked
            .filter(|(_, owner, item, _)| wanted(owner, item))
            .map(|(row, owner, _, reason)| Waiting { owner: Owner::clone(owner), row: *row, reason: *reason })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Demands that the next plan compares everything, as after a reconnect.
    pub fn request_audit(&mut self) {
        self.audit_due = true;
    }

    /// True when the next plan may have something to do.
    pub fn is_dirty(&self) -> bool {
        self.audit_due || !self.dirty.is_empty()
    }

    /// Number of owners for which something that should exist is to be looked at.
    pub fn backlog(&self) -> usize {
        self.dirty.adds.len()
    }

    /// Number of owners that want something.
    pub fn owner_count(&self) -> usize {
        self.owners.len()
    }

    /// Number of rows that are wanted.
    pub fn row_count(&self) -> usize {
        self.rows.values().filter(|e| e.winner().is_some()).count()
    }

    /// The whole desired state, members included, sorted by table and UUID: what a fresh database would hold. Of maps only the
    /// keys that are wanted.
    pub fn rows(&self) -> Vec<WholeRow> {
        let whole = |uuid: &Uuid, entry: &Entry| {
            let claim = entry.winner()?;
            Some(WholeRow { table: claim.table, uuid: *uuid, columns: entry.values(*uuid, claim, &self.owners) })
        };
        let mut all: Vec<WholeRow> = self.rows.iter().filter_map(|(uuid, entry)| whole(uuid, entry)).collect();
        all.sort_unstable_by_key(|row| (row.table.index, row.uuid));
        all
    }

    /// The owner whose claim on a row counts.
    pub fn owner_of(&self, uuid: Uuid) -> Option<&Owner> {
        self.rows.get(&uuid)?.winner().map(|c| &*c.owner)
    }

    fn claim(&mut self, owner: &Arc<Owner>, row: DesiredRow, seen: &mut Vec<Uuid>, diagnostics: &mut Vec<Diagnostic>) {
        let uuid = row.id.uuid();
        let table = row.table;
        if seen.last() == Some(&uuid) {
            return diagnostics.push(conflict(table, uuid, owner));
        }
        seen.push(uuid);
        let mut columns = row.columns;
        columns.iter_mut().for_each(|(c, want)| canonical(table, *c, want));
        columns.sort_by_key(|(c, _)| *c);
        let entry = self.rows.entry(uuid).or_default();
        let at = entry.claims.iter().position(|c| c.owner == *owner);
        match at {
            Some(at) if entry.claims[at].columns == columns => {}
            Some(0) => {
                let sets = entry.claims[0].member_columns().ne(member_columns(&columns));
                let old = std::mem::replace(&mut entry.claims[0].columns, columns);
                self.reindex(uuid, table, &old);
                self.dirty.push(owner, true, Item::Row(uuid), Cause::Desired);
                if sets {
                    self.dirty.push(owner, true, Item::Sets(uuid), Cause::Desired);
                    self.unpark(uuid);
                }
            }
            Some(at) => entry.claims[at].columns = columns,
            None => {
                // Almost always the only one.
                entry.claims.reserve_exact(1);
                entry.claims.push(Claim { owner: owner.clone(), table, id: row.id, columns });
                if entry.claims.len() == 1 {
                    self.crown(uuid);
                }
            }
        }
        if let Some(winner) = self.rows.get(&uuid).and_then(|e| e.winner()).filter(|c| c.owner != *owner) {
            diagnostics.push(conflict(table, uuid, &winner.owner));
        }
    }

    /// Makes the first claim of a row count.
    fn crown(&mut self, uuid: Uuid) {
        let Some(claim) = self.rows.get(&uuid).and_then(|e| e.winner()) else { return };
        let (owner, table) = (claim.owner.clone(), claim.table);
        if !matches!(claim.id, RowId::Ours(_)) {
            self.special.push(uuid);
        }
        let sets = claim.has_members();
        self.reindex(uuid, table, &[]);
        self.unwanted.remove(&uuid);
        self.dirty.push(&owner, true, Item::Row(uuid), Cause::Desired);
        if sets {
            self.dirty.push(&owner, true, Item::Sets(uuid), Cause::Desired);
        }
        self.unpark(uuid);
    }

    fn release(&mut self, owner: &Arc<Owner>, uuid: Uuid) {
        let Some(entry) = self.rows.get_mut(&uuid) else { return };
        let Some(at) = entry.claims.iter().position(|c| c.owner == *owner) else { return };
        let claim = entry.claims.remove(at);
        if at > 0 {
            return;
        }
        let heir = entry.winner().is_some();
        if !matches!(claim.id, RowId::Ours(_)) {
            self.special.retain(|s| *s != uuid);
            // Members that we added to a row of others, and that nobody may name any more, are found by comparing all.
            self.audit_due |= self.adopted.forget(uuid);
        }
        self.unindex(uuid, claim.table, &claim.columns);
        if heir {
            self.crown(uuid);
        } else {
            self.unwanted.insert(uuid, (owner.clone(), claim.table));
            self.dirty.push(owner, false, Item::Row(uuid), Cause::Desired);
            self.prune(uuid);
        }
    }

    /// An owner that contributes a member to a set.
    pub(crate) fn contributor(&self, set: SetId, member: &Atom) -> Option<&Arc<Owner>> {
        self.owners.contributor(self.rows.get(&set.0)?.contributors(set.1)?, set, member)
    }

    /// What refers to a row: sets that it is contributed to, and columns.
    pub(crate) fn holders(&self, uuid: Uuid) -> Vec<SetId> {
        let mut all = Vec::new();
        for holder in self.rows.get(&uuid).map_or(&[][..], |e| &e.holders) {
            match holder {
                Holder::Column(row, column) => all.push((*row, *column)),
                Holder::Sets(owner) => all.extend(self.owners.sets_of(*owner, &Atom::Uuid(uuid))),
            }
        }
        all
    }

    /// A member that an owner contributes from now on. What the owner yields is taken out of `owners` meanwhile.
    fn join(&mut self, id: OwnerId, owner: &Arc<Owner>, set: SetId, member: &Atom) {
        let known = self.contributor(set, member).is_some();
        self.rows.entry(set.0).or_default().contributors_mut(set.1).add(member, id);
        if !known {
            self.dirty.push(owner, true, Item::Member(set.0, set.1, member.clone()), Cause::Desired);
        }
    }

    /// A member that an owner contributes no more, as above.
    fn leave(&mut self, id: OwnerId, owner: &Arc<Owner>, set: SetId, member: &Atom, yields: &Yielded) {
        let (row, column) = set;
        let Some(entry) = self.rows.get_mut(&row) else { return };
        entry.contributors_mut(column).remove(set, member, id, yields);
        entry.members.retain(|(_, contributors)| !contributors.is_empty());
        if self.contributor(set, member).is_none() {
            self.dirty.push(owner, false, Item::Member(row, column, member.clone()), Cause::Desired);
            self.prune(row);
        }
    }

    /// Notes the references of the winning claim's columns, in place of those of `old`.
    fn reindex(&mut self, uuid: Uuid, table: &'static TableDesc, old: &[(ColumnId, Want)]) {
        self.unindex(uuid, table, old);
        let columns = self.rows.get(&uuid).and_then(|e| e.winner()).map_or(&[][..], |c| &c.columns);
        let targets = references(table, columns);
        for (column, target) in targets {
            self.rows.entry(target).or_default().held_by(Holder::Column(uuid, column));
        }
    }

    fn unindex(&mut self, uuid: Uuid, table: &'static TableDesc, old: &[(ColumnId, Want)]) {
        for (column, target) in references(table, old) {
            self.drop_holder(target, Holder::Column(uuid, column));
        }
    }

    fn drop_holder(&mut self, target: Uuid, holder: Holder) {
        let Some(entry) = self.rows.get_mut(&target) else { return };
        if let Some(at) = entry.holders.iter().position(|h| *h == holder) {
            entry.holders.swap_remove(at);
        }
        self.prune(target);
    }

    fn prune(&mut self, uuid: Uuid) {
        if self.rows.get(&uuid).is_some_and(|e| e.is_empty()) {
            self.rows.remove(&uuid);
        }
    }

    /// A row of others may be what a look-up now finds.
    fn mark_special(&mut self, table: &TableDesc) {
        for uuid in &self.special {
            let Some(claim) = self.rows.get(uuid).and_then(|e| e.winner()).filter(|c| c.table == table) else {
                continue;
            };
            self.dirty.push(&claim.owner, true, Item::Row(*uuid), Cause::Database);
            self.dirty.push(&claim.owner, true, Item::Sets(*uuid), Cause::Database);
        }
    }

    /// Sets an owner's dirty items aside.
    pub(crate) fn bench(&mut self, owner: &Arc<Owner>) {
        let adds = self.dirty.adds.remove(owner).unwrap_or_default();
        let removes = self.dirty.removes.remove(owner).unwrap_or_default();
        let bench = self.benched.entry(owner.clone()).or_default();
        bench[0].extend(adds);
        bench[1].extend(removes);
    }

    /// Queues an owner's items that were set aside.
    pub(crate) fn unbench(&mut self, owner: &Arc<Owner>) {
        let bench = self.benched.remove(owner).unwrap_or_default();
        for (items, wanted) in bench.into_iter().zip([true, false]) {
            for (item, _) in items {
                self.dirty.push(owner, wanted, item, Cause::Again);
            }
        }
    }

    /// Requeues what waited for a row.
    pub(crate) fn unpark(&mut self, uuid: Uuid) {
        for ((owner, item), _) in self.parked.remove(&uuid).unwrap_or_default() {
            self.dirty.push(&owner, true, item, Cause::Follows);
        }
    }
}

/// Owner that answers for a row nobody wants.
pub(crate) fn orphan(table: &TableDesc, uuid: Uuid) -> Arc<Owner> {
    Arc::new(Owner::new(ORPHAN, format!("{}/{uuid}", table.name)))
}

fn conflict(table: &TableDesc, uuid: Uuid, winner: &Owner) -> Diagnostic {
    let table = table.name;
    let message = format!("{table} row {uuid} already belongs to {winner}; rename or remove one of the two objects");
    Diagnostic::error("RowConflict", "", message)
}
