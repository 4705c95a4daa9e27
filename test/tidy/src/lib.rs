//! The rules of this repository that a compiler does not hold: a list of functions from text to violations.
//!
//! ```text
//! repository --[files]--> (path, text) --[source]--> parsed sources --[one file per rule]--> violations
//! ```
//!
//! `tests/repository.rs` runs them all. A new rule is one file with one function, its own test of a text that breaks it, and
//! one line in [`check`]. Must not: change files, or run anything.

mod attributes;
pub mod files;
mod headers;
mod imports;
mod makefile;
mod orphans;
mod panics;
mod purity;
mod sizes;
pub mod source;
mod tree;
mod unused;
mod versions;
mod words;

use files::Files;

/// A rule that is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path from the root of the repository.
    pub path: String,
    /// Line, from 1; 0 is the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Violation {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line, text: text.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// What the rules say of a repository.
pub struct Report {
    /// All violations, sorted by place.
    pub violations: Vec<Violation>,
    /// Number of production files above the aim of 300 lines.
    pub long_files: usize,
}

/// Runs all rules.
pub fn check(files: &Files) -> Report {
    let reached = tree::reach(files);
    let (sources, mut out) = source::parse(files, &reached);
    out.extend(imports::check(files));
    out.extend(versions::check(files));
    out.extend(orphans::check(files, &reached));
    out.extend(makefile::check(files));
    out.extend(unused::check(files));
    out.extend(words::check(files));
    for rule in [attributes::check, headers::check, panics::check, purity::check, sizes::check] {
        out.extend(sources.iter().flat_map(rule));
    }
    out.sort();
    Report { violations: out, long_files: sources.iter().filter(|s| sizes::is_long(s)).count() }
}
