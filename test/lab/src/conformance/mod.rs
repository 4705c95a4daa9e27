//! `make conformance`: upstream's end-to-end tests of Kubernetes against a real lab with Ovenbird as its only network plugin.
//!
//! ```text
//!   e2e.test (cache) --dry run--> how many --> lab --> ginkgo in `central` -+-> target/conformance/{junit_01.xml, report.json, log}
//!   conformance-skips.txt --------^                                         +-> a line per spec (stderr), tables (stdout)
//! ```
//! Ginkgo runs specs in parallel, and those that upstream marks Serial one at a time after them. In: a regular expression, the cache
//! that `make kube-build` fills. Out: reports. It must not leave out a spec that the list of skips does not name.

mod ginkgo;
mod report;
mod skips;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use ovenbird_kube::Cache;
use ovenbird_kube::version::TEST_IMAGES;
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::{Lab, copy_logs};
use crate::options::{Api, Family, Options};
use crate::progress::Progress;
use crate::real;
use report::Results;

/// Upstream's default limit of a whole run is an hour.
const LIMIT: &str = "--timeout=3h";

/// What to run, and where.
#[derive(Clone, Debug, Args)]
pub struct ConformanceArgs {
    /// Specs whose name matches this regular expression of Go are run
    #[arg(long, value_name = "REGEX", default_value = r"\[Conformance\]|\[sig-network\]")]
    focus: String,
    /// Number of specs at a time
    #[arg(long, default_value_t = 4)]
    procs: u16,
    /// IP families of nodes and pods
    #[arg(long, value_enum, default_value_t = Family::Dual)]
    family: Family,
    /// Folder of the reports
    #[arg(long, value_name = "DIR", default_value = "target/conformance")]
    reports: PathBuf,
    /// Uses the lab that stands in --dir, and leaves it standing
    #[arg(long)]
    here: bool,
}

/// Runs specs, shows what they came to, and returns whether all passed.
///
/// # Errors
/// Names the step that failed; a spec that fails is not an error.
pub async fn run(dir: PathBuf, args: ConformanceArgs) -> Result<bool> {
    let cache = Cache::ready()?;
    let lab = if args.here { Some(real_lab(&dir)?) } else { None };
    let family = lab.as_ref().map_or(args.family, |lab| lab.layout().options.family);
    let skips = skips::all()?.into_iter().filter(|skip| family != Family::Dual || !skip.single_stack);
    let skips: Vec<_> = skips.map(|skip| skip.pattern()).collect();
    let total = ginkgo::count(&cache, &args.focus, &skips)?;
    ensure!(total > 0, "--focus {}: no spec that is not left out matches it", args.focus);
    let left_out = ginkgo::count(&cache, &args.focus, &[])? - total;
    eprintln!("{total} specs, {left_out} left out by test/lab/conformance-skips.txt");
    fs::create_dir_all(&args.reports).with_context(|| format!("creating {}", args.reports.display()))?;
    let reports = args.reports.canonicalize().context("finding the folder of the reports")?;
    let report = reports.join("report.json");
    if report.exists() {
        fs::remove_file(&report).context("removing the last report")?;
    }
    let lab = match lab {
        Some(lab) => lab,
        None => Lab::up(options(&args, dir), Progress::shown()).await?,
    };
    for node in lab.layout().options.node_names() {
        real::import(lab.layout(), &node, TEST_IMAGES).with_context(|| format!("giving {node} the images of tests"))?;
    }
    let child = start(&lab, &cache, &args, &skips, &reports)?;
    watch(child, File::create(reports.join("log")).context("creating the log")?, total).await?;
    let results = Results::read(&report)?;
    print!("\n{}", results.show(left_out));
    println!("\nJUnit: {}", reports.join("junit_01.xml").display());
    if !results.good() {
        copy_logs(lab.layout().dir(), &reports.join("lab"))?;
        println!("Each step: {0}/log; logs of the lab: {0}/lab", reports.display());
    }
    Ok(results.good())
}

fn real_lab(dir: &Path) -> Result<Lab> {
    let lab = Lab::open(dir)?;
    ensure!(lab.layout().options.api == Api::Real, "the lab in --dir has no real Kubernetes: make it with --api real");
    Ok(lab)
}

/// Upstream's conformance wants two nodes.
fn options(args: &ConformanceArgs, dir: PathBuf) -> Options {
    Options { dir, nodes: 2, family: args.family, api: Api::Real, ..Options::default() }
}

/// Ginkgo, where the API server, pods and nodes are reached.
fn start(lab: &Lab, cache: &Cache, args: &ConformanceArgs, skips: &[String], reports: &Path) -> Result<Child> {
    let mut argv: Vec<String> =
        ["ginkgo", "run", "-v", "--no-color", "--silence-skips", LIMIT].map(str::to_owned).into();
    argv.push(format!("--procs={}", args.procs));
    argv.push(format!("--focus={}", args.focus));
    argv.extend(skips.iter().map(|skip| format!("--skip={skip}")));
    argv.push(format!("--output-dir={}", reports.display()));
    argv.push("--json-report=report.json".into());
    argv.push(cache.bin().join("e2e.test").display().to_string());
    argv.extend(["--", "--provider=skeleton", "--dns-domain=cluster.local", "--disable-log-dump"].map(str::to_owned));
    argv.push(format!("--num-nodes={}", lab.layout().options.nodes));
    argv.push(format!("--kubeconfig={}", lab.layout().kubeconfig().display()));
    argv.push(format!("--report-dir={}", reports.display()));
    let argv: Vec<_> = argv.iter().map(String::as_str).collect();
    lab.scene("central")?.spawn(&argv, Stdio::piped())
}

/// Follows ginkgo to its end. Asked to stop, it asks ginkgo and its workers, which then clean up and report.
async fn watch(mut child: Child, log: File, total: usize) -> Result<()> {
    let group = Pid::from_raw(child.id().try_into().context("a process number beyond 31 bits")?);
    let output = child.stdout.take().context("ginkgo has no output")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for signals")?;
    let mut following = tokio::task::spawn_blocking(move || {
        ginkgo::follow(output, log, total)?;
        child.wait().context("waiting for ginkgo")
    });
    loop {
        tokio::select! {
            done = &mut following => return done.context("following ginkgo")?.map(drop),
            _ = interrupt.recv() => killpg(group, Signal::SIGTERM).context("stopping ginkgo")?,
            _ = terminate.recv() => killpg(group, Signal::SIGTERM).context("stopping ginkgo")?,
        }
    }
}
