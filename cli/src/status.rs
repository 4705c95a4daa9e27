//! `ovenbird status`: what the master does, what waits and why, the last transactions, what others changed.
//!
//! Asks the master's admin socket (JSON-RPC 2.0). `--output json` prints the answer as it came, for programs; tables are for
//! people. Must not: interpret more than it needs to show.

use std::fmt::Write as _;

use anyhow::Context;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use serde::Deserialize;
use serde_json::Value;

use crate::admin::{Admin, Output, runtime};
use crate::network;
use crate::table::table;

/// Ask the master how it is.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    of: Option<Of>,
    #[command(flatten)]
    admin: Admin,
    /// Tables for people, or JSON for programs.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Let the mass removal happen that the master holds back.
    #[arg(long)]
    release: bool,
}

/// What else has a status.
#[derive(Debug, clap::Subcommand)]
enum Of {
    /// This node's network: mode, peers with their encapsulation, MTU and state.
    Network(network::Args),
}

/// Runs the command.
///
/// # Errors
/// When the master, or whoever is asked instead, does not answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(Of::Network(args)) = &args.of {
        return network::run(args);
    }
    let status: Value = runtime()?.block_on(async {
        let client = args.admin.connect().await?;
        if args.release {
            let released: bool = client.request("release", rpc_params![]).await.context("ask the master to release")?;
            anyhow::ensure!(released, "the master holds no removal back");
        }
        client.request("status", rpc_params![]).await.context("ask the master for its status")
    })?;
    match args.output {
        Output::Json => println!("{status:#}"),
        Output::Text => print!("{}", text(&serde_json::from_value(status).context("understand the master's answer")?)),
    }
    Ok(())
}

/// The answer, as far as tables show it. See `ovenbird-master`, status.rs.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    identity: String,
    leader: bool,
    epoch: Option<u64>,
    fenced: bool,
    watches: Vec<Watch>,
    northbound: Northbound,
    nodes: Vec<Node>,
    waiting: Vec<Waiting>,
    waiting_rows: Vec<Waiting>,
    commits: Vec<Commit>,
    held: Option<Held>,
    quarantined: Vec<Waiting>,
    drift: Drift,
}

#[derive(Debug, Deserialize)]
struct Watch {
    kind: String,
    complete: bool,
    objects: usize,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Northbound {
    connected: bool,
    detail: String,
    age_seconds: f64,
    rows: usize,
    transactions: u64,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    id: Option<u16>,
    subnets: Vec<String>,
    pods: usize,
}

#[derive(Debug, Deserialize)]
struct Waiting {
    object: String,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Commit {
    time: String,
    rows: usize,
    bytes: usize,
    milliseconds: f64,
    outcome: String,
}

#[derive(Debug, Deserialize)]
struct Held {
    removals: usize,
    owned: usize,
}

#[derive(Debug, Deserialize)]
struct Drift {
    healed: u64,
    audits: u64,
    findings: u64,
}

fn text(status: &Status) -> String {
    let mut out = summary(status);
    let rows = |list: &[Waiting]| list.iter().map(|w| vec![w.object.clone(), w.why.clone()]).collect::<Vec<_>>();
    let watches = status.watches.iter().map(|w| {
        let state = match (&w.error, w.complete) {
            (Some(error), _) => error.clone(),
            (None, true) => "complete".into(),
            (None, false) => "waiting for the first list".into(),
        };
        vec![w.kind.clone(), w.objects.to_string(), state]
    });
    table(&mut out, &["WATCH", "OBJECTS", "STATE"], watches.collect());
    let nodes = status.nodes.iter().map(|n| {
        let id = n.id.map_or_else(|| "-".into(), |id| id.to_string());
        let subnets = if n.subnets.is_empty() { "-".into() } else { n.subnets.join(" ") };
        vec![n.name.clone(), id, subnets, n.pods.to_string()]
    });
    table(&mut out, &["NODE", "ID", "SUBNETS", "PODS"], nodes.collect());
    table(&mut out, &["WAITING", "WHY"], rows(&status.waiting));
    table(&mut out, &["ROWS WAITING", "WHY"], rows(&status.waiting_rows));
    table(&mut out, &["REJECTED", "WHY"], rows(&status.quarantined));
    let commits = status.commits.iter().take(10).map(|c| {
        let took = format!("{:.1}", c.milliseconds);
        vec![c.time.chars().take(23).collect(), c.rows.to_string(), c.bytes.to_string(), took, c.outcome.clone()]
    });
    table(&mut out, &["LAST COMMITS", "ROWS", "BYTES", "MS", "OUTCOME"], commits.collect());
    out
}

fn summary(status: &Status) -> String {
    let role = match (status.leader, status.fenced) {
        (true, true) => "leads by the lease, but another master has taken the Northbound",
        (true, false) => "leads",
        (false, _) => "stands by",
    };
    let epoch = status.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    let nb = &status.northbound;
    let link = if nb.connected { "connected to" } else { "not connected:" };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "master      {} ({}) {role}{epoch}", status.identity, status.version);
    let _ = writeln!(out, "northbound  {link} {}, heard of {:.1} s ago", nb.detail, nb.age_seconds);
    let _ = writeln!(out, "rows        {} wanted, {} transactions since the start", nb.rows, nb.transactions);
    let Drift { healed, audits, findings } = status.drift;
    let _ = writeln!(out, "drift       {healed} healed, {findings} found by {audits} audits");
    if let Some(Held { removals, owned }) = status.held {
        let _ = writeln!(
            out,
            "HELD        a removal of {removals} of {owned} rows; if it is meant: ovenbird status --release"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"version":"0.1.0","identity":"a","leader":true,"epoch":3,"fenced":false,
        "watches":[{"kind":"Node","complete":true,"objects":2,"error":null},{"kind":"Pod","complete":false,"objects":0,"error":null}],
        "northbound":{"connected":true,"detail":"unix:/nb.sock","age_seconds":0.52,"rows":20,"transactions":4,"settled":true},
        "nodes":[{"name":"n1","id":2,"subnets":["10.1.0.0/24"],"pods":1},{"name":"node-2","id":null,"subnets":[],"pods":0}],
        "waiting":[{"object":"Node node-2","why":"its subnets and id are not written yet"}],"waiting_rows":[],
        "commits":[{"time":"2026-01-01T00:00:00.123456Z","rows":6,"bytes":100,"milliseconds":1.25,"outcome":"committed"}],
        "held":{"removals":60,"owned":80},"quarantined":[],"drift":{"healed":1,"audits":2,"findings":0}}"#;

    #[test]
    fn tables_are_aligned_and_empty_ones_left_out() {
        let text = text(&serde_json::from_str(ANSWER).unwrap());
        let expected = "\
master      a (0.1.0) leads, epoch 3
northbound  connected to unix:/nb.sock, heard of 0.5 s ago
rows        20 wanted, 4 transactions since the start
drift       1 healed, 0 found by 2 audits
HELD        a removal of 60 of 80 rows; if it is meant: ovenbird status --release

WATCH  OBJECTS  STATE
Node   2        complete
Pod    0        waiting for the first list

NODE    ID  SUBNETS      PODS
n1      2   10.1.0.0/24  1
node-2  -   -            0

WAITING      WHY
Node node-2  its subnets and id are not written yet

LAST COMMITS             ROWS  BYTES  MS   OUTCOME
2026-01-01T00:00:00.123  6     100    1.2  committed
";
        assert_eq!(text, expected);
    }
}
