//! Nodes whose NIC nobody has prepared: the node daemon takes it over, and pods leave and Services are entered through it. Given back, the
//! host is as before; taken over under streams, they go on, and their longest silence is printed; after a power cut the bridge is there
//! again before the daemon.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::pulse::{Lap, Pulse, echo, go_on, laps};
use ovenbird_e2e::service::{self, service, slices};
use ovenbird_e2e::witness::{self, Protocol};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::{Lab, Options, Place, Uplink, testing, wait_for};
use serde_json::json;

const NAMESPACE: &str = "uplink";
/// Where the host outside stands as a witness.
const OUTSIDE_PORT: u16 = 7000;
/// Where the node answers streams.
const ECHO_PORT: u16 = 7001;
const NODE_PORT: u16 = 30800;
const DAEMON: &str = "node1/ovenbird-node";

#[tokio::test(flavor = "multi_thread")]
async fn the_uplink_is_taken_over_given_back_and_survives_a_power_cut() -> Result<()> {
    let options = Options { nodes: 2, uplink: Uplink::Nic, ..Options::default() };
    let Some(lab) = testing::lab("e2e-uplink", options).await? else { return Ok(()) };
    let options = &lab.layout().options;
    let outside = lab.scene("outside")?.place().clone();
    witness::stand(&outside, "outside", &options.beyond_addresses(), OUTSIDE_PORT)?;
    everything_on(&lab, "breth0")?;
    one_pod_behind_a_node_port(&lab).await?;
    traffic(&lab, &outside).await.context("after the first take-over")?;

    lab.stop(DAEMON)?;
    daemon_with(&lab, "--cleanup")?;
    everything_on(&lab, "eth0")?;
    let bridges = lab.exec_node("node1", &["ovs-vsctl", &format!("--db={}", lab.layout().ovs("node1")), "list-br"])?;
    ensure!(bridges.trim() == "br-int", "bridges after the clean-up: {bridges}");
    let left = ["nft list tables", "ip route show proto 111", "ip neigh show nud permanent"];
    for line in left {
        let left = lab.exec_node("node1", &line.split(' ').collect::<Vec<_>>())?;
        ensure!(left.trim().is_empty(), "{line} after the clean-up: {left}");
    }

    let laps = taken_over_under_streams(&lab, &outside)?;
    for ((protocol, to), lap) in streams(&lab)?.into_iter().zip(&laps) {
        println!(
            "take-over under {protocol} to {to}: silent for {:?} at most, {} of {} lost",
            lap.silence, lap.lost, lap.sent
        );
        ensure!(lap.broken.is_none(), "{protocol} to {to} broke: {:?}", lap.broken);
    }
    traffic(&lab, &outside).await.context("after the second take-over")?;

    // As a node is drained before it is switched off.
    pods::delete_all(&pods::api(&lab, NAMESPACE).await?).await?;
    lab.power_off("node1")?;
    lab.power_on("node1")?;
    everything_on(&lab, "breth0")?;
    one_pod_behind_a_node_port(&lab).await?;
    traffic(&lab, &outside).await.context("after a power cut")?;
    let log = fs::read_to_string(lab.layout().processes().log_path(DAEMON)).context("reading the daemon's log")?;
    ensure!(!log.contains("has again what belongs"), "the daemon found something to restore: {log}");
    Ok(())
}

/// The node's addresses and default routes are on this interface, and on no other.
fn everything_on(lab: &Lab, device: &str) -> Result<()> {
    let options = &lab.layout().options;
    for (address, gateway) in options.node_addresses(1).into_iter().zip(options.central_addresses()) {
        let (family, all) = if address.is_ipv4() { ("-4", "0.0.0.0/0") } else { ("-6", "::/0") };
        let addresses = lab.exec_node("node1", &["ip", "-o", family, "addr", "show", "to", &address.to_string()])?;
        let on: Vec<_> = addresses.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        ensure!(on == [device], "{address} is on {on:?}, not on {device}");
        let routes = lab.exec_node("node1", &["ip", family, "route", "show", "exact", all])?;
        let want = format!("default via {gateway} dev {device} ");
        ensure!(routes.starts_with(&want) && routes.lines().count() == 1, "default routes: {routes}, not {want}");
    }
    Ok(())
}

/// Runs the node daemon of node1 with its own settings and one more.
fn daemon_with(lab: &Lab, argument: &str) -> Result<String> {
    let mut argv = lab.layout().processes().get(DAEMON)?.spec.argv;
    argv.push(argument.to_owned());
    lab.exec_node("node1", &argv.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn one_pod_behind_a_node_port(lab: &Lab) -> Result<()> {
    lab.apply(&(pods::namespace(NAMESPACE) + &pods::pod(NAMESPACE, "p", "node1"))).await?;
    lab.await_running(NAMESPACE).await?;
    publish(lab).await
}

/// The pod answers, and the Service has its addresses.
async fn publish(lab: &Lab) -> Result<()> {
    let ips = pods::ips(&pods::api(lab, NAMESPACE).await?, "p").await?;
    witness::stand(lab.scene(&format!("{NAMESPACE}/p"))?.place(), "p", &ips, service::PORT)?;
    let ports =
        json!([{"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": service::PORT, "nodePort": NODE_PORT}]);
    let cluster = [IpAddr::from([10, 96, 7, 1]), IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x701])];
    let spec = json!({"type": "NodePort", "ports": ports});
    let endpoints: Vec<_> = ips.iter().map(|ip| ("node1", *ip)).collect();
    let manifest = service(NAMESPACE, "p", &cluster, &json!({}), spec) + &slices(NAMESPACE, "p", &endpoints);
    lab.apply(&manifest).await.map(drop)
}

/// The pod reaches the outside with its node's address, and the outside reaches the pod by the ports of both nodes.
async fn traffic(lab: &Lab, outside: &Place) -> Result<()> {
    let options = &lab.layout().options;
    let pod = lab.scene(&format!("{NAMESPACE}/p"))?.place().clone();
    for (to, own) in options.beyond_addresses().into_iter().zip(options.node_addresses(1)) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            answers(&pod, protocol, SocketAddr::new(to, OUTSIDE_PORT), "outside", Some(own))?;
        }
    }
    for node in 1..=2 {
        for to in options.node_addresses(node) {
            answers(outside, Protocol::Tcp, SocketAddr::new(to, NODE_PORT), "p", None)?;
        }
    }
    Ok(())
}

/// Soon, this witness answers, and sees this address.
fn answers(from: &Place, protocol: Protocol, to: SocketAddr, who: &str, seen: Option<IpAddr>) -> Result<()> {
    let mut last = None;
    wait_for("the right answer", LIMIT, || {
        last = Some(witness::ask(from, protocol, to, Duration::from_secs(2)));
        matches!(&last, Some(Ok(Ok(answer))) if answer.who == who && seen.is_none_or(|seen| seen == answer.seen))
    })
    .with_context(|| format!("{protocol} {to}: {last:?}, wanted {who} to see {seen:?}"))
}

/// Streams to the node itself, by the NIC that is taken over under them.
fn streams(lab: &Lab) -> Result<Vec<(Protocol, SocketAddr)>> {
    let addresses = lab.layout().options.node_addresses(1);
    let both = |ip| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, SocketAddr::new(ip, ECHO_PORT)));
    Ok(addresses.into_iter().flat_map(both).collect())
}

/// Starts the daemon of node1 while streams from outside run, a block every 10 ms.
fn taken_over_under_streams(lab: &Lab, outside: &Place) -> Result<Vec<Lap>> {
    echo(lab.scene("node1")?.place(), &lab.layout().options.node_addresses(1), ECHO_PORT)?;
    let start = |(protocol, to): (Protocol, SocketAddr)| {
        Pulse::start(format!("{protocol} to {to}"), outside, protocol, to, Duration::from_millis(10))
    };
    let pulses: Vec<_> = streams(lab)?.into_iter().map(start).collect::<Result<_>>()?;
    let all: Vec<_> = pulses.iter().collect();
    go_on(&all, 20)?;
    laps(&all);
    let log = lab.layout().processes().log_path(DAEMON);
    let said = || fs::read_to_string(&log).unwrap_or_default().matches("is taken over into breth0").count();
    let before = said();
    lab.start(DAEMON)?;
    wait_for("the take-over", LIMIT, || said() > before)?;
    go_on(&all, 20)?;
    let seen = laps(&all);
    everything_on(lab, "breth0")?;
    pulses.into_iter().try_for_each(Pulse::stop)?;
    Ok(seen)
}
