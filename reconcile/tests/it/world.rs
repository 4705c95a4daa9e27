//! A writer and its model database, and the properties that must hold between them.

use std::collections::BTreeMap;
use std::time::Duration;

use ovenbird_reconcile::{Batch, CommitConfig, Committer, Desired, Outcome, Scope, WholeRow, Zone, is_ours, plan};
use ovenbird_schema::northbound::{self as nb, DATABASE, meter};
use ovsdb::{Atom, Datum, MonitorSpec, Op, Replica, Row, ServerInfo, TableDesc, TableSpec, TxnReply, Update, Uuid};

use crate::model::Model;
use crate::universe::Object;

pub struct World<D = Model> {
    pub wanted: BTreeMap<Object, usize>,
    pub desired: Desired,
    pub replica: Replica,
    pub committer: Committer,
    pub db: D,
    pub now: Duration,
    pub config: CommitConfig,
    /// Transactions sent without waiting for replies.
    pub burst: usize,
    /// Transactions that the model has run for the committer.
    pub batches: Vec<Batch>,
}

/// What a monitor of the tests replicates: everything, with the indexes that look-ups and name changes use.
pub fn spec() -> MonitorSpec {
    let named: [(&'static TableDesc, _); 5] = [
        (&meter::TABLE, meter::NAME),
        (&nb::address_set::TABLE, nb::address_set::NAME),
        (&nb::port_group::TABLE, nb::port_group::NAME),
        (&nb::logical_switch_port::TABLE, nb::logical_switch_port::NAME),
        (&nb::ha_chassis_group::TABLE, nb::ha_chassis_group::NAME),
    ];
    named.iter().fold(MonitorSpec::everything(&DATABASE), |spec, (table, column)| {
        spec.with(TableSpec::all(table).index(*column))
    })
}

/// The contents of a database by table index.
pub type Tables = Vec<BTreeMap<Uuid, Row>>;

/// What the writer writes to.
pub trait Database {
    /// Runs a transaction; the reply, and the updates that a monitor got before it.
    fn transact(&mut self, ops: &[Op]) -> (TxnReply, Vec<String>);
    /// The whole contents as an update.
    fn contents(&mut self) -> String;
    /// What the server has, if that is not all.
    fn server(&self) -> Option<ServerInfo>;
    /// The whole contents.
    fn tables(&mut self) -> Tables {
        let mut replica = Replica::new(&DATABASE, &spec());
        replica.apply_json(&self.contents(), &mut Vec::new()).unwrap();
        DATABASE.tables.iter().map(|t| replica.rows(t).map(|(u, r)| (u, r.clone())).collect()).collect()
    }
}

impl Database for Model {
    fn transact(&mut self, ops: &[Op]) -> (TxnReply, Vec<String>) {
        let (reply, update) = Model::transact(self, ops);
        (reply, vec![update])
    }

    fn contents(&mut self) -> String {
        Model::contents(self)
    }

    fn server(&self) -> Option<ServerInfo> {
        None
    }

    fn tables(&mut self) -> Tables {
        self.tables.clone()
    }
}

impl World {
    pub fn new(config: CommitConfig) -> World {
        World::over(Model::new(&DATABASE), config)
    }
}

impl<D: Database> World<D> {
    pub fn over(db: D, config: CommitConfig) -> World<D> {
        let mut world = World {
            wanted: BTreeMap::new(),
            desired: Desired::new(Zone(0), &DATABASE),
            replica: Replica::new(&DATABASE, &spec()),
            committer: Committer::new(config, None),
            db,
            now: Duration::ZERO,
            config,
            burst: 1,
            batches: Vec::new(),
        };
        world.restart();
        world
    }

    pub fn set(&mut self, object: Object, variant: usize) {
        self.wanted.insert(object, variant);
        self.desired.set(&object.owner(), object.output(variant));
    }

    pub fn remove(&mut self, object: Object) {
        self.wanted.remove(&object);
        self.desired.remove(&object.owner());
    }

    /// Someone else's transaction; false when the database refuses it.
    pub fn edit(&mut self, ops: &[Op]) -> bool {
        let (reply, updates) = self.db.transact(ops);
        updates.iter().for_each(|u| self.feed(u));
        reply.is_committed()
    }

    fn feed(&mut self, update: &str) {
        if update.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        self.replica.apply_json(update, &mut changes).unwrap();
        changes.iter().for_each(|c| self.desired.mark(c, &self.replica));
    }

    fn burst(&mut self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let World { committer, desired, replica, now, burst, .. } = self;
        committer.burst(desired, replica, *now, *burst, &mut |batch| batches.push(batch));
        batches
    }

    /// One turn of the loop: at most one burst of transactions. `None` when there is nothing to do.
    pub fn step(&mut self) -> Option<Outcome> {
        let batches = self.burst();
        let replies: Vec<_> = batches.iter().map(|batch| self.db.transact(&batch.ops)).collect();
        self.batches.extend(batches);
        let mut last = None;
        for (reply, updates) in replies {
            updates.iter().for_each(|u| self.feed(u));
            last = self.committer.on_reply(&mut self.desired, Ok(&reply), self.now);
            assert!(last.is_some());
        }
        last
    }

    /// Steps until nothing is to be done now, nor after the pauses that end before `patience`.
    pub fn settle_for(&mut self, patience: Duration) {
        let end = self.now + patience;
        for _ in 0..10_000 {
            if self.step().is_some() {
                continue;
            }
            match self.committer.next_wake().filter(|t| *t <= end) {
                Some(wake) => self.now = self.now.max(wake),
                None => return,
            }
        }
        panic!(
            "never at rest: {}",
            self.batches.iter().rev().take(3).map(|b| format!("{:?}\n", b.ops)).collect::<String>()
        );
    }

    pub fn settle(&mut self) {
        self.settle_for(Duration::from_millis(500));
    }

    /// The writer dies and starts again: it knows what is wanted, and the database.
    pub fn restart(&mut self) {
        self.desired = Desired::new(Zone(0), &DATABASE);
        self.committer = Committer::new(self.config, None);
        for (object, variant) in &self.wanted {
            self.desired.set(&object.owner(), object.output(*variant));
        }
        self.replica = Replica::new(&DATABASE, &spec());
        self.db.server().iter().for_each(|s| self.replica.set_server(s));
        let contents = self.db.contents();
        self.feed(&contents);
        self.committer.reset(&mut self.desired);
        self.committer.allow_deletes(&mut self.desired, true);
    }

    /// The connection breaks, maybe after the database has committed what is in flight, and comes back.
    pub fn reconnect(&mut self, committed: bool) {
        let batches = self.burst();
        if let Some(batch) = batches.first().filter(|_| committed) {
            self.db.transact(&batch.ops);
        }
        let contents = self.db.contents();
        let contents = if contents.is_empty() { "{}".into() } else { contents };
        let mut changes = Vec::new();
        self.replica.apply(&Update::from_text(&contents).into_reset(), &mut changes).unwrap();
        changes.iter().for_each(|c| self.desired.mark(c, &self.replica));
        self.committer.reset(&mut self.desired);
    }

    /// The database has what is desired, no row of ours besides, and a comparison of everything finds nothing.
    pub fn assert_converged(&mut self) {
        let waiting = self.desired.waiting();
        assert!(waiting.is_empty(), "waiting: {waiting:?}");
        let tables = self.db.tables();
        assert_rows(&tables, &self.without_lacking(self.desired.rows()));
        let audit = plan(&mut self.desired, &self.replica, Scope::All);
        assert!(audit.is_empty(), "a second plan is not empty:\n{audit}");
    }

    /// Desired rows without what the server has no place for.
    fn without_lacking(&self, mut rows: Vec<WholeRow>) -> Vec<WholeRow> {
        rows.iter_mut().for_each(|r| r.columns.retain(|(c, _)| self.replica.has_column(r.table, *c)));
        rows
    }
}

fn assert_rows(tables: &Tables, rows: &[WholeRow]) {
    let of = |table: &TableDesc| &tables[usize::from(table.index)];
    let mut ours: Vec<Uuid> = tables.iter().flat_map(|t| t.keys()).filter(|u| is_ours(u)).copied().collect();
    let mut adopted: BTreeMap<Uuid, Uuid> = BTreeMap::new();
    for row in rows {
        let found = of(row.table);
        let actual = if found.contains_key(&row.uuid) { row.uuid } else { lookup(row, found) };
        adopted.insert(row.uuid, actual);
        ours.retain(|u| *u != actual);
    }
    assert!(ours.is_empty(), "orphans: {ours:?}");
    for row in rows {
        let actual = &of(row.table)[&adopted[&row.uuid]];
        for (column, value) in &row.columns {
            assert_column(row, &adopted, actual.get(*column), *column, value);
        }
    }
}

fn lookup(row: &WholeRow, found: &BTreeMap<Uuid, Row>) -> Uuid {
    if row.table.is_singleton {
        return *found.keys().next().unwrap_or_else(|| panic!("no row in {}", row.table.name));
    }
    let name = row.table.column_id("name").and_then(|c| row.columns.iter().find(|(id, _)| *id == c));
    let (column, name) = name.unwrap_or_else(|| panic!("{} {} is missing", row.table.name, row.uuid));
    let hit = found.iter().find(|(u, r)| !is_ours(u) && r.get(*column) == Some(name));
    *hit.unwrap_or_else(|| panic!("{} {name:?} is missing", row.table.name)).0
}

fn assert_column(
    row: &WholeRow,
    adopted: &BTreeMap<Uuid, Uuid>,
    actual: Option<&Datum>,
    column: ovsdb::ColumnId,
    value: &Datum,
) {
    let place = format!("{} {} {}", row.table.name, row.uuid, row.table.column(column).name);
    let real = |a: &Atom| a.as_uuid().and_then(|u| adopted.get(&u)).map_or_else(|| a.clone(), |u| Atom::Uuid(*u));
    match value {
        // Of maps and sets others may have put something in; what is ours must be there, and nothing else of ours.
        Datum::Map(pairs) => {
            for (key, want) in pairs.iter() {
                assert_eq!(actual.and_then(|a| a.get(key)), Some(want), "{place} {key:?}");
            }
        }
        Datum::Set(wanted) => {
            let mut wanted: Vec<Atom> = wanted.iter().map(real).collect();
            wanted.sort_unstable();
            let strangers = |a: &&Atom| a.as_uuid().is_some_and(|u| !is_ours(&u) && !wanted.contains(*a));
            let have: Vec<Atom> =
                actual.map_or(&[][..], Datum::atoms).iter().filter(|a| !strangers(a)).cloned().collect();
            assert_eq!(have, wanted, "{place}");
        }
        Datum::Atom(atom) => {
            let real = Datum::Atom(real(atom));
            let default = ovsdb::is_default(&row.table.column(column).ty, &real);
            assert!(actual == Some(&real) || actual.is_none() && default, "{place}: {actual:?}, not {real:?}");
        }
    }
}
