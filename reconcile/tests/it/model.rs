//! A small in-memory OVSDB: applies transactions and enforces what ovsdb-server enforces at commit.
//!
//! Strong references must have targets, rows of non-root tables live as long as they are referenced, weak references to rows that are
//! gone are dropped, unique indexes are unique. Output: replies and the `<table-updates2>` text that a monitor would get.
//! Must not: be cleverer than the server (tests/server.rs holds both to the same properties).

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::{
    Atom, ColumnDesc, ColumnId, Condition, DatabaseDesc, Datum, DbError, Function, Mutator, Op, OpResult, Row, Shape,
    TableDesc, TxnReply, Until, Uuid,
};

use crate::world::Tables;

/// The database.
#[derive(Clone)]
pub struct Model {
    pub db: &'static DatabaseDesc,
    pub tables: Tables,
    /// Texts that no column may hold, as a stand-in for constraints.
    pub forbidden: BTreeSet<String>,
}

impl Model {
    pub fn new(db: &'static DatabaseDesc) -> Model {
        Model { db, tables: vec![BTreeMap::new(); db.tables.len()], forbidden: BTreeSet::new() }
    }

    pub fn rows(&self, table: &TableDesc) -> &BTreeMap<Uuid, Row> {
        &self.tables[usize::from(table.index)]
    }

    /// Runs a transaction. The update is empty text when nothing changed.
    pub fn transact(&mut self, ops: &[Op]) -> (TxnReply, String) {
        let before = self.tables.clone();
        let mut reply = TxnReply::default();
        let mut failed = false;
        for op in ops {
            let result = if failed {
                OpResult::Skipped
            } else {
                match self.run(op, &before) {
                    Ok(result) => result,
                    Err(error) => {
                        failed = true;
                        OpResult::Error(error)
                    }
                }
            };
            reply.ops.push(result);
        }
        if !failed && let Err(error) = self.commit() {
            reply.commit_error = Some(error);
            failed = true;
        }
        if failed {
            self.tables = before;
            return (reply, String::new());
        }
        (reply, difference(self.db, &before, &self.tables))
    }

    /// The whole contents as an update.
    pub fn contents(&self) -> String {
        difference(self.db, &vec![BTreeMap::new(); self.tables.len()], &self.tables)
    }

    fn table(&self, name: &str) -> &'static TableDesc {
        self.db.table(name).unwrap_or_else(|| panic!("no table {name}"))
    }

    fn matching(&self, table: &TableDesc, conditions: &[Condition]) -> Vec<Uuid> {
        let all = self.rows(table).iter();
        all.filter(|(u, r)| conditions.iter().all(|c| holds(table, u, r, c))).map(|(u, _)| *u).collect()
    }

    fn run(&mut self, op: &Op, before: &Tables) -> Result<OpResult, DbError> {
        match op {
            Op::Insert { table, uuid, row } => {
                let table = self.table(table);
                let uuid = uuid.unwrap();
                let at = usize::from(table.index);
                if self.tables[at].contains_key(&uuid) || before[at].contains_key(&uuid) {
                    return Err(error("duplicate uuid"));
                }
                let mut new = Row::new();
                for (name, datum) in row {
                    self.set(table, &mut new, name, datum)?;
                }
                self.tables[at].insert(uuid, new);
                Ok(OpResult::Inserted(uuid))
            }
            Op::Update { table, conditions, row } => {
                let table = self.table(table);
                let found = self.matching(table, conditions);
                for uuid in &found {
                    let mut new = self.rows(table)[uuid].clone();
                    for (name, datum) in row {
                        self.set(table, &mut new, name, datum)?;
                    }
                    self.tables[usize::from(table.index)].insert(*uuid, new);
                }
                Ok(OpResult::Count(found.len() as u64))
            }
            Op::Mutate { table, conditions, mutations } => {
                let table = self.table(table);
                let found = self.matching(table, conditions);
                for uuid in &found {
                    let mut new = self.rows(table)[uuid].clone();
                    for m in mutations {
                        let id = table.column_id(m.column).unwrap();
                        let value = mutated(table.column(id), new.get(id), m.mutator, &m.value);
                        self.set(table, &mut new, m.column, &value)?;
                    }
                    self.tables[usize::from(table.index)].insert(*uuid, new);
                }
                Ok(OpResult::Count(found.len() as u64))
            }
            Op::Delete { table, conditions } => {
                let table = self.table(table);
                let found = self.matching(table, conditions);
                found.iter().for_each(|u| drop(self.tables[usize::from(table.index)].remove(u)));
                Ok(OpResult::Count(found.len() as u64))
            }
            Op::Wait { table, conditions, until, rows, columns, .. } => {
                let table = self.table(table);
                let found = self.matching(table, conditions);
                let as_told = if rows.is_empty() {
                    found.is_empty()
                } else {
                    let id = table.column_id(columns[0]).unwrap();
                    let value = |u: &Uuid| self.rows(table)[u].get(id).cloned().unwrap_or(Datum::map([]));
                    found.len() == 1 && value(&found[0]) == rows[0][0].1
                };
                if as_told == (*until == Until::Equal) { Ok(OpResult::Done) } else { Err(error("timed out")) }
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    fn set(&self, table: &TableDesc, row: &mut Row, name: &str, value: &Datum) -> Result<(), DbError> {
        let id = table.column_id(name).ok_or_else(|| error("unknown column"))?;
        let texts = value.atoms().iter().chain(value.pairs().iter().map(|(_, v)| v)).filter_map(Atom::as_str);
        if texts.into_iter().any(|t| self.forbidden.contains(t)) {
            return Err(error("constraint violation"));
        }
        let column = table.column(id);
        assert!(
            matches!(
                (column.ty.shape(), value),
                (Shape::Atom, Datum::Atom(_)) | (Shape::Set, Datum::Set(_)) | (Shape::Map, Datum::Map(_))
            ) || column.ty.shape() == Shape::Atom && value.is_empty(),
            "{}.{name} cannot be {value:?}",
            table.name
        );
        row.set(id, &column.ty, value.clone());
        if value.is_empty() {
            row.clear(id);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), DbError> {
        self.collect();
        self.prune_weak();
        for table in self.db.tables {
            for row in self.rows(table).values() {
                for (target, uuid, strong) in references(table, row) {
                    if strong && !self.rows(self.table(target)).contains_key(&uuid) {
                        return Err(error("referential integrity violation"));
                    }
                }
            }
            for index in table.indexes {
                let mut seen = BTreeSet::new();
                for row in self.rows(table).values() {
                    let key: Vec<Option<Datum>> = index.iter().map(|c| row.get(*c).cloned()).collect();
                    if !seen.insert(format!("{key:?}")) {
                        return Err(error("constraint violation"));
                    }
                }
            }
            if table.is_singleton && self.rows(table).len() > 1 {
                return Err(error("constraint violation"));
            }
        }
        Ok(())
    }

    /// Drops rows of non-root tables that nothing refers to strongly, until none is left.
    fn collect(&mut self) {
        loop {
            let mut live: BTreeSet<Uuid> = BTreeSet::new();
            for table in self.db.tables {
                let rows = self.rows(table).iter();
                live.extend(rows.flat_map(|(u, r)| {
                    references(table, r).into_iter().filter(move |(_, t, s)| *s && t != u).map(|(_, t, _)| t)
                }));
            }
            let before: usize = self.tables.iter().map(BTreeMap::len).sum();
            for table in self.db.tables.iter().filter(|t| !t.is_root) {
                self.tables[usize::from(table.index)].retain(|u, _| live.contains(u));
            }
            if self.tables.iter().map(BTreeMap::len).sum::<usize>() == before {
                return;
            }
        }
    }

    fn prune_weak(&mut self) {
        let here: Vec<BTreeSet<Uuid>> = self.tables.iter().map(|t| t.keys().copied().collect()).collect();
        for table in self.db.tables {
            for row in self.tables[usize::from(table.index)].values_mut() {
                for (i, column) in table.columns.iter().enumerate() {
                    let Some(target) = column.ty.key.ref_table.filter(|_| !column.ty.key.strong) else { continue };
                    let there = &here[usize::from(self.db.table(target).unwrap().index)];
                    let id = ColumnId(i as u16);
                    let Some(value) = row.get(id) else { continue };
                    let kept: Vec<Atom> =
                        value.atoms().iter().filter(|a| there.contains(&a.as_uuid().unwrap())).cloned().collect();
                    if kept.len() < value.len() && column.ty.value.is_none() {
                        if kept.is_empty() { row.clear(id) } else { row.set(id, &column.ty, Datum::Set(kept.into())) }
                    }
                }
            }
        }
    }
}

fn error(kind: &str) -> DbError {
    DbError { error: kind.into(), details: None }
}

/// References of a row: target table, target, strong.
fn references(table: &TableDesc, row: &Row) -> Vec<(&'static str, Uuid, bool)> {
    let mut all = Vec::new();
    for (id, value) in row.iter() {
        let ty = &table.column(id).ty;
        let keys = value.atoms().iter().chain(value.pairs().iter().map(|(k, _)| k));
        let values = value.pairs().iter().map(|(_, v)| v);
        if let Some(target) = ty.key.ref_table {
            all.extend(keys.filter_map(Atom::as_uuid).map(|u| (target, u, ty.key.strong)));
        }
        if let Some((target, strong)) = ty.value.and_then(|v| Some((v.ref_table?, v.strong))) {
            all.extend(values.filter_map(Atom::as_uuid).map(|u| (target, u, strong)));
        }
    }
    all
}

fn holds(table: &TableDesc, uuid: &Uuid, row: &Row, condition: &Condition) -> bool {
    let Condition::Column { column, function, value } = condition else { panic!("literal condition") };
    if *column == "_uuid" {
        return value.atoms()[0].as_uuid() == Some(*uuid);
    }
    let actual = row.get(table.column_id(column).unwrap());
    match function {
        Function::Equal => actual == Some(value),
        Function::Includes => value.pairs().iter().all(|(k, v)| actual.and_then(|a| a.get(k)) == Some(v)),
        other => panic!("the model does not know {other:?}"),
    }
}

fn mutated(column: &ColumnDesc, old: Option<&Datum>, mutator: Mutator, value: &Datum) -> Datum {
    let insert = mutator == Mutator::Insert;
    match column.ty.shape() {
        Shape::Map => {
            let mut map: BTreeMap<Atom, Atom> = old.map_or(&[][..], Datum::pairs).iter().cloned().collect();
            if insert {
                for (k, v) in value.pairs() {
                    map.entry(k.clone()).or_insert_with(|| v.clone());
                }
            } else {
                value.atoms().iter().for_each(|k| drop(map.remove(k)));
            }
            Datum::map(map)
        }
        _ => {
            let mut set: BTreeSet<Atom> = old.map_or(&[][..], Datum::atoms).iter().cloned().collect();
            for atom in value.atoms() {
                if insert {
                    set.insert(atom.clone())
                } else {
                    set.remove(atom)
                };
            }
            Datum::set(set)
        }
    }
}

/// The update2 text from one state to another.
fn difference(db: &DatabaseDesc, before: &Tables, after: &Tables) -> String {
    let mut tables = Vec::new();
    for table in db.tables {
        let (old, new) = (&before[usize::from(table.index)], &after[usize::from(table.index)]);
        let mut rows = Vec::new();
        for (uuid, row) in new {
            match old.get(uuid) {
                None => rows.push(format!("\"{uuid}\":{{\"insert\":{}}}", columns(table, None, row))),
                Some(was) if was != row => {
                    rows.push(format!("\"{uuid}\":{{\"modify\":{}}}", columns(table, Some(was), row)));
                }
                Some(_) => {}
            }
        }
        rows.extend(old.keys().filter(|u| !new.contains_key(u)).map(|u| format!("\"{u}\":{{\"delete\":null}}")));
        if !rows.is_empty() {
            tables.push(format!("\"{}\":{{{}}}", table.name, rows.join(",")));
        }
    }
    if tables.is_empty() { String::new() } else { format!("{{{}}}", tables.join(",")) }
}

fn columns(table: &TableDesc, before: Option<&Row>, after: &Row) -> String {
    let mut texts = Vec::new();
    for (i, column) in table.columns.iter().enumerate() {
        let id = ColumnId(i as u16);
        let (old, new) = (before.and_then(|b| b.get(id)), after.get(id));
        if old == new {
            continue;
        }
        let value = match column.ty.shape() {
            Shape::Atom => new.cloned().unwrap_or_else(|| default(column)),
            Shape::Set => {
                let (a, b) = (old.map_or(&[][..], Datum::atoms), new.map_or(&[][..], Datum::atoms));
                Datum::set(a.iter().filter(|x| !b.contains(x)).chain(b.iter().filter(|x| !a.contains(x))).cloned())
            }
            Shape::Map => {
                let (a, b) = (old.map_or(&[][..], Datum::pairs), new.map_or(&[][..], Datum::pairs));
                let gone = a.iter().filter(|(k, _)| !b.iter().any(|(x, _)| x == k));
                Datum::map(gone.chain(b.iter().filter(|p| !a.contains(p))).cloned())
            }
        };
        let mut json = Vec::new();
        value.write_json(&mut json);
        texts.push(format!("\"{}\":{}", column.name, String::from_utf8(json).unwrap()));
    }
    format!("{{{}}}", texts.join(","))
}

fn default(column: &ColumnDesc) -> Datum {
    use ovsdb::AtomKind as K;
    if column.ty.is_optional() {
        return Datum::set([]);
    }
    match column.ty.key.kind {
        K::Integer => Datum::from(0),
        K::Real => Datum::from(0.0),
        K::Boolean => Datum::from(false),
        K::String => Datum::from(""),
        K::Uuid => Datum::from(Uuid::nil()),
    }
}
