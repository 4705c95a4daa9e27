//! Shares equal values: thousands of pods repeat the same labels, and stand in the same sets.
//!
//! Values that nobody else holds any more are dropped when the table has doubled since the last sweep, so its size follows
//! those that are in use. Must not: outlive its use as a cache (equality of values never depends on it).

use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Table sizes below this are never swept.
const LEAST_SWEEP: usize = 1024;

/// A table of shared values: texts (`str`), or lists.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    values: FxHashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared { values: FxHashSet::default(), sweep_at: 0 }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// The shared copy of a value.
    pub fn intern<'a>(&mut self, value: &'a T) -> Arc<T>
    where
        Arc<T>: From<&'a T>,
    {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        if self.values.len() >= self.sweep_at.max(LEAST_SWEEP) {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = self.values.len() * 2;
        }
        let shared: Arc<T> = value.into();
        self.values.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_dead_texts_go() {
        let mut texts = Shared::<str>::default();
        let held = texts.intern("node-1");
        assert!(Arc::ptr_eq(&held, &texts.intern("node-1")));
        for i in 0..10 * LEAST_SWEEP {
            texts.intern(&i.to_string());
        }
        assert!(texts.values.len() <= 2 * LEAST_SWEEP, "{}", texts.values.len());
        assert!(Arc::ptr_eq(&held, &texts.intern("node-1")), "a held text stays");
    }
}
