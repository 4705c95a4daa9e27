//! Parsed Rust sources.
//!
//! Input: the files. Output: one [`Source`] per `.rs` file, and a violation for each that does not parse.

use crate::Violation;
use crate::files::Files;
use crate::tree::Reached;

/// Folder of generated code, which is exempt from sizes.
const GENERATED: &str = "schema/src/generated/";

/// One `.rs` file.
pub struct Source {
    /// Path from the root.
    pub path: String,
    /// Text.
    pub text: String,
    /// Syntax tree.
    pub syntax: syn::File,
    /// True when the file is compiled for tests only.
    pub is_test: bool,
}

impl Source {
    /// True for the output of `make gen`.
    pub fn is_generated(&self) -> bool {
        self.path.starts_with(GENERATED)
    }
}

/// Parses every `.rs` file.
pub fn parse(files: &Files, reached: &Reached) -> (Vec<Source>, Vec<Violation>) {
    let (mut sources, mut violations) = (Vec::new(), Vec::new());
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs")) {
        match syn::parse_file(text) {
            Ok(syntax) => {
                // A file that nothing reaches is judged as production code; `orphans` names it.
                let is_test = reached.get(path).copied().unwrap_or(false);
                sources.push(Source { path: path.clone(), text: text.clone(), syntax, is_test });
            }
            Err(error) => violations.push(Violation::new(path, error.span().start().line, format!("{error}"))),
        }
    }
    (sources, violations)
}

/// One source, for tests of rules.
#[cfg(test)]
pub(crate) fn of(path: &str, text: &str) -> Source {
    let syntax = syn::parse_file(text).unwrap();
    Source { path: path.to_owned(), text: text.to_owned(), syntax, is_test: path.contains("tests/") }
}
