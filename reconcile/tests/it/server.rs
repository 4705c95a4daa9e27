//! The same properties against real ovsdb-servers of all versions at hand, and what a pod costs there.

use std::time::Duration;

use ovenbird_reconcile::epoch::takeover;
use ovenbird_reconcile::{CommitConfig, Fence, Outcome, is_ours, row_uuid};
use ovenbird_schema::northbound::{logical_switch as switch, logical_switch_port as port, nb_global};
use ovsdb::{Datum, Op};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::live::{Live, roots};
use crate::properties::{assert_ends_like_a_fresh_start, complete, event, insert, run, small, stranger};
use crate::universe::{Object, PODS};
use crate::world::{Database, World};

#[test]
fn any_order_of_events_ends_like_a_fresh_start() {
    for root in roots() {
        let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        let events = prop::collection::vec(event(), 1..60);
        TestRunner::new(config)
            .run(&events, |events| {
                let mut world = World::over(Live::start(&root), small());
                run(&mut world, &events);
                complete(&mut world);
                assert_ends_like_a_fresh_start(&mut world);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_pod_costs_one_transaction_whatever_the_size_of_its_sets() {
    for root in roots() {
        let mut world = World::over(Live::start(&root), CommitConfig::default());
        complete(&mut world);
        world.settle();
        let cost = |world: &mut World<Live>, pod: usize| {
            world.batches.clear();
            world.set(Object::Pod(pod), 0);
            world.settle();
            let [batch] = &world.batches[..] else { panic!("{} transactions", world.batches.len()) };
            let inserts = batch.ops.iter().filter(|op| matches!(op, Op::Insert { .. })).count();
            (inserts, batch.ops.len() - inserts, batch.bytes)
        };
        // It is in a switch, two address sets and two port groups.
        let small = cost(&mut world, 10);
        assert_eq!((small.0, small.1), (1, 5));
        world.remove(Object::Pod(10));
        world.settle();
        (1000..3000).for_each(|n| world.set(Object::Pod(n), 0));
        world.settle();
        assert_eq!(world.db.tables()[usize::from(port::TABLE.index)].len(), 2000);
        // 2,000 rows at 100 an insert and their mutates: the bound is on all rows written.
        assert!(world.batches.len() <= 100, "{} transactions", world.batches.len());
        assert_eq!(cost(&mut world, 10), small, "the same with sets of hundreds of members");
        world.remove(Object::Pod(10));
        world.batches.clear();
        world.settle();
        let [batch] = &world.batches[..] else { panic!("{} transactions", world.batches.len()) };
        assert_eq!(batch.ops.len(), 5, "its memberships go, and the row with them");
    }
}

#[test]
fn rejections_find_the_guilty() {
    for root in roots() {
        let mut world = World::over(Live::start(&root), CommitConfig::default());
        complete(&mut world);
        let name = vec![("name", Datum::from("default_pod3"))];
        let members = Datum::set([stranger(1).into()]);
        let theirs = insert(&switch::TABLE, stranger(2), vec![("name", "x".into()), ("ports", members)]);
        assert!(world.edit(&[insert(&port::TABLE, stranger(1), name), theirs]));
        (0..PODS).for_each(|n| world.set(Object::Pod(n), 0));
        world.settle();
        let guilty: Vec<_> =
            world.committer.quarantined().map(|(o, d)| (o.key.to_string(), d.message.clone())).collect();
        assert_eq!(guilty.len(), 1);
        assert_eq!(guilty[0].0, "default/pod3");
        assert!(guilty[0].1.contains("identical values"), "the server's own words: {}", guilty[0].1);
        let ports = &world.db.tables()[usize::from(port::TABLE.index)];
        assert_eq!(ports.keys().filter(|u| is_ours(u)).count(), PODS - 1);
        let gone = Op::Delete { table: switch::TABLE.name, conditions: vec![ovsdb::Condition::uuid(stranger(2))] };
        assert!(world.edit(&[gone]));
        world.settle_for(Duration::from_secs(2));
        world.assert_converged();
    }
}

#[test]
fn the_fence_holds() {
    for root in roots() {
        let mut world = World::over(Live::start(&root), CommitConfig::default());
        let uuid = row_uuid("NB_Global", &Object::Cluster.owner(), "");
        let take = |world: &mut World<Live>| -> Option<Fence> {
            let (fence, ops) = takeover(&world.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
            world.edit(&ops).then_some(fence)
        };
        let (_, early) = takeover(&world.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
        let old = take(&mut world).unwrap();
        assert!(!world.edit(&early), "the row is there by now");
        world.committer.set_fence(Some(old));
        complete(&mut world);
        world.settle();
        world.assert_converged();
        let (_, late) = takeover(&world.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
        let new = take(&mut world).unwrap();
        assert_eq!(new.epoch(), 2);
        assert!(!world.edit(&late), "two cannot take the same epoch");
        world.set(Object::Pod(0), 0);
        let before = world.db.tables();
        assert_eq!(world.step(), Some(Outcome::Fenced));
        assert_eq!(world.db.tables(), before);
        world.committer.set_fence(Some(new));
        world.settle();
        world.assert_converged();
    }
}
