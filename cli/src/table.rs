//! Aligned tables for people.
//!
//! Must not: know what is in them.

use std::fmt::Write as _;

/// Lines of a table of people's size.
const LINES: usize = 20;

/// Appends an aligned table; nothing when it has no rows.
pub fn table(out: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let more = rows.len().saturating_sub(LINES);
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(ToString::to_string).collect()];
    lines.extend(rows.into_iter().take(LINES));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    out.push('\n');
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "... and {more} more (--output json shows all)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tables_end_with_a_count() {
        let mut out = String::new();
        table(&mut out, &["A"], (0..LINES + 3).map(|i| vec![i.to_string()]).collect());
        assert!(out.ends_with("... and 3 more (--output json shows all)\n"), "{out}");
    }
}
