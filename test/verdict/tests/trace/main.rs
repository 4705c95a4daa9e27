//! The third voice: of random clusters, real northd and ovn-trace say what the reference and the interpreter of rows say.
//!
//! `PROPTEST_CASES` asks for more clusters, `OVENBIRD_TEST_OVN` for another OVN: on a schema with tiers of ACLs, the rows have them. It prints how
//! many packets were traced in a minute.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod ovn;
mod rpc;

use std::cell::RefCell;
use std::fmt::Debug;
use std::time::Instant;

use ovenbird_reconcile::WholeRow;
use ovenbird_verdict::generate::{self, Case, admin};
use ovenbird_verdict::{Packet, Rows, translate};
use ovn::Ovn;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Packets traced.
#[derive(Default)]
struct Count {
    packets: usize,
    replies: usize,
}

/// A cluster, with what the reference says of it.
trait Judged: Debug {
    fn rows(&self, tiers: bool) -> Vec<WholeRow>;
    fn packets(&self) -> &[Packet];
    /// Whether a packet arrives, and why.
    fn verdict(&self, packet: &Packet) -> (bool, String);
}

impl Judged for Case {
    fn rows(&self, tiers: bool) -> Vec<WholeRow> {
        translate::rows(self, tiers).unwrap()
    }

    fn packets(&self) -> &[Packet] {
        &self.packets
    }

    fn verdict(&self, packet: &Packet) -> (bool, String) {
        let verdict = self.cluster.verdict(packet);
        (verdict.allowed, format!("{verdict:?}"))
    }
}

impl Judged for admin::Case {
    fn rows(&self, tiers: bool) -> Vec<WholeRow> {
        translate::admin_rows(self, tiers).unwrap()
    }

    fn packets(&self) -> &[Packet] {
        &self.base.packets
    }

    fn verdict(&self, packet: &Packet) -> (bool, String) {
        let verdict = self.tiers().verdict(packet);
        (verdict.allowed, format!("{verdict:?}"))
    }
}

fn faults(ovn: &mut Ovn, count: &mut Count, case: &impl Judged) -> Result<(), String> {
    let rows = case.rows(ovn.has_acl_tiers());
    ovn.hold(&rows);
    let rows = Rows::read(&rows).map_err(|e| e.to_string())?;
    for packet in case.packets() {
        // What a pod sends to itself takes a load balancer to come back.
        let Some(way) = rows.way(packet.source, packet.destination).filter(|_| packet.source != packet.destination)
        else {
            continue;
        };
        let arrives = |text: &str, outport: &str| text.contains(&format!("output to \"{outport}\""));
        let ((allowed, why), outcome) = (case.verdict(packet), rows.judge(packet).map_err(|e| e.to_string())?);
        let trace = ovn.trace(packet, &way);
        count.packets += 1;
        let traced = arrives(&trace, way.outport);
        if [allowed, outcome.allowed] != [traced; 2] {
            return Err(format!("{packet}: reference {why}, rows {}, ovn-trace {traced}:\n{trace}", outcome.allowed));
        }
        let reply = Packet {
            source: packet.destination,
            destination: packet.source,
            source_port: packet.port,
            port: packet.source_port,
            ..*packet
        };
        let Some(back) = rows.way(reply.source, reply.destination).filter(|_| traced) else { continue };
        let trace = ovn.trace_reply(&reply, &back);
        count.replies += 1;
        if !arrives(&trace, back.outport) {
            return Err(format!("the answer to {packet} is lost:\n{trace}"));
        }
    }
    Ok(())
}

fn trace<C: Judged>(clusters: u32, cases: &impl Strategy<Value = C>) {
    let Some(ovn) = Ovn::start() else { return };
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() };
    let config = if asked { default } else { ProptestConfig { cases: clusters, ..default } };
    let (ovn, count) = (RefCell::new(ovn), RefCell::new(Count::default()));
    let start = Instant::now();
    let result = TestRunner::new(config)
        .run(cases, |case| faults(&mut ovn.borrow_mut(), &mut count.borrow_mut(), &case).map_err(TestCaseError::fail));
    let Count { packets, replies } = count.into_inner();
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let tiers = if ovn.borrow().has_acl_tiers() { "with" } else { "without" };
    let rate = (packets + replies) as f64 / minutes;
    println!("{packets} packets and {replies} answers {tiers} tiers of ACLs: {rate:.0} in a minute");
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(packets > 0);
}

#[test]
fn ovn_trace_says_what_the_reference_and_the_rows_say() {
    trace(30, &generate::case());
}

#[test]
fn ovn_trace_says_the_same_of_admin_policies() {
    trace(30, &admin::case());
}
