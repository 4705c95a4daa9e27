//! `classic-join`: a Node is created -> its flows stand on obr0 of a real node that has 100 simulated peers. The floor is a raw
//! `ovs-ofctl --bundle` of as many flows on the same bridge.
//!
//! `classic-reconcile`: a daemon starts on a host where all is as it should be: flows and rows written (0), and the CPU it takes until
//! it has compared everything; the floor is the CPU of `ovs-ofctl dump-flows` and `ip route` on the same host.
//!
//! `classic-flows`: the table of flows on obr0 by the number of nodes, counted on a real one; the floor is the formula, 2 + 2 (N - 1) for IPv4 and
//! 1 + (N - 1) for IPv6.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use ovenbird_lab::{Family, Lab, Mode, Options, testing, wait_for};
use serde_json::{Value, json};

use crate::installed::milliseconds;
use crate::outcome::Stopwatch;
use crate::{Context, Outcome, median};

const PEERS: usize = 100;
const ROUNDS: usize = 20;
/// Numbers of nodes in the table of flows.
const SIZES: [usize; 6] = [1, 2, 4, 10, 30, 100];
/// Flows of a peer: IP and ARP.
const FLOWS: usize = 2;
/// In IPv6: no neighbour is asked for.
const FLOWS_V6: usize = 1;
const LIMIT: Duration = Duration::from_secs(60);

/// A real node among simulated peers.
struct Bench {
    lab: Lab,
    nodes: Api<Node>,
}

impl Bench {
    async fn alone(family: Family) -> anyhow::Result<Bench> {
        let options = Options { nodes: 1, family, mode: Mode::Classic, ..Options::default() };
        let lab = testing::lab("classic", options).await?.context("the case needs root")?;
        let nodes = Api::all(lab.client().await?);
        Ok(Bench { lab, nodes })
    }

    async fn new() -> anyhow::Result<Bench> {
        let bench = Bench::alone(Family::V4).await?;
        for peer in 0..PEERS {
            bench.create(peer).await?;
        }
        bench.await_flows(PEERS + 1)?;
        Ok(bench)
    }

    async fn create(&self, peer: usize) -> anyhow::Result<()> {
        let address = format!("172.30.{}.{}", 1 + peer / 200, 1 + peer % 200);
        let node = json!({"metadata": {
            "name": format!("peer{peer}"), "annotations": {"k8s.ovn.org/node-encap-ips": json!([address]).to_string()},
        }});
        let created: Node = serde_json::from_value(node)?;
        self.nodes.create(&PostParams::default(), &created).await.context("creating a Node").map(drop)
    }

    fn flows(&self) -> anyhow::Result<String> {
        let socket = format!("unix:{}", self.lab.layout().dir().join("node1/obr0.mgmt").display());
        self.lab.exec_node("node1", &["ovs-ofctl", "dump-flows", &socket])
    }

    /// Waits until so many nodes have flows.
    fn await_flows(&self, nodes: usize) -> anyhow::Result<()> {
        self.await_count(FLOWS * nodes)
    }

    fn await_count(&self, flows: usize) -> anyhow::Result<()> {
        wait_for("flows", LIMIT, || self.flows().is_ok_and(|text| text.matches("actions=").count() == flows))
    }

    /// Milliseconds in which ovs-ofctl writes a peer's flows by itself.
    fn raw(&self, peer: usize) -> anyhow::Result<f64> {
        let socket = format!("unix:{}", self.lab.layout().dir().join("node1/obr0.mgmt").display());
        let flow = |what: &str| {
            format!("priority=90,in_port=9,{what}=10.200.{peer}.0/24,actions=set_field:172.30.9.9->tun_dst,output:10")
        };
        let text = format!("{}\\n{}", flow("ip,nw_dst"), flow("arp,arp_tpa"));
        let began = Instant::now();
        let script = format!("printf '{text}\\n' | ovs-ofctl --bundle add-flows {socket} -");
        self.lab.exec_node("node1", &["sh", "-c", &script])?;
        Ok(milliseconds(began.elapsed()))
    }

    /// Milliseconds of CPU that the daemon's threads have taken (proc(5), schedstat: nanoseconds).
    fn daemon_cpu(&self) -> anyhow::Result<f64> {
        let pid = self.lab.component("node1/ovenbird-node")?.pid;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let taken = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
        Ok(taken.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e6)
    }
}

/// Runs the case `classic-join`.
pub async fn join(_: &Context) -> anyhow::Result<Outcome> {
    let bench = Bench::new().await?;
    let watch = Stopwatch::start()?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let began = Instant::now();
        bench.create(PEERS + round).await?;
        bench.await_flows(PEERS + 2)?;
        ours.push(milliseconds(began.elapsed()));
        bench.nodes.delete(&format!("peer{}", PEERS + round), &DeleteParams::default()).await?;
        bench.await_flows(PEERS + 1)?;
    }
    let usage = watch.usage()?;
    for round in 0..ROUNDS {
        floor.push(bench.raw(round)?);
    }
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "ms",
        goal: "none given; the flows of one peer",
        usage,
        transactions: 0,
        rows: 0,
        bytes: 0,
        more: BTreeMap::from([("peers", Value::from(PEERS)), ("flows", Value::from(FLOWS * (PEERS + 1)))]),
    })
}

/// Runs the case `classic-reconcile`.
pub async fn reconcile(_: &Context) -> anyhow::Result<Outcome> {
    let bench = Bench::new().await?;
    let log = bench.lab.layout().dir().join("logs/node1.ovenbird-node.log");
    let watch = Stopwatch::start()?;
    let mut cpu = Vec::new();
    for _ in 0..3 {
        bench.lab.stop("node1/ovenbird-node")?;
        let before = bench.flows()?;
        // What earlier daemons have said stays in the log.
        let compared = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.matches("flows of obr0 are as they should be").count()
        };
        let earlier = compared();
        bench.lab.start("node1/ovenbird-node")?;
        wait_for("the daemon to have compared its flows", LIMIT, || compared() > earlier)?;
        cpu.push(bench.daemon_cpu()?);
        // A flow that was written anew would be younger than all were.
        let youngest = |text: &str| {
            let ages = text.split("duration=").skip(1).filter_map(|rest| rest.split('s').next()?.parse::<f64>().ok());
            ages.fold(f64::MAX, f64::min)
        };
        ensure!(youngest(&bench.flows()?) >= youngest(&before), "a flow was written anew");
        let metrics = bench.lab.exec_node("node1", &["curl", "-s", "http://127.0.0.1:9410/metrics"])?;
        let rows = metrics.lines().find(|line| line.starts_with("ovenbird_node_rows_total "));
        ensure!(rows.is_some_and(|line| line.ends_with(" 0")), "rows were written: {rows:?}");
    }
    let usage = watch.usage()?;
    let began = Instant::now();
    bench.flows()?;
    bench.lab.exec_node("node1", &["ip", "route"])?;
    Ok(Outcome {
        ours: median(cpu),
        floor: milliseconds(began.elapsed()),
        unit: "ms",
        goal: "0 operations",
        usage,
        transactions: 0,
        rows: 0,
        bytes: 0,
        more: BTreeMap::from([("peers", Value::from(PEERS)), ("flows", Value::from(FLOWS * (PEERS + 1)))]),
    })
}

/// Runs the case `classic-flows`.
pub async fn flows(_: &Context) -> anyhow::Result<Outcome> {
    let bench = Bench::alone(Family::Dual).await?;
    let watch = Stopwatch::start()?;
    let (mut table, mut last) = (serde_json::Map::new(), 0);
    for size in SIZES {
        for peer in last..size - 1 {
            bench.create(peer).await?;
        }
        last = size - 1;
        bench.await_count((FLOWS + FLOWS_V6) * size).with_context(|| format!("{size} nodes"))?;
        let text = bench.flows()?;
        let v6 = text.lines().filter(|flow| flow.contains("ipv6,") || flow.contains("icmp6,")).count();
        let v4 = text.matches("actions=").count() - v6;
        ensure!((v4, v6) == (FLOWS * size, FLOWS_V6 * size), "{size} nodes: {v4} flows of IPv4, {v6} of IPv6:\n{text}");
        table.insert(format!("{size} nodes"), json!([v4, v6]));
    }
    let most = SIZES[SIZES.len() - 1];
    Ok(Outcome {
        ours: bench.flows()?.matches("actions=").count() as f64,
        floor: ((FLOWS + FLOWS_V6) * most) as f64,
        unit: "flows",
        goal: "the formula",
        usage: watch.usage()?,
        transactions: 0,
        rows: 0,
        bytes: 0,
        more: BTreeMap::from([("[IPv4, IPv6]", Value::Object(table))]),
    })
}
