//! `classic-services`: an endpoint of one of 10,000 Services changes -> nftables leads to it. The floor is nft(8) alone, writing the same.
//!
//! Beside: what the computing alone takes, the first write of all, and a start that finds everything as it should be.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, unshare};
use ovenbird_classic::services::{Services, Settings, TABLE};
use ovenbird_nft::{Table, read, script};
use ovenbird_topology::{EndpointSliceFact, Interner, ServiceFact};
use serde_json::{Value, json};

use crate::installed::milliseconds;
use crate::outcome::Stopwatch;
use crate::{Context, Outcome, median};

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 3;
const ROUNDS: usize = 20;

/// Runs the case.
pub async fn run(_: &Context) -> anyhow::Result<Outcome> {
    // A thread of its own, for it goes into another network namespace.
    let measured = tokio::task::spawn_blocking(|| std::thread::spawn(measure).join()).await?;
    measured.map_err(|_| anyhow!("the measuring thread has ended"))?
}

fn measure() -> anyhow::Result<Outcome> {
    unshare(CloneFlags::CLONE_NEWNET).context("the case needs root")?;
    let mut interner = Interner::default();
    let mut services = Services::new(settings()?);
    for n in 0..SERVICES {
        let service: Service = serde_json::from_value(service(n))?;
        services.set_service(ServiceFact::from_k8s(&service, &mut interner));
        services.set_slice(slice(n, 0, &mut interner)?);
    }
    let watch = Stopwatch::start()?;
    let began = Instant::now();
    let table = services.table();
    let first = script(&Table::new(TABLE), &table);
    let first_compute = milliseconds(began.elapsed());
    let began = Instant::now();
    nft(&["-f", "-"], &first)?;
    let first_write = milliseconds(began.elapsed());
    services.take_changes();

    let began = Instant::now();
    let (family, name) = TABLE.split_once(' ').context("a table has a family")?;
    let stored = read(TABLE, &nft(&["-j", "list", "table", family, name], "")?)?;
    ensure!(script(&stored, &table).is_empty(), "a second run changes something");
    let restart = milliseconds(began.elapsed());

    let (mut ours, mut compute, mut floor, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        let n = round * SERVICES / (ROUNDS + 1);
        let changed = slice(n, round, &mut interner)?;
        let began = Instant::now();
        services.set_slice(changed);
        let (old, new) = services.take_changes();
        let text = script(&old, &new);
        compute.push(milliseconds(began.elapsed()));
        nft(&["-f", "-"], &text)?;
        ours.push(milliseconds(began.elapsed()));
        bytes += text.len() as u64;
        // There and back, so that the next round finds what it expects.
        nft(&["-f", "-"], &script(&new, &old))?;
        let began = Instant::now();
        nft(&["-f", "-"], &text)?;
        floor.push(milliseconds(began.elapsed()));
    }
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "ms",
        goal: "milliseconds",
        usage: watch.usage()?,
        transactions: ROUNDS as u64,
        rows: 0,
        bytes,
        more: BTreeMap::from([
            ("services", Value::from(SERVICES)),
            ("compute_ms", Value::from(median(compute))),
            ("first_compute_ms", Value::from(first_compute)),
            ("first_write_ms", Value::from(first_write)),
            ("first_bytes", Value::from(first.len())),
            ("restart_ms", Value::from(restart)),
        ]),
    })
}

fn settings() -> anyhow::Result<Settings> {
    Ok(Settings {
        node: "node1".into(),
        pods: vec!["10.128.0.0/23".parse()?],
        addresses: vec!["172.30.0.11".parse()?],
        node_ports: true,
        service_cidrs: vec!["10.96.0.0/16".parse()?],
        cluster: vec!["10.128.0.0/14".parse()?],
        ..Settings::default()
    })
}

fn service(n: usize) -> Value {
    let ip = format!("10.96.{}.{}", n / 250, n % 250 + 1);
    json!({
        "metadata": {"name": format!("service-{n}"), "namespace": format!("namespace-{}", n % 100)},
        "spec": {"clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

/// Endpoints of a Service; the first is another one in each round.
fn slice(n: usize, round: usize, interner: &mut Interner) -> anyhow::Result<EndpointSliceFact> {
    let address = |i: usize| {
        let pod = n * ENDPOINTS + i + if i == 0 { round * 7 } else { 0 };
        format!("10.{}.{}.{}", 128 + pod / 62_500, pod / 250 % 250, pod % 250 + 1)
    };
    let endpoints: Vec<_> =
        (0..ENDPOINTS).map(|i| json!({"addresses": [address(i)], "nodeName": format!("node{}", i + 1)})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": format!("service-{n}-a"), "namespace": format!("namespace-{}", n % 100),
            "labels": {"kubernetes.io/service-name": format!("service-{n}")},
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080, "protocol": "TCP"}],
    }))?;
    Ok(EndpointSliceFact::from_k8s(&slice, interner))
}

fn nft(args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child =
        Command::new("nft").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("running nft")?;
    child.stdin.take().context("nft has no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft refuses");
    Ok(String::from_utf8(output.stdout)?)
}
