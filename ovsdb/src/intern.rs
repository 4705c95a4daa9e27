//! Sharing of repeated texts: map keys, node and namespace names, an address that stands in two columns.
//!
//! Two direct-mapped caches of fixed size, not a table of all strings: they catch what repeats, cost one hash, and cannot grow
//! whatever a server sends. A miss only means a second copy. The small one holds the latest texts (a row's address stands in
//! two columns); the large one takes a text when it is seen for the second time, so that the many texts that are unique pass
//! through without evicting anything. Must not: decide equality by hash (a slot is compared in full).

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::value::Str;

/// Texts longer than this are rarely repeated.
const LONGEST: usize = 256;
/// Size of the small cache, a power of two.
const RECENT: usize = 256;

/// The caches.
#[derive(Debug)]
pub(crate) struct Interner {
    recent: Vec<Slot>,
    repeated: Vec<Slot>,
}

/// A text, or only the hash of one that has been seen once.
#[derive(Clone, Debug, Default)]
struct Slot {
    hash: u64,
    text: Option<Str>,
}

impl Slot {
    fn get(&self, hash: u64, text: &str) -> Option<Str> {
        self.text.as_ref().filter(|found| self.hash == hash && ***found == *text).cloned()
    }
}

impl Interner {
    /// Caches for `slots` repeated texts, a power of two.
    pub(crate) fn new(slots: usize) -> Interner {
        Interner { recent: vec![Slot::default(); RECENT], repeated: vec![Slot::default(); slots.next_power_of_two()] }
    }

    /// The shared form of a text.
    pub(crate) fn share(&mut self, text: &str) -> Str {
        if text.len() > LONGEST {
            return text.into();
        }
        let mut hasher = FxHasher::default();
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        let recent = &mut self.recent[hash as usize & (RECENT - 1)];
        if let Some(found) = recent.get(hash, text) {
            return found;
        }
        let at = hash as usize & (self.repeated.len() - 1);
        let repeated = &mut self.repeated[at];
        if let Some(found) = repeated.get(hash, text) {
            return found;
        }
        let new = Str::from(text);
        let known = (repeated.hash == hash).then(|| new.clone());
        *repeated = Slot { hash, text: known };
        *recent = Slot { hash, text: Some(new.clone()) };
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_shared_and_memory_is_bounded() {
        let mut interner = Interner::new(4);
        let a = interner.share("k8s.ovn.org/owner");
        assert!(Str::ptr_eq(&a, &interner.share("k8s.ovn.org/owner")));
        for i in 0..100 {
            assert_eq!(&*interner.share(&i.to_string()), i.to_string());
        }
        assert_eq!((interner.recent.len(), interner.repeated.len()), (RECENT, 4));
    }

    #[test]
    fn what_repeats_outlives_what_does_not() {
        let mut interner = Interner::new(8192);
        interner.share("namespace");
        let unique = |interner: &mut Interner, from: usize| {
            (from..from + 100).for_each(|i| drop(interner.share(&i.to_string())));
        };
        unique(&mut interner, 0);
        let second = interner.share("namespace");
        unique(&mut interner, 100);
        assert!(Str::ptr_eq(&second, &interner.share("namespace")));
    }
}
