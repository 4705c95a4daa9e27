//! Whether the API server answers.
//!
//! In: a way to ask it, or a client. Out: that it does, or what is in the way. Must not: move anything.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::net::causes;

/// Time that one question to the API server may take.
const TRY: Duration = Duration::from_secs(5);
/// Pause between questions.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Asks the API server until it answers, for as long as `patience`.
///
/// # Errors
/// What is in the way, after that time or when the daemon is stopped.
pub async fn asked<F: Future<Output = Result<(), String>>>(
    answers: &impl Fn() -> F,
    stop: &CancellationToken,
    patience: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        let why = tokio::select! {
            answer = timeout(TRY.min(patience), answers()) => match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {TRY:?}"),
            },
            () = stop.cancelled() => return Err("the daemon was stopped".into()),
        };
        if Instant::now() >= deadline {
            return Err(format!("the API server does not answer within {patience:?}: {why}"));
        }
        sleep(PAUSE).await;
    }
}

/// Whether the API server answers, be it that it refuses.
///
/// # Errors
/// What is in the way.
pub async fn answers(client: kube::Client) -> Result<(), String> {
    match client.apiserver_version().await {
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(e) => Err(format!("{e}: {}", causes(&e))),
    }
}
