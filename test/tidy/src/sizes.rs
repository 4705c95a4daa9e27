//! Rule: a production file has at most 600 lines, a test file 900, a function 80. Generated files are exempt.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use crate::Violation;
use crate::source::Source;

const FILE_AIM: usize = 300;
const FILE: usize = 600;
const TEST_FILE: usize = 900;
const FUNCTION: usize = 80;

/// Files and functions that are too long.
pub fn check(source: &Source) -> Vec<Violation> {
    if source.is_generated() {
        return Vec::new();
    }
    let mut out = Functions { path: &source.path, found: Vec::new() };
    let (lines, most) = (source.text.lines().count(), if source.is_test { TEST_FILE } else { FILE });
    if lines > most {
        out.found.push(Violation::new(&source.path, 0, format!("{lines} lines, at most {most}: split it by idea")));
    }
    out.visit_file(&source.syntax);
    out.found
}

/// True for a production file above the aim of the house style.
pub fn is_long(source: &Source) -> bool {
    !source.is_generated() && !source.is_test && source.text.lines().count() > FILE_AIM
}

struct Functions<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let line = |span: Span| (span.start().line, span.end().line);
        let (start, end) = (line(signature.span()).0, line(block.span()).1);
        let lines = end + 1 - start;
        if lines > FUNCTION {
            let text = format!("fn {} has {lines} lines, at most {FUNCTION}: split it", signature.ident);
            self.found.push(Violation::new(self.path, start, text));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    #[test]
    fn counts_lines_of_files_and_functions() {
        let function = |lines: usize| format!("impl A {{\nfn f() {{\n{}}}\n}}\n", "g();\n".repeat(lines - 2));
        assert!(check(&source::of("a.rs", &function(80))).is_empty());
        assert_eq!(check(&source::of("a.rs", &function(81)))[0].line, 2);

        let file = |lines: usize| "//\n".repeat(lines);
        assert!(check(&source::of("a.rs", &file(600))).is_empty());
        assert_eq!(check(&source::of("a.rs", &file(601))).len(), 1);
        assert!(check(&source::of("tests/a.rs", &file(900))).is_empty());
        assert_eq!(check(&source::of("tests/a.rs", &file(901))).len(), 1);
        assert!(check(&source::of("schema/src/generated/a.rs", &file(901))).is_empty());
    }
}
