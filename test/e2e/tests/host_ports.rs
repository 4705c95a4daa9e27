//! Ports of a node that lead to its pods, in the overlay, in the classic network, on VLANs and on VMs: whoever asks is answered, by TCP and UDP in both families, a pod
//! that asks itself too; a port at one address is at no other; of two pods that ask for one port the older has it and the other is told; and
//! policies hold there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::witness::{self, Answer, Protocol};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::{Lab, Mode, Options, Place, testing};
use serde_json::{Value, json};

const NAMESPACE: &str = "ports";
/// Port of the pods; one more for UDP, two for the port at one address: `kubectl apply` merges ports by number.
const PORT: u16 = 7000;
/// Port of the node; one more for UDP.
const ANY: u16 = 9100;
/// At one address of the node.
const AT: u16 = 9200;
/// How long silence lasts until it counts.
const SILENCE: Duration = Duration::from_millis(700);
/// Who asks: hosts, pods beside and elsewhere, and the pod itself.
const CLIENTS: [&str; 6] = ["outside", "node1", "node2", "ports/beside", "ports/elsewhere", "ports/older"];
/// Of these, pods on Networks are refused: the node would have to speak for them, and policies let the node pass.
const PODS: [&str; 3] = ["ports/beside", "ports/elsewhere", "ports/older"];

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_node_lead_to_its_pods() -> Result<()> {
    lead_to_pods("e2e-ports", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_node_lead_to_its_pods_in_the_classic_network() -> Result<()> {
    lead_to_pods("e2e-ports-kbr", Mode::Classic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_node_that_is_a_vm_lead_to_its_pods() -> Result<()> {
    lead_to_pods("e2e-ports-vm", Mode::Nested).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_node_lead_to_pods_on_a_vlan() -> Result<()> {
    lead_to_pods("e2e-ports-vlan", Mode::Underlay).await
}

async fn lead_to_pods(name: &str, mode: Mode) -> Result<()> {
    let Some(lab) = testing::lab(name, Options { nodes: 2, mode, ..Options::default() }).await? else { return Ok(()) };
    let options = &lab.layout().options;
    let (own, far) = (options.node_addresses(1), options.outside_addresses());
    let udp = |host: u16| json!({"containerPort": PORT + 1, "hostPort": host, "protocol": "UDP"});
    let tcp = |host: u16| json!({"containerPort": PORT, "hostPort": host});
    let at = json!({"containerPort": PORT + 2, "hostPort": AT, "hostIP": own[0]});
    lab.apply(&(pods::namespace(NAMESPACE) + &pod("older", "node1", &[tcp(ANY), udp(ANY + 1)]))).await?;
    lab.await_running(NAMESPACE).await?;
    // Within one second the name decides.
    let others = [("beside", "node1"), ("elsewhere", "node2")].map(|(name, node)| pod(name, node, &[]));
    lab.apply(&(pod("younger", "node1", &[at, tcp(ANY)]) + &others.concat())).await?;
    lab.await_running(NAMESPACE).await?;
    for name in ["older", "younger"] {
        let ips = pods::ips(&pods::api(&lab, NAMESPACE).await?, name).await?;
        for port in [PORT, PORT + 1, PORT + 2] {
            witness::stand(&place(&lab, &format!("{NAMESPACE}/{name}"))?, name, &ips, port)?;
        }
    }
    let doors = || {
        own.iter()
            .flat_map(|ip| [(Protocol::Tcp, SocketAddr::new(*ip, ANY)), (Protocol::Udp, SocketAddr::new(*ip, ANY + 1))])
    };
    let refused: &[&str] = if mode == Mode::Underlay { &PODS } else { &[] };
    let clients = CLIENTS.into_iter().filter(|client| !refused.contains(client)).collect::<Vec<_>>();
    for (client, (protocol, to)) in clients.iter().flat_map(|client| doors().map(move |door| (client, door))) {
        eventually(&lab, &format!("{client} asks {protocol} {to}"), || {
            let answer = asked(&lab, client, protocol, to)?.context("nobody answers")?;
            ensure!(answer.who == "older", "{answer:?}");
            ensure!(*client != "outside" || far.contains(&answer.seen), "another's address: {answer:?}");
            Ok(())
        })?;
    }
    for client in clients {
        eventually(&lab, &format!("{client} asks at the one address"), || {
            let answer = asked(&lab, client, Protocol::Tcp, SocketAddr::new(own[0], AT))?.context("nobody answers")?;
            ensure!(answer.who == "younger", "{answer:?}");
            Ok(())
        })?;
        let at_other = asked(&lab, client, Protocol::Tcp, SocketAddr::new(own[1], AT))?;
        ensure!(at_other.is_none(), "{client} is answered at another address: {at_other:?}");
    }
    for (client, (protocol, to)) in refused.iter().flat_map(|client| doors().map(move |door| (client, door))) {
        let answer = asked(&lab, client, protocol, to)?;
        ensure!(answer.is_none(), "{client} is answered at {to}: {answer:?}");
    }
    // By its own loopback address, which is nobody else's.
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ANY);
    eventually(&lab, "node1 asks by 127.0.0.1", || {
        let answer = asked(&lab, "node1", Protocol::Tcp, loopback)?.context("nobody answers")?;
        ensure!(answer.who == "older", "{answer:?}");
        Ok(())
    })?;
    let told = format!("port {ANY}/TCP of node node1 belongs to pod {NAMESPACE}/older");
    await_event(&lab, "younger", &told).await?;
    policies_hold(&lab, &own, &far, refused).await?;
    the_next_has_it(&lab, &own).await
}

/// Only the pod beside, and the hosts' own node, which is always let through.
async fn policies_hold(lab: &Lab, own: &[IpAddr], far: &[IpAddr], refused: &[&str]) -> Result<()> {
    let cidrs = |ips: &[IpAddr]| -> Vec<Value> {
        ips.iter()
            .map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}}))
            .collect()
    };
    let policy = |from: Vec<Value>| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "older", "namespace": NAMESPACE},
            "spec": {"podSelector": {"matchLabels": {"name": "older"}}, "ingress": [{"from": from}]},
        })
    };
    let only_beside = json!({"podSelector": {"matchLabels": {"name": "beside"}}});
    for (from, lets) in [(vec![only_beside], "ports/beside"), (cidrs(far), "outside")] {
        lab.apply(&policy(from).to_string()).await?;
        for client in ["outside", "ports/beside", "node1"] {
            for to in own.iter().map(|ip| SocketAddr::new(*ip, ANY)) {
                let passes = [lets, "node1"].contains(&client) && !refused.contains(&client);
                eventually(lab, &format!("{client} asks {to}, let through: {passes}"), || {
                    let answer = asked(lab, client, Protocol::Tcp, to)?;
                    ensure!(answer.is_some() == passes, "{answer:?}");
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

/// When the pod that has a port goes, the one that was told so gets it.
async fn the_next_has_it(lab: &Lab, own: &[IpAddr]) -> Result<()> {
    let api = pods::api(lab, NAMESPACE).await?;
    api.delete("older", &DeleteParams::default()).await.context("deleting the older pod")?;
    pods::await_gone(&api, "older").await?;
    for (client, to) in
        ["outside", "node1"].iter().flat_map(|client| own.iter().map(move |ip| (client, SocketAddr::new(*ip, ANY))))
    {
        eventually(lab, &format!("{client} asks {to}"), || {
            let answer = asked(lab, client, Protocol::Tcp, to)?.context("nobody answers")?;
            ensure!(answer.who == "younger", "{answer:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits for an Event about a pod that says this.
async fn await_event(lab: &Lab, pod: &str, text: &str) -> Result<()> {
    let events = Api::<Event>::all(lab.client().await?);
    let told = |event: &Event| {
        event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(pod)
            && event.note.as_deref().is_some_and(|note| note.contains(text))
    };
    let end = tokio::time::Instant::now() + LIMIT;
    while !events.list(&ListParams::default()).await?.iter().any(told) {
        ensure!(tokio::time::Instant::now() < end, "no Event of {pod} says {text:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn place(lab: &Lab, target: &str) -> Result<Place> {
    Ok(lab.scene(target)?.place().clone())
}

fn asked(lab: &Lab, client: &str, protocol: Protocol, to: SocketAddr) -> Result<Option<Answer>> {
    Ok(witness::ask(&place(lab, client)?, protocol, to, SILENCE)?.ok())
}

fn pod(name: &str, node: &str, ports: &[Value]) -> String {
    let container = json!({"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"], "ports": ports});
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": {"name": name}});
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}
