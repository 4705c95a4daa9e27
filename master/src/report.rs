//! Describes the pipeline: the status for people, the gauges for Prometheus. Must not: change anything.

use std::time::Duration;

use ovenbird_reconcile::Outcome;

use crate::lease::Leading;
use crate::metrics::{Label, Metrics};
use crate::pipeline::Pipeline;
use crate::status::{self, Status};

/// The status as of now.
pub fn status(pipeline: &Pipeline, now: Duration) -> Status {
    let northbound = &pipeline.northbound;
    let link = northbound.link();
    let counters = northbound.counters();
    let waiting = |object: String, why: String| status::Waiting { object, why };
    let quarantined = northbound.committer().quarantined();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        identity: pipeline.identity.clone(),
        leader: pipeline.leading != Leading::No,
        epoch: northbound.epoch(),
        fenced: northbound.is_fenced(),
        watches: pipeline.lists.watches().to_vec(),
        northbound: status::Northbound {
            connected: link.up,
            detail: link.detail,
            age_seconds: northbound.age(now).as_secs_f64(),
            rows: northbound.desired().row_count(),
            transactions: counters.transactions - counters.errors,
            bytes: counters.bytes,
            settled: northbound.is_settled() && !pipeline.is_catching_up(),
        },
        nodes: pipeline.allocator.nodes(),
        waiting: pipeline
            .allocator
            .waiting()
            .into_iter()
            .map(|w| waiting(format!("{} {}", w.kind, w.key), w.why))
            .collect(),
        waiting_rows: northbound
            .desired()
            .waiting()
            .into_iter()
            .map(|w| waiting(w.owner.to_string(), w.to_string()))
            .collect(),
        commits: pipeline.commits.iter().cloned().collect(),
        held: northbound.committer().held().map(|h| status::Held { removals: h.removals, owned: h.owned }),
        quarantined: quarantined.map(|(owner, d)| waiting(owner.to_string(), d.message.clone())).collect(),
        drift: status::Drift { healed: counters.healed, audits: pipeline.audits, findings: northbound.findings() },
    }
}

/// Sets the gauges.
pub fn measure(pipeline: &Pipeline, metrics: &Metrics, now: Duration) {
    let northbound = &pipeline.northbound;
    metrics.replica_age.set(northbound.age(now).as_secs_f64());
    let owners: usize = northbound.committer().in_flight().map(|plan| plan.groups.len()).sum();
    metrics.plan_owners.set(owners as i64);
    metrics.held.set(northbound.committer().held().is_some().into());
    metrics.quarantined.set(northbound.committer().quarantined().count() as i64);
    metrics.waiting.set(pipeline.allocator.waiting_pods() as i64);
    let found = northbound.findings();
    metrics.audit_findings.inc_by(found.saturating_sub(metrics.audit_findings.get()));
    for watch in pipeline.lists.watches() {
        metrics.objects.get_or_create(&Label { kind: watch.kind }).set(watch.objects as i64);
    }
    let usage = pipeline.allocator.usage();
    let share = |used: u64, all: u64| if all == 0 { 0.0 } else { used as f64 / all as f64 };
    for (kind, used, all) in [
        ("node_ids", usage.ids, usage.all_ids),
        ("node_subnets", usage.subnets, usage.all_subnets),
        ("pod_addresses", usage.addresses, usage.all_addresses),
    ] {
        metrics.allocation_use.get_or_create(&Label { kind }).set(share(used, all));
    }
}

/// A transaction's end in one line.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { .. } => "committed".into(),
        Outcome::Stale(why) => format!("replica was behind, trying again: {why}"),
        Outcome::Rejected(why) => format!("rejected, looking for the guilty object: {why}"),
        Outcome::Quarantined(owners) => {
            let names: Vec<String> = owners.iter().map(|(owner, _)| owner.to_string()).collect();
            format!("rejected because of {}", names.join(", "))
        }
        Outcome::Fenced => "refused: another master leads".into(),
        Outcome::Unknown(why) => format!("no answer, comparing again: {why}"),
    }
}
