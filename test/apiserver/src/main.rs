//! `ovenbird-apiserver`: the stand-in API server as a process.
//!
//! Writes a kubeconfig (and the address) when it serves, then runs until SIGINT or SIGTERM. SIGKILL at any moment loses
//! nothing that was acknowledged, when `--data` is given.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use ovenbird_apiserver::{ApiServer, Options};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for the Kubernetes API server: plain HTTP, no authentication, no controllers. For labs and tests only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File that keeps the objects across restarts
    #[arg(long)]
    data: Option<PathBuf>,
    /// File to write a kubeconfig to
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// File to write ADDRESS:PORT to, once serving
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Events per resource that are kept for watches that resume
    #[arg(long, default_value_t = Options::default().history)]
    history: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let options = Options { listen: arguments.listen, data: arguments.data, history: arguments.history };
    let server = ApiServer::start(options).await?;
    if let Some(path) = &arguments.kubeconfig {
        std::fs::write(path, server.kubeconfig()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.address_file {
        std::fs::write(path, server.address().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    writeln!(std::io::stdout(), "serving a stand-in for the Kubernetes API on {}", server.url())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}
