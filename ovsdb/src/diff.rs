//! Differences of column values, as `modify` updates carry them (ovsdb-server(7) 4.1.14).
//!
//! One operation does both ways: with `d` the difference of `a` and `b`, `a.toggle(d) == b`, and `a.toggle(b) == d`.
//! Must not: know rows or tables.

use crate::value::{Atom, Datum};

/// Up to this many changes are worth a search and a shift each; more are merged in one pass.
const FEW: usize = 16;

impl Datum {
    /// Applies a difference, or makes one. Single values become `change`; elements of sets that are in both vanish, others are
    /// added; pairs of maps too, except that a key with another value takes the new value.
    pub fn toggle(&mut self, change: &Datum) {
        match (&mut *self, change) {
            (Datum::Set(old), Datum::Set(change)) => {
                let mut atoms = std::mem::take(old).into_vec();
                // Kept without room to spare: a large cluster has many sets.
                atoms.reserve_exact(change.len());
                if change.len() <= FEW {
                    for atom in change {
                        match atoms.binary_search(atom) {
                            Ok(at) => drop(atoms.remove(at)),
                            Err(at) => atoms.insert(at, atom.clone()),
                        }
                    }
                } else {
                    atoms.extend_from_slice(change);
                    // A stable sort merges two sorted runs in one pass.
                    atoms.sort();
                    drop_twins(&mut atoms);
                }
                *old = atoms.into();
            }
            (Datum::Map(old), Datum::Map(change)) => {
                let mut pairs = old.to_vec();
                for (key, value) in change.iter() {
                    match pairs.binary_search_by(|(k, _)| k.cmp(key)) {
                        Ok(at) if pairs[at].1 == *value => drop(pairs.remove(at)),
                        Ok(at) => pairs[at].1 = value.clone(),
                        Err(at) => pairs.insert(at, (key.clone(), value.clone())),
                    }
                }
                *old = pairs.into();
            }
            (old, change) => *old = change.clone(),
        }
    }
}

/// Removes both of every two equal neighbours.
fn drop_twins(atoms: &mut Vec<Atom>) {
    let mut kept: Vec<Atom> = Vec::with_capacity(atoms.len());
    for atom in atoms.drain(..) {
        if kept.last() == Some(&atom) {
            kept.pop();
        } else {
            kept.push(atom);
        }
    }
    *atoms = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(range: impl Iterator<Item = i64>) -> Datum {
        Datum::set(range.map(Atom::from))
    }

    fn map(pairs: &[(&str, &str)]) -> Datum {
        Datum::map(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn sets_take_the_symmetric_difference() {
        for step in [1, 7] {
            let mut a = set(0..200);
            a.toggle(&set((190..300).step_by(step)));
            let gone = |n: &i64| !(190..300).step_by(step).any(|c| c == *n);
            let came = (200..300).filter(|n| (190..300).step_by(step).any(|c| c == *n));
            assert_eq!(a, set((0..200).filter(gone).chain(came)));
        }
    }

    #[test]
    fn maps_replace_drop_and_add() {
        let mut a = map(&[("keep", "1"), ("drop", "2"), ("change", "3")]);
        a.toggle(&map(&[("drop", "2"), ("change", "4"), ("add", "5")]));
        assert_eq!(a, map(&[("keep", "1"), ("change", "4"), ("add", "5")]));
    }

    #[test]
    fn the_difference_of_two_maps_is_one_toggled_by_the_other() {
        let (old, new) = (map(&[("a", "1"), ("b", "2"), ("c", "3")]), map(&[("b", "2"), ("c", "4"), ("d", "5")]));
        let mut difference = old.clone();
        difference.toggle(&new);
        assert_eq!(difference, map(&[("a", "1"), ("c", "4"), ("d", "5")]));
        let mut again = old;
        again.toggle(&difference);
        assert_eq!(again, new);
    }
}
