//! `ovenbird-node`: reads the configuration, sets up logging and signals, runs the daemon.

use std::io::IsTerminal;

use clap::Parser;
use ovenbird_node::config::Args;
use ovenbird_node::daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

// As in the master: one thread for the work, one to decode what servers tell.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config = Args::parse().resolve()?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.loglevel)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        on_signal.cancel();
    });
    daemon::run(config, stop).await
}
