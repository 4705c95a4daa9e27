//! `cold-start`: S1 with annotated pods, an empty Northbound; from the start of the process to the last row. Against reading the
//! same lists and writing the same rows with bare sockets, one after the other.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use ovenbird_schema::northbound::{logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{MonitorSpec, TableSpec};

use crate::cluster::{ApiServer, Master, PODS, Ports, SELDOM, ports_of};
use crate::record::{cold_floor, switches};
use crate::rows::Rows;
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

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
        let paths = ["api/v1/nodes", "api/v1/namespaces", "api/v1/pods"];
        let (seconds, list_bytes) = cold_floor(&dir, &api, &paths, &messages)?;
        lists = list_bytes;
        floor.push(seconds);
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
    Ok(switches(&Rows::watch(server, spec).await?.replica))
}
