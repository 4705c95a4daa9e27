//! `ovenbird-master`: reads the configuration, sets up logging and signals, and runs the library.

use std::io::IsTerminal;

use anyhow::Context;
use clap::Parser;
use ovenbird_master::config::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let config = Args::parse().resolve()?;
    let filter = EnvFilter::try_new(&config.loglevel).context(
        "--loglevel is no filter; write error, warn, info, debug or trace, or per module as info,ovsdb=debug",
    )?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    // One thread for the pipeline, one to decode what the API server tells; more would only add wake-ups and memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    // As a task, because waking the future of `block_on` itself costs a system call each time.
    let main = runtime.spawn(async {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stopped.cancel();
        });
        ovenbird_master::run(config, stop).await.map_err(anyhow::Error::from)
    });
    runtime.block_on(main).context("run the master")?
}
