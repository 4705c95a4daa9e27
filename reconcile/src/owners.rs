//! What each owner yielded last, and from there who contributes which members to a set.
//!
//! A large cluster has several memberships for each pod, so each is kept once, with its owner: the members that it contributes, and
//! for each the sets. A set knows only which owners it has members of, under a hash of the member ([`Contributors`]); a row only which
//! owners contribute it to sets (`entry::Holder`). Must not: look at the database.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use ovsdb::{Atom, ColumnId, Uuid};
use rustc_hash::FxHasher;
use slab::Slab;

use crate::row::{Contribution, Owner, Zone};
use crate::shared::Shared;

/// Short for an owner, while it yields something.
pub(crate) type OwnerId = u32;

/// A set: row and column.
pub(crate) type SetId = (Uuid, ColumnId);

/// The owners that contribute to a set: hash of a member, and an owner of it. Whether a hash is right, the owner's own list tells.
#[derive(Debug, Default)]
pub(crate) struct Contributors(HashTable<(u32, OwnerId)>);

/// All owners that yield something.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    ids: HashTable<OwnerId>,
    held: Slab<(Arc<Owner>, Yielded)>,
    lists: Shared<[Uuid]>,
}

/// What an owner yielded last: rows by UUID, and members that it contributes; both sorted.
#[derive(Debug, Default)]
pub(crate) struct Yielded {
    pub(crate) rows: Box<[Uuid]>,
    pub(crate) members: Box<[Contributed]>,
}

/// A member of a column of some rows, sorted; there is at least one. Equal lists are one: a Deployment's pods are in the same groups.
#[derive(Debug)]
pub(crate) struct Contributed {
    pub(crate) member: Atom,
    column: ColumnId,
    rows: Arc<[Uuid]>,
}

impl Yielded {
    /// The sets to which a member is contributed, sorted by column.
    pub(crate) fn sets_of(&self, member: &Atom) -> impl Iterator<Item = SetId> {
        let from = self.members.partition_point(|known| known.member < *member);
        let of_it = self.members[from..].iter().take_while(move |known| known.member == *member);
        of_it.flat_map(Contributed::sets)
    }

    /// Whether a member is contributed to a set.
    fn has(&self, (row, column): SetId, member: &Atom) -> bool {
        let at = self.members.binary_search_by(|known| (&known.member, known.column).cmp(&(member, column)));
        at.is_ok_and(|at| self.members[at].rows.binary_search(&row).is_ok())
    }

    /// What is contributed beyond what another list has, set by set.
    pub(crate) fn beyond(&self, other: &Yielded) -> Vec<(SetId, &Atom)> {
        let all = self.members.iter().flat_map(|known| known.sets().map(|set| (set, &known.member)));
        let mut all: Vec<_> = all.filter(|(set, member)| !other.has(*set, member)).collect();
        all.sort_unstable();
        all
    }

    /// Members that are references, and none of the other list's.
    pub(crate) fn referred_beyond(&self, other: &Yielded) -> impl Iterator<Item = Uuid> {
        let members = self.members.chunk_by(|a, b| a.member == b.member).map(|all| &all[0].member);
        members.filter(|member| other.sets_of(member).next().is_none()).filter_map(Atom::as_uuid)
    }

    /// The members that are contributed to a set, sorted.
    fn of_set(&self, (row, column): SetId) -> impl Iterator<Item = &Atom> {
        let of_column = self.members.iter().filter(move |known| known.column == column);
        of_column.filter(move |known| known.rows.binary_search(&row).is_ok()).map(|known| &known.member)
    }
}

impl Contributed {
    fn sets(&self) -> impl Iterator<Item = SetId> {
        self.rows.iter().map(|row| (*row, self.column))
    }
}

impl Owners {
    /// The contributions to rows of a zone, by member and column.
    pub(crate) fn contributed(&mut self, zone: Zone, contributions: Vec<Contribution>) -> Box<[Contributed]> {
        let ours = contributions.into_iter().filter(|c| c.zone == zone);
        let mut all: Vec<(Atom, ColumnId, Uuid)> = ours.map(|c| (c.member, c.column, c.row.uuid())).collect();
        all.sort_unstable();
        all.dedup();
        let of_one = all.chunk_by(|(a, x, _), (b, y, _)| (a, x) == (b, y));
        let mut one = |all: &[(Atom, ColumnId, Uuid)]| {
            let rows: Vec<Uuid> = all.iter().map(|(.., row)| *row).collect();
            Contributed { member: all[0].0.clone(), column: all[0].1, rows: self.lists.intern(&rows) }
        };
        of_one.map(&mut one).collect()
    }

    /// Number of owners.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Takes out what an owner yielded, to be replaced by [`Owners::put`].
    pub(crate) fn take(&mut self, owner: &Owner) -> (OwnerId, Arc<Owner>, Yielded) {
        let Owners { ids, held, .. } = self;
        let is_it = |id: &OwnerId| held.get(*id as usize).is_some_and(|(known, _)| **known == *owner);
        if let Some(id) = ids.find(hash(owner), is_it).copied()
            && let Some((owner, yielded)) = held.get_mut(id as usize)
        {
            return (id, owner.clone(), std::mem::take(yielded));
        }
        let owner = Arc::new(owner.clone());
        // There is not memory for more than an `OwnerId` can tell apart.
        let id = held.insert((owner.clone(), Yielded::default())) as OwnerId;
        ids.insert_unique(hash(&owner), id, |id| held.get(*id as usize).map_or(0, |(owner, _)| hash(owner)));
        (id, owner, Yielded::default())
    }

    /// Notes what an owner yields; one that yields nothing is forgotten.
    pub(crate) fn put(&mut self, id: OwnerId, yielded: Yielded) {
        if !yielded.rows.is_empty() || !yielded.members.is_empty() {
            if let Some(held) = self.held.get_mut(id as usize) {
                held.1 = yielded;
            }
        } else if let Some((owner, _)) = self.held.try_remove(id as usize)
            && let Ok(entry) = self.ids.find_entry(hash(&owner), |known| *known == id)
        {
            entry.remove();
        }
    }

    /// The sets to which an owner contributes a member, sorted by column.
    pub(crate) fn sets_of(&self, id: OwnerId, member: &Atom) -> Vec<SetId> {
        self.held.get(id as usize).map(|(_, yielded)| yielded.sets_of(member).collect()).unwrap_or_default()
    }

    /// An owner that contributes a member to a set which has these contributors.
    pub(crate) fn contributor(&self, among: &Contributors, set: SetId, member: &Atom) -> Option<&Arc<Owner>> {
        let mut candidates = among.candidates(member).filter_map(|id| self.held.get(id as usize));
        candidates.find(|(_, yielded)| yielded.has(set, member)).map(|(owner, _)| owner)
    }

    /// Takes the text of a member that the database has in place of equal ones of our own, so that it is in memory once.
    pub(crate) fn share(&mut self, among: &Contributors, member: &Atom) {
        for id in among.candidates(member).filter(|_| member.as_str().is_some()) {
            let Some((_, yielded)) = self.held.get_mut(id as usize) else { continue };
            let from = yielded.members.partition_point(|known| known.member < *member);
            for known in yielded.members[from..].iter_mut().take_while(|known| known.member == *member) {
                known.member.share(member);
            }
        }
    }

    /// The members of a set which has these contributors, each with one of them, sorted.
    pub(crate) fn members(&self, of: &Contributors, set: SetId) -> Vec<(&Atom, &Arc<Owner>)> {
        let mut ids: Vec<OwnerId> = of.0.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        let held = ids.into_iter().filter_map(|id| self.held.get(id as usize));
        let mut all: Vec<_> =
            held.flat_map(|(owner, yielded)| yielded.of_set(set).map(move |member| (member, owner))).collect();
        // Stable, so that of several contributors the first counts.
        all.sort_by_key(|(member, _)| *member);
        all.dedup_by_key(|(member, _)| *member);
        all
    }
}

impl Contributors {
    /// Notes that an owner contributes a member.
    pub(crate) fn add(&mut self, member: &Atom, id: OwnerId) {
        let note = (short(member), id);
        self.0.entry(spread(note.0), |known| *known == note, |known| spread(known.0)).or_insert(note);
    }

    /// Notes that an owner contributes a member no more; `yields` is what it yields from now on.
    pub(crate) fn remove(&mut self, set: SetId, member: &Atom, id: OwnerId, yields: &Yielded) {
        let note = (short(member), id);
        // Of two members with one hash only one note is kept.
        if !yields.of_set(set).any(|other| short(other) == note.0)
            && let Ok(entry) = self.0.find_entry(spread(note.0), |known| *known == note)
        {
            entry.remove();
        }
    }

    /// True when nobody contributes.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn candidates(&self, member: &Atom) -> impl Iterator<Item = OwnerId> {
        let short = short(member);
        self.0.iter_hash(spread(short)).filter(move |(known, _)| *known == short).map(|(_, id)| *id)
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Half of a member's hash.
fn short(member: &Atom) -> u32 {
    let hash = hash(member);
    (hash ^ (hash >> 32)) as u32
}

/// A whole hash of half a one: a table takes its place of the lower bits and its tag of the upper.
fn spread(short: u32) -> u64 {
    u64::from(short) << 32 | u64::from(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::OwnerKind;

    const SET: SetId = (Uuid::nil(), ColumnId(3));

    fn owner(name: &str) -> Owner {
        Owner::new(OwnerKind { rank: 1, name: "Pod" }, name)
    }

    fn yields(members: &[&Atom]) -> Yielded {
        let one = |member: &&Atom| Contributed { member: Atom::clone(member), column: SET.1, rows: [SET.0].into() };
        let mut members: Box<[Contributed]> = members.iter().map(one).collect();
        members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
        Yielded { rows: Box::default(), members }
    }

    /// Two members with one hash.
    fn twins() -> [Atom; 2] {
        let mut seen = rustc_hash::FxHashMap::default();
        for member in (0..).map(|n: i64| Atom::from(n.to_string())) {
            if let Some(other) = seen.insert(short(&member), member.clone()) {
                return [other, member];
            }
        }
        unreachable!("there are more members than hashes")
    }

    #[test]
    fn members_with_one_hash_are_told_apart() {
        let [a, b] = twins();
        let (mut owners, mut set) = (Owners::default(), Contributors::default());
        let (id, ..) = owners.take(&owner("x"));
        set.add(&a, id);
        owners.put(id, yields(&[&a]));
        assert!(owners.contributor(&set, SET, &a).is_some() && owners.contributor(&set, SET, &b).is_none());
        set.add(&b, id);
        owners.put(id, yields(&[&a, &b]));
        assert_eq!(owners.members(&set, SET).len(), 2);
        set.remove(SET, &a, id, &yields(&[&b]));
        owners.put(id, yields(&[&b]));
        assert!(owners.contributor(&set, SET, &a).is_none() && owners.contributor(&set, SET, &b).is_some());
        set.remove(SET, &b, id, &yields(&[]));
        owners.put(id, yields(&[]));
        assert!(set.is_empty() && owners.len() == 0);
    }

    #[test]
    fn a_member_of_two_owners_is_one_and_stays_until_the_last_is_gone() {
        let (mut owners, mut set, member) = (Owners::default(), Contributors::default(), Atom::from("m"));
        let ids = ["x", "y"].map(|name| owners.take(&owner(name)).0);
        for id in ids {
            set.add(&member, id);
            owners.put(id, yields(&[&member]));
        }
        assert_eq!(owners.members(&set, SET).len(), 1);
        set.remove(SET, &member, ids[0], &yields(&[]));
        owners.put(ids[0], yields(&[]));
        assert_eq!(owners.contributor(&set, SET, &member).map(|owner| &*owner.key), Some("y"));
    }
}
