//! The client against a real Raft cluster of three: the leader dies, connections break, and nothing is lost or told twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::time::Duration;

use common::{NB, Owner, Server, ls, uuid};
use ovsdb::{ClientError, Config, Connection, MonitorSpec, Op, TxnReply};

fn add_switch(n: u128) -> Op {
    Op::Insert { table: "Logical_Switch", uuid: Some(uuid(n)), row: vec![("name", format!("s{n}").into())] }
}

struct Cluster {
    members: Vec<Server>,
    /// Behind the members, so that it goes after them.
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Members that have all joined.
    fn new(count: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..count).map(|_| common::free_port()).collect();
        let member = |i: usize| Server::member(dir.path(), &format!("m{i}"), ports[i], (i > 0).then_some(ports[0]));
        let members: Vec<Server> = (0..count).map(member).collect();
        for server in &members {
            common::wait(|| server.appctl(&["cluster/status", "OVN_Northbound"]).contains("Status: cluster member"));
        }
        Cluster { members, _dir: dir }
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.members.iter().map(Server::endpoint).collect());
        config.leader_only = true;
        config
    }

    fn by_endpoint(&self, endpoint: &str) -> &Server {
        self.members.iter().find(|m| m.endpoint().to_string() == endpoint).unwrap()
    }
}

/// As an owner does: again after a lost connection, and "duplicate uuid" means that it was done the first time.
async fn commit(owner: &mut Owner, op: Op) {
    loop {
        match owner.transact(std::slice::from_ref(&op)).await {
            Ok(reply) if reply.is_committed() || duplicate(&reply) => return,
            Err(ClientError::Disconnected | ClientError::NotConnected) => drop(owner.connected().await),
            other => panic!("{other:?}"),
        }
    }
}

fn duplicate(reply: &TxnReply) -> bool {
    reply.error().is_some_and(|(_, e)| e.error == "duplicate uuid")
}

#[tokio::test]
async fn the_client_follows_the_leader_and_resumes_without_a_dump() {
    let cluster = Cluster::new(3);
    let mut owner = Owner::spawn(cluster.config(), &NB, MonitorSpec::everything(&NB));
    let first = owner.connected().await;
    assert!(owner.was_reset);
    for n in 1..=10 {
        commit(&mut owner, add_switch(n)).await;
    }
    // The leader dies; another takes over, and what we have is enough to go on from.
    cluster.by_endpoint(&first).kill();
    commit(&mut owner, add_switch(11)).await;
    assert!(!owner.was_reset, "the new leader knows our last transaction");
    assert_eq!(owner.replica.len(&ls::TABLE), 11);
    // The old one comes back.
    let old = cluster.by_endpoint(&first);
    old.start();
    common::wait(|| old.appctl(&["cluster/status", "OVN_Northbound"]).contains("Role: follower"));

    let mut tool = Connection::open(&[old.endpoint()], None, Duration::from_secs(10)).await.unwrap();
    assert!(tool.transact("OVN_Northbound", &[add_switch(12)]).await.unwrap().is_committed(), "a follower forwards");
    for n in 13..=20 {
        commit(&mut owner, add_switch(n)).await;
    }
    let names: std::collections::BTreeSet<_> = owner.replica.rows(&ls::TABLE).map(|(uuid, _)| uuid.as_u128()).collect();
    assert_eq!(names, (1..=20).collect());
}

#[tokio::test]
async fn a_broken_connection_to_a_clustered_server_brings_only_what_was_missed() {
    let cluster = Cluster::new(1);
    let server = &cluster.members[0];
    let mut config = cluster.config();
    config.probe_interval = Some(Duration::from_millis(200));
    let mut owner = Owner::spawn(config, &NB, MonitorSpec::everything(&NB));
    owner.connected().await;
    for n in 1..=5 {
        commit(&mut owner, add_switch(n)).await;
    }
    // Stopped, the server cannot answer: the client gives the connection up, and comes back when it goes on.
    server.signal("STOP");
    assert!(owner.disconnected().await.contains("silent"));
    server.signal("CONT");
    owner.connected().await;
    assert!(!owner.was_reset, "resumed by the last transaction's id");
    assert_eq!(owner.changes, [], "and nothing was missed");
    // A process that starts anew has its history in its log.
    let lost = owner.handle.transact(&[add_switch(6)]);
    owner.until(|e| matches!(e, ovsdb::Event::Reply { id, .. } if id == lost).then_some(())).await;
    server.kill();
    server.start();
    owner.connected().await;
    assert_eq!(owner.replica.len(&ls::TABLE), 6);
}
