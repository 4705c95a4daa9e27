//! `cold-start`: S1 with annotated pods, an empty Northbound; from the start of the process to the last row. Against reading the
//! same lists and writing the same rows with bare sockets, one after the other.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use ovenbird_schema::northbound::{DATABASE, logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{Client, Condition, Config, Datum, Event, MonitorSpec, Mutation, Mutator, Op, Replica, TableSpec, Uuid};

use crate::cluster::{ApiServer, Master, PODS, Ports, SELDOM, ports_of};
use crate::raw::{Raw, transact};
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

/// Pods in one transaction of the floor: where ovsdb-server is quickest.
const BATCH: usize = 100;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    let (mut ours, mut floor, mut usage) = (Vec::new(), Vec::new(), Usage::default());
    let (mut transactions, mut lists, mut bytes) = (0, 0, 0);
    for round in 0..context.rounds {
        let dir = context.dir.join(round.to_string());
        std::fs::create_dir_all(dir.join("raw")).context("make a folder")?;
        let server = Server::start(&dir)?;
        let mut ports = Ports::watch(&server).await?;
        let master = Master::start(&dir, &api, &server)?;
        ports.reach(ports_of(PODS)).await?;
        ours.push(master.began.elapsed().as_secs_f64());
        usage = master.usage()?;
        let (status, _) = master.settle(SELDOM)?;
        transactions = status["northbound"]["transactions"].as_u64().unwrap_or_default();
        ensure!(status["waiting"].as_array().is_some_and(Vec::is_empty), "pods wait: {}", status["waiting"]);
        master.stop()?;
        let messages = record(&server).await?;
        bytes = messages.iter().map(|m| m.len() as u64).sum();
        let raw = Server::start(&dir.join("raw"))?;
        let began = Instant::now();
        lists = ["nodes", "namespaces", "pods"]
            .into_iter()
            .map(|kind| api.get(&format!("/api/v1/{kind}")))
            .sum::<Result<usize, _>>()?;
        replay(&raw, &messages)?;
        floor.push(began.elapsed().as_secs_f64());
    }
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "s",
        goal: "1.2 x (must: 2.5 x)",
        usage,
        transactions,
        rows: ports_of(PODS) as u64,
        bytes,
        more: BTreeMap::from([("list_bytes", lists.into())]),
    })
}

/// The rows of a database as transactions that write them anew, ready to be sent.
async fn record(server: &Server) -> anyhow::Result<Vec<Vec<u8>>> {
    let spec = MonitorSpec::new().with(TableSpec::all(&lsp::TABLE)).with(TableSpec::all(&ls::TABLE));
    let mut replica = Replica::new(&DATABASE, &spec);
    let (_handle, mut events) = Client::spawn(Config::new(vec![server.endpoint()]), &DATABASE, spec);
    while replica.is_empty(&lsp::TABLE) {
        match events.recv().await.context("the client ended")? {
            Event::Connected(info) => replica.set_server(&info),
            Event::Update(update) => replica.apply(&update, &mut Vec::new())?,
            _ => {}
        }
    }
    let columns = |table: &'static ovsdb::TableDesc, row: &ovsdb::Row, without: &[ovsdb::ColumnId]| {
        let set = row.iter().filter(|(c, _)| !without.contains(c)).map(|(c, d)| (table.column(c).name, d.clone()));
        set.collect::<Vec<_>>()
    };
    let insert = |table: &'static ovsdb::TableDesc, uuid, row| Op::Insert { table: table.name, uuid: Some(uuid), row };
    let switches: Vec<(Uuid, &ovsdb::Row)> = replica.rows(&ls::TABLE).collect();
    // Ports come later; groups of load balancers are rows of a table that is not replayed.
    let left = [ls::PORTS, ls::LOAD_BALANCER_GROUP];
    let mut messages =
        vec![transact(switches.iter().map(|(u, r)| insert(&ls::TABLE, *u, columns(&ls::TABLE, r, &left))))];
    let ports = switches.iter().flat_map(|(switch, row)| {
        let members = row.get(ls::PORTS).map(Datum::atoms).unwrap_or_default();
        members.iter().filter_map(|m| m.as_uuid()).map(|port| (*switch, port))
    });
    let ports: Vec<(Uuid, Uuid)> = ports.collect();
    for chunk in ports.chunks(BATCH) {
        let rows = chunk.iter().filter_map(|(_, port)| Some((*port, replica.row(&lsp::TABLE, port)?)));
        let mut ops: Vec<Op> = rows.map(|(u, r)| insert(&lsp::TABLE, u, columns(&lsp::TABLE, r, &[lsp::UP]))).collect();
        let mut members: BTreeMap<Uuid, Vec<ovsdb::Atom>> = BTreeMap::new();
        for (switch, port) in chunk {
            members.entry(*switch).or_default().push((*port).into());
        }
        ops.extend(members.into_iter().map(|(switch, ports)| Op::Mutate {
            table: "Logical_Switch",
            conditions: vec![Condition::uuid(switch)],
            mutations: vec![Mutation::new("ports", Mutator::Insert, Datum::Set(ports))],
        }));
        messages.push(transact(ops));
    }
    Ok(messages)
}

fn replay(server: &Server, messages: &[Vec<u8>]) -> anyhow::Result<()> {
    let mut raw = Raw::connect(server.socket())?;
    for message in messages {
        raw.send(message)?;
        let reply = raw.receive(1)?;
        let text = String::from_utf8_lossy(reply);
        ensure!(text.contains(r#""error":null"#) && !text.contains(r#""details""#), "refused: {text}");
    }
    Ok(())
}
