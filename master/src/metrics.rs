//! Metrics of the master, in OpenMetrics text: `ovenbird_master_*`.
//!
//! Inputs: calls from the pipeline. Output: [`Metrics::encode`], which `http` serves. Must not: decide anything.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// A label: a kind of object, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    /// Which.
    pub kind: &'static str,
}

/// All metrics. Cheap to clone parts; shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// From the arrival of a change to the reply of the transaction that carries it.
    pub queue_to_commit: Histogram,
    /// From sending a transaction to its reply.
    pub commit: Histogram,
    /// Transactions that succeeded.
    pub transactions: Counter,
    /// Transactions that failed.
    pub transactions_failed: Counter,
    /// Row operations committed.
    pub rows: Counter,
    /// Bytes of transactions sent.
    pub bytes: Counter,
    /// Owners in the last plan.
    pub plan_owners: Gauge,
    /// Seconds since the replica last heard from the server.
    pub replica_age: Seconds,
    /// 1 while the Northbound session is up.
    pub connected: Gauge,
    /// Objects known, by kind.
    pub objects: Family<Label, Gauge>,
    /// Share of what can be allocated that is taken (0..1): node subnets, node ids, pod addresses.
    pub allocation_use: Family<Label, Gauge<f64, AtomicU64>>,
    /// Annotations written.
    pub annotations: Counter,
    /// Annotation writes that failed.
    pub annotations_failed: Counter,
    /// Pods that wait for an address, a node or their annotation.
    pub waiting: Gauge,
    /// Plans held back by the brake on mass deletes.
    pub held: Gauge,
    /// Owners in quarantine.
    pub quarantined: Gauge,
    /// Audits run.
    pub audits: Counter,
    /// Row differences that periodic audits found; more than 0 is a defect or a stranger's hand.
    pub audit_findings: Counter,
    /// 1 while we lead.
    pub leader: Gauge,
}

impl Metrics {
    /// A fresh registry with everything at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("ovenbird_master");
        registry.register("build", "Version of the program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        // 0.25 ms to 8 s.
        let latency = || Histogram::new(exponential_buckets(0.00025, 2.0, 16));
        macro_rules! metrics {
            ($($field:ident: $make:expr, $help:literal;)*) => {{
                $(let $field = $make; registry.register(stringify!($field), $help, $field.clone());)*
                Metrics { queue_to_commit: latency(), commit: latency(), replica_age: Seconds::default(), registry: Registry::default(), $($field,)* }
            }};
        }
        let mut metrics = metrics! {
            transactions: Counter::default(), "Transactions that succeeded";
            transactions_failed: Counter::default(), "Transactions that failed";
            rows: Counter::default(), "Row operations committed";
            bytes: Counter::default(), "Bytes of transactions sent";
            plan_owners: Gauge::default(), "Owners in the last plan";
            connected: Gauge::default(), "1 while the Northbound session is up";
            objects: Family::default(), "Objects known, by kind";
            allocation_use: Family::default(), "Share of what can be allocated that is taken";
            annotations: Counter::default(), "Annotations written";
            annotations_failed: Counter::default(), "Annotation writes that failed";
            waiting: Gauge::default(), "Pods that wait for an address, a node or their annotation";
            held: Gauge::default(), "Plans held back by the brake on mass deletes";
            quarantined: Gauge::default(), "Owners in quarantine";
            audits: Counter::default(), "Passes over all rows";
            audit_findings: Counter::default(), "Row differences that periodic audits found";
            leader: Gauge::default(), "1 while this master leads";
        };
        let in_seconds = Unit::Seconds;
        let help = "From the arrival of a change to the reply of its transaction";
        registry.register_with_unit("queue_to_commit", help, in_seconds.clone(), metrics.queue_to_commit.clone());
        let help = "From sending a transaction to its reply";
        registry.register_with_unit("commit", help, in_seconds.clone(), metrics.commit.clone());
        let help = "Time since the replica last heard from the server";
        registry.register_with_unit("replica_age", help, in_seconds, metrics.replica_age.clone());
        metrics.registry = registry;
        metrics
    }

    /// The text that /metrics serves.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let metrics = Metrics::new();
        metrics.transactions.inc();
        metrics.queue_to_commit.observe(0.001);
        metrics.objects.get_or_create(&Label { kind: "Pod" }).set(3);
        let text = metrics.encode().expect("encodes");
        for line in [
            "ovenbird_master_build_info{version=\"",
            "ovenbird_master_transactions_total 1",
            "ovenbird_master_queue_to_commit_seconds_count 1",
            "ovenbird_master_objects{kind=\"Pod\"} 3",
            "ovenbird_master_replica_age_seconds 0.0",
            "ovenbird_master_audit_findings_total 0",
            "ovenbird_master_leader 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
