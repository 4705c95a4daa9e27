//! Rule: no text names somebody's machine, and nothing is left "to do" in a comment: that is what issues are for.

use crate::Violation;
use crate::files::Files;

/// Words that no file has, but for this one.
const WORDS: &[(&str, &str)] = &[
    ("/home/", "a path of somebody's machine: find it at run time"),
    ("/root/", "a path of somebody's machine: find it at run time"),
    ("/work/", "a path of somebody's machine: find it at run time"),
    ("FIXME", "mend it, or file an issue"),
    ("TODO", "do it, or file an issue"),
    ("XXX ", "say what is meant, or file an issue"),
];
const OWN: &str = "test/tidy/src/words.rs";

/// Lines with such a word.
pub fn check(files: &Files) -> Vec<Violation> {
    let mut out = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| *path != OWN && *path != "Cargo.lock") {
        for (i, line) in text.lines().enumerate() {
            let found = WORDS.iter().filter(|(word, _)| line.contains(word));
            out.extend(found.map(|(word, advice)| Violation::new(path, i + 1, format!("`{word}`: {advice}"))));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn finds_words() {
        let files = files::of(&[("a.md", "fine\nsee /home/me/notes"), ("b.rs", "// TODO later"), (OWN, "TODO")]);
        let found: Vec<(String, usize)> = check(&files).into_iter().map(|v| (v.path, v.line)).collect();
        assert_eq!(found, [("a.md".to_owned(), 2), ("b.rs".to_owned(), 1)]);
    }
}
