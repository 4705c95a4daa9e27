//! Rule: a crate uses what it declares. A dependency that no source of the crate names is built for nothing.

use crate::Violation;
use crate::files::Files;
use crate::versions::{Manifest, SECTIONS, manifests};

/// Dependencies whose name occurs in no source below the manifest's folder.
pub fn check(files: &Files) -> Vec<Violation> {
    let all = manifests(files);
    let members: Vec<&Manifest> = all.iter().filter(|m| m.package().is_some()).collect();
    let mut out = Vec::new();
    for member in &members {
        let nested =
            |path: &str| members.iter().any(|m| m.folder.len() > member.folder.len() && below(path, &m.folder));
        let own =
            files.iter().filter(|(path, _)| path.ends_with(".rs") && below(path, &member.folder) && !nested(path));
        let texts: Vec<&str> = own.map(|(_, text)| text.as_str()).collect();
        for name in SECTIONS.iter().flat_map(|section| member.names(section)) {
            let ident = name.replace('-', "_");
            if !texts.iter().any(|text| names(text, &ident)) {
                out.push(Violation::new(&member.path, 0, format!("no source of this crate names {name}: delete it")));
            }
        }
    }
    out
}

fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// True when `ident` stands in the text as a word.
fn names(text: &str, ident: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    text.match_indices(ident)
        .any(|(at, _)| edge(text[..at].chars().next_back()) && edge(text[at + ident.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn finds_what_no_source_names() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nserde-json.workspace = true\ntoml.workspace = true";
        let files = files::of(&[
            ("a/Cargo.toml", manifest),
            ("a/src/lib.rs", "use serde_json::Value; // toml_edit"),
            ("a/inner/Cargo.toml", "[package]\nname = \"b\""),
            ("a/inner/src/lib.rs", "use toml::Value;"),
        ]);
        let found: Vec<String> = check(&files).iter().map(Violation::to_string).collect();
        assert!(found.len() == 1 && found[0].contains("toml"), "{found:?}");
    }
}
