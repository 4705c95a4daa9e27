//! Parts together are the table; a change of parts is a change of the table.

use proptest::prelude::*;

use super::*;
use crate::script;

/// What an owner of this test wants: of three elements, which, and with which value; and perhaps the chain.
fn part(wants: &[(u8, u8)], chain: bool) -> Table {
    let mut table = Table::new("");
    for (key, value) in wants {
        let name = format!("s{}", key % 2);
        let set = table.sets.entry(name).or_insert_with(|| Set::map("type ipv4_addr : ipv4_addr"));
        set.elements.insert(format!("10.0.0.{key}"), format!("10.0.1.{value}"));
    }
    if chain {
        table.chain("shared").rule("counter");
    }
    table
}

/// Applies the difference of small tables to a large one.
fn amend(table: &mut Table, old: &Table, new: &Table) {
    for (name, set) in &old.sets {
        let mine = table.sets.get_mut(name).unwrap();
        set.elements.iter().for_each(|(key, value)| assert_eq!(mine.elements.remove(key).as_ref(), Some(value)));
        if !new.sets.contains_key(name) {
            assert!(table.sets.remove(name).unwrap().elements.is_empty());
        }
    }
    for (name, set) in &new.sets {
        let mine = table.sets.entry(name.clone()).or_insert_with(|| Set { elements: BTreeMap::new(), ..set.clone() });
        mine.elements.extend(set.elements.clone());
    }
    old.chains.keys().for_each(|name| drop(table.chains.remove(name)));
    table.chains.extend(new.chains.clone());
}

#[test]
fn the_first_owner_has_it_and_the_next_when_it_is_gone() {
    let mut parts = Parts::new("inet t");
    parts.set(&2, part(&[(1, 2)], true));
    parts.take_changes();
    parts.set(&1, part(&[(1, 1)], true));
    let (old, new) = parts.take_changes();
    assert_eq!(
        script(&old, &new),
        "add table inet t\ndelete element inet t s1 { 10.0.0.1 : 10.0.1.2 }\nadd element inet t s1 { 10.0.0.1 : 10.0.1.1 }\n"
    );
    parts.set(&1, part(&[(1, 1)], false));
    let (old, new) = parts.take_changes();
    assert_eq!(script(&old, &new), "", "another wants the chain, too");
    parts.set(&1, Table::new(""));
    assert_eq!(parts.table(), Table { id: "inet t".into(), ..part(&[(1, 2)], true) });
}

proptest! {
    #[test]
    fn changes_lead_from_table_to_table(
        steps in prop::collection::vec((0u8..4, prop::collection::vec((0u8..6, 0u8..3), 0..4), any::<bool>(), any::<bool>()), 1..40)
    ) {
        let mut parts = Parts::new("inet t");
        let mut wants: BTreeMap<u8, Table> = BTreeMap::new();
        let mut followed = parts.table();
        for (owner, want, chain, take) in steps {
            parts.set(&owner, part(&want, chain));
            wants.insert(owner, part(&want, chain));
            if take {
                let (old, new) = parts.take_changes();
                amend(&mut followed, &old, &new);
                prop_assert_eq!(&followed, &parts.table());
            }
        }
        let mut expected = Table::new("inet t");
        for part in wants.into_values().rev() {
            for (name, set) in part.sets {
                expected.sets.entry(name).or_insert_with(|| Set { elements: BTreeMap::new(), ..set.clone() }).elements.extend(set.elements);
            }
            expected.chains.extend(part.chains);
        }
        prop_assert_eq!(parts.table(), expected);
    }
}
