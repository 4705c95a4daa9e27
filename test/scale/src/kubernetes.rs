//! Real Kubernetes for cases: a lab of one node with Ovenbird, or with the `bridge` plugin and `host-local` in its place, which is the
//! floor. Both have the same control plane, runtime, and images; the floor's OVS stands idle.
//!
//! In: which network. Out: pods and how long they took, and what the daemons used. Must not: know a case.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use ovenbird_kube::{Cache, version};
use ovenbird_lab::{Api as ApiServer, Family, Lab, Options, Progress, testing};
use serde_json::{Value, json};
use tokio::time::{sleep_until, timeout};

use crate::Usage;
use crate::process::usage_of;

const NAMESPACE: &str = "bench";
const NODE: &str = "node1";
/// After this a pod counts as stuck.
const PATIENCE: Duration = Duration::from_secs(600);
/// Requests to the API server that are under way at once.
const AT_ONCE: usize = 16;

/// Who gives pods their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Ovenbird.
    Ours,
    /// The plugins `bridge` and `host-local`.
    Bridge,
}

/// How pods are created.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as the API server takes them.
    Burst,
    /// So many each second.
    PerSecond(u32),
}

/// A cluster of one node, taken down when dropped.
#[derive(Debug)]
pub struct Cluster {
    lab: Lab,
    pods: Api<Pod>,
}

impl Cluster {
    /// Builds one. `programs` is a folder with all of Ovenbird's programs, when it is not this one's.
    pub async fn up(network: Network, programs: Option<&Path>) -> anyhow::Result<Cluster> {
        Cache::ready().context("this case needs real Kubernetes")?;
        let name = if network == Network::Ours { "ours" } else { "bridge" };
        let dir = PathBuf::from(format!("/run/bench-{name}-{}", std::process::id()));
        let options = Options {
            nodes: 1,
            family: Family::V4,
            api: ApiServer::Real,
            bare: network == Network::Bridge,
            bin_dir: programs.map(Path::to_owned),
            dir: dir.clone(),
            ..Options::default()
        };
        let lab = match Lab::up(options, Progress::quiet()).await {
            Ok(lab) => lab,
            Err(error) => {
                let said = testing::complaints(&dir);
                ovenbird_lab::down(&dir).context("taking down a lab that did not come up")?;
                return Err(error.context(said));
            }
        };
        if network == Network::Bridge {
            let write = format!("echo '{}' > /etc/cni/net.d/10-bridge.conflist", bridge());
            lab.exec_node(NODE, &["sh", "-c", &write])?;
        }
        let client = lab.client().await?;
        await_usable(&client).await?;
        lab.namespace(NAMESPACE).await?;
        Ok(Cluster { pods: Api::namespaced(client, NAMESPACE), lab })
    }

    /// Creates pods; from the request to the news that it is Ready, of each, the quickest first.
    pub async fn start(&self, count: usize, pace: Pace) -> anyhow::Result<Vec<Duration>> {
        let mut events = watcher(self.pods.clone(), watcher::Config::default()).boxed();
        while !matches!(events.try_next().await?.context("the watch ended")?, Event::InitDone) {}
        let began = tokio::time::Instant::now();
        let create = |i: usize| async move {
            if let Pace::PerSecond(rate) = pace {
                sleep_until(began + Duration::from_secs_f64(i as f64 / f64::from(rate))).await;
            }
            let at = Instant::now();
            let name = format!("pod-{i}");
            self.pods.create(&PostParams::default(), &pod(&name)?).await.with_context(|| format!("create {name}"))?;
            anyhow::Ok((name, at))
        };
        let creating = stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect::<HashMap<_, _>>();
        let watching = async {
            let mut ready: HashMap<String, Instant> = HashMap::new();
            while ready.len() < count {
                if let Event::Apply(pod) | Event::InitApply(pod) =
                    events.try_next().await?.context("the watch ended")?
                    && is_ready(&pod)
                {
                    ready.entry(pod.name_any()).or_insert_with(Instant::now);
                }
            }
            anyhow::Ok(ready)
        };
        let both = async { tokio::try_join!(creating, watching) };
        let (created, ready) = timeout(PATIENCE, both).await.context("pods do not get Ready")??;
        let mut took: Vec<Duration> = ready.iter().filter_map(|(name, at)| Some(*at - *created.get(name)?)).collect();
        ensure!(took.len() == count, "{} of {count} pods are Ready", took.len());
        took.sort_unstable();
        Ok(took)
    }

    /// Deletes all pods and waits until they are gone.
    pub async fn clear(&self) -> anyhow::Result<()> {
        self.pods
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .context("delete the pods")?;
        let mut events = watcher(self.pods.clone(), watcher::Config::default()).boxed();
        let gone = async {
            let mut left = 0_i64;
            loop {
                match events.try_next().await?.context("the watch ended")? {
                    Event::Init => left = 0,
                    Event::InitApply(_) => left += 1,
                    Event::Delete(_) => left -= 1,
                    Event::InitDone | Event::Apply(_) => {}
                }
                if left == 0 && self.pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(PATIENCE, gone).await.context("pods do not go")?
    }

    /// What one of our daemons has used since it was started: `central/master` or `node1/ovenbird-node`.
    pub fn usage(&self, component: &str) -> anyhow::Result<Usage> {
        usage_of(self.lab.component(component)?.pid)
    }

    /// The node daemon's metrics: the value of each line, by what stands before it.
    pub fn node_metrics(&self) -> anyhow::Result<HashMap<String, f64>> {
        let text = self.lab.exec_node(NODE, &["busybox", "wget", "-qO-", "http://127.0.0.1:9410/metrics"])?;
        let pairs = text.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}

fn bridge() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "bench", "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]]},
        }],
    })
}

/// The smallest pod there is, so that the network's part of its start is the largest.
fn pod(name: &str) -> anyhow::Result<Pod> {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{"name": "pause", "image": version::PAUSE, "imagePullPolicy": "Never"}],
        },
    }))
    .context("make a pod")
}

/// Waits until the scheduler may use the node.
async fn await_usable(client: &Client) -> anyhow::Result<()> {
    let usable = |node: Option<&Node>| {
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_ref());
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
        let ready = |all: &Vec<_>| {
            all.iter().any(|c: &k8s_openapi::api::core::v1::NodeCondition| c.type_ == "Ready" && c.status == "True")
        };
        taints.is_none_or(Vec::is_empty) && conditions.is_some_and(ready)
    };
    let nodes = Api::<Node>::all(client.clone());
    timeout(PATIENCE, await_condition(nodes, NODE, usable)).await.context("the node does not get Ready")??;
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = |condition: &PodCondition| condition.type_ == "Ready" && condition.status == "True";
    conditions.is_some_and(|all| all.iter().any(ready))
}
