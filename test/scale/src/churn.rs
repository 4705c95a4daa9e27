//! `churn`: S1 at rest, then pods come and go at 100 and at 400 a second; from sending the POST to seeing the port in the
//! database. Against the least between those: the POST's way to a watcher, and a transaction of one pod on a bare socket.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;

use crate::cluster::{ApiServer, Master, PODS, Ports, SELDOM, create_pod, namespace_of};
use crate::server::Server;
use crate::{Context, Outcome, median};

/// Pods a second.
const RATES: [usize; 2] = [100, 400];
/// Seconds at each rate.
pub const SECONDS: usize = 5;
/// Pods that live at a time.
const ALIVE: usize = 200;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    let dir = context.dir.join("northbound");
    std::fs::create_dir_all(&dir).context("make a folder")?;
    let server = Server::start(&dir)?;
    let floor = watch_latency(&api).await?;
    let master = Master::start(&dir, &api, &server)?;
    master.settle(SELDOM)?;
    let mut ports = Ports::watch(&server).await?;
    let mut more = BTreeMap::new();
    let mut ours = 0.0;
    let mut next = PODS + 1_000;
    for rate in RATES {
        let mut latencies = churn(&api, &mut ports, next, rate).await?;
        next += rate * SECONDS;
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1e3;
        let key = |name: &str| -> &'static str {
            match (rate, name) {
                (100, "p50") => "p50_ms_at_100",
                (100, _) => "p99_ms_at_100",
                (_, "p50") => "p50_ms_at_400",
                _ => "p99_ms_at_400",
            }
        };
        more.insert(key("p50"), round(at(0.5)).into());
        more.insert(key("p99"), round(at(0.99)).into());
        ours = at(0.5);
    }
    let usage = master.usage()?;
    let (status, _) = master.settle(SELDOM)?;
    let transactions = status["northbound"]["transactions"].as_u64().unwrap_or_default();
    master.stop()?;
    Ok(Outcome {
        ours,
        floor: floor * 1e3,
        unit: "ms",
        goal: "p50 2, p99 8 ms (must: 5, 15)",
        usage,
        transactions,
        rows: (next - PODS - 1_000) as u64,
        bytes: 0,
        more,
    })
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// Seconds from POST to port of each pod; pods have numbers from `first` on, as many as come in [`SECONDS`] at `rate`.
pub async fn churn(api: &ApiServer, ports: &mut Ports, first: usize, rate: usize) -> anyhow::Result<Vec<f64>> {
    let count = rate * SECONDS;
    let (sent, mut posts) = mpsc::unbounded_channel();
    let client = api.client()?;
    let driver = tokio::spawn(async move {
        let began = tokio::time::Instant::now();
        for n in 0..count {
            tokio::time::sleep_until(began + Duration::from_secs_f64(n as f64 / rate as f64)).await;
            let (client, sent, i) = (client.clone(), sent.clone(), first + n);
            tokio::spawn(async move {
                let at = Instant::now();
                let created = create_pod(&client, i, false).await;
                // The reader is gone only when the case has failed.
                let _ = sent.send((i, at, created));
                if n >= ALIVE {
                    let pods = Api::<Pod>::namespaced(client, &namespace_of(i - ALIVE));
                    let now = DeleteParams::default().grace_period(0);
                    pods.delete(&crate::cluster::pod_name(i - ALIVE), &now).await.ok();
                }
            });
        }
    });
    let (mut at, mut seen): (HashMap<String, Instant>, HashMap<String, Instant>) = Default::default();
    let deadline = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(deadline);
    while at.len() < count || at.keys().any(|name| !seen.contains_key(name)) {
        tokio::select! {
            Some((i, when, created)) = posts.recv() => {
                created?;
                at.insert(format!("{}_{}", namespace_of(i), crate::cluster::pod_name(i)), when);
            }
            names = ports.next() => {
                let now = Instant::now();
                seen.extend(names?.into_iter().flatten().map(|name| (name, now)));
            }
            () = &mut deadline => anyhow::bail!("{} ports of {count} came", seen.len()),
        }
    }
    driver.await.context("the driver")?;
    let latencies: Vec<f64> =
        at.iter().filter_map(|(name, at)| Some(seen.get(name)?.duration_since(*at).as_secs_f64())).collect();
    ensure!(latencies.len() == count, "ports are missing");
    Ok(latencies)
}

/// Median seconds from sending a POST to seeing the pod in a watch, one at a time.
pub async fn watch_latency(api: &ApiServer) -> anyhow::Result<f64> {
    let client = api.client()?;
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace_of(0));
    let version = pods.list(&Default::default()).await.context("list")?.metadata.resource_version.unwrap_or_default();
    let stream = pods.watch(&WatchParams::default(), &version).await.context("watch")?;
    tokio::pin!(stream);
    let mut latencies = Vec::new();
    for n in 0..100 {
        // Numbers that fall into namespace 0.
        let i = (PODS + 100_000) / 20 * 20 + n * 20;
        let began = Instant::now();
        let creating = create_pod(&client, i, false);
        let seeing = async {
            while let Some(event) = stream.try_next().await.context("watch")? {
                if matches!(event, WatchEvent::Added(_)) {
                    return Ok(began.elapsed().as_secs_f64());
                }
            }
            anyhow::bail!("the watch ended")
        };
        let (created, seen) = futures::future::join(creating, seeing).await;
        created?;
        latencies.push(seen?);
        let now = DeleteParams::default().grace_period(0);
        pods.delete(&crate::cluster::pod_name(i), &now).await.context("delete")?;
    }
    Ok(median(latencies))
}
