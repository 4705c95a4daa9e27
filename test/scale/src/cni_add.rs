//! `cni-add`: the CNI plugin's ADD on real OVS and OVN, one at a time and 20 at once, with 100 nodes and 5,000 pods in the databases.
//!
//! The floor is what nobody can avoid: the `bridge` plugin with `host-local` (a veth, an address, a process), plus the time from a
//! raw insertion of a port into Open_vSwitch to `ovn-installed`. Both are measured in the same lab, on the same node. A lab of one
//! real node is built for it; the other nodes exist in the API and the databases only.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use ovenbird_lab::place::{create_netns, delete_netns, netns_path};
use ovenbird_lab::{Family, Lab, Options, Place, testing};
use ovsdb::Endpoint;
use serde_json::{Value, json};

use crate::installed::{Unattached, await_addresses, installed, milliseconds};
use crate::outcome::Stopwatch;
use crate::{Context, Outcome, median};

const NODES: usize = 100;
const PODS: usize = 5_000;
const NAMESPACE: &str = "load";
const SERIAL: usize = 20;
const AT_ONCE: usize = 20;
/// ADDs before the measurement: the first ones wait for ovn-controller to catch up with 5,000 pods.
const WARM_UP: usize = 3;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let options = Options {
        nodes: 1,
        family: Family::V4,
        cluster_subnets: Some("10.128.0.0/14/23".into()),
        ..Options::default()
    };
    let lab = testing::lab("cni-add", options).await?.context("the case cni-add needs root")?;
    lab.stop("node1/kubelet")?;
    let measured = populate(&lab).await?;
    let bench = Bench::new(&lab, &context.dir)?;
    let mut pods = measured.iter();
    let mut take = |count: usize| -> Vec<&Unattached> { pods.by_ref().take(count).collect() };

    bench.serial(&take(WARM_UP), Bench::ours)?;
    let watch = Stopwatch::start()?;
    let shim = bench.shim_alone()?;
    let ours = bench.serial(&take(SERIAL), Bench::ours)?;
    let ours_at_once = bench.at_once(&take(AT_ONCE), Bench::ours)?;
    let usage = watch.usage()?;
    let floors = take(SERIAL);
    let plugin = bench.serial(&floors, Bench::bridge)?;
    let plugin_at_once = bench.at_once(&floors, Bench::bridge)?;
    let installed = installed(&bench.node, bench.ovs.clone(), NAMESPACE, &take(SERIAL)).await?;

    let rounded = |ms: f64| Value::from((ms * 100.0).round() / 100.0);
    Ok(Outcome {
        ours,
        floor: plugin + installed,
        unit: "ms",
        goal: "1 x bridge + ovn-installed, shim 1.5 ms (must: 3 x bridge)",
        usage,
        transactions: 0,
        rows: 0,
        bytes: 0,
        more: BTreeMap::from([
            ("bridge_ms", rounded(plugin)),
            ("ovn_installed_ms", rounded(installed)),
            ("shim_ms", rounded(shim)),
            ("at_once_ms", rounded(ours_at_once)),
            ("bridge_at_once_ms", rounded(plugin_at_once)),
        ]),
    })
}

/// Fills the API: the other nodes, all pods. Returns the real node's once every pod has its addresses.
async fn populate(lab: &Lab) -> anyhow::Result<Vec<Unattached>> {
    let client = lab.client().await?;
    create::<Namespace>(&Api::all(client.clone()), vec![json!({"metadata": {"name": NAMESPACE}})]).await?;
    let others = 2..=NODES;
    create::<Node>(
        &Api::all(client.clone()),
        others.map(|n| json!({"metadata": {"name": format!("node{n}")}})).collect(),
    )
    .await?;
    let pod = |i: usize| {
        json!({
            "metadata": {"name": format!("p{i}"), "namespace": NAMESPACE},
            "spec": {"nodeName": format!("node{}", i % NODES + 1), "containers": [{"name": "c", "image": "none"}]},
        })
    };
    // As many as are measured, all on the real node, beside the load.
    let mine = WARM_UP + 3 * SERIAL + AT_ONCE;
    let on_node1 = |i: usize| {
        let mut pod = pod(i * NODES);
        pod["metadata"]["name"] = format!("m{i}").into();
        pod
    };
    let bodies: Vec<Value> = (0..PODS).map(pod).chain((0..mine).map(on_node1)).collect();
    create::<Pod>(&Api::namespaced(client.clone(), NAMESPACE), bodies).await?;
    await_addresses(&Api::namespaced(client.clone(), NAMESPACE)).await?;
    lab.scene("central")?.checked(&["ovn-nbctl", "--wait=sb", "--timeout=120", "sync"])?;
    let pods = Api::<Pod>::namespaced(client, NAMESPACE).list(&ListParams::default()).await?;
    let measured = pods.into_iter().filter(|p| p.name_any().starts_with('m'));
    Ok(measured.map(|p| Unattached { name: p.name_any(), uid: p.uid().unwrap_or_default() }).collect())
}

async fn create<K>(api: &Api<K>, bodies: Vec<Value>) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let objects: Vec<K> = bodies.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    let params = PostParams::default();
    let requests = stream::iter(&objects).map(|object| api.create(&params, object));
    requests.buffer_unordered(24).try_for_each(|_| std::future::ready(Ok(()))).await.context("filling the API")
}

/// Runs plugins on the real node.
struct Bench {
    node: Place,
    shim: PathBuf,
    shim_conf: Value,
    bridge_conf: Value,
    ovs: Endpoint,
}

/// A sandbox, removed with this value.
struct Sandbox(String);

impl Sandbox {
    fn new(name: &str) -> anyhow::Result<Sandbox> {
        let name = format!("cni-add-{}-{name}", std::process::id());
        create_netns(&name)?;
        Ok(Sandbox(name))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = delete_netns(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

type Plugin = fn(&Bench, command: &str, pod: &Unattached, sandbox: &Sandbox) -> anyhow::Result<Duration>;

impl Bench {
    fn new(lab: &Lab, dir: &Path) -> anyhow::Result<Bench> {
        let static_shim = PathBuf::from("target/shim/ovenbird-cni");
        let own = lab.layout().bin_dir.join("ovenbird-cni");
        let shim = if static_shim.exists() { std::fs::canonicalize(static_shim)? } else { own };
        let conf_dir = lab.layout().home("node1").join("cni/net.d");
        let list: Value = serde_json::from_slice(&std::fs::read(conf_dir.join("10-ovenbird.conflist"))?)?;
        let mut shim_conf = list["plugins"][0].clone();
        shim_conf["cniVersion"] = list["cniVersion"].clone();
        shim_conf["name"] = list["name"].clone();
        let bridge_conf = json!({
            "cniVersion": "1.0.0", "name": "floor", "type": "bridge", "bridge": "cni-floor", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.99.0.0/16", "dataDir": dir.join("host-local")},
        });
        let ovs = Endpoint::parse(&lab.layout().ovs("node1"))?;
        Ok(Bench { node: lab.scene("node1")?.place().clone(), shim, shim_conf, bridge_conf, ovs })
    }

    fn ours(&self, command: &str, pod: &Unattached, sandbox: &Sandbox) -> anyhow::Result<Duration> {
        let args = format!("K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={};K8S_POD_UID={}", pod.name, pod.uid);
        self.call(&self.shim, command, &self.shim_conf, &args, pod, sandbox)
    }

    fn bridge(&self, command: &str, pod: &Unattached, sandbox: &Sandbox) -> anyhow::Result<Duration> {
        self.call(Path::new("/usr/lib/cni/bridge"), command, &self.bridge_conf, "", pod, sandbox)
    }

    /// Time from the plugin's start to its end.
    fn call(
        &self,
        plugin: &Path,
        action: &str,
        conf: &Value,
        args: &str,
        pod: &Unattached,
        sandbox: &Sandbox,
    ) -> anyhow::Result<Duration> {
        let mut command = Command::new(plugin);
        command.env_clear().env("CNI_COMMAND", action).env("CNI_CONTAINERID", &pod.name).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", netns_path(&sandbox.0)).env("CNI_PATH", "/usr/lib/cni").env("CNI_ARGS", args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let stdin = conf.to_string();
        let began = Instant::now();
        let mut child = self.node.spawn(&mut command)?;
        child.stdin.take().context("no pipe")?.write_all(stdin.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = began.elapsed();
        ensure!(output.status.success(), "{action} of {}: {}", pod.name, String::from_utf8_lossy(&output.stdout));
        Ok(took)
    }

    /// Median milliseconds of ADDs, one after another.
    fn serial(&self, pods: &[&Unattached], plugin: Plugin) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        for pod in pods {
            let sandbox = Sandbox::new(&pod.name)?;
            times.push(milliseconds(plugin(self, "ADD", pod, &sandbox)?));
            plugin(self, "DEL", pod, &sandbox)?;
        }
        Ok(median(times))
    }

    /// Milliseconds from the first ADD's start to the last one's end, all started together.
    fn at_once(&self, pods: &[&Unattached], plugin: Plugin) -> anyhow::Result<f64> {
        let sandboxes = pods.iter().map(|pod| Sandbox::new(&pod.name)).collect::<Result<Vec<_>, _>>()?;
        let run = |action: &str| -> anyhow::Result<f64> {
            let began = Instant::now();
            std::thread::scope(|scope| {
                let calls = pods
                    .iter()
                    .zip(&sandboxes)
                    .map(|(pod, sandbox)| scope.spawn(|| plugin(self, action, pod, sandbox)));
                let calls: Vec<_> = calls.collect();
                calls.into_iter().try_for_each(|call| call.join().map_err(|_| anyhow::anyhow!("panic"))?.map(drop))
            })?;
            Ok(milliseconds(began.elapsed()))
        };
        let took = run("ADD")?;
        run("DEL")?;
        Ok(took)
    }

    /// Median milliseconds of the shim's own start and end.
    fn shim_alone(&self) -> anyhow::Result<f64> {
        let times = (0..50).map(|_| {
            let began = Instant::now();
            let status = Command::new(&self.shim).env("CNI_COMMAND", "VERSION").stdout(Stdio::null()).status()?;
            ensure!(status.success(), "VERSION failed");
            Ok(milliseconds(began.elapsed()))
        });
        Ok(median(times.collect::<anyhow::Result<_>>()?))
    }
}
