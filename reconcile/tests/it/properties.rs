//! Properties under random events: whatever happens in whatever order, the database ends as a from-scratch run would make it.

use std::collections::BTreeMap;
use std::time::Duration;

use ovenbird_reconcile::{CommitConfig, Desired, Outcome, Zone, is_ours};
use ovenbird_schema::northbound::{
    DATABASE, address_set, logical_switch as switch, logical_switch_port as port, meter, nb_global, port_group,
};
use ovsdb::{Condition, Datum, Mutation, Mutator, Op, Row, TableDesc, Uuid};
use proptest::prelude::*;

use crate::universe::{Object, PODS, SELECTORS, SWITCHES, addresses_uuid, port_uuid, ports_uuid, switch_uuid};
use crate::world::{Database, Tables, World};

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    Set(Object, usize),
    Remove(Object),
    Edit(Edit),
    Steps(usize),
    Restart,
    Reconnect(bool),
}

/// Something that another client does.
#[derive(Clone, Debug)]
pub enum Edit {
    DeleteSwitch(usize),
    DropPort(usize),
    DeleteSets(usize),
    RenamePort(usize),
    ClearOption(usize),
    StrangersKey(usize),
    StrangersPort(usize),
    StrangersAddress(usize),
    StrangersSwitch(usize),
    DropMember(usize, usize),
    Singleton,
    NamedMeter,
    PortInOwnSwitch(usize),
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        1 => Just(Object::Cluster),
        3 => (0..SWITCHES).prop_map(Object::Switch),
        2 => (0..SELECTORS).prop_map(Object::Selector),
        8 => (0..PODS).prop_map(Object::Pod),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..SWITCHES).prop_map(Edit::DeleteSwitch),
        (0..PODS).prop_map(Edit::DropPort),
        (0..SELECTORS).prop_map(Edit::DeleteSets),
        (0..PODS).prop_map(Edit::RenamePort),
        (0..PODS).prop_map(Edit::ClearOption),
        (0..SWITCHES).prop_map(Edit::StrangersKey),
        (0..SWITCHES).prop_map(Edit::StrangersPort),
        (0..SELECTORS).prop_map(Edit::StrangersAddress),
        (0..3usize).prop_map(Edit::StrangersSwitch),
        ((0..SELECTORS), (0..PODS)).prop_map(|(s, p)| Edit::DropMember(s, p)),
        Just(Edit::Singleton),
        Just(Edit::NamedMeter),
        (0..PODS).prop_map(Edit::PortInOwnSwitch),
    ]
}

pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (object(), 0..3usize).prop_map(|(o, v)| Event::Set(o, v)),
        4 => object().prop_map(Event::Remove),
        4 => edit().prop_map(Event::Edit),
        6 => (1..4usize).prop_map(Event::Steps),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Reconnect),
    ]
}

/// UUIDs that strangers use.
pub fn stranger(n: u128) -> Uuid {
    Uuid::from_u128(0x5742_0000_0000_4000_8000_0000_0000_0000 + n)
}

fn mutate(table: &TableDesc, uuid: Uuid, column: &'static str, mutator: Mutator, value: Datum) -> Op {
    let mutations = vec![Mutation::new(column, mutator, value)];
    Op::Mutate { table: table.name, conditions: vec![Condition::uuid(uuid)], mutations }
}

pub fn insert(table: &TableDesc, uuid: Uuid, row: Vec<(&'static str, Datum)>) -> Op {
    Op::Insert { table: table.name, uuid: Some(uuid), row }
}

fn edit_ops(edit: &Edit) -> Vec<Op> {
    let set = |u: Uuid| Datum::set([u.into()]);
    match *edit {
        Edit::DeleteSwitch(n) => {
            vec![Op::Delete { table: switch::TABLE.name, conditions: vec![Condition::uuid(switch_uuid(n))] }]
        }
        Edit::DeleteSets(n) => [(&address_set::TABLE, addresses_uuid(n)), (&port_group::TABLE, ports_uuid(n))]
            .map(|(table, uuid)| Op::Delete { table: table.name, conditions: vec![Condition::uuid(uuid)] })
            .into(),
        Edit::DropPort(n) => (0..SWITCHES)
            .map(|s| mutate(&switch::TABLE, switch_uuid(s), "ports", Mutator::Delete, set(port_uuid(n))))
            .collect(),
        Edit::RenamePort(n) => {
            let row = vec![("name", Datum::from(format!("edited{n}"))), ("enabled", Datum::from(false))];
            vec![Op::Update { table: port::TABLE.name, conditions: vec![Condition::uuid(port_uuid(n))], row }]
        }
        Edit::ClearOption(n) => {
            let value = Datum::set(["requested-chassis".into()]);
            vec![mutate(&port::TABLE, port_uuid(n), "options", Mutator::Delete, value)]
        }
        Edit::StrangersKey(n) => {
            let value = Datum::map([("stranger".into(), "1".into())]);
            vec![mutate(&switch::TABLE, switch_uuid(n), "other_config", Mutator::Insert, value)]
        }
        Edit::StrangersPort(n) => vec![
            insert(&port::TABLE, stranger(n as u128), vec![("name", Datum::from(format!("stranger{n}")))]),
            mutate(&switch::TABLE, switch_uuid(n), "ports", Mutator::Insert, set(stranger(n as u128))),
        ],
        Edit::StrangersAddress(n) => {
            let value = Datum::set(["1.2.3.4".into()]);
            vec![mutate(&address_set::TABLE, addresses_uuid(n), "addresses", Mutator::Insert, value)]
        }
        Edit::StrangersSwitch(n) => {
            vec![insert(&switch::TABLE, stranger(100 + n as u128), vec![("name", Datum::from("theirs"))])]
        }
        Edit::DropMember(s, p) => {
            vec![mutate(&port_group::TABLE, ports_uuid(s), "ports", Mutator::Delete, set(port_uuid(p)))]
        }
        Edit::Singleton => {
            let row = vec![("options", Datum::map([("theirs".into(), "1".into())]))];
            vec![insert(&nb_global::TABLE, stranger(200), row)]
        }
        Edit::NamedMeter => {
            use ovenbird_schema::northbound::meter_band;
            let band = vec![("action", Datum::from("drop")), ("rate", Datum::from(1))];
            let row = vec![("name", Datum::from("logging")), ("unit", "kbps".into()), ("bands", set(stranger(301)))];
            vec![insert(&meter_band::TABLE, stranger(301), band), insert(&meter::TABLE, stranger(300), row)]
        }
        // A stranger's switch that refers to our port: the reference is ours to drop, once the port is not wanted.
        Edit::PortInOwnSwitch(n) => {
            let row = vec![("name", Datum::from("theirs")), ("ports", set(port_uuid(n)))];
            vec![insert(&switch::TABLE, stranger(400 + n as u128), row)]
        }
    }
}

/// What strangers own: their rows (references to rows of ours left out) and the key that they set.
pub fn strangers(tables: &Tables) -> BTreeMap<(String, Uuid), Row> {
    let mut all = BTreeMap::new();
    for table in DATABASE.tables {
        for (uuid, row) in tables[usize::from(table.index)].iter().filter(|(u, _)| !is_ours(u)) {
            let mut kept = Row::new();
            for (column, value) in row.iter() {
                let ty = &table.column(column).ty;
                let value = match value {
                    Datum::Set(v) => {
                        let v = v.iter().filter(|a| a.as_uuid().is_none_or(|u| !is_ours(&u)));
                        Datum::Set(v.cloned().collect())
                    }
                    other => other.clone(),
                };
                // What we adopt we write to.
                let adopted = table.name == "Meter" && *uuid == stranger(300) || table.name == "NB_Global";
                if !adopted {
                    kept.set(column, ty, value);
                }
            }
            all.insert((table.name.to_owned(), *uuid), kept);
        }
    }
    all
}

pub fn run<D: Database>(world: &mut World<D>, events: &[Event]) {
    for event in events {
        match event {
            Event::Set(object, variant) => world.set(*object, *variant),
            Event::Remove(object) => world.remove(*object),
            Event::Edit(edit) => drop(world.edit(&edit_ops(edit))),
            Event::Steps(n) => (0..*n).for_each(|_| drop(world.step())),
            Event::Restart => world.restart(),
            Event::Reconnect(committed) => world.reconnect(*committed),
        }
    }
}

/// Lets the writer come to rest, and compares with what a from-scratch run would make.
pub fn assert_ends_like_a_fresh_start<D: Database>(world: &mut World<D>) {
    let before = without_band(strangers(&world.db.tables()));
    world.settle();
    assert_eq!(before, without_band(strangers(&world.db.tables())), "strangers' rows were touched");
    // An audit catches what only a comparison of everything can (a stranger's reference to a row that became unwanted).
    world.committer.reset(&mut world.desired);
    world.settle();
    world.assert_converged();
    let mut fresh = Desired::new(Zone(0), &DATABASE);
    for (object, variant) in &world.wanted {
        fresh.set(&object.owner(), object.output(*variant));
    }
    assert_eq!(fresh.rows(), world.desired.rows(), "incremental differs from scratch");
}

pub fn small() -> CommitConfig {
    CommitConfig { rows: 4, bytes: 2000, brake_rows: 10_000, ..CommitConfig::default() }
}

/// The adopted meter's band is a stranger's row that nothing refers to once the meter has ours.
fn without_band(mut rows: BTreeMap<(String, Uuid), Row>) -> BTreeMap<(String, Uuid), Row> {
    rows.retain(|(_, uuid), _| *uuid != stranger(301));
    rows
}

/// Wanted objects whose rows have nothing to wait for.
pub fn complete<D: Database>(world: &mut World<D>) {
    (0..SWITCHES).for_each(|n| {
        if !world.wanted.contains_key(&Object::Switch(n)) {
            world.set(Object::Switch(n), 0);
        }
    });
    for object in [Object::Cluster, Object::Selector(0), Object::Selector(1)] {
        if !world.wanted.contains_key(&object) {
            world.set(object, 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Random orders of wishes, edits, partial commits, crashes and broken connections, with batches of a few rows.
    #[test]
    fn any_order_of_events_ends_like_a_fresh_start(events in prop::collection::vec(event(), 1..60), burst in 1..5usize) {
        let mut world = World::new(small());
        world.burst = burst;
        run(&mut world, &events);
        complete(&mut world);
        assert_ends_like_a_fresh_start(&mut world);
    }

    /// The same without any audit or edit: marks alone must suffice.
    #[test]
    fn dirty_marks_suffice(events in prop::collection::vec(event(), 1..60), burst in 1..5usize) {
        let events: Vec<Event> = events
            .into_iter()
            .filter(|e| !matches!(e, Event::Restart | Event::Reconnect(_) | Event::Edit(Edit::PortInOwnSwitch(_))))
            .collect();
        let mut world = World::new(small());
        world.burst = burst;
        run(&mut world, &events);
        complete(&mut world);
        world.settle();
        world.assert_converged();
    }

    /// Wishes that cannot be fulfilled yet wait, harm nothing, and are fulfilled when they can.
    #[test]
    fn what_waits_does_not_block(pods in prop::collection::btree_set(0..PODS, 1..PODS), late in 0..SWITCHES) {
        let mut world = World::new(small());
        pods.iter().for_each(|p| world.set(Object::Pod(*p), 0));
        (0..SWITCHES).filter(|s| *s != late).for_each(|s| world.set(Object::Switch(s), 0));
        world.settle();
        let late_pods = pods.iter().filter(|p| **p % SWITCHES == late).count();
        prop_assert_eq!(world.db.rows(&port::TABLE).len(), pods.len() - late_pods);
        world.set(Object::Switch(late), 0);
        complete(&mut world);
        world.settle();
        world.assert_converged();
        prop_assert_eq!(world.db.rows(&port::TABLE).len(), pods.len());
    }

    /// Exactly the owners whose rows the database rejects are quarantined; all others are committed.
    #[test]
    fn bisect_finds_exactly_the_guilty(
        guilty in prop::collection::btree_set(0..PODS, 0..5),
        at_commit in any::<bool>(),
        (burst, rows) in prop_oneof![Just((1, 100)), (2..5usize, 4..9usize)],
    ) {
        let mut world = World::new(CommitConfig { rows, brake_rows: 10_000, ..CommitConfig::default() });
        world.burst = burst;
        complete(&mut world);
        for n in &guilty {
            if at_commit {
                // A stranger already has the name, which shows only at commit.
                let name = Datum::from(format!("default_pod{n}"));
                let theirs = stranger(*n as u128);
                assert!(world.edit(&[
                    insert(&port::TABLE, theirs, vec![("name", name)]),
                    insert(&switch::TABLE, stranger(50 + *n as u128), vec![("name", "x".into()), ("ports", Datum::set([theirs.into()]))]),
                ]));
            } else {
                world.db.forbidden.insert(format!("default_pod{n}"));
            }
        }
        (0..PODS).for_each(|p| world.set(Object::Pod(p), 0));
        world.settle();
        let mut found: Vec<String> = world.committer.quarantined().map(|(o, _)| o.key.to_string()).collect();
        found.sort();
        let mut expected: Vec<String> = guilty.iter().map(|n| format!("default/pod{n}")).collect();
        expected.sort();
        prop_assert_eq!(found, expected);
        let ours = world.db.rows(&port::TABLE).keys().filter(|u| is_ours(u)).count();
        prop_assert_eq!(ours, PODS - guilty.len());
        // The obstacle goes; the next retry succeeds.
        world.db.forbidden.clear();
        for n in &guilty {
            world.edit(&[Op::Delete { table: switch::TABLE.name, conditions: vec![Condition::uuid(stranger(50 + *n as u128))] }]);
        }
        world.settle_for(Duration::from_secs(10));
        prop_assert_eq!(world.committer.quarantined().count(), 0);
        world.assert_converged();
    }
}

#[test]
fn outcome_of_an_idle_world_is_nothing() {
    let mut world = World::new(small());
    complete(&mut world);
    world.settle();
    let batches = world.batches.len();
    assert!(batches > 0);
    world.settle();
    world.committer.reset(&mut world.desired);
    assert_eq!(world.step(), None::<Outcome>);
    assert_eq!(world.batches.len(), batches);
}
