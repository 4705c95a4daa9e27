//! SCTP by cluster address, node port and host port, with packets made by hand: the INIT comes to the endpoint, its INIT ACK back from where
//! the client asked, both with sound checksums.
//!
//! Connection tracking in user space (Open vSwitch 3.1.0) knows no ports of SCTP: it rewrites addresses alone and takes all packets between
//! two hosts for one connection. So each client here has an address of its own, and that the port is rewritten, too, is seen in what
//! OpenFlow tells the datapath to do (`ofproto/trace`).

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::sctp::{Packet, ask, stand};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, Options, Place, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "sctp";
/// Port of the endpoint, and of the Service.
const PORT: u16 = 7002;
const NODE_PORT: u16 = 30702;
const HOST_PORT: u16 = 9702;
/// Port of clients.
const CLIENT: u16 = 5702;

#[tokio::test(flavor = "multi_thread")]
async fn sctp_reaches_endpoints_by_every_door() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-sctp", options).await? else { return Ok(()) };
    lab.apply(&(pods::namespace(NAMESPACE) + &server() + &pods::pod(NAMESPACE, "client", "node2"))).await?;
    lab.await_running(NAMESPACE).await?;
    let api = pods::api(&lab, NAMESPACE).await?;
    let (endpoint, client) = (pods::ips(&api, "server").await?, pods::ips(&api, "client").await?);
    lab.apply(&service(&endpoint)).await?;
    let mut table = Table::new(["door", "family", "client", "the endpoint saw", "answered by", "rules translate to"]);
    let outcome = endpoint.iter().enumerate().try_for_each(|(index, own)| {
        let server = Server { own: *own, seen: stand(lab.scene(&format!("{NAMESPACE}/server"))?.place(), *own)? };
        doors(&lab, index, client[index])?.iter().try_for_each(|door| door.check(&lab, &server, &mut table))
    });
    println!("{table}");
    outcome
}

struct Server {
    own: IpAddr,
    seen: Receiver<Packet>,
}

struct Door {
    name: &'static str,
    client: Place,
    from: IpAddr,
    to: SocketAddr,
    /// The endpoint sees the client's own address.
    keeps_client: bool,
    /// Where `ofproto/trace` begins: a node, a bridge, a port, and the MAC that is sent to there.
    enters: (&'static str, &'static str, String, String),
}

fn doors(lab: &Lab, index: usize, client: IpAddr) -> Result<Vec<Door>> {
    let options = &lab.layout().options;
    let node = options.node_addresses(1)[index];
    let outside = lab.scene("outside")?.place().clone();
    let wire = || -> Result<_> {
        let mac = mac_of(lab.scene("node1")?.place(), "br-ex")?;
        Ok(("node1", "br-ex", "eth0".to_owned(), mac))
    };
    let find = ["ovs-vsctl", "--bare", "--columns=name", "find", "interface", "external_ids:iface-id=sctp_client"];
    let port = lab.exec_node("node2", &find)?.trim().to_owned();
    let router = client_router_mac(lab)?;
    Ok(vec![
        Door {
            name: "ClusterIP",
            client: lab.scene(&format!("{NAMESPACE}/client"))?.place().clone(),
            from: client,
            to: SocketAddr::new(cluster_ips()[index], PORT),
            keeps_client: true,
            enters: ("node2", "br-int", port, router),
        },
        Door {
            name: "NodePort",
            client: outside.clone(),
            from: options.outside_addresses()[index],
            to: SocketAddr::new(node, NODE_PORT),
            keeps_client: false,
            enters: wire()?,
        },
        Door {
            name: "hostPort",
            client: outside,
            from: options.beyond_addresses()[index],
            to: SocketAddr::new(node, HOST_PORT),
            keeps_client: true,
            enters: wire()?,
        },
    ])
}

/// MAC of the router as the client's switch has it.
fn client_router_mac(lab: &Lab) -> Result<String> {
    let find = ["ovn-nbctl", "--bare", "--columns=mac", "find", "logical_router_port", "name=rtos-node2"];
    Ok(lab.exec_node("central", &find)?.trim().to_owned())
}

impl Door {
    fn check(&self, lab: &Lab, server: &Server, table: &mut Table) -> Result<()> {
        let what = || format!("{} {}", self.name, self.to);
        let target = SocketAddr::new(server.own, PORT).to_string();
        let mut rules = Ok(String::new());
        // Asked too early, the datapath would remember a connection that nobody translates.
        wait_for("the rules of OpenFlow to translate to the endpoint", LIMIT, || {
            rules = self.trace(lab);
            rules.as_ref().is_ok_and(|rules| rules.contains(&format!("nat(dst={target})")))
        })
        .with_context(|| format!("{}: {rules:?}", what()))?;
        let from = SocketAddr::new(self.from, CLIENT);
        let answer = ask(&self.client, from, self.to, LIMIT).with_context(what)?;
        let answer = answer.with_context(|| format!("{}: nobody answers", what()))?;
        let seen = server.seen.try_iter().last().with_context(|| format!("{}: who answered?", what()))?;
        let family = if self.to.is_ipv4() { "IPv4" } else { "IPv6" };
        let said = format!("{} at port {}", seen.from, seen.to);
        let cells = [self.name.into(), family.into(), from.to_string(), said, answer.from.to_string(), target];
        table.row(cells.map(|cell| (cell, Colour::Plain)));
        ensure!(answer.from == self.to, "{}: {} answers", what(), answer.from);
        ensure!(seen.intact && answer.intact, "{}: a wrong checksum: {seen:?}, {answer:?}", what());
        ensure!((seen.from.ip() == self.from) == self.keeps_client, "{}: the endpoint saw {seen:?}", what());
        // Its own port, or where the datapath knows no ports, the one that was asked.
        ensure!([PORT, self.to.port()].contains(&seen.to), "{}: the endpoint saw {seen:?}", what());
        Ok(())
    }

    /// What OpenFlow makes of an INIT.
    fn trace(&self, lab: &Lab) -> Result<String> {
        let (node, bridge, port, mac) = &self.enters;
        let family = if self.to.is_ipv4() { "sctp,nw_" } else { "sctp6,ipv6_" };
        let (kind, prefix) = family.split_once(',').unwrap_or_default();
        let (from, to, sctp) = (self.from, self.to.ip(), self.to.port());
        let own = mac_of(&self.client, "eth0")?;
        let flow = format!(
            "in_port={port},dl_src={own},dl_dst={mac},{kind},{prefix}src={from},{prefix}dst={to},nw_ttl=64,\
             sctp_src={CLIENT},sctp_dst={sctp}"
        );
        let trace = lab.exec_node(node, &["ovs-appctl", "ofproto/trace", bridge, &flow])?;
        // Where the datapath is to choose by a hash of its own, the trace ends at the group.
        let groups = lab.exec_node(node, &["ovs-ofctl", "-O", "OpenFlow15", "dump-groups", "br-int"])?;
        let chosen = |line: &&str| {
            let id = line.trim().strip_prefix("group_id=").and_then(|rest| rest.split(',').next());
            id.is_some_and(|id| trace.lines().any(|step| step.trim() == format!("group:{id}")))
        };
        let chosen: Vec<_> = groups.lines().filter(chosen).collect();
        Ok(trace.clone() + &chosen.join("\n"))
    }
}

fn mac_of(place: &Place, device: &str) -> Result<String> {
    let links: Value = serde_json::from_str(&place.output(&["ip", "-j", "link", "show", device])?)?;
    Ok(links[0]["address"].as_str().context("no MAC")?.to_owned())
}

fn cluster_ips() -> [IpAddr; 2] {
    [IpAddr::from([10, 96, 7, 2]), IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x702])]
}

/// The pod on node 1 that is the endpoint, with a port of its node.
fn server() -> String {
    let ports = json!([{"containerPort": PORT, "hostPort": HOST_PORT, "protocol": "SCTP"}]);
    let container = json!({"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"], "ports": ports});
    let spec = json!({"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": "server", "namespace": NAMESPACE});
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

fn service(endpoint: &[IpAddr]) -> String {
    let addresses = cluster_ips();
    let metadata = json!({"name": "server", "namespace": NAMESPACE});
    let port = json!({"name": "sctp", "port": PORT, "targetPort": PORT, "nodePort": NODE_PORT, "protocol": "SCTP"});
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "NodePort", "clusterIP": addresses[0], "clusterIPs": addresses,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "ports": [port]},
    })];
    for (ip, family) in endpoint.iter().zip(["IPv4", "IPv6"]) {
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": format!("server-{}", family.to_lowercase()), "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": "server"}},
            "endpoints": [{"addresses": [ip], "nodeName": "node1", "conditions": {"ready": true}}],
            "ports": [{"name": "sctp", "port": PORT, "protocol": "SCTP"}],
        }));
    }
    objects.iter().map(|object: &Value| format!("---\n{object}\n")).collect()
}
