//! Where some selections look for pods, and the way from a pod's labels to them.
//!
//! A selection that needs one of certain values of a label is found by these; the others are looked at for every pod. Must not: know pods.

use ovsdb::Str;
use rustc_hash::FxHashMap;

use super::LabelSelector;
use crate::facts::Labels;

/// A selection in use, by number.
pub(super) type Id = usize;

/// See the file header.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// By a label and a value that a selection needs.
    anchored: FxHashMap<Str, FxHashMap<Str, Vec<Id>>>,
    /// Those that need no certain label.
    rest: Vec<Id>,
}

impl Scope {
    /// The selections that may fit these labels, each once: a label has one value.
    pub fn candidates<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Id> {
        let anchored = labels.iter().filter_map(|(key, value)| self.anchored.get(key)?.get(value)).flatten();
        anchored.chain(&self.rest)
    }

    /// True without selections.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.anchored.is_empty()
    }

    /// Adds a selection of these pods.
    pub fn insert(&mut self, pods: &LabelSelector, id: Id) {
        let Some((key, values)) = pods.anchor() else { return self.rest.push(id) };
        for value in values {
            self.anchored.entry(key.clone()).or_default().entry(value.clone()).or_default().push(id);
        }
    }

    /// Takes it out again.
    pub fn remove(&mut self, pods: &LabelSelector, id: Id) {
        let Some((key, values)) = pods.anchor() else { return self.rest.retain(|other| *other != id) };
        let Some(by_value) = self.anchored.get_mut(key) else { return };
        for value in values {
            if let Some(ids) = by_value.get_mut(value) {
                ids.retain(|other| *other != id);
            }
        }
        by_value.retain(|_, ids| !ids.is_empty());
        if by_value.is_empty() {
            self.anchored.remove(key);
        }
    }
}
