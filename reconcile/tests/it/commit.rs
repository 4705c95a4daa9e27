//! The committer's states: batches, brakes, fences, lagging replicas, quarantine and its times.

use std::time::Duration;

use ovenbird_reconcile::epoch::takeover;
use ovenbird_reconcile::{Batch, CommitConfig, Committer, Desired, Fence, Outcome, Zone, row_uuid};
use ovenbird_schema::northbound::{DATABASE, acl, logical_switch as switch, logical_switch_port as port, nb_global};
use ovsdb::{Condition, DbError, Op, OpResult, TxnReply};

use crate::universe::{Object, PODS, port_uuid, switch_uuid};
use crate::world::World;

fn filled(config: CommitConfig) -> World {
    let mut world = World::new(config);
    world.set(Object::Cluster, 1);
    (0..3).for_each(|n| world.set(Object::Switch(n), 0));
    (0..2).for_each(|n| world.set(Object::Selector(n), 1));
    (0..PODS).for_each(|n| world.set(Object::Pod(n), 0));
    world
}

fn rejected(kind: &str) -> TxnReply {
    TxnReply { ops: Vec::new(), commit_error: Some(DbError { error: kind.into(), details: None }) }
}

/// Each port comes with a place in a switch.
fn assert_ports_are_held(world: &World) {
    for batch in &world.batches {
        let port = |o: &&Op| matches!(o, Op::Insert { table, .. } if *table == port::TABLE.name);
        let members = batch.ops.iter().flat_map(|o| match o {
            Op::Mutate { table, mutations, .. } if *table == switch::TABLE.name => mutations.clone(),
            _ => Vec::new(),
        });
        assert_eq!(batch.ops.iter().filter(port).count(), members.map(|m| m.value.len()).sum::<usize>());
    }
}

#[test]
fn one_transaction_is_in_flight_and_the_rest_gathers() {
    let mut world = filled(CommitConfig::default());
    let first = world.committer.next(&mut world.desired, &world.replica, world.now).unwrap();
    world.set(Object::Pod(0), 1);
    assert!(world.committer.next(&mut world.desired, &world.replica, world.now).is_none());
    assert!(world.committer.in_flight().next().is_some());
    let (reply, _) = world.db.transact(&first.ops);
    assert!(reply.is_committed());
    world.committer.on_reply(&mut world.desired, Ok(&reply), world.now);
    world.reconnect(true);
    world.settle();
    world.assert_converged();
}

#[test]
fn batches_are_bounded_by_rows_and_by_bytes_but_owners_stay_whole() {
    for config in
        [CommitConfig { rows: 5, ..CommitConfig::default() }, CommitConfig { bytes: 1500, ..CommitConfig::default() }]
    {
        let mut world = filled(config);
        world.settle();
        world.assert_converged();
        assert!(world.batches.len() >= 5, "{} batches", world.batches.len());
        // The largest owner here (the cluster) has seven operations.
        assert!(
            world.batches.iter().all(|b| b.rows <= 5 + 7),
            "{:?}",
            world.batches.iter().map(|b| b.rows).collect::<Vec<_>>()
        );
        assert_ports_are_held(&world);
    }
}

/// Pods take turns among the switches, so in the order of their names each batch of four would touch all three.
#[test]
fn a_batch_fills_few_sets_rather_than_many() {
    let mut world = World::new(CommitConfig { rows: 5, ..CommitConfig::default() });
    (0..3).for_each(|n| world.set(Object::Switch(n), 0));
    world.settle();
    (0..PODS).for_each(|n| world.set(Object::Pod(n), 0));
    let before = world.batches.len();
    world.settle();
    let filled = |b: &Batch| b.ops.iter().filter(|o| matches!(o, Op::Mutate { .. })).count();
    let filled: Vec<usize> = world.batches[before..].iter().map(filled).collect();
    assert_eq!(filled, [1, 1, 1]);
    assert_ports_are_held(&world);
}

#[test]
fn nothing_is_removed_before_all_watches_are_complete() {
    let mut world = filled(CommitConfig::default());
    world.settle();
    world.restart();
    world.committer.allow_deletes(&mut world.desired, false);
    // Only a part of the objects is known yet; one selector has lost an ACL meanwhile.
    (0..PODS).for_each(|n| world.remove(Object::Pod(n)));
    world.remove(Object::Selector(0));
    world.set(Object::Selector(1), 0);
    world.settle();
    assert_eq!(world.db.rows(&port::TABLE).len(), PODS);
    assert_eq!(world.db.rows(&acl::TABLE).len(), 2);
    world.committer.allow_deletes(&mut world.desired, true);
    world.settle();
    assert!(world.db.rows(&port::TABLE).is_empty());
    world.assert_converged();
}

#[test]
fn a_mass_delete_is_held_until_released_or_justified() {
    let config = CommitConfig { brake_rows: 10, ..CommitConfig::default() };
    let mut world = filled(config);
    world.settle();
    let transactions = world.batches.len();
    (0..PODS).for_each(|n| world.remove(Object::Pod(n)));
    world.settle();
    assert_eq!(world.batches.len(), transactions, "nothing is removed");
    let held = world.committer.held().unwrap();
    assert_eq!((held.removals, world.committer.counters().held), (PODS, 1));
    // Additions go on meanwhile; a reference that would take its row along stays.
    world.set(Object::Pod(0), 2);
    world.set(Object::Selector(0), 0);
    world.settle();
    assert!(world.batches.len() > transactions);
    assert_eq!(world.db.rows(&acl::TABLE).len(), 2);
    // Most come back: what is left is no mass.
    (0..8).for_each(|n| world.set(Object::Pod(n), 0));
    world.settle();
    assert_eq!(world.committer.held(), None);
    assert_eq!(world.db.rows(&port::TABLE).len(), 8);
    world.assert_converged();
    // Held once more, now released.
    (0..8).for_each(|n| world.remove(Object::Pod(n)));
    world.remove(Object::Selector(0));
    world.remove(Object::Selector(1));
    world.settle();
    assert!(world.committer.held().is_some());
    world.committer.release(&mut world.desired);
    world.settle();
    assert_eq!(world.committer.held(), None);
    world.assert_converged();
}

#[test]
fn a_new_leader_fences_the_old_one() {
    let mut world = filled(CommitConfig::default());
    let uuid = row_uuid("NB_Global", &Object::Cluster.owner(), "");
    let take = |world: &mut World| -> Option<Fence> {
        let (fence, ops) = takeover(&world.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
        world.edit(&ops).then_some(fence)
    };
    let old = take(&mut world).unwrap();
    world.committer.set_fence(Some(old.clone()));
    world.settle();
    world.assert_converged();
    assert!(world.batches.iter().all(|b| b.ops[0] == old.test()));
    // Two try at once: both have read the same.
    let (_, late) = takeover(&world.replica, &nb_global::TABLE, nb_global::EXTERNAL_IDS, uuid);
    let new = take(&mut world).unwrap();
    assert_eq!((old.epoch(), new.epoch()), (1, 2));
    assert!(!world.edit(&late), "the slower one must look again");
    // The old leader wakes up.
    world.set(Object::Pod(0), 2);
    let before = world.db.tables.clone();
    assert_eq!(world.step(), Some(Outcome::Fenced));
    assert_eq!(world.db.tables, before);
    assert!(world.committer.is_fenced());
    assert_eq!(world.step(), None, "it writes nothing more");
    assert_eq!(world.committer.next_wake(), None);
    // It is elected again: nothing is lost.
    let newest = take(&mut world).unwrap();
    world.committer.set_fence(Some(newest));
    world.settle();
    world.assert_converged();
}

#[test]
fn a_replica_that_lags_leads_to_another_comparison_and_not_to_quarantine() {
    let mut world = filled(CommitConfig::default());
    for kind in ["duplicate uuid", "referential integrity violation"] {
        let batch = world.committer.next(&mut world.desired, &world.replica, world.now).unwrap();
        let outcome = world.committer.on_reply(&mut world.desired, Ok(&rejected(kind)), world.now);
        assert_eq!(outcome, Some(Outcome::Stale(kind.into())));
        assert!(world.committer.next(&mut world.desired, &world.replica, world.now).is_none(), "a short pause");
        world.now = world.committer.next_wake().unwrap();
        drop(batch);
    }
    world.settle();
    assert_eq!(world.committer.quarantined().count(), 0);
    world.assert_converged();
}

#[test]
fn transient_errors_accuse_nobody() {
    let mut world = filled(CommitConfig::default());
    world.committer.next(&mut world.desired, &world.replica, world.now).unwrap();
    let reply = TxnReply {
        ops: vec![OpResult::Error(DbError { error: "resources exhausted".into(), details: None })],
        commit_error: None,
    };
    let outcome = world.committer.on_reply(&mut world.desired, Ok(&reply), world.now);
    assert!(matches!(outcome, Some(Outcome::Unknown(_))));
    world.committer.next(&mut world.desired, &world.replica, world.now + Duration::from_secs(1)).unwrap();
    let lost = std::io::Error::other("connection lost");
    let outcome = world.committer.on_reply(&mut world.desired, Err(&lost), world.now);
    assert_eq!(outcome, Some(Outcome::Unknown("connection lost".into())));
    world.reconnect(false);
    world.settle();
    world.assert_converged();
}

#[test]
fn quarantine_doubles_its_delay_and_ends_at_once_when_the_object_changes() {
    let mut world = filled(CommitConfig { retry_last: Duration::from_secs(5), ..CommitConfig::default() });
    world.db.forbidden.insert("default_pod3".into());
    world.settle();
    let mut delays = Vec::new();
    for _ in 0..5 {
        let wake = world.committer.next_wake().unwrap();
        delays.push((wake - world.now).as_secs());
        world.now = wake;
        assert!(matches!(world.step(), Some(Outcome::Quarantined(_))));
        assert_eq!(world.step(), None);
    }
    assert_eq!(delays, [1, 2, 4, 5, 5]);
    let (owner, diagnostic) = world.committer.quarantined().next().unwrap();
    assert_eq!((owner.key.as_ref(), diagnostic.reason), ("default/pod3", "RejectedByDatabase"));
    // Changes of others and of the database are no reason to try again.
    let transactions = world.batches.len();
    world.set(Object::Pod(4), 1);
    world.settle();
    assert_eq!(world.batches.len(), transactions + 1);
    // A change of the object is.
    world.db.forbidden.clear();
    world.set(Object::Pod(3), 1);
    world.settle();
    assert_eq!(world.committer.quarantined().count(), 0);
    world.assert_converged();
}

#[test]
fn a_writer_that_undoes_ours_is_answered_ever_more_slowly() {
    let mut world = filled(CommitConfig::default());
    world.settle();
    world.batches.clear();
    let edit = |world: &mut World| {
        let row = vec![("name", "theirs".into())];
        let conditions = vec![Condition::uuid(port_uuid(3))];
        assert!(world.edit(&[Op::Update { table: port::TABLE.name, conditions, row }]));
    };
    for _ in 0..100 {
        edit(&mut world);
        world.settle();
    }
    assert_eq!(world.batches.len(), 21);
    let (owner, diagnostic) = world.committer.quarantined().next().unwrap();
    assert_eq!((owner.key.as_ref(), diagnostic.reason), ("default/pod3", "RowsContested"));
    for _ in 0..1000 {
        edit(&mut world);
        world.settle();
        world.now += Duration::from_secs(1);
    }
    assert!(world.batches.len() < 60, "{} transactions in 1,000 seconds", world.batches.len());
    // It stops.
    world.settle_for(Duration::from_secs(600));
    world.assert_converged();
}

#[test]
fn what_depends_on_a_quarantined_row_waits() {
    let mut world = filled(CommitConfig::default());
    world.db.forbidden.insert("sw1".into());
    world.settle();
    let guilty: Vec<String> = world.committer.quarantined().map(|(o, _)| o.to_string()).collect();
    assert_eq!(guilty, ["Switch sw1"], "the pods of the switch are innocent");
    assert_eq!(world.db.rows(&port::TABLE).len(), PODS - PODS / 3);
    assert!(world.desired.waiting().iter().any(|w| w.row == switch_uuid(1)));
    let refused = world.batches.remove(0);
    assert!(refused.ops.len() > PODS);
    assert_ports_are_held(&world);
    world.db.forbidden.clear();
    world.settle_for(Duration::from_secs(2));
    world.assert_converged();
}

#[test]
fn what_waits_for_long_does_not_pile_up() {
    let mut world = World::new(CommitConfig::default());
    for n in 0..PODS {
        world.set(Object::Pod(n), 0);
        world.settle();
        world.remove(Object::Pod(n));
        world.settle();
    }
    assert_eq!(world.desired.waiting(), []);
    world.desired.request_audit();
    world.settle();
    assert!(world.batches.is_empty());
    assert!(!format!("{:?}", world.desired).contains("default/pod"), "nothing is remembered of what is gone");
}

#[test]
fn an_owner_removed_while_in_quarantine_leaves_nothing() {
    let mut world = filled(CommitConfig::default());
    world.db.forbidden.insert("default_pod3".into());
    world.settle();
    world.remove(Object::Pod(3));
    world.settle_for(Duration::from_secs(10));
    assert_eq!(world.committer.quarantined().count(), 0);
    assert_eq!(world.committer.next_wake(), None);
    assert!(!world.db.rows(&port::TABLE).contains_key(&port_uuid(3)));
    world.assert_converged();
}

#[test]
fn an_empty_committer_has_nothing_to_say() {
    let mut world = World::new(CommitConfig::default());
    let mut committer = Committer::new(CommitConfig::default(), None);
    let mut desired = Desired::new(Zone(0), &DATABASE);
    assert!(committer.next(&mut desired, &world.replica, Duration::ZERO).is_none());
    assert_eq!(
        committer.on_reply(&mut desired, Ok(&TxnReply::default()), Duration::ZERO),
        None,
        "no transaction, no reply"
    );
    assert_eq!(world.step(), None);
}
