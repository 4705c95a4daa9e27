//! Rule: every `#[allow]` and `#[expect]` says why.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta};

use crate::Violation;
use crate::source::Source;

/// Attributes without a reason.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut attributes = Attributes { path: &source.path, found: Vec::new() };
    attributes.visit_file(&source.syntax);
    attributes.found
}

struct Attributes<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl<'ast> Visit<'ast> for Attributes<'_> {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let lint_level = attribute.path().is_ident("allow") || attribute.path().is_ident("expect");
        if let (true, Meta::List(list)) = (lint_level, &attribute.meta)
            && !list.tokens.to_string().contains("reason =")
        {
            let line = attribute.span().start().line;
            self.found.push(Violation::new(self.path, line, "give a `reason = \"...\"`, or better, need no exception"));
        }
        visit::visit_attribute(self, attribute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    #[test]
    fn wants_a_reason() {
        let text = "#[allow(dead_code, reason = \"read by tests\")]\nfn a() {}\n#[expect(dead_code)]\nfn b() {}";
        let lines: Vec<usize> = check(&source::of("a.rs", text)).iter().map(|v| v.line).collect();
        assert_eq!(lines, [3]);
        assert_eq!(check(&source::of("a.rs", "#![allow(unused)]")).len(), 1);
    }
}
