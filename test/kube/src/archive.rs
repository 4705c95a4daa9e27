//! Writes tar archives (POSIX.1-1988 ustar) that are the same for the same input: owned by root, one fixed time, in the order given.
//!
//! In: entries in memory. Out: bytes. It must not read the file system.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

const BLOCK: usize = 512;
/// Any time will do, as long as it stays: 2026-01-01.
const TIME: u64 = 1_767_225_600;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// A folder; `mode` as in chmod(1).
    ///
    /// # Errors
    /// When the path is too long for the format (100 bytes).
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, b'5', mode, "", &[])
    }

    /// A file.
    ///
    /// # Errors
    /// When the path is too long for the format (100 bytes), or the content (8 GiB).
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, b'0', mode, "", content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When one of the paths is too long for the format (100 bytes).
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, b'2', 0o777, target, &[])
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, kind: u8, mode: u32, target: &str, content: &[u8]) -> Result<()> {
        let header = header(path, kind, mode, target, content.len()).with_context(|| format!("archiving {path}"))?;
        self.bytes.extend(header);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }
}

fn header(path: &str, kind: u8, mode: u32, target: &str, size: usize) -> Result<[u8; BLOCK]> {
    let mut fields = String::new();
    write!(fields, "{mode:07o}\0{:07o}\0{:07o}\0{size:011o}\0{TIME:011o}\0", 0, 0)?;
    if path.len() > 100 || target.len() > 100 || fields.len() != 48 {
        bail!("a path above 100 bytes, or a content above 8 GiB, needs a newer format");
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, path.as_bytes());
    put(100, fields.as_bytes());
    // The checksum counts its own field as blanks.
    put(148, b"        ");
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tar_reads_it_back() {
        let mut archive = Archive::default();
        archive.folder("bin", 0o755).unwrap();
        archive.file("bin/a", 0o755, &[7; 700]).unwrap();
        archive.link("bin/b", "a").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.tar");
        std::fs::write(&file, archive.finish()).unwrap();
        let run = |args: &[&str]| Command::new("tar").args(args).arg(&file).arg("-C").arg(dir.path()).output().unwrap();
        let listed = run(&["--utc", "-tvf"]);
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
        assert!(text.contains("drwxr-xr-x root/root         0 2026-01-01 00:00 bin"), "{text}");
        assert!(text.contains("bin/b -> a"), "{text}");
        assert!(run(&["-xf"]).status.success());
        assert_eq!(std::fs::read(dir.path().join("bin/b")).unwrap(), [7; 700]);
    }

    #[test]
    fn a_long_path_is_refused_by_name() {
        let error = Archive::default().folder(&"x".repeat(101), 0o755).unwrap_err();
        assert!(format!("{error:#}").contains("xxx"), "{error:#}");
    }
}
