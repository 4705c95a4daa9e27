//! Shares equal texts: thousands of pods repeat the same node names and labels.
//!
//! Texts that nobody else holds any more are dropped when the table has doubled since the last sweep, so its size follows
//! the live facts. Must not: outlive its use as a cache (equality of texts never depends on it).

use ovsdb::Str;
use rustc_hash::FxHashSet;

/// Table sizes below this are never swept.
const LEAST_SWEEP: usize = 1024;

/// A table of shared texts.
#[derive(Debug, Default)]
pub struct Interner {
    texts: FxHashSet<Str>,
    sweep_at: usize,
}

impl Interner {
    /// The shared copy of a text.
    pub fn intern(&mut self, text: &str) -> Str {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= self.sweep_at.max(LEAST_SWEEP) {
            self.texts.retain(|text| Str::strong_count(text) > 1);
            self.sweep_at = self.texts.len() * 2;
        }
        let shared: Str = text.into();
        self.texts.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_dead_texts_go() {
        let mut interner = Interner::default();
        let held = interner.intern("node-1");
        assert!(Str::ptr_eq(&held, &interner.intern("node-1")));
        for i in 0..10 * LEAST_SWEEP {
            interner.intern(&i.to_string());
        }
        assert!(interner.texts.len() <= 2 * LEAST_SWEEP, "{}", interner.texts.len());
        assert!(Str::ptr_eq(&held, &interner.intern("node-1")), "a held text stays");
    }
}
