//! Tar archives that are the same for the same input: owned by root, one fixed time, in the order given.
//!
//! In: entries in memory. Out: bytes. It must not read the file system.

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Any time will do, as long as it stays: 2026-01-01.
const TIME: u64 = 1_767_225_600;

/// An archive under construction.
pub struct Archive {
    builder: Builder<Vec<u8>>,
}

impl Default for Archive {
    fn default() -> Self {
        Self { builder: Builder::new(Vec::new()) }
    }
}

impl Archive {
    /// A folder; `mode` as in chmod(1).
    ///
    /// # Errors
    /// When the path is too long for the format (100 bytes without a slash).
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, EntryType::Directory, mode, &[])
    }

    /// A file.
    ///
    /// # Errors
    /// When the path is too long for the format (100 bytes without a slash).
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, EntryType::Regular, mode, content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When one of the paths is too long for the format (100 bytes).
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0)?;
        header.set_link_name(target).with_context(|| format!("archiving {path}"))?;
        self.append(header, path, &[])
    }

    /// The whole archive.
    ///
    /// # Errors
    /// None that writing to memory would make.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context("ending an archive")
    }

    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Result<()> {
        let header = header(kind, mode, content.len())?;
        self.append(header, path, content)
    }

    fn append(&mut self, mut header: Header, path: &str, content: &[u8]) -> Result<()> {
        header.set_path(path).with_context(|| format!("archiving {path}"))?;
        header.set_cksum();
        self.builder.append(&header, content).with_context(|| format!("archiving {path}"))
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size.try_into().context("a size beyond 64 bits")?);
    header.set_mtime(TIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
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
        std::fs::write(&file, archive.finish().unwrap()).unwrap();
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
