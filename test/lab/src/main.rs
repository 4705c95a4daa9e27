//! `ovenbird-lab`: builds, shows, enters and removes labs.
//!
//! In: a command line. Out: data on stdout, progress and errors on stderr, an exit code. It must not do more than call the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ovenbird_lab::{DEFAULT_DIR, Lab, Options, Progress, gate, kubelet, scheduler};

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

#[derive(Debug, Subcommand)]
enum Sub {
    /// Builds a lab
    Up(Options),
    /// Takes the lab down, whatever state it is in
    Down,
    /// Prints export lines for the lab's API server and databases
    Env,
    /// Runs a command on a node (or in central or fabric), or in a pod (NAMESPACE/POD)
    Exec {
        /// NODE, central, fabric, or NAMESPACE/POD
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
    Kubelet {
        #[arg(long)]
        node: String,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter()).init();
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
            match lab.scene(&target)?.exec(&argv)? {}
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
        Sub::Exec { .. } | Sub::Down | Sub::Env => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<String> {
    let read = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    read.with_context(|| format!("reading {}", file.display()))
}
