//! The client against servers that are old, confused, or hostile: a typed error and a new connection, never a panic or a halt.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;
#[path = "common/fake.rs"]
mod fake;

use std::time::Duration;

use common::{NB, Owner, ls, lsp, uuid};
use fake::{Fake, NIL, clustered, config, schema, standalone};
use ovsdb::{Atom, ClientError, Datum, Event, MonitorSpec, Op, Replica, TableSpec};
use serde_json::{Value, json};

fn spawn(config: ovsdb::Config) -> Owner {
    Owner::spawn(config, &NB, MonitorSpec::everything(&NB))
}

fn fake() -> (tempfile::TempDir, Fake) {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(dir.path(), "sock");
    (dir, fake)
}

fn names(replica: &Replica) -> Vec<String> {
    let name = |row: &ovsdb::Row| row.get(ls::NAME).and_then(|d| d.atoms()[0].as_str()).unwrap_or("").to_owned();
    let mut names: Vec<String> = replica.rows(&ls::TABLE).map(|(_, row)| name(row)).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_request_names_only_what_the_server_has() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    let mut peer = fake.accept().await;
    peer.introduce(standalone()).await;
    let monitor = peer.expect("monitor_cond_since").await;
    let expected = json!(["OVN_Northbound", "OVN_Northbound", {
        "Logical_Switch": [{"columns": ["external_ids", "name", "ports"]}],
        "Logical_Switch_Port": [{"columns": ["addresses", "enabled", "external_ids", "name", "tag"]}]}, NIL]);
    assert_eq!(monitor["params"], expected);
    // Tables and columns that nobody knows are skipped.
    let rows = json!({"Unheard_Of": {"x": [1, {}]}, "Logical_Switch": {uuid(1).to_string(): {"initial": {"name": "a", "unheard_of": {"deep": [1.5]}}}}});
    peer.reply(&monitor, json!([false, NIL, rows])).await;
    owner.connected().await;
    assert_eq!(names(&owner.replica), ["a"]);
}

#[tokio::test]
async fn an_old_server_is_monitored_the_old_way() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    let mut peer = fake.accept().await;
    let asked = peer.expect("get_schema").await;
    peer.reply(&asked, schema()).await;
    let asked = peer.expect("monitor_cond").await;
    peer.refuse(&asked, json!({"error": "unknown database", "details": "_Server"})).await;
    for method in ["monitor_cond_since", "monitor_cond"] {
        let asked = peer.expect(method).await;
        peer.refuse(&asked, json!("unknown method")).await;
    }
    let asked = peer.expect("monitor").await;
    let (a, b) = (uuid(1).to_string(), uuid(2).to_string());
    peer.reply(&asked, json!({"Logical_Switch": {&a: {"new": {"name": "a"}}, &b: {"new": {"name": "b"}}}})).await;
    owner.connected().await;
    assert_eq!(names(&owner.replica), ["a", "b"]);
    let update =
        json!({"Logical_Switch": {&a: {"old": {"name": "a"}, "new": {"name": "c"}}, &b: {"old": {"name": "b"}}}});
    peer.send(&json!({"method": "update", "params": ["OVN_Northbound", update], "id": null})).await;
    owner.next().await;
    assert_eq!(names(&owner.replica), ["c"]);
    assert_eq!(owner.changes.len(), 2);
}

#[tokio::test]
async fn a_resume_names_the_last_transaction_and_takes_both_answers() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    let mut peer = fake.accept_with(json!({"Logical_Switch": {uuid(1).to_string(): {"initial": {"name": "a"}}}})).await;
    owner.connected().await;
    let insert = |n: u128, name: &str| json!({"Logical_Switch": {uuid(n).to_string(): {"insert": {"name": name}}}});
    peer.send(&json!({"method": "update3", "params": ["OVN_Northbound", uuid(77), insert(2, "b")], "id": null})).await;
    owner.next().await;
    drop(peer);
    owner.disconnected().await;
    for (found, contents, expected) in [(true, insert(3, "c"), vec!["a", "b", "c"]), (false, insert(4, "d"), vec!["d"])]
    {
        let mut peer = fake.accept().await;
        peer.introduce(standalone()).await;
        let monitor = peer.expect("monitor_cond_since").await;
        assert_eq!(monitor["params"][3], uuid(77).to_string());
        peer.reply(&monitor, json!([found, uuid(77), contents])).await;
        owner.connected().await;
        assert_eq!(
            (owner.was_reset, names(&owner.replica)),
            (!found, expected.iter().map(|s| (*s).to_owned()).collect())
        );
        drop(peer);
    }
    assert!(owner.disconnected().await.contains("closed by the server"));
}

#[tokio::test]
async fn echoes_are_answered_while_the_owner_sleeps_and_ids_are_any_json() {
    let (_dir, mut fake) = fake();
    let owner = spawn(config(&[&fake]));
    let mut peer = fake.accept_with(json!({})).await;
    for id in [json!("echo"), json!([1, {"a": null}]), json!(1.5)] {
        peer.send(&json!({"method": "echo", "params": ["x", id], "id": id})).await;
        assert_eq!(peer.receive().await, json!({"id": id, "result": ["x", id], "error": null}));
    }
    peer.send(&json!({"method": "reboot", "params": [], "id": 1})).await;
    assert_eq!(peer.receive().await["error"], "unknown method");
    drop(owner);
    peer.closed().await;
}

/// What a fake says after a request, and a part of the error that this must lead to.
struct Case {
    /// The request that is answered wrongly.
    at: &'static str,
    says: Vec<u8>,
    error: &'static str,
}

fn says(at: &'static str, says: impl Into<Vec<u8>>, error: &'static str) -> Case {
    Case { at, says: says.into(), error }
}

/// A reply by result, with `ID` for the id.
fn answer(at: &'static str, result: &str, error: &'static str) -> Case {
    says(at, format!("{{\"id\":ID,\"result\":{result},\"error\":null}}"), error)
}

fn cases() -> Vec<Case> {
    let huge = [b"{\"a\":\"".as_slice(), &vec![b'x'; 200_000], b"\"}"].concat();
    let server = |row: &str| format!("{{\"Database\":{{\"{NIL}\":{{\"initial\":{row}}}}}}}");
    vec![
        says("get_schema", "HTTP/1.1 400 Bad Request\r\n", "instead of a brace"),
        says("get_schema", "\u{0}", "instead of a brace"),
        says("get_schema", b"{\"\xff\xfe\"}".as_slice(), "not UTF-8"),
        says("get_schema", huge, "larger than"),
        says("get_schema", "[".repeat(500), "instead of a brace"),
        says("get_schema", "{\"a\":".repeat(500), "deeper"),
        says("get_schema", "{\"id\":ID,\"result\":[}", "bracket"),
        says("get_schema", "{\"id\":ID,\"result\":[,]}", "protocol"),
        says("get_schema", "{}", "neither method nor id"),
        says("get_schema", "{\"id\":424242,\"result\":{}}", "nobody waits for"),
        says("get_schema", "{\"id\":-1,\"result\":{}}", "nobody waits for"),
        says("get_schema", "{\"id\":99999999999999999999999999,\"result\":{}}", "nobody waits for"),
        says("get_schema", "{\"id\":{\"a\":[]},\"result\":{}}", "nobody waits for"),
        says("get_schema", "{\"id\":ID,\"error\":{\"error\":\"unknown database\"}}", "no database"),
        says("get_schema", "{\"id\":ID,\"error\":\"go away\"}", "go away"),
        says("get_schema", "{\"id\":ID,\"error\":17}", "unknown form"),
        answer("get_schema", "null", "schema of"),
        answer("get_schema", "{\"tables\":[]}", "schema of"),
        answer("get_schema", "{\"tables\":{\"T\":{\"columns\":{\"c\":{\"type\":{\"key\":1e999}}}}}}", "schema of"),
        says(
            "monitor_cond",
            "{\"id\":ID,\"error\":{\"error\":\"permission error\",\"details\":\"no\"}}",
            "permission error: no",
        ),
        answer("monitor_cond", "[]", "decode"),
        answer("monitor_cond", "{\"Database\":{\"no-uuid\":{\"initial\":{}}}}", "Database"),
        answer("monitor_cond", &server("{\"model\":[1,2,3]}"), "model"),
        answer("monitor_cond", &server("{\"index\":123456789012345678901234567890}"), "index"),
        answer("monitor_cond", "{}", "no database"),
        says("monitor_cond_since", "{\"id\":ID,\"error\":{\"error\":\"syntax error\"}}", "syntax error"),
        answer("monitor_cond_since", "{}", "monitor_cond_since"),
        answer("monitor_cond_since", "[true]", "monitor_cond_since"),
        answer("monitor_cond_since", "[1,2,3]", "monitor_cond_since"),
        says(
            "monitor_cond_since",
            "{\"method\":\"update3\",\"params\":[\"OVN_Northbound\",\"UID\",{}],\"id\":null}",
            "protocol",
        ),
        says("monitor_cond_since", "{\"method\":\"update2\",\"params\":[\"who\",{}],\"id\":null}", "not monitored"),
        says("monitor_cond_since", "{\"method\":\"update2\",\"params\":{},\"id\":null}", "protocol"),
        says("monitor_cond_since", "{\"method\":\"locked\",\"params\":[\"l\"],\"id\":null}", "not asked for"),
        says(
            "monitor_cond_since",
            "{\"method\":\"monitor_canceled\",\"params\":[\"OVN_Northbound\"],\"id\":null}",
            "cancelled",
        ),
    ]
}

#[tokio::test]
async fn nonsense_before_the_contents_is_a_typed_error_and_a_new_connection() {
    let (_dir, mut fake) = fake();
    let mut config = config(&[&fake]);
    config.max_message = 100_000;
    let mut owner = spawn(config);
    for Case { at, says, error } in cases() {
        let mut peer = fake.accept().await;
        loop {
            let asked = peer.receive().await;
            if asked["method"] == at {
                let text = String::from_utf8_lossy(&says).replace("ID", &asked["id"].to_string());
                peer.raw(if says.windows(2).any(|w| w == b"ID") { text.as_bytes() } else { &says }).await;
                break;
            }
            let result = match asked["method"].as_str() {
                Some("get_schema") => schema(),
                _ => json!({"Database": {NIL: {"initial": standalone()}}}),
            };
            peer.reply(&asked, result).await;
        }
        let found = owner.disconnected().await;
        assert!(found.contains(error), "after {at}: \"{found}\" instead of \"{error}\"");
    }
    fake.accept_with(json!({})).await;
    owner.connected().await;
}

#[tokio::test]
async fn a_message_that_stops_half_way_ends_with_the_connection() {
    let (_dir, mut fake) = fake();
    let mut config = config(&[&fake]);
    config.connect_timeout = Duration::from_millis(200);
    let mut owner = spawn(config);
    let mut peer = fake.accept().await;
    peer.raw(b"{\"id\":1,\"resu").await;
    drop(peer);
    let error = owner.disconnected().await;
    assert!(error.contains("closed by the server") || error.contains("read or write"), "{error}");
    // Kept open, it counts as no answer.
    let mut peer = fake.accept().await;
    peer.raw(b"{\"id\":1,\"resu").await;
    assert!(owner.disconnected().await.contains("no answer within the connect timeout"));
}

#[tokio::test]
async fn rows_of_wrong_types_name_themselves_and_a_reconnect_heals() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    let row = uuid(5).to_string();
    let cases: [(Value, &str); 11] = [
        (json!({"Logical_Switch_Port": {&row: {"insert": {"tag": 1.5}}}}), "tag"),
        (json!({"Logical_Switch_Port": {&row: {"insert": {"tag": 18446744073709551615_u64}}}}), "out of the range"),
        (json!({"Logical_Switch_Port": {&row: {"insert": {"tag": ["set", [1, 2]]}}}}), "more than one"),
        (json!({"Logical_Switch_Port": {&row: {"insert": {"name": ["map", []]}}}}), "map"),
        (json!({"Logical_Switch_Port": {&row: {"insert": {"name": null}}}}), "name"),
        (
            json!({"Logical_Switch_Port": {&row: {"insert": {"external_ids": ["map", [["a", "b"], ["a", "c"]]]}}}}),
            "one key twice",
        ),
        (json!({"Logical_Switch": {&row: {"insert": {"ports": ["uuid", "zzz"]}}}}), "ports"),
        (json!({"Logical_Switch": {&row: {"insert": {"ports": ["set", [["uuid", 1, 2]]]}}}}), "ports"),
        (json!({"Logical_Switch": {&row: {"modify": {"name": "x"}}}}), "never inserted"),
        (json!({"Logical_Switch": {&row: {}}}), "none of initial"),
        (json!({"Logical_Switch": [1]}), "Logical_Switch"),
    ];
    for (rows, part) in cases {
        let mut peer = fake.accept_with(json!({})).await;
        owner.connected().await;
        peer.send(&json!({"method": "update3", "params": ["OVN_Northbound", uuid(9), rows], "id": null})).await;
        let Some(Event::Update(update)) = owner.events.recv().await else { panic!("no update") };
        let error = owner.replica.apply(&update, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(part) && error.place.contains("Logical_Switch"), "{error}: {part}");
        owner.handle.force_reconnect();
        owner.disconnected().await;
        peer.closed().await;
    }
    let mut peer = fake.accept().await;
    peer.introduce(standalone()).await;
    let monitor = peer.expect("monitor_cond_since").await;
    assert_eq!(monitor["params"][3], NIL, "a forced reconnect asks for everything");
}

#[tokio::test]
async fn wrong_replies_to_transactions_leave_none_unanswered() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    for result in [json!(null), json!({}), json!([]), json!([1]), json!([{}, {}, {}]), json!([{"count": "x"}])] {
        let mut peer = fake.accept_with(json!({})).await;
        owner.connected().await;
        let first = owner.handle.transact(&[Op::Abort]);
        let second = owner.handle.transact(&[Op::Abort]);
        let asked = peer.expect("transact").await;
        peer.reply(&asked, result).await;
        for expected in [first, second] {
            let reply = owner.next().await;
            let Event::Reply { id, result } = reply else { panic!("{reply:?}") };
            assert!(id == expected || id == second);
            assert!(matches!(result, Err(ClientError::Disconnected)), "{result:?}");
            if id == second {
                break;
            }
        }
        owner.disconnected().await;
    }
    let mut peer = fake.accept_with(json!({})).await;
    owner.connected().await;
    owner.handle.transact(&[Op::Abort]);
    let asked = peer.expect("transact").await;
    peer.refuse(&asked, json!({"error": "permission error"})).await;
    assert!(matches!(owner.next().await, Event::Reply { result: Err(ClientError::Rejected(_)), .. }));
}

#[tokio::test]
async fn a_flood_that_the_owner_does_not_take_is_cut_off_and_resumed() {
    let (_dir, mut fake) = fake();
    let mut config = config(&[&fake]);
    config.max_backlog = 100_000;
    let mut owner = spawn(config);
    let mut peer = fake.accept_with(json!({})).await;
    let text = "x".repeat(1000);
    let update = |n: u128| {
        let rows = json!({"Logical_Switch": {uuid(n).to_string(): {"insert": {"name": text}}}});
        json!({"method": "update3", "params": ["OVN_Northbound", uuid(n), rows], "id": null})
    };
    for n in 1..2000 {
        peer.send(&update(n)).await;
    }
    peer.closed().await;
    assert!(owner.events.len() < 200, "{} events wait", owner.events.len());
    // Once the owner has caught up, the connection comes back, and goes on from what the owner has.
    assert!(owner.disconnected().await.contains("behind"));
    let got = owner.replica.len(&ls::TABLE) as u128;
    let mut peer = fake.accept().await;
    peer.introduce(standalone()).await;
    assert_eq!(peer.expect("monitor_cond_since").await["params"][3], uuid(got).to_string());
}

#[tokio::test]
async fn a_server_that_asks_and_never_reads_is_not_fed() {
    let (_dir, mut fake) = fake();
    let mut config = config(&[&fake]);
    config.probe_interval = Some(Duration::from_millis(100));
    let mut owner = spawn(config);
    let mut peer = fake.accept_with(json!({})).await;
    owner.connected().await;
    let echo = json!({"method": "echo", "params": ["x".repeat(100_000)], "id": 1});
    let flood = async {
        for _ in 0..1000 {
            peer.send(&echo).await;
        }
    };
    let (error, ()) = tokio::join!(owner.disconnected(), flood);
    assert!(error.contains("silent"), "{error}");
}

#[tokio::test]
async fn a_flood_of_lock_notifications_is_cut_off() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    owner.handle.lock("l");
    let mut peer = fake.accept_with(json!({})).await;
    let asked = peer.expect("lock").await;
    peer.reply(&asked, json!({"locked": false})).await;
    for _ in 0..1001 {
        peer.send(&json!({"method": "locked", "params": ["l"], "id": null})).await;
    }
    assert!(owner.disconnected().await.contains("too often"));
}

#[tokio::test]
async fn only_the_leader_of_the_known_cluster_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::new(dir.path(), "sock");
    let mut config = config(&[&fake]);
    config.leader_only = true;
    let mut owner = spawn(config);
    let refused = [(clustered(false, true, 1, 10), "not the leader"), (clustered(true, false, 1, 10), "cut off")];
    for (server, error) in refused {
        fake.accept().await.introduce(server).await;
        assert!(owner.disconnected().await.contains(error));
    }
    let mut peer = fake.accept().await;
    peer.introduce(clustered(true, true, 1, 10)).await;
    let monitor = peer.expect("monitor_cond_since").await;
    peer.reply(&monitor, json!([false, NIL, {}])).await;
    owner.connected().await;
    // It loses the lead while we are connected.
    let lost = json!({"Database": {NIL: {"modify": {"leader": false, "index": 12}}}});
    peer.send(&json!({"method": "update2", "params": ["_Server", lost], "id": null})).await;
    assert!(owner.disconnected().await.contains("not the leader"));
    for (server, error) in [
        (clustered(true, true, 2, 20), "another cluster"),
        (clustered(true, true, 1, 9), "lags behind"),
        // The third round without the known cluster: it must have been made anew.
        (clustered(true, true, 2, 5), "another cluster"),
    ] {
        fake.accept().await.introduce(server).await;
        assert!(owner.disconnected().await.contains(error));
    }
    let mut peer = fake.accept().await;
    peer.introduce(clustered(true, true, 2, 5)).await;
    let monitor = peer.expect("monitor_cond_since").await;
    assert_eq!(monitor["params"][3], NIL, "nothing of the old cluster is resumed");
}

#[tokio::test]
async fn other_endpoints_are_tried_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = Fake::new(dir.path(), "good");
    let mut config = config(&[&good]);
    // A pause after each would make this test time out.
    config.backoff = (Duration::from_secs(3600), Duration::from_secs(3600));
    config.endpoints.push(ovsdb::Endpoint::Unix(dir.path().join("nobody")));
    let mut owner = spawn(config);
    good.accept_with(json!({})).await;
    owner.connected().await;
}

#[tokio::test]
async fn condition_changes_are_sent_and_kept_for_the_next_connection() {
    let (_dir, mut fake) = fake();
    let spec = MonitorSpec::new().with(TableSpec::all(&lsp::TABLE));
    let mut owner = Owner::spawn(config(&[&fake]), &NB, spec);
    let mut peer = fake.accept_with(json!({})).await;
    owner.connected().await;
    owner.handle.monitor_cond_change(&lsp::TABLE, vec![ovsdb::Condition::Literal(false)]);
    let asked = peer.expect("monitor_cond_change").await;
    let expected = json!(["OVN_Northbound", "OVN_Northbound", {"Logical_Switch_Port": [{"where": [false]}]}]);
    assert_eq!(asked["params"], expected);
    let update = json!({"method": "update3", "params": ["OVN_Northbound", uuid(7), {}], "id": null});
    peer.send(&update).await;
    drop(peer);
    // The change was not confirmed, so what we have may be of either condition: everything is asked for.
    let mut peer = fake.accept().await;
    peer.introduce(standalone()).await;
    let monitor = peer.expect("monitor_cond_since").await;
    assert_eq!(monitor["params"][2]["Logical_Switch_Port"][0]["where"], json!([false]));
    assert_eq!(monitor["params"][3], NIL);
}

#[tokio::test]
async fn a_set_that_the_server_has_as_a_scalar_is_replaced_not_toggled() {
    let (_dir, mut fake) = fake();
    let mut owner = spawn(config(&[&fake]));
    let mut peer = fake.accept().await;
    let asked = peer.expect("get_schema").await;
    let mut older = schema();
    older["tables"]["Logical_Switch_Port"]["columns"]["addresses"] =
        json!({"type": {"key": "string", "min": 0, "max": 1}});
    peer.reply(&asked, older).await;
    let asked = peer.expect("monitor_cond").await;
    peer.reply(&asked, json!({"Database": {NIL: {"initial": standalone()}}})).await;
    let monitor = peer.expect("monitor_cond_since").await;
    let row = uuid(1).to_string();
    peer.reply(&monitor, json!([false, NIL, {"Logical_Switch_Port": {&row: {"initial": {"addresses": "a"}}}}])).await;
    owner.connected().await;
    let modify = json!({"Logical_Switch_Port": {&row: {"modify": {"addresses": "b"}}}});
    peer.send(&json!({"method": "update3", "params": ["OVN_Northbound", NIL, modify], "id": null})).await;
    owner.next().await;
    let port = owner.replica.row(&lsp::TABLE, &uuid(1)).unwrap();
    assert_eq!(port.get(lsp::ADDRESSES), Some(&Datum::set([Atom::from("b")])));
    let ovsdb::ChangeKind::Modified(columns) = &owner.changes[0].kind else { panic!() };
    assert_eq!(columns[0].1, Datum::set(["a".into(), "b".into()]), "owners see the difference all the same");
}
