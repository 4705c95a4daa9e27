//! The repository as a map from path to text.
//!
//! Input: the root folder. Output: every text file below it but build output and hidden folders. The rules see nothing else,
//! so a test of a rule is a small map.

use std::collections::BTreeMap;
use std::path::Path;

/// Text by path from the root, with `/` between folders.
pub type Files = BTreeMap<String, String>;

/// Folders of build output and downloads.
const SKIPPED: &[&str] = &["target", "corpus", "artifacts", "node_modules"];

/// Reads the repository. Files that are not UTF-8 are left out.
pub fn load(root: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            let skipped = SKIPPED.contains(&name.as_str()) || name.starts_with('.') && name != ".ci";
            if kind.is_dir() && !skipped {
                folders.push(path);
            } else if kind.is_file()
                && !skipped
                && let Ok(text) = String::from_utf8(std::fs::read(entry.path())?)
            {
                files.insert(path, text);
            }
        }
    }
    Ok(files)
}

/// A map of a few files, for tests of rules.
#[cfg(test)]
pub(crate) fn of(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}
