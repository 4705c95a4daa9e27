//! `services-memory`: resident megabytes of the master that each further thousand Services of five endpoints take.
//! `services-cold`: 10,000 such Services into an empty Northbound; from the start of the process to the last row, against reading the same
//! lists and writing the same rows with bare sockets. `endpoint`: from sending a PATCH of an EndpointSlice to seeing the load
//! balancer in the database, with 500 and with 10,000 Services; against the PATCH's way to a watcher.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use ovenbird_schema::northbound::{load_balancer as lb, load_balancer_group as group};
use ovsdb::{Condition, Datum, Mutation, Mutator, Op, Replica};

use crate::balancers::{self, endpoint_of, fill, members, name_of, patch, row_of};
use crate::cluster::{ApiServer, Master, SELDOM, at_rest, namespace_of};
use crate::raw::transact;
use crate::record::{BATCH, cold_floor, insert};
use crate::rows::Rows;
use crate::server::Server;
use crate::{Context, Outcome, Usage, median, quantile};

/// Services at the lower and at the upper end.
const SIZES: [usize; 2] = [1_000, 10_000];
/// Services between which one changes, and how many endpoints it has left then: less than before.
const AMONG: [(usize, usize); 2] = [(500, 4), (10_000, 2)];
/// Changes that are timed.
const CHANGES: usize = 300;

/// Runs `services-memory`.
pub async fn memory(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..0, true).await?;
    let (mut figures, mut usage) = (Vec::new(), Usage::default());
    for range in [0..SIZES[0], SIZES[0]..SIZES[1]] {
        let count = range.end;
        fill(&api, range).await?;
        usage = at_rest(context, &count.to_string(), &api)?;
        figures.push(usage.rss_bytes as f64 / 1e6);
    }
    let slope = (figures[1] - figures[0]) / ((SIZES[1] - SIZES[0]) as f64 / 1e3);
    Ok(Outcome {
        ours: slope,
        floor: 0.0,
        unit: "MB per 1,000",
        goal: "3 MB (must: 6)",
        usage,
        transactions: 0,
        rows: SIZES[1] as u64,
        bytes: 0,
        more: BTreeMap::from([("mb_at_1000", figures[0].round().into()), ("mb_at_10000", figures[1].round().into())]),
    })
}

/// Runs `services-cold`.
pub async fn cold(context: &Context) -> anyhow::Result<Outcome> {
    let count = SIZES[1];
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..0, true).await?;
    fill(&api, 0..count).await?;
    let (mut ours, mut floor, mut usage) = (Vec::new(), Vec::new(), Usage::default());
    let (mut transactions, mut lists, mut bytes) = (0, 0, 0);
    for round in 0..context.rounds {
        let dir = context.dir.join(round.to_string());
        std::fs::create_dir_all(dir.join("raw")).context("make a folder")?;
        let server = Server::start(&dir)?;
        let mut names = balancers::names(&server).await?;
        let master = Master::start(&dir, &api, &server)?;
        names.until(|replica| replica.len(&lb::TABLE) == count).await?;
        ours.push(master.began.elapsed().as_secs_f64());
        usage = master.usage()?;
        let balancers = balancers::watch(&server).await?;
        ensure!(members(&balancers.replica) == count, "the last row came before its group had it");
        let (status, _) = master.settle(SELDOM)?;
        transactions = status["northbound"]["transactions"].as_u64().unwrap_or_default();
        master.stop()?;
        let messages = record(&balancers.replica);
        bytes = messages.iter().map(|m| m.len() as u64).sum();
        let paths = ["api/v1/nodes", "api/v1/namespaces", "api/v1/services", "apis/discovery.k8s.io/v1/endpointslices"];
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
        rows: count as u64,
        bytes,
        more: BTreeMap::from([("list_bytes", lists.into())]),
    })
}

/// Runs `endpoint`.
pub async fn endpoint(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..0, true).await?;
    let (mut more, mut last, mut usage, mut bytes) = (BTreeMap::new(), (0.0, 0.0), Usage::default(), 0);
    let mut made = 0;
    for ((among, endpoints), keys) in
        AMONG.into_iter().zip([["p50_ms_at_500", "p99_ms_at_500"], ["p50_ms_at_10000", "p99_ms_at_10000"]])
    {
        fill(&api, made..among).await?;
        made = among;
        let dir = context.dir.join(among.to_string());
        std::fs::create_dir_all(&dir).context("make a folder")?;
        let server = Server::start(&dir)?;
        let master = Master::start(&dir, &api, &server)?;
        master.settle(SELDOM)?;
        let mut balancers = balancers::watch(&server).await?;
        let ours = changes(&api, &mut balancers, endpoints).await?;
        let floor = ways(&api).await?;
        let (status, _) = master.settle(SELDOM)?;
        let written = status["commits"].as_array().into_iter().flatten().filter_map(|commit| commit["bytes"].as_u64());
        bytes = written.max().unwrap_or_default();
        usage = master.usage()?;
        master.stop()?;
        let round = |seconds: f64| (seconds * 1e5).round() / 1e2;
        more.insert(keys[0], round(quantile(&ours, 0.5)).into());
        more.insert(keys[1], round(quantile(&ours, 0.99)).into());
        last = (quantile(&ours, 0.5) * 1e3, quantile(&floor, 0.5) * 1e3);
    }
    more.insert("most_bytes_of_a_change", bytes.into());
    Ok(Outcome {
        ours: last.0,
        floor: last.1,
        unit: "ms",
        goal: "p99 10 ms (must: p50 6, p99 20)",
        usage,
        transactions: (AMONG.len() * CHANGES) as u64,
        rows: made as u64,
        bytes,
        more,
    })
}

/// Times from sending a PATCH that takes endpoints away, so that `most` or one less are left, to the row's being so.
async fn changes(api: &ApiServer, balancers: &mut Rows, most: usize) -> anyhow::Result<Vec<Duration>> {
    let client = api.client()?;
    let mut times = Vec::new();
    for i in 0..CHANGES {
        let count = most - i % 2;
        let endpoints = (0..count).map(|n| endpoint_of(i, n)).collect();
        let uuid = row_of(&balancers.replica, i)?;
        let name = name_of(i);
        let began = Instant::now();
        let patching = patch(&client, i, &name, endpoints);
        let seeing = balancers.until(|replica| {
            let row = replica.row(&lb::TABLE, &uuid);
            row.is_some_and(|row| lb::Ref(row).vips().iter().all(|(_, list)| list.split(',').count() == count))
        });
        let seeing = async { seeing.await.map(|()| began.elapsed()) };
        times.push(futures::future::try_join(patching, seeing).await?.1);
    }
    Ok(times)
}

/// Times from sending such a PATCH to seeing it in a watch.
async fn ways(api: &ApiServer) -> anyhow::Result<Vec<Duration>> {
    let client = api.client()?;
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), &namespace_of(0));
    let version = slices.list(&Default::default()).await.context("list")?.metadata.resource_version.unwrap_or_default();
    let stream = slices.watch(&WatchParams::default(), &version).await.context("watch")?;
    tokio::pin!(stream);
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let endpoints = (0..n % 2 + 1).map(|n| endpoint_of(0, n)).collect();
        let began = Instant::now();
        let patching = patch(&client, 0, "service-0", endpoints);
        let seeing = async {
            while let Some(event) = stream.try_next().await.context("watch")? {
                if matches!(event, WatchEvent::Modified(_)) {
                    return anyhow::Ok(began.elapsed());
                }
            }
            bail!("the watch ended")
        };
        times.push(futures::future::try_join(patching, seeing).await?.1);
    }
    Ok(times)
}

/// The rows as transactions that write them anew, ready to be sent.
fn record(replica: &Replica) -> Vec<Vec<u8>> {
    let empty = replica.rows(&group::TABLE).map(|(u, row)| insert(&group::TABLE, u, row, &[group::LOAD_BALANCER]));
    let mut messages = vec![transact(empty)];
    for (uuid, row) in replica.rows(&group::TABLE) {
        let members: Vec<_> = group::Ref(row).load_balancer().collect();
        for chunk in members.chunks(BATCH) {
            let rows = chunk.iter().filter_map(|member| Some((*member, replica.row(&lb::TABLE, member)?)));
            let mut ops: Vec<Op> = rows.map(|(u, r)| insert(&lb::TABLE, u, r, &[])).collect();
            let members = Datum::Set(chunk.iter().map(|member| (*member).into()).collect());
            ops.push(Op::Mutate {
                table: "Load_Balancer_Group",
                conditions: vec![Condition::uuid(uuid)],
                mutations: vec![Mutation::new("load_balancer", Mutator::Insert, members)],
            });
            messages.push(transact(ops));
        }
    }
    messages
}
