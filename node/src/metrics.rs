//! Metrics of the node daemon, in OpenMetrics text: `ovenbird_node_*`.
//!
//! Inputs: calls from the daemon's parts. Output: [`Metrics::encode`], which `http` serves. Must not: decide anything.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::vswitch::State;

/// A CNI request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// `ADD`, `DEL`, ...
    pub command: &'static str,
    /// CNI error code, 0 for success.
    pub code: u32,
}

/// A step of ADD.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabel {
    /// See `step`.
    pub step: &'static str,
}

/// All metrics; shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Histogram, fn() -> Histogram>,
    steps: Family<StepLabel, Histogram, fn() -> Histogram>,
    /// Attached sandboxes.
    pub ports: Gauge,
    /// 1 while Open_vSwitch is replicated.
    connected: Gauge,
    transactions: Counter,
    transactions_failed: Counter,
    rows: Counter,
    healed: Counter,
    /// Times that the management port was not as it should be.
    pub management_healed: Counter,
}

/// 1 ms to 131 s.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ovenbird_node");
        let requests = Family::new_with_constructor(latency as fn() -> Histogram);
        let steps = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register_with_unit("cni_request", "CNI requests by command and code", Unit::Seconds, requests.clone());
        registry.register_with_unit("cni_add_step", "Steps of ADD", Unit::Seconds, steps.clone());
        macro_rules! register {
            ($($field:ident, $help:literal;)*) => {{
                $(let $field = Default::default(); registry.register(stringify!($field), $help, Clone::clone(&$field));)*
                Metrics { registry, requests, steps, $($field,)* }
            }};
        }
        register! {
            ports, "Attached sandboxes";
            connected, "1 while Open_vSwitch is replicated";
            transactions, "Transactions sent to Open_vSwitch";
            transactions_failed, "Transactions that failed";
            rows, "Rows written to Open_vSwitch";
            healed, "Differences in Open_vSwitch that others made and that were undone";
            management_healed, "Times that the management port was not as it should be";
        }
    }
}

impl Metrics {
    /// Notes a CNI request.
    pub fn cni(&self, command: &'static str, code: u32, elapsed: Duration) {
        self.requests.get_or_create(&Request { command, code }).observe(elapsed.as_secs_f64());
    }

    /// Notes a step of ADD.
    pub fn step(&self, step: &'static str, elapsed: Duration) {
        self.steps.get_or_create(&StepLabel { step }).observe(elapsed.as_secs_f64());
    }

    /// Notes what the session with Open_vSwitch has done so far.
    pub fn vswitch(&self, state: &State) {
        self.connected.set(i64::from(state.synced));
        for (counter, total) in [
            (&self.transactions, state.transactions),
            (&self.transactions_failed, state.errors),
            (&self.rows, state.rows),
            (&self.healed, state.healed),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// When formatting fails.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
