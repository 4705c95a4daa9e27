//! Runs all rules on this repository.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = ovenbird_tidy::files::load(&root).unwrap();
    let report = ovenbird_tidy::check(&files);
    println!("{} production files have more than 300 lines", report.long_files);
    let violations: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
