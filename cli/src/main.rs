//! `ovenbird`: questions to an Ovenbird cluster, and to manifests without one.
//!
//! Each subcommand is a module with `Args` and `run`. Answers go to stdout, complaints to stderr. Must not: change anything
//! unasked.

mod admin;
mod check;
mod network;
mod render;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What Ovenbird makes of a cluster.
#[derive(Debug, Parser)]
#[command(name = "ovenbird", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the Northbound rows that manifests mean, with no cluster.
    Render(render::Args),
    /// Show what the master does, what waits and why.
    Status(status::Args),
    /// Say what becomes of a pod's traffic, and why.
    Check(check::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Render(args) => render::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => {
            return check::run(&args).unwrap_or_else(|error| complain(&error, ExitCode::from(check::ERROR)));
        }
    };
    result.map_or_else(|error| complain(&error, ExitCode::FAILURE), |()| ExitCode::SUCCESS)
}

fn complain(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("ovenbird: {error:#}");
    code
}
