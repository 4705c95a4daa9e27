//! Rule: every `.rs` file opens with a `//!` header that says what it is for.

use crate::Violation;
use crate::source::Source;

/// A file whose first line is no header.
pub fn check(source: &Source) -> Vec<Violation> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") {
        return Vec::new();
    }
    vec![Violation::new(&source.path, 1, "open the file with a `//!` header: what it is for, what it must not do")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    #[test]
    fn wants_a_header() {
        assert!(check(&source::of("a.rs", "//! What it is.\nfn a() {}")).is_empty());
        assert_eq!(check(&source::of("a.rs", "// What it is.\nfn a() {}")).len(), 1);
        assert_eq!(check(&source::of("a.rs", "")).len(), 1);
    }
}
