//! What tests on real Kubernetes share: a lab, manifests, `kubectl`, and waiting for what becomes of workloads.
//!
//! In: a real lab. Out: conditions met, facts to assert on. It must not hold assertions about one scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api as KubeApi, ListParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Resource, ResourceExt};
use ovenbird_lab::demo::{matrix, responder};
use ovenbird_lab::probe::PORT;
use ovenbird_lab::{Api, Family, Lab, Options, Status, testing, wait_for};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::northbound::{self, Dump};
use crate::stream::Stream;
use crate::{LIMIT, master};

/// A lab of two nodes with real Kubernetes; nothing where none is asked for or possible.
///
/// # Errors
/// When it does not come up.
pub async fn lab(name: &str, family: Family) -> Result<Option<Lab>> {
    testing::lab(name, Options { nodes: 2, family, api: Api::Real, ..Options::default() }).await
}

/// A Deployment whose pods spread evenly over the nodes there are.
pub fn deployment(namespace: &str, name: &str, replicas: u16, container: &Value) -> String {
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": {"app": name}}, "matchLabelKeys": ["pod-template-hash"]}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "topologySpreadConstraints": spread, "containers": [container]},
        }},
    })
    .to_string()
}

/// The container of [`deployment`] that answers probes of the matrix.
pub fn echo() -> Value {
    responder(&Api::Real)
}

/// Waits until all replicas of a Deployment's newest generation are available, and no older pod is counted.
///
/// # Errors
/// When they never are, with what the logs complain about.
pub async fn await_available(lab: &Lab, namespace: &str, name: &str) -> Result<()> {
    let available = |one: Option<&Deployment>| {
        let wanted = one.and_then(|one| one.spec.as_ref()?.replicas);
        let generation = one.and_then(|one| one.metadata.generation);
        one.and_then(|one| one.status.as_ref()).is_some_and(|status| {
            status.observed_generation >= generation
                && [status.available_replicas, status.updated_replicas, status.replicas].iter().all(|n| *n == wanted)
        })
    };
    await_object(lab, namespace, name, available).await
}

/// Waits until an object of a namespace meets a condition.
///
/// # Errors
/// When it never does, with what the logs complain about.
pub async fn await_object<K>(lab: &Lab, namespace: &str, name: &str, condition: impl Condition<K>) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api = KubeApi::<K>::namespaced(lab.client().await?, namespace);
    let seen = timeout(LIMIT, await_condition(api, name, condition)).await;
    seen.with_context(|| {
        let pods = kubectl(lab, &["-n", namespace, "get", "pods", "-o", "wide"]).unwrap_or_default();
        let logs = testing::complaints(lab.layout().dir());
        format!("{} {namespace}/{name} is not as wanted after {LIMIT:?}\n{pods}\n{logs}", K::kind(&()))
    })?
    .with_context(|| format!("watching {namespace}/{name}"))?;
    Ok(())
}

/// Runs kubectl as the cluster's administrator and returns what it prints.
///
/// # Errors
/// When its exit code is not 0.
pub fn kubectl(lab: &Lab, args: &[&str]) -> Result<String> {
    lab.exec_node("central", &[&["kubectl"], args].concat())
}

/// A program that runs beside the test and is killed with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts kubectl as the cluster's administrator.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kubectl(lab: &Lab, args: &[&str]) -> Result<Self> {
        let mut command = Command::new("kubectl");
        command.args(args).envs(ovenbird_lab::real::environment(lab.layout(), "central")?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = lab.layout().place("central").spawn(&mut command)?;
        let stdout = child.stdout.take().context("kubectl has no stdout")?;
        let (sender, lines) = channel();
        // Ends with the program, or when nobody listens any more.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { child, lines })
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// When it ends, or prints nothing.
    pub fn line(&self) -> Result<String> {
        self.lines.recv_timeout(LIMIT).context("waiting for a line of kubectl")
    }

    /// Gives it its input, whole.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn feed(&mut self, input: &[u8]) -> Result<()> {
        self.child.stdin.take().context("kubectl was fed already")?.write_all(input).context("feeding kubectl")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a shell's command in a pod, by the API server, and returns what it prints.
///
/// # Errors
/// When its exit code is not 0.
pub fn in_pod(lab: &Lab, namespace: &str, pod: &str, command: &str) -> Result<String> {
    kubectl(lab, &["-n", namespace, "exec", pod, "--", "sh", "-c", command])
}

/// A container.
pub fn container(image: &str, command: &[&str]) -> Value {
    json!({"name": "c", "image": image, "imagePullPolicy": "Never", "command": command})
}

/// A pod that goes at once when it is deleted.
pub fn pod(namespace: &str, name: &str, mut spec: Value) -> String {
    spec["terminationGracePeriodSeconds"] = json!(0);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        .to_string()
}

/// A condition of a pod's first container.
pub fn is(met: impl Fn(&ContainerStatus) -> bool + Send) -> impl Condition<Pod> + Send {
    move |pod: Option<&Pod>| {
        let containers = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        containers.and_then(|all| all.first()).is_some_and(&met)
    }
}

/// The pods of a namespace on a node that are not about to go, by name.
///
/// # Errors
/// When the API server does not answer.
pub async fn pods_on(lab: &Lab, namespace: &str, node: &str) -> Result<BTreeMap<String, Pod>> {
    let api = KubeApi::<Pod>::namespaced(lab.client().await?, namespace);
    let list =
        api.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await.context("listing pods")?;
    let living = list.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(living.map(|pod| (pod.name_any(), pod)).collect())
}

/// The addresses of a pod as its status says, and none while it has not been attached.
pub fn ips(pod: &Pod) -> BTreeSet<String> {
    let all = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    all.into_iter().flatten().map(|entry| entry.ip.clone()).collect()
}

/// One address of a pod.
///
/// # Errors
/// When it has none yet.
pub fn address(pod: &Pod) -> Result<IpAddr> {
    ips(pod).pop_first().context("the pod has no address")?.parse().context("reading an address")
}

/// A stream from a pod of the namespace on `node`, the first by name, to the echo of another.
///
/// # Errors
/// When there is no such pod, or the other does not answer.
pub async fn stream(lab: &Lab, namespace: &str, node: &str, to: IpAddr) -> Result<Stream> {
    let from = pods_on(lab, namespace, node).await?.into_keys().next().with_context(|| format!("no pod on {node}"))?;
    let place = lab.scene(&format!("{namespace}/{from}"))?.place().clone();
    Stream::start(&place, SocketAddr::new(to, PORT))
}

/// From every running pod of a namespace that is not about to go, and every node, to every pod of it, in every family of the lab, by
/// ping and TCP (the pods echo on [`PORT`]). What is not reached at the first attempt is printed, and tried again
/// until [`LIMIT`].
///
/// # Errors
/// What was not reached.
pub async fn reach(lab: &Lab, namespace: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match reach_at_once(lab, namespace).await {
            Err(error) if Instant::now() < deadline => eprintln!("not reached yet: {error:#}"),
            outcome => return outcome,
        }
    }
}

async fn reach_at_once(lab: &Lab, namespace: &str) -> Result<()> {
    let mut status = Status::of(lab).await?;
    let pods = KubeApi::<Pod>::namespaced(lab.client().await?, namespace);
    let going = pods.list(&ListParams::default()).await.context("listing pods")?.into_iter();
    let going: BTreeSet<_> =
        going.filter(|pod| pod.metadata.deletion_timestamp.is_some()).map(|pod| pod.name_any()).collect();
    status.pods.retain(|pod| pod.phase == "Running" && !going.contains(&pod.name));
    let pods: Vec<_> = status.pods.iter().filter(|pod| pod.namespace == namespace && !pod.host_network).collect();
    let families = match lab.layout().options.family {
        Family::Dual => 2,
        Family::V4 | Family::V6 => 1,
    };
    ensure!(!pods.is_empty() && pods.iter().all(|pod| pod.ips.len() == families), "{pods:?}");
    let matrix = matrix(lab, &status, namespace)?;
    let checks = (pods.len() + status.nodes.len()) * pods.len() * families * 2;
    ensure!(matrix.checks() == checks, "{checks} checks wanted\n{}", matrix.table());
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    Ok(())
}

/// Waits until the switch of a node has exactly the ports of the pods that run there, bound by ovn-controller, and of nothing else.
///
/// # Errors
/// The names that differ.
pub fn await_ports_of_pods(lab: &Lab, node: &str) -> Result<()> {
    let (mut have, mut want) = (BTreeSet::new(), BTreeSet::new());
    let met = wait_for("ports to be those of pods", LIMIT, || {
        let Ok(pair) = ports(lab, node).and_then(|have| Ok((have, wanted_ports(lab, node)?))) else { return false };
        (have, want) = pair;
        have == want
    });
    met.with_context(|| format!("ports of {node}: {have:?}\nwanted: {want:?}"))
}

/// `iface-id` of each port of a pod.
fn ports(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let argv =
        ["ovs-vsctl", "--format=json", "--columns=external_ids", "find", "interface", "external_ids:sandbox!=\"\""];
    let text = lab.exec_node(node, &argv)?;
    let table: Value = serde_json::from_str(&text).context("reading what ovs-vsctl says")?;
    let maps = table["data"].as_array().into_iter().flatten().filter_map(|row| row[0][1].as_array());
    let ids = maps.filter_map(|map| map.iter().find(|pair| pair[0] == "iface-id")?[1].as_str());
    Ok(ids.map(str::to_owned).collect())
}

fn wanted_ports(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let attached = attached(lab)?.into_iter();
    Ok(attached.filter(|pod| pod["spec"]["nodeName"] == *node).map(|pod| port_of(&pod)).collect())
}

/// The pods that must have a port, as the API server has them.
fn attached(lab: &Lab) -> Result<Vec<Value>> {
    let text = kubectl(lab, &["get", "pods", "-A", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text).context("reading pods")?;
    let attached = |pod: &&Value| {
        pod["spec"]["nodeName"].is_string()
            && pod["spec"]["hostNetwork"] != true
            && !["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == **phase)
    };
    Ok(list["items"].as_array().into_iter().flatten().filter(attached).cloned().collect())
}

fn port_of(pod: &Value) -> String {
    format!("{}_{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until the Northbound has a port for every pod that must have one, with the pod's UID and the addresses of its status, and no
/// other; and until the master counts as many pods on every node.
///
/// # Errors
/// What differs.
pub fn await_northbound_of_pods(lab: &Lab) -> Result<()> {
    let mut last = String::new();
    let met = wait_for("the Northbound's ports to be those of pods", LIMIT, || {
        let compared = attached(lab).and_then(|pods| {
            let (have, want) = (northbound_ports(&northbound::dump(lab)?), pods.iter().map(wanted_port).collect());
            let (kept, wanted) = (kept_by_the_master(lab)?, per_node(&pods));
            Ok((difference(&have, &want), kept.into_iter().filter(|(_, count)| *count > 0).collect(), wanted))
        });
        last = match compared {
            Ok((ports, kept, wanted)) => {
                let kept: BTreeMap<String, u64> = kept;
                if kept == wanted { ports } else { format!("{ports}the master keeps {kept:?}, wanted {wanted:?}\n") }
            }
            Err(error) => format!("{error:#}"),
        };
        last.is_empty()
    });
    met.with_context(|| last)
}

fn difference(have: &BTreeSet<String>, want: &BTreeSet<String>) -> String {
    let (more, fewer) =
        (have.difference(want).map(|port| ("more", port)), want.difference(have).map(|port| ("missing", port)));
    more.chain(fewer).map(|(word, port)| format!("{word}: {port}\n")).collect()
}

/// Name, UID and addresses of each port of a pod.
fn northbound_ports(dump: &Dump) -> BTreeSet<String> {
    let entry = |map: &Value, key: &str| {
        let pairs = map[1].as_array().into_iter().flatten();
        pairs.filter(|pair| pair[0] == key).map(|pair| text(&pair[1])).collect::<String>()
    };
    let rows = dump.get("Logical_Switch_Port").into_iter().flat_map(BTreeMap::values);
    let pods = rows.filter(|row| entry(&row["external_ids"], "pod") == "true");
    pods.map(|row| {
        let addresses = text(&row["addresses"]);
        let ips = addresses.split_whitespace().skip(1).collect::<BTreeSet<_>>();
        format!("{} {} {ips:?}", text(&row["name"]), entry(&row["options"], "iface-id-ver"))
    })
    .collect()
}

fn wanted_port(pod: &Value) -> String {
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|entry| entry["ip"].as_str());
    // A static pod keeps the UID that its kubelet gave it.
    let meta = &pod["metadata"];
    let uid = [&meta["annotations"]["kubernetes.io/config.mirror"], &meta["uid"]].into_iter().find_map(Value::as_str);
    format!("{} {} {:?}", port_of(pod), uid.unwrap_or_default(), ips.collect::<BTreeSet<_>>())
}

fn per_node(pods: &[Value]) -> BTreeMap<String, u64> {
    pods.iter().fold(BTreeMap::new(), |mut counts, pod| {
        *counts.entry(text(&pod["spec"]["nodeName"])).or_default() += 1;
        counts
    })
}

/// How many pods of each node the master keeps addresses for.
fn kept_by_the_master(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let status = master::status(lab, "master1")?;
    let nodes = status["nodes"].as_array().into_iter().flatten();
    Ok(nodes.filter_map(|node| Some((node["name"].as_str()?.to_owned(), node["pods"].as_u64()?))).collect())
}
