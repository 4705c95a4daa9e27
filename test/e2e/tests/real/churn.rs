//! Workloads that replace their pods: rollouts, pods that return under their names, a namespace that returns with its pods, and a
//! node that fills up and empties at once. Who has gone keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ovenbird_e2e::real::{
    await_available, await_northbound_of_pods, await_object, await_ports_of_pods, container, deployment, echo, ips, is,
    kubectl, lab, pod, pods_on, reach,
};
use ovenbird_e2e::stream::Stream;
use ovenbird_e2e::{LIMIT, northbound};
use ovenbird_kube::version::BUSYBOX;
use ovenbird_lab::probe::{PORT, Target};
use ovenbird_lab::{Family, Lab, Progress, wait_for};
use serde_json::{Value, json};

/// The most pods that a kubelet takes by default.
const FULL: u16 = 110;
const FULL_SPACE: &str = "full";
/// So many come or go in `LIMIT`.
const STEP: usize = 10;
const NODES: [&str; 2] = ["node1", "node2"];
/// Nobody answers at an address that nobody has: so long is waited for it.
const SILENCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_replaced_and_keep_nothing() -> Result<()> {
    let Some(lab) = lab("e2e-churn", Family::Dual).await? else { return Ok(()) };
    let progress = Progress::shown();
    rollout(&lab).await.context("rollout")?;
    progress.step("a rollout");
    same_names(&lab).await.context("StatefulSet")?;
    progress.step("pods that return under their names");
    namespace_returns(&lab).await.context("namespace")?;
    progress.step("a namespace that returns with its pods");
    let before = network(&lab, "node2")?;
    node_fills_up(&lab).await.context("full node")?;
    progress.step("a node that fills up");
    node_empties(&lab, &before).context("emptied node")?;
    progress.step("a node that empties");
    northbound::equals_from_scratch(&lab)
}

/// Both generations are reached while both are there, and the new one goes on while the old one leaves.
async fn rollout(lab: &Lab) -> Result<()> {
    const SPACE: &str = "rollout";
    const HOLD: u32 = 500;
    lab.namespace(SPACE).await?;
    lab.apply(&generation(SPACE, "old", 0)?).await?;
    await_available(lab, SPACE, "web").await?;
    // New pods are Ready, and do not count yet: so the old ones stay.
    lab.apply(&generation(SPACE, "new", HOLD)?).await?;
    let both = |one: Option<&Deployment>| {
        let status = one.and_then(|one| one.status.as_ref());
        status.is_some_and(|status| (status.updated_replicas, status.ready_replicas) == (Some(2), Some(6)))
    };
    await_object(lab, SPACE, "web", both).await?;
    reach(lab, SPACE).await.context("both generations")?;
    let pods = pods(lab, SPACE).await?;
    let new: Vec<_> = pods.values().filter(|pod| pod.labels()["generation"] == "new").collect();
    ensure!((pods.len(), new.len()) == (6, 2), "{} pods, {} of them new", pods.len(), new.len());
    let place = lab.scene(&format!("{SPACE}/{}", new[0].name_any()))?.place().clone();
    let to = addresses(new[1]).into_iter().next().context("the new pod has no address")?;
    let stream = Stream::start(&place, SocketAddr::new(to, PORT))?;
    lab.apply(&generation(SPACE, "new", 0)?).await?;
    await_available(lab, SPACE, "web").await?;
    stream.await_blocks(1)?;
    stream.stop().context("between pods of the new generation")?;
    for pod in new {
        ensure!(self::pods(lab, SPACE).await?.contains_key(&pod.name_any()), "{} was replaced", pod.name_any());
    }
    reach(lab, SPACE).await.context("the new generation")?;
    rest(lab)
}

fn generation(namespace: &str, generation: &str, hold: u32) -> Result<String> {
    let mut web: Value = serde_json::from_str(&deployment(namespace, "web", 4, &echo()))?;
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    web["spec"]["minReadySeconds"] = json!(hold);
    web["spec"]["template"]["metadata"]["labels"]["generation"] = json!(generation);
    Ok(web.to_string())
}

/// Deleted again and again, also before it runs, and by force, when the API forgets it before the node has.
async fn same_names(lab: &Lab) -> Result<()> {
    const SPACE: &str = "names";
    const DELETE: [&[&str]; 2] = [&["--wait=false"], &["--force", "--grace-period=0"]];
    lab.namespace(SPACE).await?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": SPACE},
        "spec": {"serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [echo()]},
        }},
    });
    lab.apply(&set.to_string()).await?;
    let ready = |set: Option<&StatefulSet>| {
        set.and_then(|set| set.status.as_ref()).is_some_and(|status| status.ready_replicas == Some(2))
    };
    await_object(lab, SPACE, "db", ready).await?;
    for how in DELETE {
        let (first, netns) = (pods(lab, SPACE).await?.remove("db-0").context("no db-0")?, netns(lab, SPACE, "db-0")?);
        let mut uid = first.uid();
        for _ in 0..3 {
            kubectl(lab, &[&["-n", SPACE, "delete", "pod", "db-0"], how].concat())?;
            let another = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.uid() != uid);
            await_object(lab, SPACE, "db-0", another).await?;
            uid = pods(lab, SPACE).await?.remove("db-0").and_then(|pod| pod.uid());
        }
        await_object(lab, SPACE, "db-0", is(|pod| pod.ready)).await?;
        rest(lab)?;
        ensure!(self::netns(lab, SPACE, "db-0")? != netns, "the sandbox is that of an earlier pod");
        reach(lab, SPACE).await?;
        nobody_answers(lab, SPACE, &first).await?;
    }
    Ok(())
}

/// Where a pod was that has gone, unless another pod has its address by now.
async fn nobody_answers(lab: &Lab, namespace: &str, gone: &Pod) -> Result<()> {
    let pods = pods(lab, namespace).await?;
    let taken: BTreeSet<IpAddr> = pods.values().flat_map(addresses).collect();
    let from = lab.scene(&format!("{namespace}/db-1"))?.place().clone();
    for address in addresses(gone).into_iter().filter(|address| !taken.contains(address)) {
        let answered = from.run(|| Ok(Target::Tcp(SocketAddr::new(address, PORT)).check(SILENCE).is_ok()))?;
        ensure!(!answered, "{address} still answers");
    }
    Ok(())
}

/// Deleted with its pods inside, made anew at once with pods of the same names; twice while they still start.
async fn namespace_returns(lab: &Lab) -> Result<()> {
    const SPACE: &str = "returns";
    let names = ["a", "b", "c", "d"];
    let manifests = names.iter().zip(NODES.iter().cycle());
    let manifests: Vec<_> =
        manifests.map(|(name, node)| pod(SPACE, name, json!({"nodeName": node, "containers": [echo()]}))).collect();
    for life in 0..4 {
        lab.namespace(SPACE).await?;
        for manifest in &manifests {
            lab.apply(manifest).await?;
        }
        if life == 0 || life == 3 {
            for name in names {
                await_object(lab, SPACE, name, is(|pod| pod.ready)).await?;
            }
        }
        if life < 3 {
            kubectl(lab, &["delete", "namespace", SPACE, "--timeout=60s"])?;
        }
    }
    reach(lab, SPACE).await?;
    rest(lab)
}

/// As many pods as a kubelet takes by default, all at once.
async fn node_fills_up(lab: &Lab) -> Result<()> {
    lab.namespace(FULL_SPACE).await?;
    let mut many: Value =
        serde_json::from_str(&deployment(FULL_SPACE, "many", FULL, &container(BUSYBOX, &["sleep", "100000"])))?;
    let spec = &mut many["spec"]["template"]["spec"];
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    spec["topologySpreadConstraints"] = json!([]);
    spec["terminationGracePeriodSeconds"] = json!(0);
    lab.apply(&many.to_string()).await?;
    for count in (STEP..=usize::from(FULL)).step_by(STEP) {
        let ready = |one: Option<&Deployment>| {
            let ready = one.and_then(|one| one.status.as_ref()?.ready_replicas);
            ready.is_some_and(|ready| ready as usize >= count)
        };
        await_object(lab, FULL_SPACE, "many", ready).await?;
    }
    let pods = pods_on(lab, FULL_SPACE, "node2").await?;
    let all: BTreeSet<_> = pods.values().flat_map(ips).collect();
    ensure!(all.len() == 2 * usize::from(FULL), "{} addresses", all.len());
    rest(lab)
}

/// All of them gone at once: nothing is left of them.
fn node_empties(lab: &Lab, before: &[BTreeSet<String>]) -> Result<()> {
    kubectl(lab, &["-n", FULL_SPACE, "delete", "deployment", "many"])?;
    for count in (0..usize::from(FULL)).step_by(STEP).rev() {
        wait_for(&format!("pods to go until {count} are left"), LIMIT, || {
            kubectl(lab, &["-n", FULL_SPACE, "get", "pods", "-o", "name"])
                .is_ok_and(|text| text.lines().count() <= count)
        })?;
    }
    rest(lab)?;
    let mut left = vec!["everything".to_owned()];
    let met = wait_for("the node to have no more than before", LIMIT, || {
        if let Ok(now) = network(lab, "node2") {
            left = now.iter().zip(before).flat_map(|(now, before)| now.difference(before).cloned()).collect();
        }
        left.is_empty()
    });
    met.with_context(|| format!("left: {left:?}"))
}

/// What pods have of a node's network: links, ports of the bridge, network namespaces.
fn network(lab: &Lab, node: &str) -> Result<Vec<BTreeSet<String>>> {
    let commands: [&[&str]; 3] =
        [&["ls", "/sys/class/net"], &["ovs-vsctl", "list-ports", "br-int"], &["ls", "/run/netns"]];
    commands.iter().map(|argv| Ok(lab.exec_node(node, argv)?.lines().map(str::to_owned).collect())).collect()
}

/// Northbound and switches have the ports of living pods, and no others.
fn rest(lab: &Lab) -> Result<()> {
    await_northbound_of_pods(lab)?;
    NODES.iter().try_for_each(|node| await_ports_of_pods(lab, node))
}

async fn pods(lab: &Lab, namespace: &str) -> Result<BTreeMap<String, Pod>> {
    let mut all = pods_on(lab, namespace, "node1").await?;
    all.extend(pods_on(lab, namespace, "node2").await?);
    Ok(all)
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    ips(pod).iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn netns(lab: &Lab, namespace: &str, name: &str) -> Result<Option<String>> {
    Ok(lab.scene(&format!("{namespace}/{name}"))?.place().netns.clone())
}
