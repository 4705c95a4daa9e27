//! What a run came to: ginkgo's report (types.Report as JSON), in counts and a list of the specs that failed.
//!
//! In: the report. Out: tables for people. It must not judge: a spec's state is what ginkgo says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::table::{Colour, Table};

/// As much of a failure's message as a person wants at first.
const MESSAGE_LINES: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
    location: Location,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    file_name: String,
    line_number: u32,
}

/// Specs by how they ended. What was not selected is in none.
#[derive(Debug, Default)]
pub struct Results {
    passed: usize,
    /// Name, message and place.
    failed: Vec<(String, String)>,
    /// Reason and number, of those that found at run time that they do not fit this cluster.
    declined: BTreeMap<String, usize>,
}

impl Results {
    /// Reads ginkgo's report.
    ///
    /// # Errors
    /// When it is not there or not what ginkgo writes.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("reading ginkgo's report {}", file.display()))?;
        let suites: Vec<Suite> = serde_json::from_slice(&text).context("decoding ginkgo's report")?;
        let mut results = Self::default();
        suites.into_iter().flat_map(|suite| suite.spec_reports).for_each(|spec| results.add(spec));
        Ok(results)
    }

    fn add(&mut self, spec: Spec) {
        let is_spec = spec.leaf_node_type == "It";
        match (spec.state.as_str(), spec.failure) {
            ("passed", _) => self.passed += usize::from(is_spec),
            ("skipped" | "pending", None) => {}
            ("skipped" | "pending", Some(failure)) => {
                *self.declined.entry(first_lines(&failure.message, 1)).or_default() += 1;
            }
            (state, failure) => {
                let mut words = spec.container_hierarchy_texts.unwrap_or_default();
                words.push(if is_spec { spec.leaf_node_text } else { spec.leaf_node_type });
                let why = failure.map_or_else(|| state.to_owned(), |failure| failure.text());
                self.failed.push((words.join(" "), why));
            }
        }
    }

    /// Whether specs were run and none failed.
    pub fn good(&self) -> bool {
        self.passed > 0 && self.failed.is_empty()
    }

    /// Counts and failures for a person; `left_out` specs are named by the list of skips.
    pub fn show(&self, left_out: usize) -> String {
        let mut table = Table::new(["specs", "number"]);
        let mut count = |what: &str, number: usize, colour| {
            table.row([(what.to_owned(), Colour::Plain), (number.to_string(), colour)]);
        };
        count("passed", self.passed, Colour::Good);
        count("failed", self.failed.len(), if self.failed.is_empty() { Colour::Plain } else { Colour::Bad });
        count("left out (test/lab/conformance-skips.txt)", left_out, Colour::Plain);
        self.declined.iter().for_each(|(why, number)| count(&format!("declined: {why}"), *number, Colour::Plain));
        let failed: String = self.failed.iter().map(|(name, why)| format!("\nFailed: {name}\n{why}\n")).collect();
        format!("{table}{failed}")
    }
}

impl Failure {
    fn text(&self) -> String {
        let message = first_lines(&self.message, MESSAGE_LINES);
        format!(
            "    {}\n    at {}:{}",
            message.replace('\n', "\n    "),
            self.location.file_name,
            self.location.line_number
        )
    }
}

fn first_lines(text: &str, number: usize) -> String {
    text.lines().filter(|line| !line.trim().is_empty()).take(number).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_are_counted_by_how_they_ended() {
        let spec = |kind: &str, text: &str, state: &str, failure: Option<&str>| {
            json!({"ContainerHierarchyTexts": ["[sig-network]", "DNS"], "LeafNodeType": kind, "LeafNodeText": text, "State": state,
                "Failure": failure.map(|message| json!({"Message": message, "Location": {"FileName": "dns.go", "LineNumber": 7}}))})
        };
        let report = json!([{"SpecReports": [
            spec("It", "works", "passed", None),
            spec("SynchronizedBeforeSuite", "", "passed", None),
            spec("It", "is not selected", "skipped", None),
            spec("It", "needs a cloud", "skipped", Some("only on gce\n\nmore")),
            spec("It", "breaks", "timedout", Some("no answer\n\nfrom 10.96.0.10")),
        ]}]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        fs::write(&file, report.to_string()).unwrap();
        let results = Results::read(&file).unwrap();
        assert!(!results.good());
        assert_eq!((results.passed, results.failed.len()), (1, 1));
        let text = results.show(3);
        assert!(text.contains("declined: only on gce"), "{text}");
        let failed = "Failed: [sig-network] DNS breaks\n    no answer\n    from 10.96.0.10\n    at dns.go:7\n";
        assert!(text.contains(failed), "{text}");
    }
}
