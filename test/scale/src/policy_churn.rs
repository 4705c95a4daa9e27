//! `policy-churn`: pods come and go at 100 a second in S1: without policies, with 1,000 that do not select them, and with 1,000 that do,
//! 50 for each pod. From sending the POST to seeing the port in the database, which it enters together with its memberships; and
//! what is written per pod, which policies that do not select it must not change.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::churn::{SECONDS, churn, watch_latency};
use crate::cluster::{ApiServer, Master, NAMESPACES, PODS, Ports, SELDOM, namespace_of};
use crate::policies::{create, labelled, let_in};
use crate::server::Server;
use crate::written::Written;
use crate::{Context, Outcome, quantile};

/// Pods a second.
const RATE: usize = 100;
/// Policies of each namespace, and so 1,000.
const EACH: usize = 50;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    let server = Server::start(&context.dir)?;
    let floor = watch_latency(&api).await?;
    let master = Master::start(&context.dir, &api, &server)?;
    master.settle(SELDOM)?;
    let mut ports = Ports::watch(&server).await?;
    let (mut more, mut last, mut written) = (BTreeMap::new(), (0.0, 0.0), Written::default());
    let keys = [
        ["bytes_without", "p50_ms_without", "p99_ms_without"],
        ["bytes_not_selected", "p50_ms_not_selected", "p99_ms_not_selected"],
        ["bytes_selected", "p50_ms_selected", "p99_ms_selected"],
    ];
    for (turn, keys) in keys.into_iter().enumerate() {
        match turn {
            0 => {}
            1 => create(&api, policies("other", "none")).await?,
            _ => create(&api, policies("own", "front")).await?,
        }
        let before = Written::so_far(&master)?;
        let first = PODS + 1_000 + turn * RATE * SECONDS;
        let latencies = churn(&api, &mut ports, first, RATE).await?;
        let times: Vec<_> = latencies.into_iter().map(std::time::Duration::from_secs_f64).collect();
        written = Written::default();
        written.add(&before, &Written::so_far(&master)?);
        last = (quantile(&times, 0.5) * 1e3, quantile(&times, 0.99) * 1e3);
        more.insert(keys[0], (written.bytes / (RATE * SECONDS) as u64).into());
        more.insert(keys[1], round(last.0).into());
        more.insert(keys[2], round(last.1).into());
    }
    let usage = master.usage()?;
    let (status, _) = master.settle(SELDOM).context("settle")?;
    ensure!(status["waiting"].as_array().is_some_and(Vec::is_empty), "pods wait: {}", status["waiting"]);
    master.stop()?;
    Ok(Outcome {
        ours: last.0,
        floor: floor * 1e3,
        unit: "ms",
        goal: "p99 8 ms (must: bytes constant in policies that do not select)",
        usage,
        transactions: written.transactions,
        rows: (RATE * SECONDS) as u64,
        bytes: written.bytes / (RATE * SECONDS) as u64,
        more,
    })
}

/// Policies for the pods of a tier, all pods of which they select; each lets in an app.
fn policies(name: &'static str, tier: &'static str) -> impl Iterator<Item = (String, String, Value)> {
    let each = move |namespace| {
        (0..EACH).map(move |n| {
            let peer = json!({"podSelector": {"matchLabels": {"app": format!("web-{n}"), "tier": tier}}});
            (namespace_of(namespace), format!("{name}-{n}"), let_in(&labelled("tier", tier), &[peer]))
        })
    };
    (0..NAMESPACES).flat_map(each)
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
