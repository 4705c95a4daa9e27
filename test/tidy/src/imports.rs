//! Rule: the import law of ARCHITECTURE.md. A crate imports only what stands in its line.
//!
//! It holds for `[dependencies]` and `[build-dependencies]`; tests of a crate may use more, but code outside `test/` may not
//! lean on a crate of `test/` in any other way.

use crate::Violation;
use crate::files::Files;
use crate::versions::{Manifest, manifests};

/// Crates of the workspace, and what each may import of the workspace.
const LAW: &[(&str, &[&str])] = &[
    ("ovsdb", &[]),
    ("schema", &["ovsdb"]),
    ("schema/generate", &[]),
    ("reconcile", &["ovsdb"]),
    ("api", &[]),
    ("nft", &[]),
    ("topology", &["ovenbird-schema", "ovenbird-reconcile", "ovsdb", "ovenbird-api"]),
    (
        "classic",
        &["ovenbird-topology", "ovenbird-nft", "ovenbird-schema", "ovenbird-reconcile", "ovsdb", "ovenbird-api"],
    ),
    ("daemon", &[]),
    ("watch", &["ovenbird-daemon", "ovenbird-topology", "ovsdb", "ovenbird-api"]),
    (
        "master",
        &[
            "ovenbird-daemon",
            "ovenbird-watch",
            "ovenbird-topology",
            "ovenbird-reconcile",
            "ovenbird-schema",
            "ovsdb",
            "ovenbird-api",
        ],
    ),
    ("cni-server", &["ovenbird-api"]),
    ("cni-server/shim", &[]),
    (
        "node",
        &[
            "ovenbird-daemon",
            "ovenbird-watch",
            "ovenbird-cni-server",
            "ovenbird-classic",
            "ovenbird-topology",
            "ovenbird-nft",
            "ovenbird-reconcile",
            "ovenbird-schema",
            "ovsdb",
            "ovenbird-api",
        ],
    ),
    ("cli", &["ovenbird-topology", "ovenbird-reconcile", "ovenbird-schema", "ovsdb", "ovenbird-api"]),
];

/// Crates from outside that only some may import: what does I/O stays out of the core.
const RESERVED: &[(&str, &[&str])] = &[
    ("tokio", &["ovsdb", "daemon", "watch", "master", "cni-server", "node", "cli"]),
    ("k8s-openapi", &["topology", "daemon", "watch", "master", "node", "cli"]),
    ("kube", &["daemon", "watch", "master", "node", "cli"]),
    ("nix", &["cni-server", "node"]),
    ("rtnetlink", &["node"]),
];

/// Imports that the law forbids.
pub fn check(files: &Files) -> Vec<Violation> {
    let all = manifests(files);
    let workspace: Vec<&str> = all.iter().filter_map(Manifest::package).collect();
    let mut out = Vec::new();
    for manifest in all.iter().filter(|m| m.package().is_some() && !m.folder.starts_with("test/")) {
        let Some((_, allowed)) = LAW.iter().find(|(folder, _)| *folder == manifest.folder) else {
            out.push(Violation::new(
                &manifest.path,
                0,
                "give this crate its line in the import law (test/tidy/src/imports.rs)",
            ));
            continue;
        };
        for name in ["dependencies", "build-dependencies"].iter().flat_map(|section| manifest.names(section)) {
            let reserved = RESERVED.iter().find(|(crate_name, _)| *crate_name == name);
            let ours = workspace.contains(&name) && !allowed.contains(&name);
            if ours || reserved.is_some_and(|(_, users)| !users.contains(&manifest.folder.as_str())) {
                out.push(Violation::new(&manifest.path, 0, format!("the import law forbids {name} here")));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn holds_the_law() {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let files = files::of(&[
            ("ovsdb/Cargo.toml", &manifest("ovsdb", "[dependencies]\novenbird-schema.workspace = true")),
            (
                "schema/Cargo.toml",
                &manifest("ovenbird-schema", "[dependencies]\novsdb.workspace = true\ntokio = \"1\""),
            ),
            ("reconcile/Cargo.toml", &manifest("ovenbird-reconcile", "[dev-dependencies]\ntokio.workspace = true")),
            ("test/lab/Cargo.toml", &manifest("ovenbird-lab", "[dependencies]\nkube.workspace = true")),
            ("node/Cargo.toml", &manifest("ovenbird-node", "[dependencies]\novenbird-lab.workspace = true")),
            ("extra/Cargo.toml", &manifest("extra", "")),
        ]);
        let found: Vec<String> = check(&files).iter().map(Violation::to_string).collect();
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[0].contains("extra") && found[1].contains("node") && found[2].contains("ovsdb"));
        assert!(found[3].contains("schema") && found[3].contains("tokio"));
    }
}
