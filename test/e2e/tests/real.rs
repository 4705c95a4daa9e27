//! Real Kubernetes with Ovenbird as its only network: pods of a Deployment get Ready and reach each other, under exactly the rights
//! that `deploy/` grants, and the lab leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api as KubeApi;
use kube::runtime::wait::await_condition;
use ovenbird_kube::version;
use ovenbird_lab::demo::{matrix, responder};
use ovenbird_lab::{Api, Family, Lab, Options, ProcessId, Status, testing};
use serde_json::{Value, json};
use tokio::time::timeout;

const NAMESPACE: &str = "real";
const ROLLOUT_LIMIT: Duration = Duration::from_secs(60);
/// What a node would write on the machine, had it no file system of its own.
const MACHINE: [&str; 4] = ["/etc/cni/net.d", "/var/lib/kubelet", "/var/log/pods", "/run/containerd"];

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_reaches_itself_across_nodes_and_nothing_is_left() -> Result<()> {
    let before = machine();
    let Some(lab) = lab("e2e-real", Family::Dual).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment("web", &responder(&Api::Real))).await?;
    lab.apply(&deployment("agnhost", &probed_by_the_kubelet())).await?;
    await_available(&lab, "web").await?;
    await_available(&lab, "agnhost").await?;
    reach_across_nodes(&lab).await?;
    may_do_what_they_need(&lab)?;
    resolve_names(&lab)?;
    ensure!(lab.exec_node("node1", &["hostname"])? == "node1\n");
    leaves_nothing(lab, &before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_ipv4_alone() -> Result<()> {
    let Some(lab) = lab("e2e-real4", Family::V4).await? else { return Ok(()) };
    single_stack(&lab).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_ipv6_alone() -> Result<()> {
    let Some(lab) = lab("e2e-real6", Family::V6).await? else { return Ok(()) };
    single_stack(&lab).await
}

async fn single_stack(lab: &Lab) -> Result<()> {
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment("web", &responder(&Api::Real))).await?;
    await_available(lab, "web").await?;
    reach_across_nodes(lab).await
}

async fn lab(name: &str, family: Family) -> Result<Option<Lab>> {
    testing::lab(name, Options { nodes: 2, family, api: Api::Real, ..Options::default() }).await
}

/// One pod on each node.
fn deployment(name: &str, container: &Value) -> String {
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": name}}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "topologySpreadConstraints": spread, "containers": [container]},
        }},
    })
    .to_string()
}

/// It is Ready once the kubelet has reached it over HTTP, from the node's own network. The matrix reaches it, too: a port that echoes.
fn probed_by_the_kubelet() -> Value {
    json!({
        "name": "agnhost", "image": version::AGNHOST, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "/agnhost netexec --http-port=80 & exec busybox nc -ll -p 8080 -e cat"],
        "readinessProbe": {"periodSeconds": 1, "httpGet": {"path": "/healthz", "port": 80}},
    })
}

async fn await_available(lab: &Lab, name: &str) -> Result<()> {
    let deployments = KubeApi::<Deployment>::namespaced(lab.client().await?, NAMESPACE);
    let available = |one: Option<&Deployment>| {
        one.and_then(|one| one.status.as_ref()).is_some_and(|status| status.available_replicas == Some(2))
    };
    let seen = timeout(ROLLOUT_LIMIT, await_condition(deployments, name, available)).await;
    seen.with_context(|| {
        format!("{name} is not available after {ROLLOUT_LIMIT:?}\n{}", testing::complaints(lab.layout().dir()))
    })?
    .with_context(|| format!("watching {name}"))?;
    Ok(())
}

async fn reach_across_nodes(lab: &Lab) -> Result<()> {
    let status = Status::of(lab).await?;
    let pods: Vec<_> = status.pods.iter().filter(|pod| pod.namespace == NAMESPACE).collect();
    let mut nodes: BTreeMap<_, usize> = BTreeMap::new();
    pods.iter().for_each(|pod| *nodes.entry(pod.node.clone()).or_default() += 1);
    ensure!(nodes.len() == 2, "pods on {nodes:?}");
    let families = match lab.layout().options.family {
        Family::Dual => 2,
        Family::V4 | Family::V6 => 1,
    };
    ensure!(pods.iter().all(|pod| pod.ips.len() == families), "{pods:?}");
    let matrix = matrix(lab, &status, NAMESPACE)?;
    ensure!(matrix.checks() == (pods.len() + 2) * pods.len() * families * 2, "{}", matrix.table());
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    Ok(())
}

/// Through the API server's exec, the Service of cluster DNS, and what CoreDNS itself gets from the Service `kubernetes`.
fn resolve_names(lab: &Lab) -> Result<()> {
    let argv =
        ["kubectl", "-n", NAMESPACE, "exec", "deploy/web", "--", "nslookup", "kubernetes.default.svc.cluster.local"];
    let answer = lab.exec_node("central", &argv)?;
    ensure!(answer.contains("10.96.0.1\n"), "{answer}");
    Ok(())
}

/// The daemons run with the tokens of their service accounts: whatever they lack they complain about.
fn may_do_what_they_need(lab: &Lab) -> Result<()> {
    for name in ["central/master", "node1/ovenbird-node", "node2/ovenbird-node"] {
        let log = fs::read_to_string(lab.layout().processes().log_path(name))?;
        ensure!(!log.is_empty() && !log.contains("orbidden"), "{name} was refused something:\n{log}");
        let record = lab.layout().processes().get(name)?;
        ensure!(
            record
                .spec
                .argv
                .iter()
                .any(|arg| arg.ends_with("/ovenbird-master.conf") || arg.ends_with("/ovenbird-node.conf"))
        );
    }
    Ok(())
}

fn leaves_nothing(lab: Lab, before: &[bool]) -> Result<()> {
    let (dir, prefix) = (lab.layout().dir().to_owned(), lab.layout().prefix().to_owned());
    let recorded: Vec<ProcessId> = lab.layout().processes().all().iter().map(|record| record.id).collect();
    let node_processes = in_cgroup(&prefix);
    ensure!(recorded.len() > 15 && node_processes > 0, "{} recorded, {node_processes} in pods", recorded.len());
    drop(lab);
    ensure!(!dir.exists(), "{} is still there", dir.display());
    ensure!(recorded.iter().all(|id| !id.alive()), "processes live on");
    ensure!(in_cgroup(&prefix) == 0, "processes of pods live on");
    let namespaces =
        fs::read_dir("/run/netns")?.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ensure!(namespaces.count() == 0, "network namespaces are left");
    let cgroups = fs::read_dir("/sys/fs/cgroup")?.flatten().filter(|entry| entry.path().join(&prefix).exists());
    ensure!(cgroups.count() == 0 && !Path::new("/sys/fs/cgroup").join(&prefix).exists(), "cgroups are left");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&*dir.to_string_lossy()), "mounts are left:\n{mounts}");
    ensure!(machine() == before, "the machine's own folders have changed: {MACHINE:?}");
    Ok(())
}

/// How many processes are in cgroups of this lab.
fn in_cgroup(prefix: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let groups = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cgroup")).ok());
    groups.filter(|text| text.contains(&format!(":/{prefix}/"))).count()
}

fn machine() -> Vec<bool> {
    MACHINE.iter().map(|path| Path::new(path).exists()).collect()
}
