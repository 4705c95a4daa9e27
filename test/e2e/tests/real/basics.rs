//! Real Kubernetes with Ovenbird as its only network: pods of a Deployment get Ready and reach each other, under exactly the rights
//! that `deploy/` grants, and the lab leaves nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use ovenbird_e2e::real::{await_available, deployment, echo, kubectl, lab, pods_on, reach};
use ovenbird_kube::version;
use ovenbird_lab::{Family, Lab, ProcessId};
use serde_json::{Value, json};

const NAMESPACE: &str = "real";
/// What a node would write on the machine, had it no file system of its own.
const MACHINE: [&str; 4] = ["/etc/cni/net.d", "/var/lib/kubelet", "/var/log/pods", "/run/containerd"];

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_reaches_itself_across_nodes_and_nothing_is_left() -> Result<()> {
    let before = machine();
    let Some(lab) = lab("e2e-real", Family::Dual).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment(NAMESPACE, "web", 2, &echo())).await?;
    lab.apply(&deployment(NAMESPACE, "agnhost", 2, &probed_by_the_kubelet())).await?;
    await_available(&lab, NAMESPACE, "web").await?;
    await_available(&lab, NAMESPACE, "agnhost").await?;
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
    lab.apply(&deployment(NAMESPACE, "web", 2, &echo())).await?;
    await_available(lab, NAMESPACE, "web").await?;
    reach_across_nodes(lab).await
}

/// It is Ready once the kubelet has reached it over HTTP, from the node's own network. The matrix reaches it, too: a port that echoes.
fn probed_by_the_kubelet() -> Value {
    json!({
        "name": "agnhost", "image": version::AGNHOST, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "/agnhost netexec --http-port=80 & exec busybox nc -ll -p 8080 -e cat"],
        "readinessProbe": {"periodSeconds": 1, "httpGet": {"path": "/healthz", "port": 80}},
    })
}

async fn reach_across_nodes(lab: &Lab) -> Result<()> {
    for node in ["node1", "node2"] {
        ensure!(!pods_on(lab, NAMESPACE, node).await?.is_empty(), "no pod on {node}");
    }
    reach(lab, NAMESPACE).await
}

/// Through the API server's exec, the Service of cluster DNS, and what CoreDNS itself gets from the Service `kubernetes`.
fn resolve_names(lab: &Lab) -> Result<()> {
    let answer = kubectl(
        lab,
        &["-n", NAMESPACE, "exec", "deploy/web", "--", "nslookup", "kubernetes.default.svc.cluster.local"],
    )?;
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
