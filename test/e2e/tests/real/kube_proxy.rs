//! The classic network with kube-proxy beside it (`--classic-services=false`): pods, nodes and a host outside reach a Service by its addresses and
//! NodePorts, and the pod of a node by its `hostPort`, which is not kube-proxy's; and a policy holds behind both.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api as KubeApi;
use ovenbird_e2e::LIMIT;
use ovenbird_e2e::real::{await_available, deployment, pods_on};
use ovenbird_kube::version;
use ovenbird_lab::{Api, Lab, Mode, Options, testing, wait_for};
use serde_json::json;

const NAMESPACE: &str = "proxied";
const HOST_PORT: u16 = 9300;
const NODE_PORT: u16 = 30080;

#[tokio::test(flavor = "multi_thread")]
async fn kube_proxy_serves_beside_the_classic_network() -> Result<()> {
    let options = Options { nodes: 2, api: Api::Real, mode: Mode::Classic, kube_proxy: true, ..Options::default() };
    let Some(lab) = testing::lab("e2e-kbr-proxy", options).await? else { return Ok(()) };
    lab.namespace(NAMESPACE).await?;
    let container = json!({
        "name": "web", "image": version::AGNHOST, "imagePullPolicy": "Never", "args": ["netexec", "--http-port=8080"],
        "ports": [{"containerPort": 8080, "hostPort": HOST_PORT}],
    });
    lab.apply(&deployment(NAMESPACE, "web", 2, &container)).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]},
    });
    lab.apply(&service.to_string()).await?;
    await_available(&lab, NAMESPACE, "web").await?;
    let tables = lab.exec_node("node1", &["nft", "list", "tables"])?;
    ensure!(tables.contains("kube-proxy") && !tables.contains("ovenbird-services"), "{tables}");
    let services = KubeApi::<Service>::namespaced(lab.client().await?, NAMESPACE);
    let spec = services.get("web").await.context("reading the Service")?.spec.unwrap_or_default();
    let vips = spec.cluster_ips.unwrap_or_default();
    ensure!(vips.len() == 2, "{vips:?}");
    let (mut names, mut pod) = (Vec::new(), String::new());
    for node in ["node1", "node2"] {
        let on =
            pods_on(&lab, NAMESPACE, node).await?.into_keys().next().with_context(|| format!("no pod on {node}"))?;
        pod = format!("{NAMESPACE}/{on}");
        names.push(on);
    }
    let all: BTreeSet<String> = names.iter().cloned().collect();
    let addresses = |index: u16| lab.layout().options.node_addresses(index);
    let by_node: Vec<_> = [1, 2].iter().flat_map(|i| addresses(*i)).map(|ip| at(&ip.to_string(), NODE_PORT)).collect();
    let by_vip: Vec<_> = vips.iter().map(|ip| at(ip, 80)).collect();
    for client in ["node1", "node2", &pod] {
        by_vip.iter().try_for_each(|door| answered(&lab, client, door, &all))?;
    }
    for client in ["outside", "node1", &pod] {
        by_node.iter().try_for_each(|door| answered(&lab, client, door, &all))?;
        for (index, name) in (1..).zip(&names) {
            let own = BTreeSet::from([name.clone()]);
            addresses(index).iter().try_for_each(|ip| answered(&lab, client, &at(&ip.to_string(), HOST_PORT), &own))?;
        }
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": NAMESPACE},
        "spec": {"podSelector": {}},
    });
    lab.apply(&policy.to_string()).await?;
    for door in [&by_vip[0], &at(&addresses(1)[0].to_string(), HOST_PORT)] {
        wait_for(&format!("{door} to be closed to {pod}"), LIMIT, || asked(&lab, &pod, door).is_err())?;
    }
    Ok(())
}

fn at(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The name of the pod that answers.
fn asked(lab: &Lab, client: &str, door: &str) -> Result<String> {
    let url = format!("http://{door}/hostname");
    lab.scene(client)?.checked(&["curl", "--silent", "--show-error", "--max-time", "1", &url])
}

/// All of these come to answer, and nobody else: kube-proxy may have written one endpoint, and waits a second before it writes the other.
fn answered(lab: &Lab, client: &str, door: &str, by: &BTreeSet<String>) -> Result<()> {
    let (mut seen, mut last) = (BTreeSet::new(), None);
    let all = || {
        last = asked(lab, client, door).map(|name| seen.insert(name)).err();
        seen.is_superset(by)
    };
    let waited = wait_for(&format!("{door} to answer {client} by {by:?}"), LIMIT, all);
    waited.with_context(|| format!("only {seen:?} answered; at last {last:?}"))?;
    ensure!(seen == *by, "{client} asks {door}: {seen:?} answer, not {by:?}");
    println!("{client} asks {door}: {seen:?}");
    Ok(())
}
