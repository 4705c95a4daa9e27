//! What the Northbound's client tells, and what became of our transactions: metrics, Events, the last of them for the status.
//!
//! Must not: decide what is written next (`northbound`).

use std::sync::atomic::Ordering;

use ovenbird_reconcile::Outcome;
use ovenbird_schema::northbound::acl;

use super::Pipeline;
use crate::event::{Source, Subject};
use crate::northbound::Commit;
use crate::{report, status};

/// Transactions remembered for the status.
const REMEMBERED: usize = 50;

impl Pipeline {
    pub(super) fn on_northbound(&mut self, event: ovsdb::Event) {
        let commit = self.northbound.on_event(event, self.now());
        let up = self.northbound.is_up();
        if up {
            self.engine.set_acl_tiers(self.northbound.has_column(&acl::TABLE, acl::TIER));
        }
        self.out.readiness.northbound.store(up, Ordering::Relaxed);
        self.out.metrics.connected.set(up.into());
        if let Some(commit) = commit {
            self.on_commit(&commit);
        }
    }

    fn on_commit(&mut self, commit: &Commit) {
        let metrics = &self.out.metrics;
        let text = match &commit.outcome {
            None if self.northbound.epoch().is_some() => "epoch raised".into(),
            None => "epoch not raised".into(),
            Some(Outcome::Committed { .. }) => "committed".to_owned(),
            Some(other) => report::outcome(other),
        };
        if matches!(commit.outcome, Some(Outcome::Committed { .. })) {
            metrics.transactions.inc();
            metrics.rows.inc_by(commit.rows as u64);
            metrics.bytes.inc_by(commit.bytes as u64);
            metrics.commit.observe(commit.took.as_secs_f64());
            if let Some(queued) = commit.queued {
                metrics.queue_to_commit.observe(queued.as_secs_f64());
            }
        } else if commit.outcome.is_some() {
            metrics.transactions_failed.inc();
            tracing::warn!(outcome = text, rows = commit.rows, "a transaction of the Northbound failed");
        }
        if let Some(Outcome::Quarantined(owners)) = &commit.outcome {
            for (owner, diagnostic) in owners {
                match Subject::of(owner) {
                    Some(subject) => {
                        self.out.reporter.set(Source::Commit, subject, std::slice::from_ref(diagnostic));
                    }
                    None => tracing::warn!(%owner, "{}: {}", diagnostic.field, diagnostic.message),
                }
            }
        }
        self.commits.truncate(REMEMBERED - 1);
        self.commits.push_front(status::Commit {
            time: jiff::Timestamp::now().to_string(),
            rows: commit.rows,
            bytes: commit.bytes,
            milliseconds: commit.took.as_secs_f64() * 1e3,
            outcome: text,
        });
    }
}
