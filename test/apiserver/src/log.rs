//! The file that outlives the process: an append-only log of writes, one line each.
//!
//! ```text
//! ovenbird-apiserver 1 1234                   first line: format, resourceVersion of the snapshot that follows
//! S pods {"apiVersion":"v1",...}              an object of the snapshot
//! P deployments.apps {...}                    a write after the snapshot: new state
//! D pods {...}                                a deletion: last state under the version of the deletion
//! ```
//!
//! A line is written by one write(2) and not synced: it survives the death of the process, not of the machine. A last
//! line without its newline is a write that was cut off: it is dropped. Any other damage is an error, not a guess.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

const MAGIC: &str = "ovenbird-apiserver 1 ";

/// Why the data file cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot {step} the data file {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("line {line} of the data file {path} is damaged: {why}; move the file away to start empty")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// What a line of the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Snapshot,
    Put,
    Delete,
}

impl Record {
    fn letter(self) -> &'static str {
        match self {
            Self::Snapshot => "S",
            Self::Put => "P",
            Self::Delete => "D",
        }
    }

    fn parse(letter: &str) -> Option<Self> {
        [Self::Snapshot, Self::Put, Self::Delete].into_iter().find(|record| record.letter() == letter)
    }
}

/// One line of the log.
pub(crate) enum Line<'a> {
    /// The first: the version at which the snapshot was taken.
    Start(u64),
    /// The record, its collection and the object.
    Record(Record, &'a str, &'a str),
}

impl<'a> Line<'a> {
    fn parse(text: &'a str, first: bool) -> Result<Self, String> {
        if first {
            let version = text.strip_prefix(MAGIC).and_then(|version| version.parse().ok());
            return version.map(Line::Start).ok_or_else(|| "it does not name the format".to_owned());
        }
        let mut parts = text.splitn(3, ' ');
        let record = parts.next().and_then(Record::parse);
        let (Some(record), Some(collection), Some(json)) = (record, parts.next(), parts.next()) else {
            return Err("it is no record".to_owned());
        };
        Ok(Line::Record(record, collection, json))
    }
}

/// An open log, at its end.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    length: u64,
    line: Vec<u8>,
}

impl Log {
    /// Reads the log and hands it to `visit` line by line. A missing file is an empty log.
    pub(crate) fn read(path: &Path, mut visit: impl FnMut(Line<'_>) -> Result<(), String>) -> Result<(), LogError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(io_error("open", path, source)),
        };
        let (mut reader, mut text, mut line) = (BufReader::with_capacity(1 << 20, file), Vec::new(), 0);
        loop {
            text.clear();
            reader.read_until(b'\n', &mut text).map_err(|source| io_error("read", path, source))?;
            let Some(whole) = text.strip_suffix(b"\n") else { return Ok(()) };
            line += 1;
            let damaged = |why: String| LogError::Damaged { path: path.to_owned(), line, why };
            let parsed = std::str::from_utf8(whole).map_err(|error| error.to_string());
            parsed.and_then(|whole| Line::parse(whole, line == 1)).and_then(&mut visit).map_err(damaged)?;
        }
    }

    /// Replaces the log by a snapshot, atomically, and opens it for appending.
    pub(crate) fn rewrite<'a>(
        path: &Path,
        version: u64,
        objects: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, LogError> {
        let temporary = path.with_extension("new");
        let fail = |step| move |source| io_error(step, path, source);
        let mut out = BufWriter::new(File::create(&temporary).map_err(fail("create"))?);
        writeln!(out, "{MAGIC}{version}").map_err(fail("write"))?;
        let mut line = Vec::new();
        for (collection, json) in objects {
            encode(&mut line, Record::Snapshot, collection, json);
            out.write_all(&line).map_err(fail("write"))?;
        }
        out.flush().map_err(fail("write"))?;
        fs::rename(&temporary, path).map_err(fail("replace"))?;
        let file = OpenOptions::new().append(true).open(path).map_err(fail("open"))?;
        let length = file.metadata().map_err(fail("open"))?.len();
        Ok(Self { file, length, line })
    }

    /// Appends one record, or nothing: what a failed write left behind is cut off.
    pub(crate) fn append(&mut self, record: Record, collection: &str, json: &[u8]) -> io::Result<()> {
        encode(&mut self.line, record, collection, json);
        if let Err(error) = self.file.write_all(&self.line) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.line.len() as u64;
        Ok(())
    }
}

fn encode(line: &mut Vec<u8>, record: Record, collection: &str, json: &[u8]) {
    line.clear();
    for part in [record.letter().as_bytes(), b" ", collection.as_bytes(), b" ", json, b"\n"] {
        line.extend_from_slice(part);
    }
}

fn io_error(step: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_line_is_a_record_or_damage(text in ".*", first in any::<bool>()) {
            let _ = Line::parse(&text, first);
        }

        #[test]
        fn what_is_encoded_is_parsed(id in "[a-z.]{1,20}", json in "\\{[^\n]*\\}") {
            let mut line = Vec::new();
            encode(&mut line, Record::Delete, &id, json.as_bytes());
            let text = std::str::from_utf8(&line).unwrap().strip_suffix('\n').unwrap();
            let Ok(Line::Record(Record::Delete, found, body)) = Line::parse(text, false) else { panic!("{text}") };
            prop_assert_eq!((found, body), (id.as_str(), json.as_str()));
        }
    }
}
