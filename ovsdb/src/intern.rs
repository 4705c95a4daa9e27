//! Sharing of repeated texts: map keys, node and namespace names, an address that stands in two columns.
//!
//! A direct-mapped cache of fixed size, not a table of all strings: it catches what repeats, costs one hash, and cannot grow
//! whatever a server sends. A miss only means a second copy. Must not: decide equality (a slot is compared in full).

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::value::Str;

/// Texts longer than this are rarely repeated.
const LONGEST: usize = 256;

/// The cache.
#[derive(Debug)]
pub(crate) struct Interner {
    slots: Vec<Option<Str>>,
}

impl Interner {
    /// A cache of `slots` texts, a power of two.
    pub(crate) fn new(slots: usize) -> Interner {
        Interner { slots: vec![None; slots.next_power_of_two()] }
    }

    /// The shared form of a text.
    pub(crate) fn share(&mut self, text: &str) -> Str {
        if text.len() > LONGEST {
            return text.into();
        }
        let mut hasher = FxHasher::default();
        hasher.write(text.as_bytes());
        let at = hasher.finish() as usize & (self.slots.len() - 1);
        match &mut self.slots[at] {
            Some(found) if **found == *text => found.clone(),
            slot => slot.insert(text.into()).clone(),
        }
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
        assert_eq!(interner.slots.len(), 4);
    }
}
