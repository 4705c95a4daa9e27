//! Rule: core crates do no I/O, read no clock and use no randomness (ARCHITECTURE.md, invariant 1).
//!
//! Looks at paths in production code. The client task of `ovsdb` is the exception, so that crate is left to reviews.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ItemMod, ItemUse, Path, UseTree};

use crate::Violation;
use crate::source::Source;
use crate::tree::is_cfg_test;

const CORE: &[&str] = &["api/src/", "classic/src/", "nft/src/", "reconcile/src/", "schema/src/", "topology/src/"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::io::stdin",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "Uuid::new_v4",
];

/// Paths that lead out of the pure world.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut paths = Paths { path: &source.path, found: Vec::new() };
    if !source.is_test && CORE.iter().any(|folder| source.path.starts_with(folder)) {
        paths.visit_file(&source.syntax);
    }
    paths.found
}

struct Paths<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl Paths<'_> {
    fn judge(&mut self, path: &str, line: usize) {
        let inside = |impure: &str| path == impure || path.starts_with(&format!("{impure}::"));
        if let Some(impure) = IMPURE.iter().find(|impure| inside(impure)) {
            let text = format!("`{impure}` in a core crate: take the value as an argument");
            self.found.push(Violation::new(self.path, line, text));
        }
    }

    fn tree(&mut self, tree: &UseTree, above: &str) {
        let below = |name: &syn::Ident| if above.is_empty() { name.to_string() } else { format!("{above}::{name}") };
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &below(&path.ident)),
            UseTree::Name(name) => self.judge(&below(&name.ident), name.span().start().line),
            UseTree::Rename(name) => self.judge(&below(&name.ident), name.span().start().line),
            UseTree::Glob(glob) => self.judge(above, glob.span().start().line),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, above)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, "");
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.judge(&names.join("::"), path.span().start().line);
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    #[test]
    fn finds_ways_out_of_core_crates() {
        let text = "use std::{net::IpAddr, fs::{self, File}};\nfn a() { Instant::now(); std::net::Ipv4Addr::LOCALHOST; }\n\
                    #[cfg(test)] mod tests { use std::fs; }";
        let lines: Vec<usize> = check(&source::of("reconcile/src/a.rs", text)).iter().map(|v| v.line).collect();
        assert_eq!(lines, [1, 1, 2]);
        assert!(check(&source::of("node/src/a.rs", text)).is_empty());
    }
}
