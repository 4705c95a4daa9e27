//! `node-scale`: 1,000 and 5,000 Nodes and 50,000 Pods in a real API server; the master's cold start, from its process to the last row
//! in an empty Northbound, and its restart, to being sure that nothing is to be done. Against a bare LIST of the same objects, read
//! and thrown away. The figure is the worst of the four.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Master, NAMESPACES, Ports, namespace_of, node, pod};
use crate::control_plane::ControlPlane;
use crate::process::load_average;
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

const PODS: usize = 50_000;
/// Nodes, and the names of their figures. The pods are on as many as there are at first.
const SIZES: [(usize, [&str; 3]); 2] = [
    (1_000, ["cold_1000_s", "restart_1000_s", "list_1000_s"]),
    (5_000, ["cold_5000_s", "restart_5000_s", "list_5000_s"]),
];
/// Room for 5,000 nodes.
const FLAGS: [&str; 1] = ["--cluster-subnets=10.128.0.0/9/23"];
/// An answer costs the master about as much as it holds.
const POLL: Duration = Duration::from_millis(50);
/// Requests to the API server that are under way at once.
const AT_ONCE: usize = 32;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ControlPlane::start(&context.dir.join("api")).await?;
    let namespaces = (0..NAMESPACES).map(|i| json!({"metadata": {"name": format!("team-{i}")}}));
    create::<Namespace>(namespaces, |_| Api::all(api.client())).await?;
    let mut more: BTreeMap<&'static str, Value> = BTreeMap::new();
    let (mut worst, mut usage, mut have) = ((0.0, 1.0), Usage::default(), 0);
    for (nodes, names) in SIZES {
        create::<Node>((have..nodes).map(|i| node(i, true)), |_| Api::all(api.client())).await?;
        if have == 0 {
            let bodies = (0..PODS).map(|i| without_managed_fields(pod(i, nodes, true)));
            create::<Pod>(bodies, |i| Api::namespaced(api.client(), &namespace_of(i))).await?;
        }
        have = nodes;
        let mut took: [Vec<f64>; 3] = Default::default();
        for round in 0..context.rounds {
            let dir = context.dir.join(format!("{nodes}-{round}"));
            usage = measure(&dir, &api, nodes, &mut took).await?;
        }
        let [cold, restart, list] = took.map(median);
        let rounded = |figure: f64| Value::from((figure * 1e3).round() / 1e3);
        more.extend(names.into_iter().zip([cold, restart, list].map(rounded)));
        for ours in [cold, restart] {
            if ours / list > worst.0 / worst.1 {
                worst = (ours, list);
            }
        }
    }
    more.insert("load", load_average()?.into());
    Ok(Outcome {
        ours: worst.0,
        floor: worst.1,
        unit: "s",
        goal: "1.3 x LIST, cold and warm (must: 3 x)",
        usage,
        transactions: 0,
        rows: PODS as u64,
        bytes: 0,
        more,
    })
}

/// One cold start, one restart, one LIST.
async fn measure(dir: &Path, api: &ControlPlane, nodes: usize, took: &mut [Vec<f64>; 3]) -> anyhow::Result<Usage> {
    std::fs::create_dir_all(dir).context("make a folder")?;
    let northbound = Server::start(dir)?;
    let mut ports = Ports::watch(&northbound).await?;
    let start = || Master::start_with(dir, api.kubeconfig(), &northbound, &FLAGS);
    let master = start()?;
    ports.reach(PODS + 2 * nodes + 1).await?;
    took[0].push(master.began.elapsed().as_secs_f64());
    drop(ports);
    master.settle(POLL)?;
    master.stop()?;
    let master = start()?;
    let (status, seconds) = master.settle(POLL)?;
    took[1].push(seconds);
    let usage = master.usage()?;
    let transactions = status["northbound"]["transactions"].as_u64();
    ensure!(transactions == Some(0), "{transactions:?} transactions in a restart with nothing to do");
    master.stop()?;
    let began = Instant::now();
    for kind in ["nodes", "namespaces", "pods"] {
        // What a server answers quickest: out of its cache, in one piece.
        api.get(&format!("/api/v1/{kind}?resourceVersion=0")).await?;
    }
    took[2].push(began.elapsed().as_secs_f64());
    Ok(usage)
}

async fn create<K>(bodies: impl Iterator<Item = Value>, api: impl Fn(usize) -> Api<K>) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let api = &api;
    let requests = stream::iter(bodies.enumerate()).map(|(i, body)| async move {
        let object: K = serde_json::from_value(body).context("make an object")?;
        api(i).create(&PostParams::default(), &object).await.context("create an object").map(drop)
    });
    requests.buffer_unordered(AT_ONCE).try_for_each(|()| std::future::ready(Ok(()))).await
}

/// The API server makes its own.
fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}
