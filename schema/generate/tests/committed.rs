//! The committed source is what the generator makes of the committed inputs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ovenbird_schema_generate::generate;

/// Every file below `root`, by its path from there.
fn files(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                out.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    out
}

#[test]
fn committed_source_is_not_stale() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let fresh = tempfile::tempdir().unwrap();
    generate(&schema, fresh.path()).unwrap();
    let (committed, fresh) = (files(&schema.join("src/generated")), files(fresh.path()));
    let names: Vec<_> = committed.keys().chain(fresh.keys()).collect();
    let stale: Vec<_> = names.iter().filter(|name| committed.get(**name) != fresh.get(**name)).collect();
    assert!(stale.is_empty(), "run `make gen` and commit; stale: {stale:?}");
}
