//! Faults on demand, for tests of clients, under `/ovenbird-test/`:
//!
//! ```text
//! POST fail?count=N&code=429&method=PATCH&path=/pods&retryAfter=1   the next N matching requests fail
//! POST close-watches                                               every open watch ends
//! POST expire-history                                              resuming an earlier watch gets 410 Gone
//! POST pause | resume                                              no request and no watch is served in between
//! GET  stats                                                       requests so far, by method and by failures
//! ```
//!
//! These paths are never paused or failed themselves. A real API server has none of this.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Query;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::App;
use crate::error::ApiError;
use crate::server::json_response;

/// Prefix of the paths above.
pub(crate) const PREFIX: &str = "/ovenbird-test/";

/// Requests to fail.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    #[serde(default = "one")]
    count: u32,
    #[serde(default = "too_many_requests")]
    code: u16,
    /// Any method when empty.
    #[serde(default)]
    method: String,
    /// Part of the path; any path when empty.
    #[serde(default)]
    path: String,
    retry_after: Option<u32>,
}

fn one() -> u32 {
    1
}

fn too_many_requests() -> u16 {
    429
}

#[derive(Debug, Default)]
struct Counts {
    by_method: BTreeMap<String, u64>,
    injected: u64,
}

/// The switches and what they have done.
#[derive(Debug)]
pub(crate) struct Faults {
    failures: Mutex<Vec<Failure>>,
    counts: Mutex<Counts>,
    paused: watch::Sender<bool>,
    closings: watch::Sender<u64>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            failures: Mutex::default(),
            counts: Mutex::default(),
            paused: watch::Sender::new(false),
            closings: watch::Sender::new(0),
        }
    }

    /// Yields when every watch must end.
    pub(crate) fn closing(&self) -> watch::Receiver<u64> {
        self.closings.subscribe()
    }

    /// Waits while the server is paused.
    pub(crate) async fn unpaused(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    /// Counts a request and fails it when a test asked for that.
    pub(crate) fn admit<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        *self.counts.lock().by_method.entry(request.method().to_string()).or_default() += 1;
        let mut failures = self.failures.lock();
        let hit = failures.iter_mut().find(|failure| {
            (failure.method.is_empty() || failure.method == request.method().as_str())
                && request.uri().path().contains(&failure.path)
        });
        let Some(failure) = hit else { return Ok(()) };
        failure.count = failure.count.saturating_sub(1);
        let error = ApiError::injected(failure.code, failure.retry_after);
        failures.retain(|failure| failure.count > 0);
        self.counts.lock().injected += 1;
        Err(error)
    }
}

/// Serves a path under [`PREFIX`].
pub(crate) fn serve<B>(app: &App, request: &Request<B>) -> Result<Response<Body>, ApiError> {
    let faults = &app.faults;
    let action = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    match (request.method(), action) {
        (&Method::POST, "fail") => {
            let failure = Query::<Failure>::try_from_uri(request.uri());
            let Query(failure) = failure.map_err(|error| ApiError::bad_request(error.to_string()))?;
            faults.failures.lock().push(failure);
        }
        (&Method::POST, "close-watches") => faults.closings.send_modify(|count| *count += 1),
        (&Method::POST, "expire-history") => app.state.write().expire_history(),
        (&Method::POST, "pause") => drop(faults.paused.send_replace(true)),
        (&Method::POST, "resume") => drop(faults.paused.send_replace(false)),
        (&Method::GET, "stats") => {
            let counts = faults.counts.lock();
            return Ok(json_response(200, &json!({"requests": counts.by_method, "injected": counts.injected})));
        }
        _ => return Err(ApiError::no_such_path()),
    }
    Ok(json_response(200, &json!({"done": action})))
}
