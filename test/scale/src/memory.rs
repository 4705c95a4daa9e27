//! `memory`: resident megabytes of the master at S1, and how many more each further thousand pods take, up to 30,000.

use std::collections::BTreeMap;

use crate::cluster::{ApiServer, PODS, at_rest};
use crate::{Context, Outcome};

/// Pods at the upper end.
const MANY: usize = 30_000;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    let mut figures = Vec::new();
    let mut usage = crate::Usage::default();
    for range in [0..PODS, PODS..MANY] {
        let count = range.end;
        api.fill(range, true).await?;
        usage = at_rest(context, &count.to_string(), &api)?;
        figures.push(usage.rss_bytes as f64 / 1e6);
    }
    let slope = (figures[1] - figures[0]) / ((MANY - PODS) as f64 / 1e3);
    Ok(Outcome {
        ours: figures[0],
        floor: 0.0,
        unit: "MB",
        goal: "40 MB and 2 MB per 1,000 pods (must: 60, 4)",
        usage,
        transactions: 0,
        rows: MANY as u64,
        bytes: 0,
        more: BTreeMap::from([("mb_per_1000_pods", ((slope * 100.0).round() / 100.0).into())]),
    })
}
