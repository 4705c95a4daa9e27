//! Rule: no `unwrap`, `expect`, `panic!` and their like outside tests.
//!
//! Clippy denies them too, but it neither sees into macro calls of every kind nor notices that somebody took the lint away.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ExprMethodCall, ImplItemFn, ItemFn, ItemMod, Macro};

use crate::Violation;
use crate::source::Source;
use crate::tree::is_cfg_test;

const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];
const MACROS: &[&str] = &["panic", "todo", "unimplemented", "dbg"];

/// Calls that can panic by intent.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut calls = Calls { path: &source.path, found: Vec::new() };
    if !source.is_test {
        calls.visit_file(&source.syntax);
    }
    calls.found
}

struct Calls<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl Calls<'_> {
    fn found(&mut self, name: &str, span: Span) {
        let text = format!("`{name}` outside tests: return a typed error or a diagnostic");
        self.found.push(Violation::new(self.path, span.start().line, text));
    }

    /// Looks for `.method(` and `name!` in the body of a macro call, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct = |at: Option<&TokenTree>, c| matches!(at, Some(TokenTree::Punct(p)) if p.as_char() == c);
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    let method = METHODS.contains(&name.as_str()) && i > 0 && punct(tokens.get(i - 1), '.');
                    let call = MACROS.contains(&name.as_str()) && punct(tokens.get(i + 1), '!');
                    if method || call {
                        self.found(&name, ident.span());
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !item.attrs.iter().any(is_test) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let name = call.method.to_string();
        if METHODS.contains(&name.as_str()) {
            self.found(&name, call.method.span());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(segment) = call.path.segments.last() {
            let name = segment.ident.to_string();
            if MACROS.contains(&name.as_str()) {
                self.found(&name, segment.ident.span());
            }
        }
        self.tokens(call.tokens.clone());
    }
}

fn is_test(attribute: &Attribute) -> bool {
    is_cfg_test(attribute) || attribute.path().segments.last().is_some_and(|s| s.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    #[test]
    fn finds_panics_outside_tests() {
        let text = "fn a() {\n x.unwrap();\n panic!(\"no\");\n json!({ \"a\": b.expect(\"c\") });\n x.unwrap_or(1);\n}";
        let lines: Vec<usize> = check(&source::of("src/a.rs", text)).iter().map(|v| v.line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }

    #[test]
    fn lets_tests_panic() {
        let text = "#[cfg(test)] mod tests { fn a() { x.unwrap(); } }\n#[test] fn b() { x.unwrap(); }\n\
                    #[tokio::test] async fn c() { x.unwrap(); }";
        assert!(check(&source::of("src/a.rs", text)).is_empty());
        assert!(check(&source::of("tests/a.rs", "fn a() { x.unwrap(); }")).is_empty());
    }
}
