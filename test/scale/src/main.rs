//! `ovenbird-scale`: the benchmarks. `ovenbird-scale --case NAME` (or `all`).
//!
//! Each case measures us and, in the same run, a floor: the least that any program must do (a raw socket, a bare PATCH loop). It
//! prints `name: ours X, floor Y, ratio R, goal G` and writes `target/bench/NAME.json`. A case runs in a process of its own, so
//! that its memory is its own. To add one: a module with `pub async fn run(&Context) -> anyhow::Result<Outcome>` and a line in
//! [`CASES`]. Those on real Kubernetes need the cache of `make kube-build`. Must not: assert times (a busy machine is no defect).

mod balancers;
mod churn;
mod classic;
mod classic_services;
mod cluster;
mod cni_add;
mod cold_start;
mod cold_start_allocate;
mod control_plane;
mod density;
mod endpoint_storm;
mod first_packet;
mod idle;
mod installed;
mod kubernetes;
mod memory;
mod node_scale;
mod outcome;
mod ovsdb_commit;
mod ovsdb_load;
mod pod_add_share;
mod pod_start;
mod policies;
mod policy_churn;
mod policy_cold;
mod policy_flip;
mod process;
mod raw;
mod record;
mod restart;
mod rows;
mod server;
mod services;
mod written;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures::future::LocalBoxFuture;
use ovenbird_kube::Cache;

pub use outcome::{Outcome, Usage, median, quantile, rss_bytes};

/// What a case is given.
#[derive(Debug)]
pub struct Context {
    /// Times each side is measured, alternating.
    pub rounds: usize,
    /// A folder of the case's own, removed afterwards.
    pub dir: PathBuf,
    /// How long the case `idle` looks on.
    pub quiet: Duration,
}

type Run = for<'a> fn(&'a Context) -> LocalBoxFuture<'a, anyhow::Result<Outcome>>;

/// Name and function of every case, in the order of `--case all`.
const CASES: &[(&str, Run)] = &[
    ("ovsdb-load", |context| Box::pin(ovsdb_load::run(context))),
    ("ovsdb-commit", |context| Box::pin(ovsdb_commit::run(context))),
    ("cold-start", |context| Box::pin(cold_start::run(context))),
    ("cold-start-allocate", |context| Box::pin(cold_start_allocate::run(context))),
    ("restart", |context| Box::pin(restart::run(context))),
    ("churn", |context| Box::pin(churn::run(context))),
    ("memory", |context| Box::pin(memory::run(context))),
    ("classic-join", |context| Box::pin(classic::join(context))),
    ("classic-reconcile", |context| Box::pin(classic::reconcile(context))),
    ("classic-flows", |context| Box::pin(classic::flows(context))),
    ("classic-services", |context| Box::pin(classic_services::run(context))),
    ("cni-add", |context| Box::pin(cni_add::run(context))),
    ("services-cold", |context| Box::pin(services::cold(context))),
    ("services-memory", |context| Box::pin(services::memory(context))),
    ("endpoint", |context| Box::pin(services::endpoint(context))),
    ("first-packet", |context| Box::pin(first_packet::run(context))),
    ("endpoint-storm", |context| Box::pin(endpoint_storm::run(context))),
    ("policy-flip", |context| Box::pin(policy_flip::flip(context))),
    ("policy-burst", |context| Box::pin(policy_flip::burst(context))),
    ("policy-cold", |context| Box::pin(policy_cold::cold(context))),
    ("policy-memory", |context| Box::pin(policy_cold::memory(context))),
    ("policy-churn", |context| Box::pin(policy_churn::run(context))),
];

/// Those on real Kubernetes.
const REAL_CASES: &[(&str, Run)] = &[
    ("pod-start", |context| Box::pin(pod_start::run(context))),
    ("pod-add-share", |context| Box::pin(pod_add_share::run(context))),
    ("density", |context| Box::pin(density::run(context))),
    ("idle", |context| Box::pin(idle::run(context))),
    ("node-scale", |context| Box::pin(node_scale::run(context))),
];

/// Benchmarks; one line per case, details in target/bench/NAME.json.
#[derive(Debug, Parser)]
struct Args {
    /// Case, or `all`.
    #[arg(long, default_value = "all")]
    case: String,
    /// Times each side is measured, alternating.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder of the results.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Seconds that the case `idle` looks on; what counts is the default.
    #[arg(long, default_value_t = 300)]
    quiet: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = pod_add_share::stopwatch()? {
        return Ok(code.into());
    }
    let args = Args::parse();
    if args.case == "all" { run_all(&args) } else { run_one(&args) }.map(|()| ExitCode::SUCCESS)
}

fn run_one(args: &Args) -> anyhow::Result<()> {
    let cases = || CASES.iter().chain(REAL_CASES);
    let Some((name, run)) = cases().find(|(name, _)| *name == args.case) else {
        let names: Vec<_> = cases().map(|(name, _)| *name).collect();
        bail!("no case \"{}\"; there are: all, {}", args.case, names.join(", "));
    };
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let dir = tempfile::tempdir().context("make a temporary folder")?;
    let quiet = Duration::from_secs(args.quiet);
    let context = Context { rounds: args.rounds, dir: dir.path().to_owned(), quiet };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start tokio")?;
    let outcome = runtime.block_on(run(&context)).with_context(|| format!("case {name}"))?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("make {}", args.output.display()))?;
    let path = args.output.join(format!("{name}.json"));
    std::fs::write(&path, outcome.json(name)?).with_context(|| format!("write {}", path.display()))?;
    println!("{}", outcome.line(name));
    Ok(())
}

/// Every case in a process of its own; one that fails does not keep the others from running.
fn run_all(args: &Args) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let mut failed = Vec::new();
    let real = Cache::ready().map(|_| REAL_CASES).unwrap_or_else(|why| {
        let names: Vec<_> = REAL_CASES.iter().map(|(name, _)| *name).collect();
        println!("left out, as there is no real Kubernetes ({why:#}): {}", names.join(", "));
        &[]
    });
    for (name, _) in CASES.iter().chain(real) {
        let mut command = Command::new(&program);
        command.args(["--case", name, "--rounds", &args.rounds.to_string()]);
        command.args(["--quiet", &args.quiet.to_string(), "--output"]).arg(&args.output);
        if !command.status().with_context(|| format!("run case {name}"))?.success() {
            failed.push(*name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
