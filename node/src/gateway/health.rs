//! `healthCheckNodePort`: tells a load balancer outside whether this node has an endpoint of a Service with externalTrafficPolicy
//! Local, in the form of kube-proxy.
//!
//! ```text
//! Services --> port and Service of each listener          [endpoints] --> ready endpoints here
//!                       GET / --> 200 or 503, {"service":{...},"localEndpoints":N,"serviceProxyHealthy":true}
//! ```
//!
//! Must not: choose endpoints (the master does).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::endpoints::Local;
use super::services::Services;

/// Pause before a port that somebody else has is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Port and Service of each listener. Ports are unique in the API; of two Services with one, the first by name has it.
fn wanted(services: &Services) -> BTreeMap<u16, String> {
    let ports = services.iter().rev().filter_map(|(key, service)| Some((service.health_port?, key.clone())));
    ports.collect()
}

/// What a listener answers from.
#[derive(Clone)]
struct Answer {
    service: String,
    local: watch::Receiver<Option<Local>>,
}

/// Keeps one listener for each Service that wants it.
///
/// # Errors
/// When one of the daemon's other parts has ended.
pub async fn serve(
    mut services: watch::Receiver<Option<Services>>,
    local: watch::Receiver<Option<Local>>,
) -> anyhow::Result<()> {
    let mut listeners: BTreeMap<u16, (String, DropGuard)> = BTreeMap::new();
    loop {
        let wanted = services.borrow_and_update().as_ref().map(wanted).unwrap_or_default();
        listeners.retain(|port, (service, _)| wanted.get(port) == Some(service));
        let mut missing = false;
        for (port, service) in wanted {
            if listeners.contains_key(&port) {
                continue;
            }
            match listen(port, Answer { service: service.clone(), local: local.clone() }).await {
                Ok(guard) => drop(listeners.insert(port, (service, guard))),
                Err(e) => {
                    warn!("health check port {port} of Service {service}: {e}; does another program listen there?");
                    missing = true;
                }
            }
        }
        tokio::select! {
            changed = services.changed() => changed?,
            () = tokio::time::sleep(RETRY), if missing => {}
        }
    }
}

/// A listener on all addresses, until the guard is dropped.
async fn listen(port: u16, answer: Answer) -> io::Result<DropGuard> {
    let listener = match TcpListener::bind(("::", port)).await {
        // A host without IPv6.
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await?,
        bound => bound?,
    };
    info!(port, service = answer.service, "health checks are answered");
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let router = Router::new().fallback(respond).with_state(answer);
    tokio::spawn(async move {
        let served = stop.run_until_cancelled(axum::serve(listener, router).into_future()).await;
        if let Some(Err(e)) = served {
            warn!("health check port {port}: {e}");
        }
    });
    Ok(guard)
}

/// As kube-proxy answers (pkg/proxy/healthcheck/service_health.go), on any path.
async fn respond(State(answer): State<Answer>) -> Response {
    let here: BTreeSet<String> = {
        let local = answer.local.borrow();
        let of_service = local.iter().flatten().filter(|(_, here)| here.service == answer.service);
        of_service.flat_map(|(_, here)| &here.ready).cloned().collect()
    };
    let status = if here.is_empty() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let (namespace, name) = answer.service.split_once('/').unwrap_or_default();
    let body = serde_json::json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": here.len(),
        "serviceProxyHealthy": true,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::HeaderName::from_static("x-load-balancing-endpoint-weight"), here.len().to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
