//! An engine, and a database that has what it wants: for tests that count what a change takes.
//!
//! Input: facts. Output: transactions as JSON. Must not: know a feature.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::time::Duration;

use ovenbird_reconcile::{CommitConfig, Committer, Desired, Outcome, Zone};
use ovenbird_schema::northbound::DATABASE;
use ovenbird_topology::{Change, Config, Engine, Fact, Interner, text};
use ovsdb::{MonitorSpec, Op, Replica, TxnReply, Update};
use serde_json::{Value, json};

/// A database that has what is wanted.
pub struct World {
    engine: Engine,
    /// For the facts.
    pub texts: Interner,
    desired: Desired,
    replica: Replica,
}

impl World {
    /// Without facts, of both families.
    pub fn new() -> World {
        let subnets = ("10.128.0.0/14/24,fd00:10:128::/48/64", "10.96.0.0/16,fd00:10:96::/112");
        let config = Config::parse(subnets.0, subnets.1, "100.64.0.0/16,fd98::/64", 1400).unwrap();
        World {
            engine: Engine::new(config),
            texts: Interner::default(),
            desired: Desired::new(Zone::default(), &DATABASE),
            replica: Replica::new(&DATABASE, &MonitorSpec::everything(&DATABASE)),
        }
    }

    /// Takes in a fact.
    pub fn apply(&mut self, fact: Fact) {
        self.engine.apply(Change::Upsert(fact));
    }

    /// What has changed becomes wishes.
    pub fn translate(&mut self) {
        for owner in self.engine.take_dirty() {
            let output = self.engine.translate(&owner);
            assert!(self.desired.set(&owner, output).is_empty());
        }
    }

    /// The database gets all that is wanted.
    pub fn meet(&mut self) {
        self.translate();
        let mut tables = text::json(&self.desired.rows());
        for row in tables.as_object_mut().unwrap().values_mut().flat_map(|t| t.as_object_mut().unwrap().values_mut()) {
            *row = json!({"initial": row.take()});
        }
        self.replica.apply(&Update::from_text(&tables.to_string()).into_reset(), &mut Vec::new()).unwrap();
        assert_eq!(self.transactions().len(), 0);
    }

    /// The transactions that what has changed takes, each as JSON.
    pub fn transactions(&mut self) -> Vec<Vec<Value>> {
        self.translate();
        let mut committer = Committer::new(CommitConfig::default(), None);
        committer.allow_deletes(&mut self.desired, true);
        let mut all = Vec::new();
        while let Some(batch) = committer.next(&mut self.desired, &self.replica, Duration::ZERO) {
            all.push(batch.ops.iter().map(json_of).collect());
            let outcome = committer.on_reply(&mut self.desired, Ok(&TxnReply::default()), Duration::ZERO);
            assert!(matches!(outcome, Some(Outcome::Committed { .. })));
        }
        all
    }
}

fn json_of(op: &Op) -> Value {
    let mut text = Vec::new();
    op.write_json(&mut text);
    serde_json::from_slice(&text).unwrap()
}
