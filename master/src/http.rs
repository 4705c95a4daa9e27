//! The HTTP server: /metrics, /healthz (the process works) and /readyz (it has seen everything it needs).
//!
//! A master that does not lead is ready too: it is warm and waits. Must not: answer anything else, or block.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What a ready master has: each part says so once it is there.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Every watch has delivered a complete list.
    pub watches: AtomicBool,
    /// The replica of the Northbound is complete and the session is up.
    pub northbound: AtomicBool,
}

impl Readiness {
    /// Names of the parts that are missing.
    pub fn missing(&self) -> Vec<&'static str> {
        [("watches", &self.watches), ("northbound", &self.northbound)]
            .into_iter()
            .filter_map(|(name, ready)| (!ready.load(Ordering::Relaxed)).then_some(name))
            .collect()
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// Listens on `address`.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, readiness: Arc<Readiness>, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Shared { metrics, readiness });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.readiness.missing() {
        missing if missing.is_empty() => "ok\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))).into_response(),
    }
}
