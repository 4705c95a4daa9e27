//! `ovenbird-lab`: builds, shows, enters and removes labs.
//!
//! In: a command line. Out: data on stdout, progress and errors on stderr, an exit code. It must not do more than call the library.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use ovenbird_lab::probe::{self, Target};
use ovenbird_lab::{DEFAULT_DIR, Lab, Options, Progress, Status, conformance, demo, gate, kubelet, real, scheduler};

/// A small cluster on one machine: nodes as network namespaces, with real OVS and OVN
#[derive(Debug, Parser)]
#[command(name = "ovenbird-lab", version)]
struct Cli {
    /// The lab's folder
    #[arg(long, env = "LAB_DIR", default_value = DEFAULT_DIR, global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Sub,
}

const UP_EXAMPLES: &str = "\
Examples:
  ovenbird-lab up                                  three nodes, dual stack, an overlay
  ovenbird-lab up --mode classic --family v4       without OVN, and IPv4 alone
  ovenbird-lab up --mode underlay --api real       all pods of a real Kubernetes on a VLAN
  ovenbird-lab up --underlay                       an overlay, and VLANs beside it
  ovenbird-lab up --mode nested --nodes 2          nodes are VMs on hypervisors hv1 and hv2";

#[derive(Debug, Subcommand)]
enum Sub {
    /// Builds a lab
    #[command(after_help = UP_EXAMPLES)]
    Up(Options),
    /// Takes the lab down, whatever state it is in
    Down,
    /// Builds a lab with pods on every node, proves that they reach each other, and leaves it running
    Demo(demo::DemoArgs),
    /// Runs upstream's end-to-end tests of Kubernetes against a real lab of their own
    Conformance(conformance::ConformanceArgs),
    /// Shows nodes and pods
    Status {
        /// How to show them
        #[arg(short, long, value_enum, default_value_t)]
        output: demo::Output,
    },
    /// Breaks or mends a part of the lab, by the name that `status -o json` shows
    Component {
        /// What to do
        action: Action,
        /// e.g. central/master, node1/ovenbird-node, central/nb (central/nb1 in a cluster), apiserver
        name: String,
    },
    /// Cuts the power of a node (everything on it dies at once, its disk stays), or boots it again
    Power {
        /// What to do
        switch: Switch,
        /// The node
        node: String,
    },
    /// Tries to reach targets from here: ping:IP or tcp:IP:PORT
    Probe {
        /// Seconds to keep trying each
        #[arg(long, default_value_t = 3)]
        timeout: u64,
        /// ping:IP or tcp:IP:PORT
        #[arg(required = true)]
        targets: Vec<Target>,
    },
    /// Answers TCP probes with what they send
    ProbeServer {
        /// TCP port
        #[arg(long, default_value_t = probe::PORT)]
        port: u16,
    },
    /// Prints export lines for the lab's API server and databases
    Env,
    /// Runs a command on a node (or in central, outside or fabric), or in a pod (NAMESPACE/POD)
    Exec {
        /// NODE, central, outside, fabric, or NAMESPACE/POD
        target: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Applies the objects of a manifest
    Apply {
        /// YAML file, - for stdin
        #[arg(short, long = "filename", value_name = "FILE")]
        file: PathBuf,
    },
    /// Deletes the objects of a manifest
    Delete {
        /// YAML file, - for stdin
        #[arg(short, long = "filename", value_name = "FILE")]
        file: PathBuf,
    },
    #[command(hide = true)]
    Gate(gate::GateArgs),
    #[command(hide = true)]
    Scheduler,
    #[command(hide = true)]
    NodeInit {
        #[arg(long)]
        node: String,
    },
    #[command(hide = true)]
    Kubelet {
        #[arg(long)]
        node: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Starts it again, as it was started before
    Start,
    /// SIGTERM
    Stop,
    /// SIGKILL
    Kill,
    /// SIGSTOP
    Pause,
    /// SIGCONT
    Resume,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    /// Cuts it
    Off,
    /// Boots
    On,
}

fn main() -> ExitCode {
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(ansi).with_env_filter(filter()).init();
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ovenbird-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into())
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        // Before any thread exists: it moves this very process.
        Sub::Exec { target, argv } => {
            let lab = Lab::open(&cli.dir)?;
            Ok(ExitCode::from(lab.scene(&target)?.exec(&argv)?))
        }
        Sub::Down => {
            let found = ovenbird_lab::down(&cli.dir)?;
            eprintln!("{}", if found { "the lab is down" } else { "there is no lab" });
            Ok(ExitCode::SUCCESS)
        }
        Sub::Env => {
            let lab = Lab::open(&cli.dir)?;
            print!("{}", lab.exports());
            Ok(ExitCode::SUCCESS)
        }
        Sub::Component { action, name } => {
            let lab = Lab::open(&cli.dir)?;
            match action {
                Action::Start => lab.start(&name)?,
                Action::Stop => lab.stop(&name)?,
                Action::Kill => lab.kill(&name)?,
                Action::Pause => lab.pause(&name)?,
                Action::Resume => lab.resume(&name)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Sub::Power { switch, node } => {
            let lab = Lab::open(&cli.dir)?;
            match switch {
                Switch::Off => lab.power_off(&node)?,
                Switch::On => lab.power_on(&node)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        // Before any thread exists, too: it is to be pid 1 and collects children.
        Sub::NodeInit { node } => match real::init::run(Lab::open(&cli.dir)?.layout(), &node)? {},
        Sub::Probe { timeout, targets } => Ok(probe_all(&targets, Duration::from_secs(timeout))),
        Sub::ProbeServer { port } => probe::serve(port).map(|()| ExitCode::SUCCESS),
        command => runtime()?.block_on(run_async(cli.dir, command)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")
}

async fn run_async(dir: PathBuf, command: Sub) -> Result<ExitCode> {
    match command {
        Sub::Up(options) => {
            let _lab = Lab::up(Options { dir, ..options }, Progress::shown()).await?.keep();
        }
        Sub::Apply { file } => {
            let done = Lab::open(&dir)?.apply(&read(&file)?).await?;
            done.iter().for_each(|label| println!("{label} applied"));
        }
        Sub::Delete { file } => {
            let done = Lab::open(&dir)?.delete(&read(&file)?).await?;
            done.iter().for_each(|label| println!("{label} deleted"));
        }
        Sub::Gate(args) => gate::run(args).await?,
        Sub::Scheduler => scheduler::run(Lab::open(&dir)?.client().await?).await?,
        Sub::Kubelet { node } => kubelet::run(Lab::open(&dir)?.layout().clone(), node).await?,
        Sub::Demo(args) => {
            let complete = demo::run(dir, args).await?;
            return Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Sub::Conformance(args) => {
            let good = conformance::run(dir, args).await?;
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Sub::Status { output } => print_status(&Status::of(&Lab::open(&dir)?).await?, output)?,
        // Those that need no async runtime are done by `run`.
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per target; success when all answered.
fn probe_all(targets: &[Target], limit: Duration) -> ExitCode {
    let failed = targets.iter().filter(|target| match target.check(limit) {
        Ok(time) => {
            println!("{target} {} us", time.as_micros());
            false
        }
        Err(error) => {
            println!("{target} failed: {error:#}");
            true
        }
    });
    if failed.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_status(status: &Status, output: demo::Output) -> Result<()> {
    if output == demo::Output::Json {
        println!("{}", serde_json::to_string_pretty(status).context("printing")?);
        return Ok(());
    }
    println!("{}\n{}", status.node_table(), status.pod_table());
    if !status.ended().is_empty() {
        println!("Ended: {}", status.ended().join(", "));
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    let read = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    read.with_context(|| format!("reading {}", file.display()))
}
