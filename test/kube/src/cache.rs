//! The cache on disk: `$OVENBIRD_KUBE_CACHE`, or `$XDG_CACHE_HOME/ovenbird/kube` (`~/.cache/ovenbird/kube`), then a folder per hash.
//!
//! `SHA256SUMS` (as sha256sum(1) writes it) lists what was built and is the mark that something is whole: a file that is not in it
//! does not count. In: the environment. Out: paths, checks. It must not build anything.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::version::{IMAGES, PROGRAMS, TEST_IMAGES, hash};

const SUMS: &str = "SHA256SUMS";

/// Built programs and images of one set of versions.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache of this build's versions, whatever is in it.
    ///
    /// # Errors
    /// When the environment names no folder for it.
    pub fn locate() -> Result<Self> {
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let top = folder("OVENBIRD_KUBE_CACHE")
            .or_else(|| folder("XDG_CACHE_HOME").map(|dir| dir.join("ovenbird/kube")))
            .or_else(|| folder("HOME").map(|dir| dir.join(".cache/ovenbird/kube")));
        let top = top.context("no place for the cache of Kubernetes: set OVENBIRD_KUBE_CACHE to a folder")?;
        if !top.is_absolute() {
            bail!("{}: give the cache of Kubernetes an absolute path", top.display());
        }
        Ok(Self::at(top.join(hash())))
    }

    /// A cache in this folder.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The cache, if all of it is there. Contents are checked by `make kube-build`, not here: that takes seconds.
    ///
    /// # Errors
    /// When something is missing; the text says what to do.
    pub fn ready() -> Result<Self> {
        let cache = Self::locate()?;
        match cache.missing().first() {
            None => Ok(cache),
            Some(name) => {
                bail!("Kubernetes is not built ({name} is not in {}): run `make kube-build`", cache.dir.display())
            }
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Folder of the programs.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Folder of the image archives.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// What is not there or not recorded, as paths below the cache.
    pub fn missing(&self) -> Vec<String> {
        let sums = self.sums();
        let there = |path: &String| sums.contains_key(path) && self.dir.join(path).is_file();
        contents().filter(|path| !there(path)).collect()
    }

    /// Forgets every file whose content is not the recorded one. Returns what was forgotten.
    ///
    /// # Errors
    /// When sha256sum(1) cannot be run or the record cannot be written.
    pub fn forget_changed(&self) -> Result<Vec<String>> {
        let mut sums = self.sums();
        if sums.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Command::new("sha256sum");
        command.args(["--check", "--quiet", SUMS]).current_dir(&self.dir).env("LC_ALL", "C").stderr(Stdio::null());
        let output = command.output().context("running sha256sum")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let changed: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(": FAILED")?.0.to_owned())).collect();
        changed.iter().for_each(|path| drop(sums.remove(path)));
        self.write(&sums)?;
        Ok(changed)
    }

    /// Records a file that has just been made.
    ///
    /// # Errors
    /// When it cannot be read or the record cannot be written.
    pub fn record(&self, path: &str) -> Result<()> {
        let output = Command::new("sha256sum").arg(self.dir.join(path)).output().context("running sha256sum")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sum = text.split_whitespace().next().with_context(|| format!("taking the checksum of {path}"))?;
        let mut sums = self.sums();
        sums.insert(path.to_owned(), sum.to_owned());
        self.write(&sums)
    }

    fn sums(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.dir.join(SUMS)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once("  ").map(|(sum, path)| (path.to_owned(), sum.to_owned())))
            .collect()
    }

    fn write(&self, sums: &BTreeMap<String, String>) -> Result<()> {
        let text: String = sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect();
        let draft = self.dir.join("SHA256SUMS.new");
        fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, self.dir.join(SUMS)).with_context(|| format!("renaming {}", draft.display()))
    }
}

/// Everything a whole cache holds, as paths below it.
fn contents() -> impl Iterator<Item = String> {
    let programs = PROGRAMS.iter().map(|program| format!("bin/{}", program.name));
    programs.chain(IMAGES.iter().chain(TEST_IMAGES).map(|image| format!("images/{image}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_recorded_and_unchanged_counts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().to_owned());
        let all = contents().count();
        fs::create_dir(cache.bin()).unwrap();
        for name in ["kubelet", "etcd"] {
            fs::write(cache.bin().join(name), name).unwrap();
        }
        assert_eq!(cache.missing().len(), all, "nothing is recorded");
        cache.record("bin/kubelet").unwrap();
        cache.record("bin/etcd").unwrap();
        assert_eq!(cache.missing().len(), all - 2);
        assert!(cache.forget_changed().unwrap().is_empty());
        fs::write(cache.bin().join("kubelet"), "changed").unwrap();
        assert_eq!(cache.forget_changed().unwrap(), ["bin/kubelet"]);
        fs::remove_file(cache.bin().join("etcd")).unwrap();
        assert_eq!(cache.forget_changed().unwrap(), ["bin/etcd"]);
        assert_eq!(cache.missing().len(), all);
    }
}
