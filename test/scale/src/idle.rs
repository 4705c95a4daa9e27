//! `idle`: share of a core that master and node daemon use over five quiet minutes with 200 pods on one node of real Kubernetes.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::sleep;

use crate::density::PODS;
use crate::kubernetes::{Cluster, Network, Pace};
use crate::process::load_average;
use crate::{Context, Outcome, Usage};

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let cluster = Cluster::up(Network::Ours, None).await?;
    cluster.start(PODS, Pace::Burst).await?;
    // What the last pod has set off is over.
    sleep(context.quiet / 10).await;
    let usage = || anyhow::Ok([cluster.usage("central/master")?, cluster.usage("node1/ovenbird-node")?]);
    let before = usage()?;
    sleep(context.quiet).await;
    let after = usage()?;
    let seconds = context.quiet.as_secs_f64();
    let percent = |which: usize| (after[which].cpu_seconds - before[which].cpu_seconds) / seconds * 100.0;
    let rounded = |figure: f64| Value::from((figure * 1e3).round() / 1e3);
    Ok(Outcome {
        ours: percent(0) + percent(1),
        floor: 0.0,
        unit: "% of a core",
        goal: "0.1 % (must: 0.5 %)",
        usage: Usage::sum(&after),
        transactions: 0,
        rows: PODS as u64,
        bytes: 0,
        more: BTreeMap::from([
            ("master_percent", rounded(percent(0))),
            ("node_percent", rounded(percent(1))),
            ("quiet_s", seconds.into()),
            ("load", load_average()?.into()),
        ]),
    })
}
