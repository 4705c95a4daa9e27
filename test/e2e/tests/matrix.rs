//! Every pod and every node reaches every pod, in every family, over Geneve or VXLAN and nothing else; with the names that people
//! know, and nothing in the Northbound that nobody answers for.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ovenbird_e2e::reach::{all_cells, by_tunnel_alone, two_on_each_node};
use ovenbird_e2e::{LIMIT, northbound, wire};
use ovenbird_lab::{Encap, Family, Lab, Mode, Options, Status, testing, wait_for};

const NAMESPACE: &str = "matrix";
/// Packets in OVN's Geneve tunnels (one option of 8 bytes) whose own sources are pods on the VLAN.
const INSIDE: [(&str, &str); 2] =
    [("IPv4", "udp dport 6081 @th,400,24 0xc0a864"), ("IPv6", "udp dport 6081 @th,368,64 0xfd00010000000000")];

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_over_geneve() -> Result<()> {
    let options = Options { nodes: 3, family: Family::Dual, encap: Encap::Geneve, ..Options::default() };
    let Some(lab) = testing::lab("e2e-dual", options).await? else { return Ok(()) };
    lab.apply(&(two_on_each_node(&lab, NAMESPACE) + &portless_pods())).await?;
    reach_everything(&lab, "udp 6081").await?;
    has_the_known_names(&lab)?;
    northbound::equals_from_scratch(&lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_over_vxlan() -> Result<()> {
    let options = Options { nodes: 2, family: Family::V4, encap: Encap::Vxlan, ..Options::default() };
    let Some(lab) = testing::lab("e2e-v4", options).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    reach_everything(&lab, "udp 4789").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_over_geneve() -> Result<()> {
    let options = Options { nodes: 2, family: Family::V6, encap: Encap::Geneve, ..Options::default() };
    let Some(lab) = testing::lab("e2e-v6", options).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    reach_everything(&lab, "udp 6081").await
}

/// All pods on a VLAN: what they say to each other is in no tunnel; only a node and the pods of others meet by the router, which is on one node.
#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_on_a_vlan() -> Result<()> {
    let options = Options { nodes: 2, mode: Mode::Underlay, ..Options::default() };
    let Some(lab) = testing::lab("e2e-vlan", options).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    lab.await_running(NAMESPACE).await?;
    let mut status = Status::of(&lab).await?;
    let on_vlan = |ip: &IpAddr| ["192.168.100.", "fd00:100::"].iter().any(|net| ip.to_string().starts_with(net));
    ensure!(status.pods.iter().flat_map(|pod| &pod.ips).all(on_vlan), "{:?}", status.pods);
    let (fabric, nodes) = (lab.scene("fabric")?, lab.layout().options.node_names());
    let tunnelled = wire::counted(&fabric, &nodes, &INSIDE, || all_cells(&lab, &status, NAMESPACE).map(drop))?;
    ensure!(tunnelled.values().all(|count| *count > 0), "nodes reach pods of others by no tunnel: {tunnelled:?}");
    status.nodes.clear();
    let tunnelled = wire::counted(&fabric, &nodes, &INSIDE, || all_cells(&lab, &status, NAMESPACE).map(drop))?;
    ensure!(tunnelled.values().all(|count| *count == 0), "pods to pods by a tunnel: {tunnelled:?}");
    northbound::equals_from_scratch(&lab)
}

/// A host-network pod and one that finishes: neither may have a port.
fn portless_pods() -> String {
    "---\n{apiVersion: v1, kind: Pod, metadata: {name: on-host}, spec: {hostNetwork: true, nodeName: node1, containers: [{name: c, image: none}]}}\n\
     ---\n{apiVersion: v1, kind: Pod, metadata: {name: finished}, spec: {nodeName: node1, restartPolicy: Never, containers: [{name: c, image: none, command: ['true']}]}}\n"
        .into()
}

/// The whole matrix works by the tunnel alone, and nothing in the Northbound is nobody's.
async fn reach_everything(lab: &Lab, tunnel: &str) -> Result<()> {
    by_tunnel_alone(lab, NAMESPACE, tunnel).await?;
    let dump = northbound::dump(lab)?;
    ensure!(northbound::unowned(&dump).is_empty(), "{:?}", northbound::unowned(&dump));
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
