//! Rule: one version per dependency. Members say `workspace = true`; the version stands in the root's `Cargo.toml` alone.

use toml::{Table, Value};

use crate::Violation;
use crate::files::Files;

/// A folder with a workspace of its own, which cannot inherit.
const OWN_WORKSPACE: &str = "test/fuzz/cargo-fuzz";
/// Dependencies with an own feature set: folder and name. The manifest says why.
const EXCEPTIONS: &[(&str, &str)] = &[("cni-server/shim", "serde_json")];
pub(crate) const SECTIONS: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// A `Cargo.toml`.
pub struct Manifest {
    /// Path from the root.
    pub path: String,
    /// Folder from the root; empty for the root itself.
    pub folder: String,
    table: Table,
}

impl Manifest {
    /// Name of the package, if it is one.
    pub fn package(&self) -> Option<&str> {
        self.table.get("package")?.get("name")?.as_str()
    }

    /// Names of dependencies in a section.
    pub fn names(&self, section: &str) -> impl Iterator<Item = &str> {
        self.section(section).map(|(name, _)| name)
    }

    fn section(&self, section: &str) -> impl Iterator<Item = (&str, &Value)> {
        let table = self.table.get(section).and_then(Value::as_table);
        table.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }
}

/// All manifests. One that does not parse is Cargo's to complain of.
pub fn manifests(files: &Files) -> Vec<Manifest> {
    let manifest = |(path, text): (&String, &String)| {
        let folder = path.strip_suffix("Cargo.toml")?.trim_end_matches('/').to_owned();
        Some(Manifest { path: path.clone(), folder, table: text.parse().ok()? })
    };
    files.iter().filter_map(manifest).collect()
}

/// Versions outside the root, and workspace dependencies that nobody uses.
pub fn check(files: &Files) -> Vec<Violation> {
    let all = manifests(files);
    let members: Vec<&Manifest> = all.iter().filter(|m| m.package().is_some() && m.folder != OWN_WORKSPACE).collect();
    let mut out = Vec::new();
    for member in &members {
        for (name, value) in SECTIONS.iter().flat_map(|section| member.section(section)) {
            let exempt = EXCEPTIONS.contains(&(member.folder.as_str(), name));
            if !exempt && value.get("workspace") != Some(&Value::Boolean(true)) {
                out.push(Violation::new(
                    &member.path,
                    0,
                    format!("say `{name}.workspace = true`; its version stands in the root"),
                ));
            }
        }
    }
    let root = all.iter().find(|m| m.folder.is_empty());
    let shared = root.and_then(|r| r.table.get("workspace")?.get("dependencies")?.as_table());
    let foreign = shared.into_iter().flatten().filter(|(_, value)| value.get("path").is_none());
    for (name, _) in foreign {
        let used = members.iter().any(|m| SECTIONS.iter().any(|s| m.names(s).any(|n| n == name)));
        if !used {
            out.push(Violation::new("Cargo.toml", 0, format!("no crate uses {name}: delete it")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn versions_stand_in_the_root() {
        let files = files::of(&[
            ("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\nunused = \"1\""),
            ("a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\ntoml = \"1\""),
        ]);
        let found: Vec<String> = check(&files).iter().map(Violation::to_string).collect();
        assert!(found[0].contains("toml.workspace") && found[1].contains("unused"), "{found:?}");
    }
}
