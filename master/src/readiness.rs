//! What a ready master has, and what its HTTP server shows. A master that does not lead is ready too: it is warm and waits.
//!
//! Must not: decide what to do about a missing part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ovenbird_daemon::http::Pages;

use crate::metrics::Metrics;

/// Each part says so once it is there.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Every watch has delivered a complete list.
    pub watches: AtomicBool,
    /// The replica of the Northbound is complete and the session is up.
    pub northbound: AtomicBool,
}

/// What /metrics and /readyz show.
#[derive(Debug)]
pub struct Shown {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Readiness.
    pub readiness: Arc<Readiness>,
}

impl Pages for Shown {
    fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.metrics.encode()
    }

    fn missing(&self) -> Vec<&'static str> {
        [
            (
                "the lists of all watched kinds (does the API server answer, and may we list and watch them?)",
                &self.readiness.watches,
            ),
            ("the contents of the Northbound (does --nb-address answer?)", &self.readiness.northbound),
        ]
        .into_iter()
        .filter_map(|(text, ready)| (!ready.load(Ordering::Relaxed)).then_some(text))
        .collect()
    }
}
