//! Rule: each target of the Makefile says what it is for (`target: ## text`), and README.md or CONTRIBUTING.md names it.

use crate::Violation;
use crate::files::Files;

const MAKEFILE: &str = "Makefile";

/// Targets without a text, or that no page names.
pub fn check(files: &Files) -> Vec<Violation> {
    let mut out = Vec::new();
    let page = |name| files.get(name).map_or("", String::as_str);
    for (i, line) in page(MAKEFILE).lines().enumerate() {
        let Some((target, rest)) = line.split_once(':') else { continue };
        let is_target = target.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) && !rest.starts_with('=');
        if target.is_empty() || !is_target {
            continue;
        }
        if rest.split_once("## ").is_none_or(|(_, text)| text.trim().is_empty()) {
            out.push(Violation::new(MAKEFILE, i + 1, format!("say behind `## ` what `make {target}` is for")));
        }
        let named = |text: &str| {
            text.match_indices(&format!("make {target}")).any(|(at, found)| ends_word(text, at + found.len()))
        };
        if !["README.md", "CONTRIBUTING.md"].iter().any(|name| named(page(name))) {
            out.push(Violation::new(MAKEFILE, i + 1, format!("name `make {target}` in CONTRIBUTING.md")));
        }
    }
    out
}

fn ends_word(text: &str, at: usize) -> bool {
    !text[at..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn targets_are_documented() {
        let makefile = ".PHONY: a b\nX := 1\ndemo: ## the demo\n\techo a: b\nlint: deps\nbench: ## figures\n";
        let files = files::of(&[("Makefile", makefile), ("README.md", "`make demo`, `make lint`, `make benches`")]);
        let lines: Vec<usize> = check(&files).iter().map(|v| v.line).collect();
        assert_eq!(lines, [5, 6]);
    }
}
