//! `ovenbird`: questions to an Ovenbird cluster, and to manifests without one.
//!
//! Each subcommand is a module with `Args` and `run`. Answers go to stdout, complaints to stderr. Must not: change anything
//! unasked.

mod render;
mod status;

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
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Render(args) => render::run(&args),
        Command::Status(args) => status::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ovenbird: {error:#}");
            ExitCode::FAILURE
        }
    }
}
