//! The specs that are left out: `test/lab/conformance-skips.txt`, the one place for them, each with its reason.
//!
//! In: that file, built in. Out: skips, and the regular expression by which ginkgo knows them. It must not decide by anything else
//! what is run.

use anyhow::{Context, Result, ensure};

const FILE: &str = include_str!("../../conformance-skips.txt");

/// What follows it in the file holds on clusters of one IP family only.
const SINGLE_STACK: &str = "# On a cluster of one IP family:\n";

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Part of the names of the specs that are left out, literally.
    pub text: String,
    /// Why, in a few words.
    pub reason: String,
    /// Whether it holds on a cluster of one IP family only.
    pub single_stack: bool,
}

/// What the file says.
///
/// # Errors
/// Names the line that has no reason.
pub fn all() -> Result<Vec<Skip>> {
    parse(FILE)
}

fn parse(file: &str) -> Result<Vec<Skip>> {
    let (every, single) =
        file.split_once(SINGLE_STACK).with_context(|| format!("conformance-skips.txt: no `{SINGLE_STACK}`"))?;
    Ok([section(every, false)?, section(single, true)?].concat())
}

fn section(text: &str, single_stack: bool) -> Result<Vec<Skip>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let skip = |line: &str| {
        let columns = line.split_once("  ").map(|(text, reason)| (text.trim(), reason.trim()));
        let (text, reason) =
            columns.with_context(|| format!("conformance-skips.txt: `{line}` has no reason after two spaces"))?;
        ensure!(!reason.is_empty(), "conformance-skips.txt: `{line}` has no reason");
        Ok(Skip { text: text.to_owned(), reason: reason.to_owned(), single_stack })
    };
    lines.map(skip).collect()
}

impl Skip {
    /// The text as a regular expression of Go (regexp/syntax) that matches nothing else.
    pub fn pattern(&self) -> String {
        let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
        self.text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ovenbird_kube::Cache;

    use super::*;

    #[test]
    fn each_skip_has_a_reason() {
        assert!(all().is_ok_and(|skips| skips.iter().any(|skip| skip.single_stack)));
        assert!(section("[Feature:X]", false).is_err());
        assert!(section("[Feature:X] no second space", false).is_err());
    }

    #[test]
    fn a_pattern_is_literal() {
        let skips = section("# why\n\n[Feature:X] works (1.2)   it does not\n", false).unwrap();
        assert_eq!(
            (skips[0].pattern().as_str(), skips[0].reason.as_str()),
            (r"\[Feature:X\] works \(1\.2\)", "it does not")
        );
    }

    #[test]
    fn each_skip_is_part_of_the_name_of_a_spec() {
        let Ok(cache) = Cache::ready() else {
            eprintln!("SKIP: Kubernetes is not built, so its specs are unknown; `make kube-build` builds it");
            return;
        };
        let output = Command::new(cache.bin().join("e2e.test")).arg("--list-tests").output().unwrap();
        let specs = String::from_utf8(output.stdout).unwrap();
        let dead: Vec<_> = all().unwrap().into_iter().filter(|skip| !specs.contains(&skip.text)).collect();
        assert!(dead.is_empty(), "no spec has these in its name, so their lines must go: {dead:?}");
    }
}
