//! `ovsdb-commit`: transactions of one pod each, one at a time, with a replica attached; against a raw socket that writes the
//! same and reads the same. The client and its owner share one thread, as a daemon's core should: a change of threads for every
//! transaction would cost more than the rest of the client.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail, ensure};
use ovenbird_schema::northbound::{DATABASE, logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{
    Atom, Client, Condition, Config, Datum, Endpoint, Event, MonitorSpec, Mutation, Mutator, Op, Replica, TableSpec,
    Uuid,
};

use crate::outcome::Stopwatch;
use crate::ovsdb_load::port;
use crate::raw::{Raw, transact};
use crate::server::Server;
use crate::{Context, Outcome, median};

const TRANSACTIONS: u128 = 4_000;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let (mut ours, mut floor, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut usage = crate::Usage::default();
    for round in 0..context.rounds {
        let sides = [context.dir.join(format!("{round}-raw")), context.dir.join(format!("{round}-client"))];
        for dir in &sides {
            std::fs::create_dir(dir).context("make a folder")?;
        }
        let [raw_side, client_side] = sides;
        let (seconds, sent) = raw(&Server::start(&raw_side)?)?;
        floor.push(seconds);
        bytes = sent;
        let server = Server::start(&client_side)?;
        let watch = Stopwatch::start()?;
        ours.push(std::thread::scope(|scope| {
            scope.spawn(|| on_one_thread(&server)).join().map_err(|_| anyhow!("panic"))
        })??);
        usage = watch.usage()?;
    }
    let micros = |seconds: Vec<f64>| median(seconds) * 1e6 / TRANSACTIONS as f64;
    Ok(Outcome {
        ours: micros(ours),
        floor: micros(floor),
        unit: "us",
        goal: "1.1 x (must: 1.3 x)",
        usage,
        transactions: TRANSACTIONS as u64,
        rows: TRANSACTIONS as u64,
        bytes,
        more: BTreeMap::new(),
    })
}

const SWITCH: Uuid = Uuid::from_u128(1);

fn add_switch() -> Vec<Op> {
    vec![Op::Insert { table: "Logical_Switch", uuid: Some(SWITCH), row: vec![("name", "node-1".into())] }]
}

fn add_pod(n: u128) -> Vec<Op> {
    let uuid = Uuid::from_u128(1_000_000 + n);
    let member = Mutation::new("ports", Mutator::Insert, Datum::set([Atom::from(uuid)]));
    let conditions = vec![Condition::uuid(SWITCH)];
    vec![port(n, "node-1", uuid), Op::Mutate { table: "Logical_Switch", conditions, mutations: vec![member] }]
}

fn on_one_thread(server: &Server) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    // A task of the runtime is woken without a system call; the future given to `block_on` is not.
    runtime.block_on(async { tokio::spawn(client(server.endpoint())).await }).context("run the client")?
}

/// Seconds of all transactions through the client, replica included.
async fn client(server: Endpoint) -> anyhow::Result<f64> {
    let spec = MonitorSpec::new().with(TableSpec::all(&lsp::TABLE)).with(TableSpec::all(&ls::TABLE));
    let mut replica = Replica::new(&DATABASE, &spec);
    let (handle, mut events) = Client::spawn(Config::new(vec![server]), &DATABASE, spec);
    // Both sides have their content ready; what is measured begins with encoding it here, with sending it there.
    let mut pods = (1..=TRANSACTIONS).map(add_pod).collect::<Vec<_>>().into_iter();
    let mut changes = Vec::new();
    let mut began = Instant::now();
    let mut replies = 0;
    while replies <= TRANSACTIONS {
        let send = match events.recv().await.context("the client ended")? {
            Event::Connected(info) => {
                replica.set_server(&info);
                Some(add_switch())
            }
            Event::Update(update) => {
                changes.clear();
                replica.apply(&update, &mut changes)?;
                None
            }
            Event::Reply { result, .. } => {
                let reply = result?;
                ensure!(reply.is_committed(), "{:?}", reply.error());
                if replies == 0 {
                    began = Instant::now();
                }
                replies += 1;
                pods.next()
            }
            other => bail!("unexpected: {other:?}"),
        };
        if let Some(ops) = send {
            handle.transact(&ops);
        }
    }
    ensure!(replica.len(&lsp::TABLE) as u128 == TRANSACTIONS, "rows are missing");
    Ok(began.elapsed().as_secs_f64())
}

/// Seconds of the same transactions over a raw socket, and the bytes sent.
fn raw(server: &Server) -> anyhow::Result<(f64, u64)> {
    let messages: Vec<Vec<u8>> = (1..=TRANSACTIONS).map(|n| transact(add_pod(n))).collect();
    let mut raw = Raw::connect(server.socket())?;
    raw.send(br#"{"method":"monitor_cond_since","params":["OVN_Northbound","m",{"Logical_Switch_Port":[{}],"Logical_Switch":[{}]},"00000000-0000-0000-0000-000000000000"],"id":1}"#)?;
    raw.receive(1)?;
    raw.send(&transact(add_switch()))?;
    raw.receive(2)?;
    let began = Instant::now();
    for message in &messages {
        raw.send(message)?;
        // The update, then the reply.
        raw.receive(2)?;
    }
    Ok((began.elapsed().as_secs_f64(), messages.iter().map(|m| m.len() as u64).sum()))
}
