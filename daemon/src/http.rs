//! The HTTP server: /metrics, /healthz (the process works) and /readyz (it has all that it needs).
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

/// What is shown.
pub trait Pages: Send + Sync + 'static {
    /// OpenMetrics text.
    ///
    /// # Errors
    /// When formatting fails.
    fn metrics(&self) -> Result<String, std::fmt::Error>;

    /// What is missing before the process can serve, one text each.
    fn missing(&self) -> Vec<&'static str>;
}

/// Serves on a bound socket until `stop`.
///
/// # Errors
/// Those of the socket.
pub async fn serve(listener: TcpListener, pages: impl Pages, stop: CancellationToken) -> std::io::Result<()> {
    let pages: Arc<dyn Pages> = Arc::new(pages);
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(pages);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics(State(pages): State<Arc<dyn Pages>>) -> Response {
    match pages.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(pages): State<Arc<dyn Pages>>) -> Response {
    match pages.missing() {
        missing if missing.is_empty() => "ok\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for:\n{}\n", missing.join("\n"))).into_response(),
    }
}
