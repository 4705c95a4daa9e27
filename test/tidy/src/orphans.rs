//! Rule: every `.rs` file is reached by a build. A test file that no module declares silently never runs.

use crate::Violation;
use crate::files::Files;
use crate::tree::Reached;

/// Files that nothing reaches.
pub fn check(files: &Files, reached: &Reached) -> Vec<Violation> {
    let orphans = files.keys().filter(|path| path.ends_with(".rs") && !reached.contains_key(*path));
    orphans
        .map(|path| Violation::new(path, 0, "no crate root or `mod` reaches this file: declare or delete it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files, tree};

    #[test]
    fn finds_what_nothing_declares() {
        let files = files::of(&[
            ("a/Cargo.toml", "[[bin]]\npath = \"odd/start.rs\""),
            ("a/odd/start.rs", ""),
            ("a/src/lib.rs", "mod b;\nmod inner { mod c; }\n#[path = \"x/d_tests.rs\"]\nmod d;"),
            ("a/src/b.rs", "mod below;"),
            ("a/src/b/below.rs", ""),
            ("a/src/b/lost.rs", ""),
            ("a/src/inner/c.rs", ""),
            ("a/src/x/d_tests.rs", ""),
            ("a/tests/one.rs", "mod common;"),
            ("a/tests/common/mod.rs", ""),
            ("a/tests/data/lost.rs", ""),
            ("a/src/bin/tool/main.rs", ""),
        ]);
        let paths: Vec<String> = check(&files, &tree::reach(&files)).into_iter().map(|v| v.path).collect();
        assert_eq!(paths, ["a/src/b/lost.rs", "a/tests/data/lost.rs"]);
    }

    #[test]
    fn knows_what_only_tests_reach() {
        let lib = "#[cfg(test)]\nmod a_tests;\nmod b;";
        let files = files::of(&[("Cargo.toml", ""), ("src/lib.rs", lib), ("src/a_tests.rs", ""), ("src/b.rs", "")]);
        let reached = tree::reach(&files);
        assert_eq!((reached["src/a_tests.rs"], reached["src/b.rs"]), (true, false));
    }
}
