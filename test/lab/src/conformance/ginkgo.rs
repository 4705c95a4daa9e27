//! Ginkgo's command line and what it prints: which specs there are, and each as it ends.
//!
//! In: arguments, lines. Out: counts, a line for a person per spec that has ended. It must not read reports: those are `report`'s.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ovenbird_kube::Cache;

/// How many specs of upstream's binary match `focus` and none of the patterns in `skip`.
///
/// # Errors
/// When `focus` is not a regular expression of Go.
pub fn count(cache: &Cache, focus: &str, skip: &[String]) -> Result<usize> {
    let mut command = Command::new(cache.bin().join("e2e.test"));
    command.args(["--ginkgo.dry-run", "--ginkgo.no-color", &format!("--ginkgo.focus={focus}")]);
    command.args(skip.iter().map(|pattern| format!("--ginkgo.skip={pattern}")));
    let output = command.output().context("asking e2e.test for its specs")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if let Some(line) = said.lines().find(|line| line.starts_with("panic: regexp")) {
        bail!("--focus {focus}: {line}");
    }
    let number = said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok());
    number.context("e2e.test does not say how many specs there are")
}

/// A spec that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    outcome: String,
    seconds: String,
    name: String,
}

/// Copies ginkgo's output to `log`, and says on stderr how far it is of `total`.
///
/// # Errors
/// When the log cannot be written.
pub fn follow(output: impl Read, mut log: File, total: usize) -> Result<()> {
    let (mut reader, mut parser, mut done, mut line) = (BufReader::new(output), Parser::default(), 0, Vec::new());
    while reader.read_until(b'\n', &mut line).context("reading what ginkgo prints")? > 0 {
        log.write_all(&line).context("writing ginkgo's log")?;
        if let Some(Ended { outcome, seconds, name }) = parser.line(String::from_utf8_lossy(&line).trim_end()) {
            done += 1;
            eprintln!("{done:>4}/{total}  {outcome:<8} {seconds:>8} s  {name}");
        }
        line.clear();
    }
    Ok(())
}

/// Finds the ends of specs: a line such as `• [FAILED] [1.5 seconds]`, and the spec's name in the line after it.
#[derive(Default)]
struct Parser {
    ended: Option<(String, String)>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Option<Ended> {
        if let Some((outcome, seconds)) = self.ended.take() {
            // The name's labels follow it once more; a failure names the node that failed.
            let name = line.rsplit_once(" [").map_or(line, |(name, _)| name).replace(" [It]", "");
            return Some(Ended { outcome, seconds, name });
        }
        let (marks, seconds) = line.strip_suffix(" seconds]")?.rsplit_once('[')?;
        let outcome = match marks.strip_prefix("• ").or_else(|| marks.strip_prefix("S "))?.trim() {
            "" => "passed".to_owned(),
            mark => mark.trim_matches(['[', ']']).to_lowercase(),
        };
        self.ended = Some((outcome, seconds.to_owned()));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_specs_are_seen() {
        let output = "[ReportBeforeSuite] PASSED [0.002 seconds]\n[ReportBeforeSuite] \n• [0.3 seconds]\n\
                      [sig-network] DNS works [Conformance] [sig-network, Conformance]\nx.go:1\n\
                      • [FAILED] [43.633 seconds]\n[sig-network] HostPort [It] validates [sig-network]\n\
                      S [SKIPPED] [0.1 seconds]\n[sig-apps] X [It] y [sig-apps]\n";
        let mut parser = Parser::default();
        let seen: Vec<_> = output.lines().filter_map(|line| parser.line(line)).collect();
        let ended = |outcome: &str, seconds: &str, name: &str| Ended {
            outcome: outcome.into(),
            seconds: seconds.into(),
            name: name.into(),
        };
        assert_eq!(
            seen,
            [
                ended("passed", "0.3", "[sig-network] DNS works [Conformance]"),
                ended("failed", "43.633", "[sig-network] HostPort validates"),
                ended("skipped", "0.1", "[sig-apps] X y"),
            ]
        );
    }
}
