//! `density`: 200 pods on one node of real Kubernetes, 20 created each second; how long the slowest took to be Ready, and what our
//! daemons used. The floor is the same with the `bridge` plugin and `host-local`: what the machine takes to run
//! that many pods, whoever gives them their network.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kubernetes::{Cluster, Network, Pace};
use crate::process::load_average;
use crate::{Context, Outcome, Usage, quantile};

/// Pods of a node.
pub const PODS: usize = 200;
const RATE: u32 = 20;

/// Runs the case.
pub async fn run(_: &Context) -> anyhow::Result<Outcome> {
    let rounded = |figure: f64| Value::from((figure * 1e3).round() / 1e3);
    let bridge = Cluster::up(Network::Bridge, None).await?;
    let floor = bridge.start(PODS, Pace::PerSecond(RATE)).await?;
    drop(bridge);
    let cluster = Cluster::up(Network::Ours, None).await?;
    let usage = || anyhow::Ok([cluster.usage("central/master")?, cluster.usage("node1/ovenbird-node")?]);
    let before = usage()?;
    let took = cluster.start(PODS, Pace::PerSecond(RATE)).await?;
    let after = usage()?;
    let cpu = |which: usize| rounded(after[which].cpu_seconds - before[which].cpu_seconds);
    let mb = |which: usize| rounded(after[which].rss_bytes as f64 / 1e6);
    Ok(Outcome {
        ours: quantile(&took, 0.99),
        floor: quantile(&floor, 0.99),
        unit: "s",
        goal: "2 s (must: 5 s)",
        usage: Usage::sum(&after),
        transactions: 0,
        rows: PODS as u64,
        bytes: 0,
        more: BTreeMap::from([
            ("p50_s", rounded(quantile(&took, 0.5))),
            ("bridge_p50_s", rounded(quantile(&floor, 0.5))),
            ("master_cpu_s", cpu(0)),
            ("node_cpu_s", cpu(1)),
            ("master_mb", mb(0)),
            ("node_mb", mb(1)),
            ("load", load_average()?.into()),
        ]),
    })
}
