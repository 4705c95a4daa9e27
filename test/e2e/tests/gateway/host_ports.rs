//! Ports of a node that lead to a pod: whoever asks is answered, and who asks from outside is seen by its own address.

use std::time::Duration;

use anyhow::{Context, Result};
use ovenbird_e2e::{LIMIT, pods, witness};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, wait_for};
use serde_json::json;

use super::*;

/// Protocols, ports of the node, and those of the pod.
const PROTOCOLS: [(Protocol, u16, u16); 2] = [(Protocol::Tcp, 9100, PORT), (Protocol::Udp, 9101, PORT + 1)];
/// How long silence lasts until it counts.
const SILENCE: Duration = Duration::from_secs(1);

/// Makes a pod with such a port on node 1, and asks from everywhere.
pub(super) async fn are_served(lab: &Lab) -> Result<()> {
    // A number for each protocol: the lab's API server merges ports by number alone.
    let ports = PROTOCOLS
        .map(|(protocol, host, own)| json!({"containerPort": own, "hostPort": host, "protocol": protocol.to_string()}));
    let container = json!({"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"], "ports": ports});
    let spec = json!({"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": "ports", "namespace": NAMESPACE});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    lab.apply(&pod.to_string()).await?;
    lab.await_running(NAMESPACE).await?;
    let ips = pods::ips(&pods::api(lab, NAMESPACE).await?, "ports").await?;
    let place = |target: &str| Ok::<_, anyhow::Error>(lab.scene(target)?.place().clone());
    for (_, _, own) in PROTOCOLS {
        witness::stand(&place(&format!("{NAMESPACE}/ports"))?, "ports", &ips, own)?;
    }
    let own = lab.layout().options.outside_addresses();
    let mut table = Table::new(["client", "port of node 1", "protocol", "the pod saw"]);
    let other = format!("{NAMESPACE}/on-node2");
    for client in ["outside", "node1", "node2", &other] {
        let from = place(client)?;
        let addresses = node_addresses(lab, "node1")?.into_iter();
        for (address, (protocol, port, _)) in addresses.flat_map(|ip| PROTOCOLS.map(|ports| (ip, ports))) {
            let (to, mut last) = (SocketAddr::new(address, port), None);
            wait_for(&format!("{protocol} {to} to answer {client}"), LIMIT, || {
                last = witness::ask(&from, protocol, to, SILENCE).ok().and_then(Result::ok);
                last.is_some()
            })?;
            let answer = last.context("no answer")?;
            let cells = [client.to_owned(), to.to_string(), protocol.to_string(), answer.seen.to_string()];
            table.row(cells.map(|cell| (cell, Colour::Plain)));
            let kept = client != "outside" || own.contains(&answer.seen);
            ensure!(answer.who == "ports" && kept, "{client} asks {protocol} {to}: {answer:?}");
        }
    }
    println!("{table}");
    Ok(())
}
