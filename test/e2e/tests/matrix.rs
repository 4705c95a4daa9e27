//! Every pod and every node reaches every pod, in every family, over Geneve or VXLAN and nothing else; with the names that people
//! know, and nothing in the Northbound that nobody answers for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use ovenbird_e2e::wire::{self, Capture};
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::demo::matrix;
use ovenbird_lab::{Encap, Family, Lab, Mode, Options, Status, testing, wait_for};

const NAMESPACE: &str = "matrix";
/// Packets in OVN's Geneve tunnels (one option of 8 bytes) whose own sources are pods on the VLAN.
const INSIDE: [(&str, &str); 2] =
    [("IPv4", "udp dport 6081 @th,400,24 0xc0a864"), ("IPv6", "udp dport 6081 @th,368,64 0xfd00010000000000")];

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_over_geneve() -> Result<()> {
    let options = Options { nodes: 3, family: Family::Dual, encap: Encap::Geneve, ..Options::default() };
    let Some(lab) = testing::lab("e2e-dual", options).await? else { return Ok(()) };
    lab.apply(&(manifest(&lab) + &portless_pods())).await?;
    reach_everything(&lab, 4, "udp 6081").await?;
    has_the_known_names(&lab)?;
    northbound::equals_from_scratch(&lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_over_vxlan() -> Result<()> {
    let options = Options { nodes: 2, family: Family::V4, encap: Encap::Vxlan, ..Options::default() };
    let Some(lab) = testing::lab("e2e-v4", options).await? else { return Ok(()) };
    lab.apply(&manifest(&lab)).await?;
    reach_everything(&lab, 2, "udp 4789").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_over_geneve() -> Result<()> {
    let options = Options { nodes: 2, family: Family::V6, encap: Encap::Geneve, ..Options::default() };
    let Some(lab) = testing::lab("e2e-v6", options).await? else { return Ok(()) };
    lab.apply(&manifest(&lab)).await?;
    reach_everything(&lab, 2, "udp 6081").await
}

/// All pods on a VLAN: what they say to each other is in no tunnel; only a node and the pods of others meet by the router, which is on one node.
#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_on_a_vlan() -> Result<()> {
    let options = Options { nodes: 2, mode: Mode::Underlay, ..Options::default() };
    let Some(lab) = testing::lab("e2e-vlan", options).await? else { return Ok(()) };
    lab.apply(&manifest(&lab)).await?;
    lab.await_running(NAMESPACE).await?;
    let mut status = Status::of(&lab).await?;
    let on_vlan = |ip: &IpAddr| ["192.168.100.", "fd00:100::"].iter().any(|net| ip.to_string().starts_with(net));
    ensure!(status.pods.iter().flat_map(|pod| &pod.ips).all(on_vlan), "{:?}", status.pods);
    let (fabric, nodes) = (lab.scene("fabric")?, lab.layout().options.node_names());
    let tunnelled = wire::counted(&fabric, &nodes, &INSIDE, || all_cells(&lab, &status, 4))?;
    ensure!(tunnelled.values().all(|count| *count > 0), "nodes reach pods of others by no tunnel: {tunnelled:?}");
    status.nodes.clear();
    let tunnelled = wire::counted(&fabric, &nodes, &INSIDE, || all_cells(&lab, &status, 4))?;
    ensure!(tunnelled.values().all(|count| *count == 0), "pods to pods by a tunnel: {tunnelled:?}");
    northbound::equals_from_scratch(&lab)
}

/// Two pods on each node.
fn manifest(lab: &Lab) -> String {
    let nodes = lab.layout().options.node_names();
    let two = |node: &String| {
        pods::pod(NAMESPACE, &format!("a-{node}"), node) + &pods::pod(NAMESPACE, &format!("b-{node}"), node)
    };
    nodes.iter().map(two).fold(pods::namespace(NAMESPACE), |text, two| text + &two)
}

/// A host-network pod and one that finishes: neither may have a port.
fn portless_pods() -> String {
    "---\n{apiVersion: v1, kind: Pod, metadata: {name: on-host}, spec: {hostNetwork: true, nodeName: node1, containers: [{name: c, image: none}]}}\n\
     ---\n{apiVersion: v1, kind: Pod, metadata: {name: finished}, spec: {nodeName: node1, restartPolicy: Never, containers: [{name: c, image: none, command: ['true']}]}}\n"
        .into()
}

/// The whole matrix works, and the fabric saw only the tunnel (and IPv6's own neighbour discovery) between nodes.
async fn reach_everything(lab: &Lab, checks_per_cell: usize, tunnel: &str) -> Result<()> {
    lab.await_running(NAMESPACE).await?;
    let status = Status::of(lab).await?;
    let capture = Capture::start(lab)?;
    all_cells(lab, &status, checks_per_cell)?;
    let kinds = capture.stop()?;
    let neighbour_discovery = ["icmpv6 135", "icmpv6 136"];
    let seen: BTreeSet<_> =
        kinds.iter().map(String::as_str).filter(|kind| !neighbour_discovery.contains(kind)).collect();
    ensure!(seen == BTreeSet::from([tunnel]), "between nodes: {seen:?}");
    let dump = northbound::dump(lab)?;
    ensure!(northbound::unowned(&dump).is_empty(), "{:?}", northbound::unowned(&dump));
    Ok(())
}

/// Everybody that `status` names reaches all pods.
fn all_cells(lab: &Lab, status: &Status, checks_per_cell: usize) -> Result<()> {
    let matrix = matrix(lab, status, NAMESPACE)?;
    let pods = status.pods.iter().filter(|pod| pod.namespace == NAMESPACE).count();
    ensure!(matrix.cells.len() == (pods + status.nodes.len()) * pods, "{} cells", matrix.cells.len());
    ensure!(matrix.cells.iter().all(|cell| cell.checks.len() == checks_per_cell), "{}", matrix.table());
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    Ok(())
}

/// Gateways come when their nodes have told of them, which may be after the nodes are Ready.
fn has_the_known_names(lab: &Lab) -> Result<()> {
    let mut seen = Ok(());
    wait_for("the names of the northbound contract", LIMIT, || {
        seen = known_names(lab);
        seen.is_ok()
    })
    .or(seen)
}

fn known_names(lab: &Lab) -> Result<()> {
    let dump = northbound::dump(lab)?;
    let has = |table: &str, wanted: &[String]| {
        let names = northbound::names(&dump, table);
        ensure!(wanted.iter().all(|name| names.contains(name)), "{table}: wanted {wanted:?} among {names:?}");
        Ok(())
    };
    let nodes = lab.layout().options.node_names();
    let per_node = |prefix: &str| nodes.iter().map(|node| format!("{prefix}{node}")).collect::<Vec<_>>();
    has("Logical_Router", &[per_node("GR_"), vec!["ovn_cluster_router".into()]].concat())?;
    has("Logical_Switch", &[per_node(""), per_node("ext_"), vec!["join".into()]].concat())?;
    let router_ports = [per_node("rtos-"), per_node("rtoj-GR_"), per_node("rtoe-GR_")].concat();
    has("Logical_Router_Port", &[router_ports, vec!["rtoj-ovn_cluster_router".into()]].concat())?;
    let pods = [per_node(&format!("{NAMESPACE}_a-")), per_node(&format!("{NAMESPACE}_b-"))].concat();
    let gateways = [per_node("jtor-GR_"), per_node("etor-GR_"), per_node("br-ex_")].concat();
    let known = [pods, gateways, per_node("stor-"), per_node("k8s-"), vec!["jtor-ovn_cluster_router".into()]].concat();
    has("Logical_Switch_Port", &known)?;
    let names = northbound::names(&dump, "Logical_Switch_Port");
    let unexpected: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
    ensure!(unexpected.is_empty(), "ports that nobody asked for: {unexpected:?}");
    Ok(())
}
