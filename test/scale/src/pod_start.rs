//! `pod-start`: from the creation of pods to Ready on real Kubernetes, for 1, 20 and 100 at once. The floor is the same cluster with the
//! `bridge` plugin and `host-local`. The two clusters stand side by side and take turns, so that both see the same machine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::kubernetes::{Cluster, Network, Pace};
use crate::process::load_average;
use crate::{Context, Outcome, Usage, quantile};

/// Pods at once, and how often in each round.
const SIZES: [(usize, usize); 3] = [(1, 5), (20, 1), (100, 1)];
/// Names of the figures of each size.
const NAMES: [[&str; 3]; 3] = [
    ["one_ms", "one_bridge_ms", "one_ratio"],
    ["twenty_ms", "twenty_bridge_ms", "twenty_ratio"],
    ["hundred_ms", "hundred_bridge_ms", "hundred_ratio"],
];

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let clusters = [Cluster::up(Network::Ours, None).await?, Cluster::up(Network::Bridge, None).await?];
    for cluster in &clusters {
        // What is done once, such as the first use of an image, is not measured.
        cluster.start(2, Pace::Burst).await?;
        cluster.clear().await?;
    }
    let mut took: [[Vec<Duration>; 2]; 3] = Default::default();
    for round in 0..context.rounds {
        for ((size, times), took) in SIZES.iter().zip(&mut took) {
            for time in 0..*times {
                for turn in 0..2 {
                    // Neither is always the first.
                    let which = (round + time + turn) % 2;
                    took[which].extend(clusters[which].start(*size, Pace::Burst).await?);
                    clusters[which].clear().await?;
                }
            }
        }
    }
    let mut more: BTreeMap<&'static str, Value> = BTreeMap::from([("load", load_average()?.into())]);
    let mut worst = (0.0, 1.0);
    for (took, names) in took.iter().zip(NAMES) {
        let [ours, floor] = [0, 1].map(|which| quantile(&took[which], 0.5) * 1e3);
        let ratio = ours / floor;
        more.extend(
            names.into_iter().zip([ours, floor, ratio].map(|figure| ((figure * 100.0).round() / 100.0).into())),
        );
        if ratio > worst.0 / worst.1 {
            worst = (ours, floor);
        }
    }
    let usage = ["central/master", "node1/ovenbird-node"].map(|name| clusters[0].usage(name));
    let [master, node] = usage;
    Ok(Outcome {
        ours: worst.0,
        floor: worst.1,
        unit: "ms",
        goal: "1.05 x for every size (must: 1.3 x)",
        usage: Usage::sum(&[master?, node?]),
        transactions: 0,
        rows: 0,
        bytes: 0,
        more,
    })
}
