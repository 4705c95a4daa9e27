//! A daemon's process: its log, its threads, and the signals that stop it.
//!
//! Must not: be called twice in one process.

use std::future::Future;
use std::io::IsTerminal;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Logs to stderr as `loglevel` says and runs `main` to its end. SIGTERM and SIGINT cancel the token that it is given.
///
/// # Errors
/// A filter that cannot be read, and those of `main`.
pub fn run<F>(loglevel: &str, main: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // Its watches' failures are told by those who watch.
    let filter = EnvFilter::try_new(format!("kube_runtime::watcher=error,{loglevel}")).context(
        "--loglevel is no filter; write error, warn, info, debug or trace, or per module as info,ovsdb=debug",
    )?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    // One thread for the work, one to decode what servers tell; more would only add wake-ups and memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let stop = CancellationToken::new();
    runtime.spawn(cancel_on_signal(stop.clone()));
    // As a task, because waking the future of `block_on` itself costs a system call each time.
    let main = runtime.spawn(main(stop));
    runtime.block_on(main).context("run the daemon")?
}

async fn cancel_on_signal(stop: CancellationToken) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return tracing::error!("cannot catch signals; SIGTERM will end the daemon at once");
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}
