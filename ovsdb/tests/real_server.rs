//! The client against a real, standalone ovsdb-server: connect, replicate, transact, conditions, locks, restarts, probes.

mod common;

use std::time::Duration;

use common::{NB, Owner, Server, ls, lsp, nothing, uuid};
use ovsdb::{
    Atom, ChangeKind, ClientError, Condition, Config, Connection, Datum, Event, MonitorSpec, Mutation, Mutator, Op,
    OpResult, TableSpec, Until,
};

fn add_switch(n: u128, name: &str) -> Op {
    Op::Insert { table: "Logical_Switch", uuid: Some(uuid(n)), row: vec![("name", name.into())] }
}

fn owner(server: &Server) -> Owner {
    let spec = MonitorSpec::everything(&NB).with(TableSpec::all(&ls::TABLE).index(ls::NAME));
    Owner::spawn(Config::new(vec![server.endpoint()]), &NB, spec)
}

#[tokio::test]
async fn replica_follows_transactions_in_the_servers_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let mut owner = owner(&server);
    owner.connected().await;
    assert!(owner.was_reset);
    assert!(owner.replica.has_table(&ls::TABLE) && !owner.replica.has_table(&nothing::TABLE));
    assert!(owner.replica.has_column(&ls::TABLE, ls::NAME));
    assert!(!owner.replica.has_column(&ls::TABLE, ovsdb::ColumnId(2)), "no_such_column");

    let ports = (10..40).map(|n| Op::Insert {
        table: "Logical_Switch_Port",
        uuid: Some(uuid(n)),
        row: vec![
            ("name", format!("port-{n}").into()),
            ("addresses", Datum::set(["router".into(), "dynamic".into()])),
            ("options", Datum::map([("k\"ey".into(), "välue\n".into())])),
            ("tag", 7.into()),
            ("enabled", false.into()),
        ],
    });
    let members = Datum::set((10..40).map(|n| Atom::from(uuid(n))));
    let mut ops: Vec<Op> = ports.collect();
    ops.push(Op::Insert {
        table: "Logical_Switch",
        uuid: Some(uuid(1)),
        row: vec![("name", "s1".into()), ("ports", members)],
    });
    let reply = owner.transact(&ops).await.unwrap();
    assert!(matches!(reply.ops[0], OpResult::Inserted(u) if u == uuid(10)), "{reply:?}");
    // The update came before the reply, so the replica has it.
    assert_eq!(owner.replica.len(&lsp::TABLE), 30);
    assert_eq!(owner.changes.len(), 31);
    let (found, row) = owner.replica.find(&ls::TABLE, ls::NAME, &"s1".into()).unwrap();
    assert_eq!((found, row.get(ls::PORTS).unwrap().len()), (uuid(1), 30));
    let port = owner.replica.row(&lsp::TABLE, &uuid(10)).unwrap();
    assert_eq!(port.get(lsp::ENABLED), Some(&false.into()), "an optional false is present");
    assert_eq!(port.get(lsp::OPTIONS).unwrap().get_str("k\"ey"), Some("välue\n"));

    let remove = Mutation::new("ports", Mutator::Delete, Datum::set([uuid(10).into(), uuid(11).into()]));
    let clear = Op::Update {
        table: "Logical_Switch_Port",
        conditions: vec![Condition::uuid(uuid(12))],
        row: vec![
            ("tag", Datum::set([])),
            ("options", Datum::map([("a".into(), "b".into())])),
            ("addresses", Datum::set([])),
        ],
    };
    let mutate =
        Op::Mutate { table: "Logical_Switch", conditions: vec![Condition::uuid(uuid(1))], mutations: vec![remove] };
    owner.transact(&[mutate, clear]).await.unwrap();
    assert_eq!(owner.replica.len(&lsp::TABLE), 28, "unreferenced rows vanish");
    let port = owner.replica.row(&lsp::TABLE, &uuid(12)).unwrap();
    assert_eq!((port.get(lsp::TAG), port.get(lsp::ADDRESSES)), (None, None));
    assert_eq!(port.get(lsp::OPTIONS), Some(&Datum::map([("a".into(), "b".into())])));
    let switch = owner.changes.iter().find(|c| c.uuid == uuid(1)).unwrap();
    let expected = vec![(ls::PORTS, Datum::set([uuid(10).into(), uuid(11).into()]))];
    assert_eq!(switch.kind, ChangeKind::Modified(expected), "the difference");
}

#[tokio::test]
async fn every_operation_and_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let mut owner = owner(&server);
    owner.connected().await;
    let is = |name: &str| vec![Condition::equal("name", name)];
    let select = Op::Select { table: "Logical_Switch", conditions: is("a"), columns: vec!["name"] };
    let wait = |until| Op::Wait {
        table: "Logical_Switch",
        conditions: is("a"),
        columns: vec!["name"],
        until,
        rows: vec![vec![("name", "a".into())]],
        timeout_ms: Some(0),
    };
    let reply = owner
        .transact(&[
            Op::Comment("a test".into()),
            add_switch(1, "a"),
            wait(Until::Equal),
            select,
            Op::Update { table: "Logical_Switch", conditions: is("a"), row: vec![("name", "b".into())] },
            Op::Delete { table: "Logical_Switch", conditions: is("c") },
            Op::Commit { durable: true },
        ])
        .await
        .unwrap();
    assert!(reply.is_committed(), "{reply:?}");
    let rows = reply.ops[3].rows(&ls::TABLE).unwrap();
    assert_eq!(rows[0].get(ls::NAME), Some(&"a".into()));
    assert!(matches!(reply.ops[4], OpResult::Count(1)) && matches!(reply.ops[5], OpResult::Count(0)));

    let failures: [(Vec<Op>, Option<usize>, &str); 6] = [
        (vec![wait(Until::Equal)], Some(0), "timed out"),
        (vec![Op::Comment("x".into()), Op::Abort], Some(1), "aborted"),
        (vec![Op::Assert { lock: "l".into() }], Some(0), "not owner"),
        (vec![add_switch(1, "again")], Some(0), "duplicate uuid"),
        (vec![add_switch(7, "x"), Op::Delete { table: "Nope", conditions: vec![] }], Some(1), "unknown table"),
        (
            vec![Op::Insert {
                table: "Logical_Switch",
                uuid: None,
                row: vec![("ports", Datum::set([uuid(99).into()]))],
            }],
            None,
            "referential integrity violation",
        ),
    ];
    for (ops, at, kind) in failures {
        let reply = owner.transact(&ops).await.unwrap();
        let (found, error) = reply.error().expect(kind);
        assert_eq!(
            (found, error.error.as_str()),
            if kind == "unknown table" { (found, error.error.as_str()) } else { (at, kind) }
        );
    }
    assert_eq!(owner.replica.len(&ls::TABLE), 1);
}

#[tokio::test]
async fn restart_brings_a_reset_with_the_true_differences() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let mut owner = owner(&server);
    owner.connected().await;
    owner.transact(&[add_switch(1, "stays"), add_switch(2, "changes"), add_switch(3, "goes")]).await.unwrap();

    server.signal("STOP");
    let lost = owner.handle.transact(&[add_switch(9, "unknown")]);
    server.kill();
    let result = owner.until(|e| if let Event::Reply { id, result } = e { Some((id, result)) } else { None }).await;
    assert!(matches!(result, (id, Err(ClientError::Disconnected)) if id == lost), "{result:?}");
    owner.disconnected().await;
    assert!(matches!(owner.transact(&[Op::Abort]).await, Err(ClientError::NotConnected)));

    server.start();
    let mut tool = Connection::open(&[server.endpoint()], None, Duration::from_secs(10)).await.unwrap();
    assert_eq!(tool.list_dbs().await.unwrap(), ["OVN_Northbound", "_Server"]);
    // The client may have read before or after this; both ends must be the same.
    let rename = Op::Update {
        table: "Logical_Switch",
        conditions: vec![Condition::uuid(uuid(2))],
        row: vec![("name", "changed".into())],
    };
    let delete = Op::Delete { table: "Logical_Switch", conditions: vec![Condition::uuid(uuid(3))] };
    assert!(tool.transact("OVN_Northbound", &[rename, delete, add_switch(4, "new")]).await.unwrap().is_committed());
    owner.connected().await;
    while owner.replica.len(&ls::TABLE) < 3 || owner.replica.row(&ls::TABLE, &uuid(4)).is_none() {
        owner.next().await;
    }
    assert!(owner.replica.row(&ls::TABLE, &uuid(3)).is_none());
    assert!(owner.replica.find(&ls::TABLE, ls::NAME, &"changes".into()).is_none());
    assert_eq!(owner.replica.find(&ls::TABLE, ls::NAME, &"changed".into()).unwrap().0, uuid(2));

    owner.handle.force_reconnect();
    owner.connected().await;
    assert!(owner.was_reset);
    assert_eq!(owner.changes, [], "a dump of what is known changes nothing");
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let mut config = Config::new(vec![server.endpoint()]);
    config.probe_interval = Some(Duration::from_millis(100));
    config.connect_timeout = Duration::from_millis(500);
    let mut owner = Owner::spawn(config, &NB, MonitorSpec::everything(&NB));
    owner.connected().await;
    server.signal("STOP");
    let sent = owner.handle.transact(&[add_switch(1, "a")]);
    let reply = owner.until(|e| if let Event::Reply { id, result } = e { Some((id, result)) } else { None }).await;
    assert!(matches!(reply, (id, Err(ClientError::Disconnected)) if id == sent), "{reply:?}");
    assert!(owner.disconnected().await.contains("silent"));
    assert!(
        owner.disconnected().await.contains("connect timeout"),
        "a socket that accepts is not a server that answers"
    );
    server.signal("CONT");
    owner.connected().await;
}

#[tokio::test]
async fn conditions_choose_rows() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let only = |name: &str| vec![Condition::equal("name", name)];
    let spec = MonitorSpec::new().with(TableSpec::all(&ls::TABLE).matching(only("a")));
    let mut owner = Owner::spawn(Config::new(vec![server.endpoint()]), &NB, spec);
    owner.connected().await;
    owner.transact(&[add_switch(1, "a"), add_switch(2, "b")]).await.unwrap();
    assert!(owner.replica.row(&ls::TABLE, &uuid(2)).is_none());
    owner.handle.monitor_cond_change(&ls::TABLE, only("b"));
    owner.until(|e| if let Event::Update(_) = e { Some(()) } else { None }).await;
    assert!(owner.replica.row(&ls::TABLE, &uuid(1)).is_none());
    assert!(owner.replica.row(&ls::TABLE, &uuid(2)).is_some());
    owner.handle.force_reconnect();
    owner.connected().await;
    assert_eq!(owner.changes, [], "the next connection has the new condition");
}

#[tokio::test]
async fn locks_are_handed_on_stolen_and_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path(), &[], &[]);
    let (mut a, mut b) = (owner(&server), owner(&server));
    a.connected().await;
    b.connected().await;
    let locked = |e| if let Event::Locked(name) = e { Some(name.to_string()) } else { None };
    a.handle.lock("l");
    assert_eq!(a.until(locked).await, "l");
    assert!(a.transact(&[Op::Assert { lock: "l".into() }]).await.unwrap().is_committed());
    b.handle.lock("l");
    assert!(!b.transact(&[Op::Assert { lock: "l".into() }]).await.unwrap().is_committed());
    a.handle.unlock("l");
    assert_eq!(b.until(locked).await, "l");
    a.handle.steal("l");
    assert_eq!(a.until(locked).await, "l");
    assert_eq!(b.until(|e| if let Event::Stolen(name) = e { Some(name.to_string()) } else { None }).await, "l");
    // b waits in line again; a comes back to the line after its connection breaks.
    a.handle.force_reconnect();
    assert_eq!(b.until(locked).await, "l");
    a.connected().await;
    b.handle.unlock("l");
    assert_eq!(a.until(locked).await, "l");
}
