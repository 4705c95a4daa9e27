//! Single plans: minimal operations, their order and reasons, and what is left alone.

use ovenbird_reconcile::{
    Action, Desired, Output, Owner, OwnerKind, Plan, RowId, Scope, WaitReason, Want, Why, Zone, plan, row_uuid,
};
use ovenbird_schema::northbound::{
    DATABASE, acl, address_set, logical_switch as switch, logical_switch_port as port, meter, meter_band, port_group,
};
use ovenbird_schema::vswitch::{bridge, open_vswitch};
use ovsdb::{Condition, Datum, MonitorSpec, Op, Replica, ServerInfo, Uuid};

use crate::universe::{Object, addresses_uuid, contribution, exactly, keys, port_uuid, row, switch_uuid};
use crate::world::{World, spec};

fn world() -> World {
    World::new(Default::default())
}

/// Switch 0, the selector's sets and some pods, committed.
fn settled(pods: impl IntoIterator<Item = usize>) -> World {
    let mut world = world();
    world.set(Object::Cluster, 1);
    (0..3).for_each(|n| world.set(Object::Switch(n), 0));
    (0..2).for_each(|n| world.set(Object::Selector(n), 1));
    pods.into_iter().for_each(|n| world.set(Object::Pod(n), 0));
    world.settle();
    world.assert_converged();
    world.batches.clear();
    world
}

fn planned(world: &mut World) -> Plan {
    plan(&mut world.desired, &world.replica, Scope::Dirty)
}

#[test]
fn rows_come_before_what_refers_to_them() {
    let mut world = world();
    world.set(Object::Pod(5), 0);
    world.set(Object::Switch(2), 0);
    world.set(Object::Selector(1), 1);
    let text = planned(&mut world).to_string();
    let order: Vec<&str> = text.lines().filter(|l| !l.starts_with(' ')).collect();
    let at = |owner: &str| order.iter().position(|l| *l == owner).unwrap();
    assert!(at("Switch sw2") < at("Pod default/pod5"), "{text}");
    assert!(at("Selector sel1") < at("Pod default/pod5"), "{text}");
    assert!(text.contains("+ Logical_Switch_Port default_pod5 addresses=[\"0a:58:00:00:00:05 10.244.0.5\"]"), "{text}");
}

#[test]
fn a_change_is_told_with_old_and_new_value_and_reason() {
    let mut world = settled([3]);
    world.set(Object::Pod(3), 0);
    assert!(planned(&mut world).is_empty(), "the same output is no change");
    world.desired.set(&Object::Pod(3).owner(), {
        let mut output = Object::Pod(3).output(0);
        output.rows[0].columns[0] = exactly(port::name("renamed"));
        output
    });
    let plan = planned(&mut world);
    assert_eq!(
        plan.to_string(),
        "Pod default/pod3\n  ~ Logical_Switch_Port default_pod3 name: \"default_pod3\" -> \"renamed\" (wanted)\n"
    );
    assert_eq!(plan.to_json()["groups"][0]["ops"][0]["new"], "renamed");
}

#[test]
fn hand_edits_are_healed_and_said_to_be() {
    let mut world = settled([3]);
    let row = vec![("name", Datum::from("edited")), ("enabled", Datum::from(false))];
    assert!(world.edit(&[Op::Update {
        table: port::TABLE.name,
        conditions: vec![Condition::uuid(port_uuid(3))],
        row
    }]));
    world.settle();
    assert_eq!(world.batches.len(), 1);
    assert_eq!(world.committer.counters().healed, 1);
    let row = &world.db.rows(&port::TABLE)[&port_uuid(3)];
    assert_eq!(port::Ref(row).name(), "default_pod3");
    assert_eq!(port::Ref(row).enabled(), Some(false), "a column that we do not own stays as others set it");
}

#[test]
fn a_deleted_set_comes_back_with_its_members_at_once() {
    let mut world = settled(0..6);
    let uuid = addresses_uuid(0);
    let before = world.db.rows(&address_set::TABLE)[&uuid].clone();
    assert!(world.edit(&[Op::Delete { table: address_set::TABLE.name, conditions: vec![Condition::uuid(uuid)] }]));
    world.settle();
    assert_eq!(world.db.rows(&address_set::TABLE)[&uuid], before);
    assert_eq!(world.batches.len(), 1);
}

#[test]
fn a_pod_is_one_insert_and_one_mutate_per_set() {
    let mut world = settled(0..3);
    world.set(Object::Pod(4), 1);
    world.settle();
    let [batch] = &world.batches[..] else { panic!("{} transactions", world.batches.len()) };
    let kinds: Vec<&str> =
        batch.ops.iter().map(|op| if matches!(op, Op::Insert { .. }) { "insert" } else { "mutate" }).collect();
    let contributions = Object::Pod(4).output(1).contributions.len();
    assert_eq!(kinds.iter().filter(|k| **k == "insert").count(), 1);
    assert_eq!(kinds.len(), 1 + contributions);
}

/// UUIDs say which row is looked at first, so several owners are as good as any.
#[test]
fn switches_and_their_own_ports_are_there_after_one_transaction() {
    for n in 0..16 {
        let mut world = world();
        let owner = Owner::new(Object::Switch(0).owner().kind, format!("own{n}"));
        let mut output = Output::default();
        for part in ["a", "b"] {
            let [of, member] = ["Logical_Switch", "Logical_Switch_Port"].map(|table| row_uuid(table, &owner, part));
            let columns = vec![exactly(switch::name(part)), (switch::PORTS, Want::Members)];
            output.rows.push(row(&switch::TABLE, RowId::Ours(of), columns));
            output.rows.push(row(&port::TABLE, RowId::Ours(member), vec![exactly(port::name(part))]));
            output.contributions.push(contribution(&switch::TABLE, of, switch::PORTS, member.into()));
        }
        world.desired.set(&owner, output);
        world.settle();
        assert_eq!(world.db.rows(&port::TABLE).len(), 2, "{n}");
        assert_eq!((world.batches.len(), world.committer.counters().healed), (1, 0), "{n}: {:?}", world.batches);
    }
}

#[test]
fn many_pods_of_a_switch_are_one_mutate() {
    let mut world = settled([]);
    (0..12).for_each(|n| world.set(Object::Pod(n), 0));
    world.settle();
    assert_eq!(world.batches.len(), 1);
    let mutates = world.batches[0].ops.iter().filter(|op| matches!(op, Op::Mutate { .. })).count();
    assert_eq!(mutates, 3 + 2 + 2, "three switches, two address sets, two port groups");
}

#[test]
fn a_member_lives_as_long_as_one_owner_contributes_it() {
    let mut world = settled([0, 1]);
    let addresses = |w: &World| {
        let row = &w.db.rows(&address_set::TABLE)[&addresses_uuid(1)];
        address_set::Ref(row).addresses().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&world), ["10.244.9.9"], "pods 0 and 1 share an address");
    world.remove(Object::Pod(0));
    world.settle();
    assert_eq!(addresses(&world), ["10.244.9.9"]);
    world.remove(Object::Pod(1));
    world.settle();
    assert!(addresses(&world).is_empty());
}

#[test]
fn a_port_without_a_switch_waits_and_is_reported() {
    let mut world = world();
    world.set(Object::Pod(0), 0);
    let plan = planned(&mut world);
    assert!(plan.is_empty());
    let waiting: Vec<_> = plan.waiting.iter().map(|w| (w.row, w.reason)).collect();
    assert!(waiting.contains(&(port_uuid(0), WaitReason::NoHolder)), "{waiting:?}");
    assert!(waiting.contains(&(switch_uuid(0), WaitReason::NoRow)), "{waiting:?}");
}

#[test]
fn what_is_not_there_is_not_referred_to() {
    let mut world = world();
    world.set(Object::Cluster, 1);
    world.set(Object::Selector(1), 1);
    world.set(Object::Pod(0), 0);
    world.settle();
    let mutated = |table: &str| {
        world.batches.iter().flat_map(|b| &b.ops).any(|o| matches!(o, Op::Mutate { table: t, .. } if *t == table))
    };
    assert!(mutated("Address_Set"), "the address does not depend on the port");
    assert!(!mutated("Port_Group"));
    assert_eq!(world.committer.counters().errors, 0);
}

/// The server drops a weak reference when its row goes, also one that is added by the same transaction: nobody is told.
#[test]
fn memberships_come_back_with_their_row() {
    let mut world = settled([3]);
    let groups =
        |w: &World| w.db.rows(&port_group::TABLE).values().map(|r| port_group::Ref(r).ports().count()).sum::<usize>();
    let before = groups(&world);
    assert!(before > 0);
    world.remove(Object::Switch(1));
    world.set(Object::Pod(3), 1);
    world.settle();
    assert_eq!((groups(&world), world.db.rows(&port::TABLE).len()), (0, 0), "it waits for its switch");
    world.set(Object::Switch(1), 0);
    world.settle();
    assert!(groups(&world) > 0);
    world.assert_converged();
}

#[test]
fn rows_that_strangers_still_refer_to_go_when_nobody_wants_them() {
    let mut world = settled([3]);
    let theirs = Uuid::from_u128(1);
    let ports = Datum::set([port_uuid(3).into()]);
    let row = vec![("name", Datum::from("theirs")), ("ports", ports)];
    assert!(world.edit(&[Op::Insert { table: switch::TABLE.name, uuid: Some(theirs), row }]));
    world.remove(Object::Pod(3));
    world.settle();
    world.desired.request_audit();
    world.settle();
    assert!(world.db.rows(&port::TABLE).is_empty());
    assert!(world.db.rows(&switch::TABLE).contains_key(&theirs));
    world.assert_converged();
}

#[test]
fn an_adopted_row_outlives_our_interest_in_it() {
    let mut world = world();
    let theirs = Uuid::from_u128(1);
    let band = Op::Insert {
        table: meter_band::TABLE.name,
        uuid: Some(Uuid::from_u128(2)),
        row: vec![("action", "drop".into())],
    };
    let bands = Datum::set([Uuid::from_u128(2).into()]);
    let row = vec![("name", Datum::from("logging")), ("unit", "kbps".into()), ("bands", bands)];
    assert!(world.edit(&[band, Op::Insert { table: meter::TABLE.name, uuid: Some(theirs), row }]));
    world.set(Object::Cluster, 1);
    world.settle();
    world.assert_converged();
    assert_eq!(meter::Ref(&world.db.rows(&meter::TABLE)[&theirs]).unit(), "pktps");
    world.remove(Object::Cluster);
    world.settle();
    assert_eq!(world.db.rows(&meter::TABLE).keys().collect::<Vec<_>>(), [&theirs]);
    assert!(world.db.rows(&meter_band::TABLE).is_empty(), "our band goes");
    world.assert_converged();
}

#[test]
fn a_column_fixed_at_insertion_is_reported_and_not_written() {
    let db = &ovenbird_schema::vswitch::DATABASE;
    let owner = Owner::new(OwnerKind { rank: 0, name: "Chassis" }, "");
    let uuid = row_uuid("Bridge", &owner, "");
    let root = row_uuid("Open_vSwitch", &owner, "");
    let mut desired = Desired::new(Zone(0), db);
    let rows = vec![
        row(&open_vswitch::TABLE, RowId::Singleton(root), vec![exactly(open_vswitch::bridges([uuid]))]),
        row(&bridge::TABLE, RowId::Ours(uuid), vec![exactly(bridge::name("br-int")), exactly(bridge::fail_mode(None))]),
    ];
    desired.set(&owner, Output { rows, ..Output::default() });
    let mut replica = Replica::new(db, &MonitorSpec::everything(db));
    let text = format!(
        r#"{{"Bridge":{{"{uuid}":{{"insert":{{"name":"other"}}}}}},
            "Open_vSwitch":{{"{root}":{{"insert":{{"bridges":["uuid","{uuid}"]}}}}}}}}"#
    );
    replica.apply_json(&text, &mut Vec::new()).unwrap();
    let plan = plan(&mut desired, &replica, Scope::All);
    assert!(plan.is_empty(), "{plan}");
    let waiting: Vec<_> = plan.waiting.iter().map(|w| (w.row, w.reason)).collect();
    assert_eq!(waiting, [(uuid, WaitReason::Immutable)]);
}

#[test]
fn contributions_need_a_column_that_takes_them() {
    let mut world = settled([]);
    let mut output = Object::Switch(0).output(0);
    output.rows[0].columns.retain(|(c, _)| *c != switch::PORTS);
    world.desired.set(&Object::Switch(0).owner(), output);
    world.set(Object::Pod(0), 0);
    world.settle();
    let reasons: Vec<_> = world.desired.waiting().iter().map(|w| w.reason).collect();
    assert!(reasons.contains(&WaitReason::NotMembers), "{reasons:?}");
    world.set(Object::Switch(0), 0);
    world.settle();
    world.assert_converged();
}

#[test]
fn the_first_claim_wins_and_the_other_is_told() {
    let mut world = world();
    let thief = Owner::new(OwnerKind { rank: 5, name: "Thief" }, "a");
    let claim = |name: &str| Output {
        rows: vec![row(&switch::TABLE, RowId::Ours(switch_uuid(0)), vec![exactly(switch::name(name))])],
        ..Output::default()
    };
    assert!(world.desired.set(&Object::Switch(0).owner(), claim("first")).is_empty());
    let told = world.desired.set(&thief, claim("second"));
    assert_eq!(told.len(), 1);
    assert!(told[0].message.contains("already belongs to Switch sw0"), "{}", told[0].message);
    world.settle();
    let name = |w: &World| switch::Ref(&w.db.rows(&switch::TABLE)[&switch_uuid(0)]).name().to_owned();
    assert_eq!(name(&world), "first");
    for _ in 0..2 {
        assert_eq!(world.desired.set(&thief, claim("third")).len(), 1);
        world.settle();
        assert_eq!((name(&world), world.batches.len()), ("first".into(), 1), "no flapping");
    }
    world.desired.remove(&Object::Switch(0).owner());
    world.settle();
    assert_eq!(name(&world), "third", "the heir takes over, in place");
    assert_eq!(world.batches.len(), 2);
}

#[test]
fn columns_and_tables_that_the_server_lacks_are_not_written() {
    let schema = r#"{"name":"OVN_Northbound","version":"1.0.0","tables":{"Logical_Switch":{"columns":{
        "name":{"type":"string"},"ports":{"type":{"key":"uuid","min":0,"max":"unlimited"}}}}}}"#;
    let mut replica = Replica::new(&DATABASE, &spec());
    replica.set_server(&ServerInfo::from_schema(schema, &DATABASE).unwrap());
    let mut desired = Desired::new(Zone(0), &DATABASE);
    desired.set(&Object::Switch(0).owner(), Object::Switch(0).output(2));
    desired.set(&Object::Selector(0).owner(), Object::Selector(0).output(0));
    let plan = plan(&mut desired, &replica, Scope::All);
    let ops: Vec<_> = plan.ops().collect();
    let [(_, op)] = &ops[..] else { panic!("{plan}") };
    assert_eq!(op.action, Action::Insert(vec![switch::name("sw0")]), "other_config is unknown there");
    assert_eq!(plan.waiting.len(), 2, "the tables Address_Set and Port_Group are missing: {plan}");
    assert!(plan.waiting.iter().all(|w| w.reason == WaitReason::NoTable));
}

#[test]
fn large_exact_sets_are_mutated_and_small_ones_replaced() {
    let mut world = settled([]);
    let owner = Owner::new(OwnerKind { rank: 9, name: "Big" }, "");
    let group = row_uuid("Port_Group", &owner, "");
    let output = |n: usize| {
        let acls: Vec<_> = (0..n).map(|i| row_uuid("ACL", &owner, &i.to_string())).collect();
        let columns = vec![exactly(acl::action(acl::Action::Drop)), exactly(acl::direction(acl::Direction::ToLport))];
        let mut rows: Vec<_> = acls.iter().map(|u| row(&acl::TABLE, RowId::Ours(*u), columns.clone())).collect();
        let columns = vec![exactly(port_group::name("big")), exactly(port_group::acls(acls))];
        rows.push(row(&port_group::TABLE, RowId::Ours(group), columns));
        Output { rows, ..Output::default() }
    };
    world.desired.set(&owner, output(40));
    world.settle();
    for (n, members) in [(41, (1, 0)), (39, (0, 2))] {
        world.desired.set(&owner, output(n));
        let plan = planned(&mut world);
        let counts = plan.ops().find_map(|(_, op)| match &op.action {
            Action::Members { add, remove, .. } => Some((add.len(), remove.len())),
            _ => None,
        });
        assert_eq!(counts, Some(members), "{plan}");
        world.committer.reset(&mut world.desired);
        world.settle();
    }
    world.desired.set(&owner, output(3));
    world.settle();
    let update = world.batches.last().unwrap().ops.iter().any(|op| matches!(op, Op::Update { .. }));
    assert!(update, "most of the set changes, so it is written whole");
    world.assert_converged();
}

#[test]
fn a_name_moves_from_one_owner_to_another_in_one_transaction() {
    let mut world = settled([3, 4]);
    let renamed = |n: usize, name: &str| {
        let mut output = Object::Pod(n).output(0);
        output.rows[0].columns[0] = exactly(port::name(name));
        output
    };
    // Two swap, in batches of one row.
    world.config.rows = 1;
    world.committer = ovenbird_reconcile::Committer::new(world.config, None);
    world.committer.allow_deletes(&mut world.desired, true);
    world.settle();
    world.desired.set(&Object::Pod(3).owner(), renamed(3, "default_pod4"));
    world.desired.set(&Object::Pod(4).owner(), renamed(4, "default_pod3"));
    world.settle();
    assert_eq!(world.batches.len(), 1);
    // One goes, a stranger to it takes its name.
    world.remove(Object::Pod(3));
    world.desired.set(&Object::Pod(2).owner(), renamed(2, "default_pod4"));
    world.settle();
    assert_eq!(world.committer.counters().errors, 0);
    world.assert_converged();
}

#[test]
fn map_keys_are_set_changed_and_removed_one_by_one() {
    let mut world = settled([]);
    let owner = Object::Switch(0).owner();
    let output = |pairs: &[(&str, Option<&str>)]| Output {
        rows: vec![row(
            &switch::TABLE,
            RowId::Ours(switch_uuid(0)),
            vec![exactly(switch::name("sw0")), keys(switch::OTHER_CONFIG, pairs), (switch::PORTS, Want::Members)],
        )],
        ..Output::default()
    };
    world.desired.set(&owner, output(&[("subnet", Some("10.9.0.0/24")), ("new", Some("1")), ("exclude_ips", None)]));
    let plan = planned(&mut world);
    let [(_, op)] = &plan.ops().collect::<Vec<_>>()[..] else { panic!("{plan}") };
    assert_eq!(op.why, Why::Wanted);
    assert_eq!(
        op.to_string(),
        "~ Logical_Switch sw0 other_config:\"new\": absent -> \"1\" other_config:\"subnet\": \"10.244.0.0/24\" -> \
         \"10.9.0.0/24\" (wanted)"
    );
    world.committer.reset(&mut world.desired);
    world.settle();
    world.desired.set(&owner, output(&[("subnet", Some("10.9.0.0/24")), ("new", None)]));
    world.settle();
    let config: Vec<_> = switch::Ref(&world.db.rows(&switch::TABLE)[&switch_uuid(0)])
        .other_config()
        .iter()
        .map(|(k, _)| k.to_owned())
        .collect();
    assert_eq!(config, ["subnet"]);
}

#[test]
fn diagnostics_and_other_zones_pass_by() {
    let mut desired = Desired::new(Zone(1), &DATABASE);
    desired.set(&Object::Switch(0).owner(), Object::Switch(0).output(0));
    assert_eq!((desired.row_count(), desired.is_dirty()), (0, false));
    let contribution = contribution(&switch::TABLE, switch_uuid(0), switch::PORTS, port_uuid(0).into());
    desired.set(&Object::Pod(0).owner(), Output { contributions: vec![contribution], ..Output::default() });
    assert!(!desired.is_dirty());
}
