//! Bad input from people and from the cluster: a clear error that names it, and no harm to anything else.

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::await_condition;
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::{Family, Lab, Options, Status, testing, wait_for};
use serde_json::json;
use tokio::time::timeout;

const NAMESPACE: &str = "input";
/// Two nodes of 13 pods each: /28 without network, broadcast and the first two addresses, which are the router's and the host's.
const TINY: &str = "10.244.0.0/27/28";
const ROOM: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_harms_nothing_else() -> Result<()> {
    let options = Options { nodes: 2, family: Family::V4, cluster_subnets: Some(TINY.into()), ..Options::default() };
    let Some(lab) = testing::lab("e2e-input", options).await? else { return Ok(()) };
    lab.apply(&pods::namespace(NAMESPACE)).await?;
    bad_networks_are_refused(&lab)?;
    the_longest_name_works(&lab).await.context("a name of 253 characters")?;
    a_node_without_a_subnet_is_told(&lab).await.context("exhausted node subnets")?;
    malformed_annotations_are_told(&lab).await.context("malformed annotations")?;
    a_full_node_is_told(&lab).await.context("exhausted addresses")?;
    northbound::equals_from_scratch(&lab)
}

fn bad_networks_are_refused(lab: &Lab) -> Result<()> {
    let kubeconfig = lab.layout().kubeconfig().display().to_string();
    for (networks, why) in [
        ("10.244.0.0/16/24,10.244.128.0/17/24", "two networks of one family"),
        ("10.244.0.0/16/12", "a node's part larger than the whole"),
        ("100.64.0.0/16/24", "the join network's own addresses"),
        ("10.244.0.0", "no prefix at all"),
    ] {
        let argv = [
            "ovenbird-master",
            "--kubeconfig",
            &kubeconfig,
            "--nb-address",
            &lab.layout().nb(),
            "--cluster-subnets",
            networks,
        ];
        let output = lab.scene("central")?.output(&argv)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && said.contains("cluster-subnets") && !said.contains("panicked"),
            "{why}: {said}"
        );
    }
    Ok(())
}

async fn the_longest_name_works(lab: &Lab) -> Result<()> {
    // 253 characters in labels of at most 63 (RFC 1123, as Kubernetes takes names of pods).
    let name = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    ensure!(name.len() == 253);
    lab.apply(&(pods::pod(NAMESPACE, &name, "node1") + &pods::pod(NAMESPACE, "peer", "node2"))).await?;
    lab.await_running(NAMESPACE).await?;
    let matrix = ovenbird_lab::demo::matrix(lab, &Status::of(lab).await?, NAMESPACE)?;
    ensure!(matrix.failures().is_empty(), "{}", matrix.failures().join("\n"));
    pods::delete_all(&pods::api(lab, NAMESPACE).await?).await
}

async fn a_node_without_a_subnet_is_told(lab: &Lab) -> Result<()> {
    lab.apply("{apiVersion: v1, kind: Node, metadata: {name: node3}}\n").await?;
    await_event(lab, "node3", "subnet")?;
    let node = Api::<Node>::all(lab.client().await?).get("node3").await?;
    ensure!(node.metadata.annotations.is_none_or(|annotations| !annotations.contains_key("k8s.ovn.org/node-subnets")));
    lab.delete("{apiVersion: v1, kind: Node, metadata: {name: node3}}\n").await.map(drop)
}

async fn malformed_annotations_are_told(lab: &Lab) -> Result<()> {
    let broken = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "broken", "namespace": NAMESPACE, "annotations": {
        "k8s.ovn.org/pod-networks": "{\"default\": {\"ip_addresses\": [\"10.244.0.300/28\"]",
    }}, "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "none"}]}});
    lab.apply(&broken.to_string()).await?;
    await_event(lab, "broken", "pod-networks")?;
    // Its neighbour is none the worse.
    lab.apply(&pods::pod(NAMESPACE, "healthy", "node1")).await?;
    let healthy =
        await_condition(pods::api(lab, NAMESPACE).await?, "healthy", kube::runtime::conditions::is_pod_running());
    timeout(LIMIT, healthy).await.map_err(|_| anyhow!("its neighbour does not run"))??;
    let node = Api::<Node>::all(lab.client().await?);
    let before = node.get("node2").await?.metadata.annotations.unwrap_or_default()["k8s.ovn.org/node-subnets"].clone();
    let set = |value: &str| json!({"metadata": {"annotations": {"k8s.ovn.org/node-subnets": value}}});
    node.patch("node2", &PatchParams::default(), &Patch::Merge(set("{not json"))).await?;
    await_event(lab, "node2", "node-subnets")?;
    node.patch("node2", &PatchParams::default(), &Patch::Merge(set(&before))).await?;
    pods::delete_all(&pods::api(lab, NAMESPACE).await?).await
}

async fn a_full_node_is_told(lab: &Lab) -> Result<()> {
    let names: Vec<_> = (0..ROOM + 2).map(|index| format!("full-{index}")).collect();
    for name in &names {
        lab.apply(&pods::pod(NAMESPACE, name, "node1")).await?;
    }
    let api = pods::api(lab, NAMESPACE).await?;
    let waits = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")))
    };
    let mut running = 0;
    for name in &names[..ROOM] {
        timeout(LIMIT, await_condition(api.clone(), name, waits))
            .await
            .map_err(|_| anyhow!("{name} does not run"))??;
        running += 1;
    }
    ensure!(running == ROOM);
    await_event(lab, "full-", "address")?;
    // A freed address is used at once.
    lab.delete(&pods::pod(NAMESPACE, &names[0], "node1")).await?;
    pods::await_gone(&api, &names[0]).await?;
    timeout(LIMIT, await_condition(api.clone(), &names[ROOM], waits))
        .await
        .map_err(|_| anyhow!("a freed address is not used"))??;
    pods::delete_all(&api).await
}

/// Waits for a Warning about an object whose name starts so, that speaks of this.
fn await_event(lab: &Lab, name: &str, about: &str) -> Result<()> {
    let argv = [
        "kubectl",
        "get",
        "events",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.involvedObject.name} {.type} {.message}{\"\\n\"}{end}",
    ];
    let mut last = String::new();
    wait_for(&format!("a Warning about {name} that names {about}"), LIMIT, || {
        last = lab.exec_node("central", &argv).unwrap_or_default();
        last.lines().any(|line| line.starts_with(name) && line.contains(" Warning ") && line.contains(about))
    })
    .with_context(|| last.clone())
}
