//! Access to the API server: from a kubeconfig, or from where the process runs; and with which pauses it is asked again.
//!
//! Must not: wait for it at the start; that it is away is no reason not to start.

use std::path::Path;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

// kube leaves the version of the Kubernetes API to its users.
use k8s_openapi as _;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, ExponentialBackoff};
use tower::util::AndThenLayer;

use crate::rights::Told;

/// The first pause of a watch, and the longest. An API server that was away for a minute is found within seconds.
const WATCH_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// There is no usable access to the API server.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the API server; give --kubeconfig, set KUBECONFIG, or run as a pod with a service account")]
pub struct AccessError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A client as `kubeconfig` says; without it as $KUBECONFIG, ~/.kube/config or the pod's service account say.
///
/// # Errors
/// When these are missing or wrong.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, AccessError> {
    fn fail(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AccessError {
        AccessError(error.into())
    }
    let mut access = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(fail)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(fail)?
        }
        None => kube::Config::infer().await.map_err(fail)?,
    };
    // Each caller tries again in its own time, with what is true then; in here, it would wait for minutes once it was told "too many
    // requests" (429) a few times.
    access.default_retry = false;
    if access.cluster_url.scheme_str() == Some("http") {
        // Nobody to trust; otherwise all root certificates of the system are parsed at every start.
        access.root_cert.get_or_insert_default();
    }
    let told = Told::default();
    let look = AndThenLayer::new(move |answer| told.clone().look(answer));
    Ok(ClientBuilder::try_from(access).map_err(fail)?.with_layer(&look).build())
}

/// How long a watch that failed waits before it tries again: [`WATCH_PAUSES`], doubled each time, and up to as much again by chance,
/// so that the daemons of a large cluster do not come at once.
pub fn watch_backoff() -> impl Backoff {
    let [first, longest] = WATCH_PAUSES;
    let pauses = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest);
    ExponentialBackoff::from(pauses.without_max_times().with_jitter())
}

/// Makes a request that nobody will make again (an Event), up to eight times in about a minute: while the API server is away, overloaded
/// or has no database, and not when it says no.
///
/// # Errors
/// The last failure.
pub async fn insist<T, F: Future<Output = kube::Result<T>>>(request: impl FnMut() -> F) -> kube::Result<T> {
    let pauses = ExponentialBuilder::default().with_min_delay(WATCH_PAUSES[0]).with_max_times(8).with_jitter();
    request.retry(pauses).when(passes).await
}

/// Whether a failure may pass by itself.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// Whether a list or watch failed because the API server has no such kind: it is older than the kind, or the kind is switched off.
pub fn is_unknown_kind(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(e) | WatchStartFailed(e) | WatchFailed(e)) = error else { return false };
    matches!(e, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_the_api_server_lacks_is_told_from_other_failures() {
        let failed = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(is_unknown_kind(&failed(404)));
        assert!(!is_unknown_kind(&failed(403)) && !is_unknown_kind(&watcher::Error::NoResourceVersion));
    }

    #[tokio::test(start_paused = true)]
    async fn overload_passes_and_a_refusal_does_not() {
        for (code, tries) in [(403, 1), (429, 9), (500, 9), (503, 9)] {
            let mut count = 0;
            let failed = insist(|| {
                count += 1;
                let status = kube::core::Status { code, ..kube::core::Status::default() };
                async { Err::<(), _>(kube::Error::Api(Box::new(status))) }
            });
            assert!(failed.await.is_err());
            assert_eq!(count, tries, "{code}");
        }
    }

    #[test]
    fn a_watch_never_gives_up_and_never_waits_long() {
        let pauses: Vec<_> = watch_backoff().take(1000).collect();
        assert_eq!(pauses.len(), 1000);
        assert!(pauses.iter().all(|pause| *pause < 2 * WATCH_PAUSES[1]), "{pauses:?}");
        assert!(pauses[0] < 2 * WATCH_PAUSES[0] && pauses[999] >= WATCH_PAUSES[1], "{pauses:?}");
    }
}
