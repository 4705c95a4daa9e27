//! Nodes that lose their power, and nodes that leave and return elsewhere: who stays never notices, who returns works as before, and
//! nothing of the time before is left.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use ovenbird_e2e::real::{
    address, await_available, await_object, await_ports_of_pods, deployment, echo, ips, kubectl, lab, pods_on, reach,
    stream,
};
use ovenbird_e2e::stream::Stream;
use ovenbird_e2e::{LIMIT, northbound};
use ovenbird_lab::{Family, Lab, wait_for};

const NAMESPACE: &str = "nodes";
/// Blocks of the stream between two events: enough for both directions to have been used many times.
const BLOCKS: u64 = 200;
/// The host part of the addresses with which a node returns.
const ELSEWHERE: u16 = 42;

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_and_return_elsewhere() -> Result<()> {
    let Some(mut lab) = lab("e2e-nodes", Family::Dual).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment(NAMESPACE, "web", 4, &echo())).await?;
    await_available(&lab, NAMESPACE, "web").await?;
    power_is_lost(&lab).await.context("power loss")?;
    northbound::equals_from_scratch(&lab).context("after power loss")?;
    leaves_and_returns(&mut lab).await.context("leaving and returning")?;
    northbound::equals_from_scratch(&lab).context("after the return")
}

/// All of node 2 dies at once while pods of node 1 talk; then it boots.
async fn power_is_lost(lab: &Lab) -> Result<()> {
    let before = pods_on(lab, NAMESPACE, "node2").await?;
    let stream = stream_on_node1(lab).await?;
    stream.await_blocks(BLOCKS)?;
    lab.power_off("node2")?;
    stream.await_blocks(BLOCKS)?;
    lab.power_on("node2")?;
    // The API says Ready from before for a while: what counts is that the containers were started again.
    for name in before.keys() {
        await_object(lab, NAMESPACE, name, |pod: Option<&Pod>| pod.is_some_and(is_ready_again)).await?;
    }
    await_available(lab, NAMESPACE, "web").await?;
    stream.await_blocks(BLOCKS)?;
    stream.stop().context("between pods of node 1")?;
    let after = pods_on(lab, NAMESPACE, "node2").await?;
    ensure!(addresses(&before) == addresses(&after), "{:?}, before {:?}", addresses(&after), addresses(&before));
    await_ports_of_pods(lab, "node2")?;
    reach(lab, NAMESPACE).await
}

/// Drained, switched off, deleted; then it registers with other addresses.
async fn leaves_and_returns(lab: &mut Lab) -> Result<()> {
    kubectl(lab, &["drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"])?;
    await_available(lab, NAMESPACE, "web").await?;
    let stream = stream_on_node1(lab).await?;
    lab.power_off("node2")?;
    kubectl(lab, &["delete", "node", "node2"])?;
    wait_for("the Northbound to forget node 2", LIMIT, || {
        northbound::dump(lab).is_ok_and(|dump| !format!("{dump:?}").contains("node2"))
    })?;
    reach(lab, NAMESPACE).await.context("without node 2")?;
    let old = lab.layout().options.node_addresses(2);
    lab.readdress("node2", ELSEWHERE)?;
    lab.power_on("node2")?;
    kubectl(lab, &["wait", "--for=create", "node/node2", "--timeout=60s"])?;
    kubectl(lab, &["wait", "--for=condition=Ready", "node/node2", "--timeout=60s"])?;
    kubectl(lab, &["-n", NAMESPACE, "rollout", "restart", "deploy/web"])?;
    stream.await_blocks(BLOCKS)?;
    stream.stop().context("between pods of node 1")?;
    await_available(lab, NAMESPACE, "web").await?;
    let pods = pods_on(lab, NAMESPACE, "node2").await?;
    ensure!(pods.len() == 2, "{} pods on node 2", pods.len());
    reach(lab, NAMESPACE).await.context("with node 2 elsewhere")?;
    await_ports_of_pods(lab, "node2")?;
    let tunnels = lab
        .exec_node("node1", &["ovs-vsctl", "--format=json", "--columns=options", "find", "interface", "type=geneve"])?;
    let new = lab.layout().options.node_addresses(2);
    let leads_to = |addresses: &[std::net::IpAddr]| addresses.iter().any(|ip| tunnels.contains(&format!("\"{ip}\"")));
    ensure!(leads_to(&new) && !leads_to(&old), "{tunnels}");
    Ok(())
}

/// Between two pods of node 1.
async fn stream_on_node1(lab: &Lab) -> Result<Stream> {
    let pods = pods_on(lab, NAMESPACE, "node1").await?;
    let to = pods.values().nth(1).with_context(|| format!("{} pods on node 1", pods.len()))?;
    stream(lab, NAMESPACE, "node1", address(to)?).await
}

fn is_ready_again(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.is_some_and(|all| all.iter().all(|one| one.ready && one.restart_count > 0))
}

fn addresses(pods: &BTreeMap<String, Pod>) -> BTreeMap<&String, BTreeSet<String>> {
    pods.iter().map(|(name, pod)| (name, ips(pod))).collect()
}
