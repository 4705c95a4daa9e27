//! `cold-start-allocate`: S1 with nothing annotated; pods per second from the start of the process to the last annotation and row.
//! Against a bare loop of PATCHes on the same objects, as many at once.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{ApiServer, Master, OFTEN, PODS, Ports, ports_of};
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

/// PATCHes in flight, as many as the master has by default.
const AT_ONCE: usize = 24;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let empty = ApiServer::start(&context.dir.join("api"), None)?;
    empty.fill(0..PODS, false).await?;
    let (mut ours, mut floor, mut usage, mut transactions) = (Vec::new(), Vec::new(), Usage::default(), 0);
    for round in 0..context.rounds {
        let dir = context.dir.join(round.to_string());
        std::fs::create_dir_all(&dir).context("make a folder")?;
        floor.push(PODS as f64 / bare(&ApiServer::start(&dir.join("bare"), Some(&empty))?).await?);
        let api = ApiServer::start(&dir.join("api"), Some(&empty))?;
        let server = Server::start(&dir)?;
        let mut ports = Ports::watch(&server).await?;
        let master = Master::start(&dir, &api, &server)?;
        ports.reach(ports_of(PODS)).await?;
        // Annotations are under way for a moment after the last row.
        loop {
            let (status, seconds) = master.settle(OFTEN)?;
            if status["waiting"].as_array().is_some_and(Vec::is_empty) {
                ours.push(PODS as f64 / seconds);
                transactions = status["northbound"]["transactions"].as_u64().unwrap_or_default();
                break;
            }
        }
        usage = master.usage()?;
        master.stop()?;
        ensure!(unannotated(&api).await? == 0, "annotations are missing");
    }
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "pods/s",
        goal: "0.9 x (must: 0.6 x)",
        usage,
        transactions,
        rows: ports_of(PODS) as u64,
        bytes: 0,
        more: BTreeMap::from([("at_once", AT_ONCE.into())]),
    })
}

/// Seconds of writing one annotation to each pod.
async fn bare(api: &ApiServer) -> anyhow::Result<f64> {
    let client = api.client()?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.context("list")?.items;
    let text = "x".repeat(330);
    let began = Instant::now();
    futures::stream::iter(pods)
        .map(|pod| {
            let pods = Api::<Pod>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"k8s.ovn.org/pod-networks": text}}}));
            async move {
                let name = pod.metadata.name.unwrap_or_default();
                pods.patch_metadata(&name, &PatchParams::default(), &patch).await.map(drop)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await
        .context("patch")?;
    Ok(began.elapsed().as_secs_f64())
}

async fn unannotated(api: &ApiServer) -> anyhow::Result<usize> {
    let pods = Api::<Pod>::all(api.client()?).list(&ListParams::default()).await.context("list")?.items;
    let bare = |pod: &&Pod| {
        pod.metadata.annotations.as_ref().is_none_or(|a| !a.contains_key(ovenbird_api::annotation::POD_NETWORKS))
    };
    Ok(pods.iter().filter(bare).count())
}
