//! `ovenbird-kube`: builds Kubernetes for the lab into a cache outside the tree, and says where that is.
//!
//! In: a command line. Out: the cache; progress on stderr, its folder on stdout. It must not do more than call the library.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ovenbird_kube::Cache;

/// Kubernetes, etcd, containerd, CoreDNS and test images, built from Go modules
///
/// The cache lies in $OVENBIRD_KUBE_CACHE, or in $XDG_CACHE_HOME/ovenbird/kube, in a folder per set of versions.
#[derive(Debug, Parser)]
#[command(name = "ovenbird-kube", version)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Builds what is missing (minutes at first, seconds afterwards) and prints the folder
    Build,
    /// Prints the folder if all is built
    Path,
}

fn main() -> ExitCode {
    let run = || -> Result<Cache> {
        match Cli::parse().command {
            Sub::Build => {
                let cache = Cache::locate()?;
                ovenbird_kube::build(&cache)?;
                Ok(cache)
            }
            Sub::Path => Cache::ready(),
        }
    };
    match run() {
        Ok(cache) => {
            println!("{}", cache.dir().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ovenbird-kube: {error:#}");
            ExitCode::FAILURE
        }
    }
}
