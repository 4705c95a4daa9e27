//! Ovenbird as one of several CNI plugins: after it comes the reference plugin `portmap`, which gets its result and the ports of the
//! node that the pod asks for. The pod's port answers, and the chain is undone with the pod.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::{PORT, Target};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, Options, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "chain";
const HOST_PORT: u16 = 9080;

#[tokio::test(flavor = "multi_thread")]
async fn portmap_may_follow() -> Result<()> {
    let options = Options { nodes: 1, ..Options::default() };
    let Some(lab) = testing::lab("e2e-chain", options).await? else { return Ok(()) };
    chain(&lab)?;
    lab.apply(&(pods::namespace(NAMESPACE) + &pod())).await?;
    lab.await_running(NAMESPACE).await?;
    let rules = rules(&lab)?;
    ensure!(!rules.is_empty(), "portmap was told of no port");
    let api = pods::api(&lab, NAMESPACE).await?;
    let ips = pods::ips(&api, "asks").await?;
    ensure!(ips.len() == 2, "the pod has {ips:?}");
    let mut table = Table::new(["client", "to", "round trip"]);
    for address in lab.layout().options.node_addresses(1) {
        let to = SocketAddr::new(address, HOST_PORT);
        for client in ["outside", "node1"] {
            let place = lab.scene(client)?.place().clone();
            let took = place.run(|| Target::Tcp(to).check(LIMIT)).with_context(|| format!("{client} asks {to}"))?;
            let cells = [client.into(), to.to_string(), format!("{} us", took.as_micros())];
            table.row(cells.map(|cell| (cell, Colour::Plain)));
        }
    }
    println!("{table}{} rules of portmap", rules.len());
    pods::delete_all(&api).await?;
    wait_for("portmap's rules to go with the pod", LIMIT, || self::rules(&lab).is_ok_and(|rules| rules.is_empty()))
}

/// A list before the node daemon's in the order of names, as an administrator would write it: the daemon's own plugin, then `portmap`.
fn chain(lab: &Lab) -> Result<()> {
    let folder = lab.layout().home("node1").join("cni/net.d");
    let text = std::fs::read(folder.join("10-ovenbird.conflist")).context("reading the node daemon's list")?;
    let mut list: Value = serde_json::from_slice(&text).context("reading the node daemon's list")?;
    let plugins = list["plugins"].as_array_mut().context("no plugins")?;
    plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    // portmap of Debian 12 knows nothing newer.
    list["cniVersions"] = json!(["1.0.0"]);
    std::fs::write(folder.join("05-chained.conflist"), list.to_string()).context("writing a list")
}

fn pod() -> String {
    let ports = json!([{"containerPort": PORT, "hostPort": HOST_PORT}]);
    let container = json!({"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"], "ports": ports});
    let spec = json!({"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": "asks", "namespace": NAMESPACE});
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// Rules of portmap for the port, in both families.
fn rules(lab: &Lab) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for tool in ["iptables", "ip6tables"] {
        let text = lab.exec_node("node1", &[tool, "-t", "nat", "-S"])?;
        let of_port = |line: &&str| line.contains("CNI-") && line.contains(&format!("--dport {HOST_PORT}"));
        found.extend(text.lines().filter(of_port).map(str::to_owned));
    }
    Ok(found)
}
