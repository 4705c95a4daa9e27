//! `restart`: S1, and a Northbound that holds it already; from the start of the process to being sure that nothing is to be done.
//! Against reading lists and database with bare sockets, one after the other.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::cluster::{ApiServer, Master, OFTEN, PODS, SELDOM, ports_of};
use crate::raw::Raw;
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    let dir = context.dir.join("northbound");
    std::fs::create_dir_all(&dir).context("make a folder")?;
    let server = Server::start(&dir)?;
    let first = Master::start(&dir, &api, &server)?;
    first.settle(SELDOM)?;
    first.stop()?;
    let (mut ours, mut floor, mut usage, mut transactions) = (Vec::new(), Vec::new(), Usage::default(), 0);
    for _ in 0..context.rounds {
        let master = Master::start(&dir, &api, &server)?;
        let (status, seconds) = master.settle(OFTEN)?;
        ours.push(seconds);
        usage = master.usage()?;
        transactions += status["northbound"]["transactions"].as_u64().unwrap_or_default();
        ensure!(status["northbound"]["rows"].as_u64() >= Some(ports_of(PODS) as u64), "rows are missing");
        master.stop()?;
        let began = Instant::now();
        for kind in ["nodes", "namespaces", "pods"] {
            api.get(&format!("/api/v1/{kind}"))?;
        }
        let mut raw = Raw::connect(server.socket())?;
        raw.send(br#"{"method":"monitor_cond_since","params":["OVN_Northbound","m",{"Logical_Switch_Port":[{}],"Logical_Switch":[{}]},"00000000-0000-0000-0000-000000000000"],"id":1}"#)?;
        raw.receive(1)?;
        floor.push(began.elapsed().as_secs_f64());
    }
    ensure!(transactions == 0, "{transactions} transactions in {} restarts with nothing to do", context.rounds);
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "s",
        goal: "0.5 s, 0 transactions (must: 1.0 s)",
        usage,
        transactions,
        rows: ports_of(PODS) as u64,
        bytes: 0,
        more: BTreeMap::new(),
    })
}
