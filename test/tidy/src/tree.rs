//! Which `.rs` files a build reaches: crate roots of Cargo, then `mod` declarations.
//!
//! Input: the files. Output: the reached paths, each with whether only test builds reach it.

use std::collections::BTreeMap;

use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta};

use crate::files::Files;

/// Whether only tests reach a file, by path.
pub type Reached = BTreeMap<String, bool>;

/// Follows all declarations.
pub fn reach(files: &Files) -> Reached {
    let mut walk = Walk { files, reached: Reached::new() };
    for path in files.keys() {
        let Some(folder) = path.strip_suffix("Cargo.toml") else { continue };
        for file in files.keys().filter(|f| f.starts_with(folder) && f.ends_with(".rs")) {
            let inside = &file[folder.len()..];
            if is_root(inside) || declares(&files[path], inside) {
                walk.file(file, true, inside.starts_with("tests/"));
            }
        }
    }
    walk.reached
}

/// Cargo's own discovery of targets.
fn is_root(inside: &str) -> bool {
    let target = |folder: &str| {
        let name = inside.strip_prefix(folder);
        name.is_some_and(|name| name.split_once('/').is_none_or(|(_, file)| file == "main.rs"))
    };
    matches!(inside, "src/lib.rs" | "src/main.rs" | "build.rs")
        || ["src/bin/", "tests/", "benches/", "examples/"].iter().any(|folder| target(folder))
}

/// True when a manifest names the file as a target's `path`.
fn declares(manifest: &str, inside: &str) -> bool {
    manifest.lines().any(|line| line.trim().strip_prefix("path = ").is_some_and(|p| p.trim_matches('"') == inside))
}

struct Walk<'a> {
    files: &'a Files,
    reached: Reached,
}

impl Walk<'_> {
    fn file(&mut self, path: &str, is_root: bool, is_test: bool) {
        let known = self.reached.get(path).copied();
        if known.is_some_and(|known| !known || is_test) {
            return;
        }
        self.reached.insert(path.to_owned(), is_test);
        let Ok(syntax) = syn::parse_file(self.files.get(path).map_or("", String::as_str)) else { return };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let own = if is_root || name == "mod.rs" { folder.to_owned() } else { path.trim_end_matches(".rs").to_owned() };
        self.items(&syntax.items, folder, &own, is_test);
    }

    /// `beside` is where `#[path]` counts from, `below` where a plain declaration looks.
    fn items(&mut self, items: &[Item], beside: &str, below: &str, is_test: bool) {
        for item in items {
            let Item::Mod(module) = item else { continue };
            let is_test = is_test || module.attrs.iter().any(is_cfg_test);
            let inner = format!("{below}/{}", module.ident);
            match &module.content {
                Some((_, items)) => self.items(items, &inner, &inner, is_test),
                None => self.declaration(module, beside, &inner, is_test),
            }
        }
    }

    fn declaration(&mut self, module: &ItemMod, beside: &str, inner: &str, is_test: bool) {
        let candidates = match module.attrs.iter().find_map(path_of) {
            Some(path) => vec![format!("{beside}/{path}")],
            None => vec![format!("{inner}.rs"), format!("{inner}/mod.rs")],
        };
        for path in candidates.iter().map(|p| p.trim_start_matches('/')).filter(|p| self.files.contains_key(*p)) {
            self.file(path, false, is_test);
        }
    }
}

/// True for `#[cfg(test)]`.
pub fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "test")
}

fn path_of(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    let Expr::Lit(literal) = &pair.value else { return None };
    match &literal.lit {
        Lit::Str(path) if pair.path.is_ident("path") => Some(path.value()),
        _ => None,
    }
}
