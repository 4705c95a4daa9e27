//! Floors of what is written: the rows of a replica as transactions that write them anew, and a bare socket that sends these.
//!
//! Must not: depend on how a master came to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use ovenbird_schema::northbound::{
    acl, address_set as set, logical_switch as ls, logical_switch_port as lsp, port_group as pg,
};
use ovsdb::{Atom, ColumnId, Condition, Datum, Mutation, Mutator, Op, Replica, Row, TableDesc, Uuid};

use crate::cluster::ApiServer;
use crate::raw::{Raw, transact};
use crate::server::Server;

/// Rows in one transaction: where ovsdb-server is quickest.
pub const BATCH: usize = 100;

/// The operation that writes a row, but for some columns.
pub fn insert(table: &'static TableDesc, uuid: Uuid, row: &Row, without: &[ColumnId]) -> Op {
    let columns = row.iter().filter(|(column, _)| !without.contains(column));
    let row = columns.map(|(column, datum)| (table.column(column).name, datum.clone())).collect();
    Op::Insert { table: table.name, uuid: Some(uuid), row }
}

/// Switches, then their ports.
pub fn switches(replica: &Replica) -> Vec<Vec<u8>> {
    let switches: Vec<(Uuid, &Row)> = replica.rows(&ls::TABLE).collect();
    // Ports come later; the others are rows of tables that are not replayed, or not yet.
    let left = [ls::PORTS, ls::LOAD_BALANCER_GROUP, ls::ACLS];
    let mut messages = vec![transact(switches.iter().map(|(u, r)| insert(&ls::TABLE, *u, r, &left)))];
    let ports = switches.iter().flat_map(|(switch, row)| {
        let members = row.get(ls::PORTS).map(Datum::atoms).unwrap_or_default();
        members.iter().filter_map(|m| m.as_uuid()).map(|port| (*switch, port))
    });
    let ports: Vec<(Uuid, Uuid)> = ports.collect();
    for chunk in ports.chunks(BATCH) {
        let rows = chunk.iter().filter_map(|(_, port)| Some((*port, replica.row(&lsp::TABLE, port)?)));
        let mut ops: Vec<Op> = rows.map(|(u, r)| insert(&lsp::TABLE, u, r, &[lsp::UP])).collect();
        let mut members: BTreeMap<Uuid, Vec<Atom>> = BTreeMap::new();
        for (switch, port) in chunk {
            members.entry(*switch).or_default().push((*port).into());
        }
        ops.extend(members.into_iter().map(|(switch, ports)| Op::Mutate {
            table: "Logical_Switch",
            conditions: vec![Condition::uuid(switch)],
            mutations: vec![Mutation::new("ports", Mutator::Insert, Datum::Set(ports.into()))],
        }));
        messages.push(transact(ops));
    }
    messages
}

/// Address sets and port groups with their ACLs, each row whole.
pub fn policies(replica: &Replica) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<Op>> =
        replica.rows(&set::TABLE).map(|(uuid, row)| vec![insert(&set::TABLE, uuid, row, &[])]).collect();
    units.extend(replica.rows(&pg::TABLE).map(|(uuid, row)| {
        let acls = pg::Ref(row).acls().filter_map(|acl| Some((acl, replica.row(&acl::TABLE, &acl)?)));
        let acls = acls.map(|(uuid, row)| insert(&acl::TABLE, uuid, row, &[]));
        acls.chain([insert(&pg::TABLE, uuid, row, &[])]).collect()
    }));
    let (mut messages, mut ops) = (Vec::new(), Vec::new());
    for unit in units {
        ops.extend(unit);
        if ops.len() >= BATCH {
            messages.push(transact(std::mem::take(&mut ops)));
        }
    }
    messages.push(transact(ops));
    messages
}

/// Sends the transactions one after the other.
pub fn replay(server: &Server, messages: &[Vec<u8>]) -> anyhow::Result<()> {
    let mut raw = Raw::connect(server.socket())?;
    for message in messages {
        raw.send(message)?;
        let reply = raw.receive(1)?;
        let text = String::from_utf8_lossy(reply);
        ensure!(text.contains(r#""error":null"#) && !text.contains(r#""details""#), "refused: {text}");
    }
    Ok(())
}

/// What a cold start cannot do without: the lists, read by bare requests, and the transactions, sent to an empty server in `dir/raw`.
/// Seconds, and bytes of the lists.
pub fn cold_floor(dir: &Path, api: &ApiServer, lists: &[&str], messages: &[Vec<u8>]) -> anyhow::Result<(f64, usize)> {
    let raw = Server::start(&dir.join("raw"))?;
    let began = Instant::now();
    let bytes = lists.iter().map(|path| api.get(&format!("/{path}"))).sum::<Result<usize, _>>()?;
    replay(&raw, messages)?;
    Ok((began.elapsed().as_secs_f64(), bytes))
}
