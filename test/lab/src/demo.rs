//! `make demo`: a lab, pods on every node, the proof that they reach each other, and what to type next.
//!
//! In: options. Out: a report on stdout; false when any packet is missing. It must not take the lab down: it is there to be played with.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ovenbird_api::name;
use ovenbird_kube::version;
use serde_json::{Value, json};

use crate::components;
use crate::lab::Lab;
use crate::matrix::{Destination, Matrix, Source};
use crate::options::{Api, Mode, Options};
use crate::probe::PORT;
use crate::progress::Progress;
use crate::status::{PodStatus, Status};
use crate::underlay;

const NAMESPACE: &str = "demo";

/// How to show results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// What to show.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    options: Options,
    /// Pods on each node
    #[arg(long, default_value_t = 2)]
    pods_per_node: u16,
    /// How to show the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Builds the lab, shows it, and leaves it running. Returns whether every pair of the matrix works.
///
/// # Errors
/// Names the step that failed.
pub async fn run(dir: std::path::PathBuf, args: DemoArgs) -> Result<bool> {
    let progress = Progress::shown();
    let lab = Lab::up(Options { dir, ..args.options }, progress).await.map(Lab::keep)?;
    let nodes = lab.layout().options.node_names();
    lab.namespace(NAMESPACE).await?;
    lab.apply(&manifest(&lab.layout().options.api, &nodes, args.pods_per_node)).await?;
    lab.await_running(NAMESPACE).await?;
    progress.step(&format!("{} pods run", nodes.len() * usize::from(args.pods_per_node)));
    let status = Status::of(&lab).await?;
    let matrix = matrix(&lab, &status, NAMESPACE)?;
    progress.step(&format!("{} probes sent", matrix.checks()));
    let failures = matrix.failures();
    let text = match args.output {
        Output::Json => format!("{:#}\n", json!({"nodes": status.nodes, "pods": status.pods, "matrix": matrix.cells})),
        Output::Text => report(&lab, &status, &matrix)?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("printing")?;
    Ok(failures.is_empty())
}

/// From every pod of a namespace and every node to every pod of the namespace.
///
/// # Errors
/// When a pod's sandbox is not there.
pub fn matrix(lab: &Lab, status: &Status, namespace: &str) -> Result<Matrix> {
    let pods: Vec<&PodStatus> =
        status.pods.iter().filter(|pod| pod.namespace == namespace && !pod.host_network).collect();
    let mut sources = Vec::new();
    for pod in &pods {
        let place = lab.scene(&format!("{}/{}", pod.namespace, pod.name))?.place().clone();
        sources.push(Source { name: pod.name.clone(), place });
    }
    for node in &status.nodes {
        sources.push(Source { name: format!("host {}", node.name), place: lab.layout().place(&node.name) });
    }
    let destinations: Vec<_> =
        pods.iter().map(|pod| Destination { name: pod.name.clone(), ips: pod.ips.clone() }).collect();
    Matrix::probe(&sources, &destinations)
}

/// Pods as a Deployment with one replica set per node would make them.
fn manifest(api: &Api, nodes: &[String], pods_per_node: u16) -> String {
    let container = responder(api);
    let mut text = String::new();
    for node in nodes {
        for index in 1..=pods_per_node {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("web-{node}-{index}"), "namespace": NAMESPACE, "labels": {"app": "web"}},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]},
            });
            text += &format!("---\n{pod}\n");
        }
    }
    text
}

/// A container that answers on TCP port 8080 with what it is sent, in both families.
pub fn responder(api: &Api) -> Value {
    match api {
        Api::Real => json!({
            "name": "web", "image": version::BUSYBOX, "imagePullPolicy": "Never",
            "command": ["nc", "-ll", "-p", PORT.to_string(), "-e", "cat"],
        }),
        _ => json!({"name": "web", "image": "none", "command": ["ovenbird-lab", "probe-server"]}),
    }
}

fn report(lab: &Lab, status: &Status, matrix: &Matrix) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "\n{}", status.node_table())?;
    writeln!(out, "{}", status.pod_table())?;
    writeln!(out, "Who reaches whom (p ping, t TCP; 4 IPv4, 6 IPv6; -- fails):\n\n{}", matrix.table())?;
    let failures = matrix.failures();
    match failures.len() {
        0 => writeln!(out, "All {} probes came back.", matrix.checks())?,
        count => {
            writeln!(out, "{count} of {} probes failed:", matrix.checks())?;
            failures.iter().take(20).try_for_each(|failure| writeln!(out, "  {failure}"))?;
        }
    }
    let node = &status.nodes.first().context("no node has registered")?.name;
    writeln!(out, "\nThe Northbound of {node} (ovn-nbctl show {node}):\n")?;
    out += &lab.exec_node("central", &["ovn-nbctl", "show", node])?;
    out += &next_steps(lab, status);
    Ok(out)
}

/// Commands that work as they stand, with the names and addresses of this lab.
fn next_steps(lab: &Lab, status: &Status) -> String {
    let (layout, pods) =
        (lab.layout(), status.pods.iter().filter(|pod| pod.namespace == NAMESPACE).collect::<Vec<_>>());
    // As it was typed; `env` tells it the folder of the lab.
    let program = std::env::args().next().unwrap_or_else(|| "ovenbird-lab".into());
    let mut lines = vec![
        (format!("eval \"$({program} --dir {} env)\"", layout.dir().display()), "the lines below now talk to this lab"),
        ("kubectl get pods -A -o wide".into(), "pods, nodes, addresses"),
        ("ovn-nbctl show".into(), "everything Ovenbird wrote"),
    ];
    if let [first, .., last] = pods.as_slice() {
        let targets: Vec<_> = last.ips.iter().map(|ip| format!("ping:{ip}")).collect();
        let probe = format!("{program} exec {NAMESPACE}/{} -- ovenbird-lab probe {}", first.name, targets.join(" "));
        lines.push((probe, "packets from pod to pod"));
        let on_vlan = (layout.options.mode == Mode::Underlay).then(|| name::network_switch(underlay::DEFAULT));
        if let Some(flow) = trace_flow(first, last, on_vlan.is_some()) {
            let switch = on_vlan.or(first.node.clone()).unwrap_or_default();
            lines.push((format!("ovn-trace --minimal {switch} '{flow}'"), "the same packet, on paper"));
        }
    }
    let status = layout.bin_dir.join("ovenbird");
    lines.extend([
        (format!("{program} exec node1 -- ovs-vsctl show"), "a command on a node"),
        (
            format!("{} status --socket {}", status.display(), components::master_socket(layout, 1).display()),
            "the master's own view",
        ),
        (format!("{program} component kill central/master"), "break something; `component start` mends it"),
        (format!("{program} down"), "or `make demo-down`"),
    ]);
    let line = |(command, comment): &(String, &str)| format!("  # {comment}\n  {command}\n");
    format!("\nIt stays up. What to type next:\n\n{}", lines.iter().map(line).collect::<String>())
}

/// An ovn-trace(8) flow from one pod to another on another node: to the gateway's MAC, which is 0a:58 and the gateway's address, or to
/// that of its neighbour on a VLAN.
fn trace_flow(from: &PodStatus, to: &PodStatus, neighbour: bool) -> Option<String> {
    let v4 =
        |pod: &PodStatus| pod.ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip.octets()) } else { None });
    let (source, target) = (v4(from)?, v4(to)?);
    let next = if neighbour { target } else { [source[0], source[1], source[2], 1] };
    let mac = |[a, b, c, d]: [u8; 4]| format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let ip = |octets: [u8; 4]| IpAddr::from(octets);
    Some(format!(
        "inport==\"{}_{}\" && eth.src=={} && eth.dst=={} && ip4.src=={} && ip4.dst=={} && ip.ttl==64 && icmp4.type==8",
        from.namespace,
        from.name,
        mac(source),
        mac(next),
        ip(source),
        ip(target),
    ))
}
