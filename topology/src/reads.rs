//! Who read what: the owners to translate again when a bucket changes.
//!
//! Kept small, for there is an entry per pod: an owner is held once and shared, a bucket is 8 bytes, and a bucket with one
//! reader (most have) needs no list. Must not: know what a bucket holds.

use std::sync::Arc;

use ovenbird_reconcile::Owner;
use rustc_hash::FxHashMap;

use crate::bucket::Bucket;

/// Reads by owner, and owners by what they read.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Sorted buckets; owners that read none are left out.
    by_owner: FxHashMap<Arc<Owner>, Box<[Bucket]>>,
    by_bucket: FxHashMap<Bucket, Readers>,
}

#[derive(Debug)]
enum Readers {
    One(Arc<Owner>),
    Many(Vec<Arc<Owner>>),
}

impl Reads {
    /// Replaces what an owner read; `buckets` is sorted.
    pub fn record(&mut self, owner: &Owner, buckets: Box<[Bucket]>) {
        let (owner, before) = match self.by_owner.remove_entry(owner) {
            Some(known) => known,
            None if buckets.is_empty() => return,
            None => (Arc::new(owner.clone()), Box::default()),
        };
        for bucket in before.iter().filter(|b| buckets.binary_search(b).is_err()) {
            self.forget(*bucket, &owner);
        }
        for bucket in buckets.iter().filter(|b| before.binary_search(b).is_err()) {
            self.by_bucket
                .entry(*bucket)
                .and_modify(|readers| readers.add(owner.clone()))
                .or_insert_with(|| Readers::One(owner.clone()));
        }
        if !buckets.is_empty() {
            self.by_owner.insert(owner, buckets);
        }
    }

    /// The owners whose last translation read a bucket.
    pub fn of(&self, bucket: Bucket) -> &[Arc<Owner>] {
        match self.by_bucket.get(&bucket) {
            None => &[],
            Some(Readers::One(owner)) => std::slice::from_ref(owner),
            Some(Readers::Many(owners)) => owners,
        }
    }

    fn forget(&mut self, bucket: Bucket, owner: &Arc<Owner>) {
        match self.by_bucket.get_mut(&bucket) {
            Some(Readers::Many(owners)) if owners.len() > 1 => owners.retain(|other| !Arc::ptr_eq(other, owner)),
            _ => drop(self.by_bucket.remove(&bucket)),
        }
    }
}

impl Readers {
    fn add(&mut self, owner: Arc<Owner>) {
        match self {
            Readers::One(first) => *self = Readers::Many(vec![first.clone(), owner]),
            Readers::Many(owners) => owners.push(owner),
        }
    }
}
