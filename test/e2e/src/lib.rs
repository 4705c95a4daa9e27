//! What the end-to-end tests share: pods, the Northbound as it is and as it should be, the wire, and streams under fault.
//!
//! In: a running lab. Out: facts to assert on. It must not hold assertions about one scenario: those are in `tests/`.

pub mod datapath;
pub mod fault;
pub mod master;
pub mod northbound;
pub mod oracle;
pub mod pods;
pub mod pour;
pub mod pulse;
pub mod reach;
pub mod real;
pub mod sctp;
pub mod service;
pub mod stream;
pub mod wire;
pub mod witness;

use std::future::Future;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Runtime;

/// How long a lab may take to come to rest after a fault. Only ever reached when something is broken.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Tests several labs side by side, each with a name for people: for those that wait for timers, or for answers that must not come, most of the
/// time.
///
/// # Errors
/// Of all that failed the first, when all have ended.
pub fn side_by_side<F, T>(labs: impl IntoIterator<Item = (&'static str, F)>) -> Result<()>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = Result<()>>,
{
    let run = |(name, test): (_, F)| (name, thread::spawn(move || Runtime::new()?.block_on(test())));
    let started: Vec<_> = labs.into_iter().map(run).collect();
    let ended: Vec<_> = started.into_iter().map(|(name, test)| (name, test.join())).collect();
    let outcome = |(name, ended): (_, thread::Result<Result<()>>)| {
        ended.map_err(|_| anyhow!("it panicked")).flatten().context(name)
    };
    ended.into_iter().try_for_each(outcome)
}
