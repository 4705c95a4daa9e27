//! The HTTP server: /metrics, /healthz (the process works) and /readyz (the node can serve pods).
//!
//! Must not: answer anything else, or block.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::readiness::{Part, Readiness};
use crate::vswitch::Vswitch;

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Readiness.
    pub readiness: Arc<Readiness>,
    /// Its counters are shown.
    pub vswitch: Vswitch,
}

/// Serves on a bound socket until `stop`.
///
/// # Errors
/// Those of the socket.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shown);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics(State(shown): State<Shown>) -> Response {
    shown.metrics.vswitch(&shown.vswitch.state().borrow());
    match shown.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let missing: Vec<_> = shown.readiness.missing().into_iter().map(Part::text).collect();
    match missing.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for:\n{}\n", missing.join("\n"))).into_response(),
    }
}
