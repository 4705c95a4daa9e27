//! Runs every target on random bytes and on edited seeds, a second each; `BOLERO_RANDOM_TEST_TIME_MS` sets another time,
//! `BOLERO_RANDOM_SEED` repeats a failure.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use ovenbird_fuzz::{TARGETS, edit::edited};

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    target.seeds.iter().for_each(|seed| (target.run)(seed));
    bolero::check!(name = name).for_each(|input: &[u8]| {
        (target.run)(input);
        (target.run)(&edited(target.seeds, input));
    });
}

#[test]
fn ovsdb_stream() {
    fuzz("ovsdb_stream");
}

#[test]
fn ovsdb_rows() {
    fuzz("ovsdb_rows");
}

#[test]
fn api_objects() {
    fuzz("api_objects");
}

#[test]
fn cni_input() {
    fuzz("cni_input");
}
