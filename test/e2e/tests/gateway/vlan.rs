//! A tagged uplink: every frame on the wire has the tag, and pods, hosts and the outside reach each other as without one.
//!
//! ```text
//!   br-ex (its own port: tag 77) --- up0 ====== up1 --- trunk --- eth0 (access port of 77) --- fabric
//!                                       tagged                            untagged
//! ```
//! The switch at the other end of the wire is a second bridge of the node, as this machine's kernel may know no VLANs.

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::service::{PORT as SERVICE_PORT, service, slices};
use ovenbird_e2e::{LIMIT, witness};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, wait_for};
use serde_json::{Value, json};

use super::*;

const TAG: &str = "77";
/// Ports of the Service on nodes: TCP and UDP.
const NODE_PORTS: [u16; 2] = [30080, 30053];

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_tagged_where_the_uplink_is() -> Result<()> {
    let Some(lab) = lab("e2e-gw-vlan", &[], &[]).await? else { return Ok(()) };
    for node in lab.layout().options.node_names() {
        tag(&lab, &node)?;
    }
    let pods = one_pod_on_each_node(&lab).await?;
    let outside = everywhere_outside(&lab)?;
    let mut way_table = Table::new(["node", "direction", "frames", "tagged"]);
    for node in lab.layout().options.node_names() {
        lab.scene(&node)?.checked(&["nft", &counters()])?;
    }
    for pod in &pods {
        for to in &outside {
            reaches(pod, "outside", *to, &node_addresses(&lab, &pod.node)?)?;
        }
    }
    a_service_is_reached(&lab, &pods).await?;
    let mut untagged = 0;
    for node in lab.layout().options.node_names() {
        for (direction, (tagged, all)) in ["sent", "received"].into_iter().zip(counts(&lab, &node)?) {
            ensure!(all > 0, "{node} has {direction} nothing");
            untagged += all - tagged;
            let cells = [node.clone(), direction.into(), all.to_string(), tagged.to_string()];
            way_table.row(cells.map(|cell| (cell, Colour::Plain)));
        }
    }
    println!("{way_table}");
    ensure!(untagged == 0, "{untagged} frames had no tag {TAG}");
    Ok(())
}

/// Puts the uplink of a node behind a trunk, and the host into its VLAN; waits until gateway router and flows are there, too.
fn tag(lab: &Lab, node: &str) -> Result<()> {
    let place = lab.scene(node)?;
    let wire = "ip link add up0 type veth peer name up1
        for end in up0 up1; do
            echo 1 > /proc/sys/net/ipv6/conf/$end/disable_ipv6
            ip link set $end arp off up
        done";
    place.checked(&["sh", "-ec", wire]).context("laying a wire")?;
    let bridges = format!(
        "ovs-vsctl del-port br-ex eth0 -- add-port br-ex up0 -- set port br-ex tag={TAG} \
         -- add-br trunk -- set bridge trunk datapath_type=netdev -- add-port trunk up1 -- add-port trunk eth0 tag={TAG}"
    );
    place.checked(&["sh", "-c", &bridges]).context("joining it to the bridges")?;
    let port = format!("name=br-ex_{node}");
    wait_for("the gateway's port to be tagged", LIMIT, || {
        let find = ["ovn-nbctl", "--bare", "--columns=tag", "find", "logical_switch_port", &port];
        lab.exec_node("central", &find).is_ok_and(|tag| tag.trim() == TAG)
    })?;
    let wanted = format!("dl_vlan={TAG}");
    wait_for("flows for the tag", LIMIT, || {
        place.checked(&["ovs-ofctl", "dump-flows", "br-ex"]).is_ok_and(|flows| flows.contains(&wanted))
    })?;
    lab.exec_node("central", &["ovn-nbctl", "--timeout=60", "--wait=hv", "sync"]).map(drop)
}

/// By its node ports from outside and from hosts, by its cluster address from pods; endpoints are on both nodes.
async fn a_service_is_reached(lab: &Lab, pods: &[Pod]) -> Result<()> {
    let cluster = [IpAddr::from([10, 96, 8, 1]), IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x801])];
    let port = |(name, protocol, port, node_port): (&str, &str, u16, u16)| json!({"name": name, "protocol": protocol, "port": port, "targetPort": SERVICE_PORT, "nodePort": node_port});
    let ports = [("tcp", "TCP", 80, NODE_PORTS[0]), ("udp", "UDP", 53, NODE_PORTS[1])].map(port);
    let endpoints: Vec<_> = pods.iter().flat_map(|p| p.addresses.iter().map(|ip| (p.node.as_str(), *ip))).collect();
    for pod in pods {
        witness::stand(&pod.place, "endpoint", &pod.addresses, SERVICE_PORT)?;
    }
    let spec = json!({"type": "NodePort", "ports": ports});
    let manifest = service(NAMESPACE, "web", &cluster, &json!({}), spec) + &slices(NAMESPACE, "web", &endpoints);
    lab.apply(&manifest).await?;
    let [outside, host] = ["outside", "node1"].map(|target| Ok::<_, anyhow::Error>(lab.scene(target)?.place().clone()));
    let nodes = [node_addresses(lab, "node1")?, node_addresses(lab, "node2")?].concat();
    let mut ways: Vec<(&str, Place, Vec<IpAddr>, [u16; 2])> =
        vec![("outside", outside?, nodes.clone(), NODE_PORTS), ("host", host?, nodes, NODE_PORTS)];
    ways.extend(pods.iter().map(|pod| ("pod", pod.place.clone(), cluster.to_vec(), [80, 53])));
    for (name, place, to, ports) in ways {
        for (address, (protocol, port)) in
            to.iter().flat_map(|ip| [Protocol::Tcp, Protocol::Udp].into_iter().zip(ports).map(move |way| (*ip, way)))
        {
            let mut last = None;
            // The Service was made a moment ago.
            wait_for(&format!("{protocol} {address} port {port} to answer {name}"), LIMIT, || {
                let answer = witness::ask(&place, protocol, SocketAddr::new(address, port), LIMIT / 60);
                last = Some(format!("{answer:?}"));
                matches!(answer, Ok(Ok(_)))
            })
            .with_context(|| last.unwrap_or_default())?;
        }
    }
    Ok(())
}

/// Counts what the bridge sends (which comes to the wire's far end) and what it gets: tagged frames, and all.
fn counters() -> String {
    let chain = |name: &str, device: &str| {
        format!(
            "chain {name} {{ type filter hook ingress device \"{device}\" priority 0; vlan id {TAG} counter; counter; }}"
        )
    };
    format!("table netdev wire {{ {}; {}; }}", chain("sent", "up1"), chain("received", "up0"))
}

/// Tagged frames and all: sent, received.
fn counts(lab: &Lab, node: &str) -> Result<[(u64, u64); 2]> {
    let text = lab.exec_node(node, &["nft", "-j", "list", "table", "netdev", "wire"])?;
    let list: Value = serde_json::from_str(&text).context("reading counters")?;
    let of = |chain: &str| {
        let rules = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["rule"]);
        let rules = rules.filter(|rule| rule["chain"] == chain);
        let counters = rules.flat_map(|rule| rule["expr"].as_array().into_iter().flatten());
        let packets: Vec<_> = counters.filter_map(|part| part["counter"]["packets"].as_u64()).collect();
        (packets.first().copied().unwrap_or_default(), packets.last().copied().unwrap_or_default())
    };
    Ok([of("sent"), of("received")])
}
