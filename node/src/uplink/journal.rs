//! What is known of take-overs across the end of the daemon and of the host: one file for each NIC, written before the first step.
//!
//! ```text
//! (none) --> taking --> taken <--> restoring      taking, returning --> (none)
//!              |          +--> returning
//!              +--> failed --> (after a pause) taking
//! ```
//!
//! In and out: `STATE_DIR/uplink-NIC.json`, or `uplink.json` where an older daemon has written that. Must not: decide what follows from a
//! phase (`task`).

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::choose::bridge_name;
use super::item::Item;

/// The file of a daemon that could take over one NIC only.
const OLDER: &str = "uplink.json";
/// Before the NIC in a file's name.
const PREFIX: &str = "uplink-";
/// After it.
const SUFFIX: &str = ".json";

/// A NIC, the bridge that it is taken over into, and what moves between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uplink {
    /// The NIC.
    pub nic: String,
    /// The bridge.
    pub bridge: String,
    /// MAC of both.
    pub mac: String,
    /// MTU of both.
    pub mtu: u32,
    /// The bridge forwards in user space.
    pub userspace: bool,
    /// What moves, as it is on the NIC.
    pub items: Vec<Item>,
}

/// What a NIC is taken over for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The gateway: `--gateway-interface` names it.
    #[default]
    Gateway,
    /// A physical network: a ProviderNetwork names it.
    Network,
}

impl Uplink {
    /// Whether this is the NIC's or the bridge's name.
    pub fn is_called(&self, name: &str) -> bool {
        self.nic == name || self.bridge == name
    }
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// On the way to the bridge; the API server has not answered yet.
    Taking,
    /// On the bridge for good.
    Taken,
    /// On the way to the bridge again, after what stood there was lost.
    Restoring,
    /// On the way back to the NIC for good.
    Returning,
    /// Moved back, because something was wrong.
    Failed {
        /// Seconds since 1970.
        at: u64,
        /// What was wrong.
        why: String,
    },
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Journal {
    /// What moves.
    #[serde(flatten)]
    pub uplink: Uplink,
    /// How far it is.
    pub phase: Phase,
    /// Take-overs that failed one after the other.
    #[serde(default)]
    pub failures: u32,
    /// What for.
    #[serde(default)]
    pub purpose: Purpose,
}

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("{0} the journal {1}; --state-dir names its folder")]
    File(&'static str, PathBuf, #[source] std::io::Error),
    /// It is not ours, or broken.
    #[error("reading the journal {0}: move it away after looking at what it says of the uplink")]
    Broken(PathBuf, #[source] serde_json::Error),
}

/// The journals in a folder.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Those in this folder.
    pub fn new(state_dir: &Path) -> Store {
        Store(state_dir.to_owned())
    }

    /// What they say, sorted by their names; one that is broken does not hide the others.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(&self) -> Result<Vec<Result<Journal, JournalError>>, JournalError> {
        Ok(self.files()?.iter().filter_map(|path| read(path).transpose()).collect())
    }

    /// The one about the NIC or bridge of this name.
    ///
    /// # Errors
    /// When the folder cannot be read, or when one that may be about it is broken.
    pub fn find(&self, name: &str) -> Result<Option<Journal>, JournalError> {
        for path in self.files()? {
            match read(&path) {
                Ok(Some(journal)) if journal.uplink.is_called(name) => return Ok(Some(journal)),
                Err(e) if may_be_about(&path, name) => return Err(e),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Replaces the one of its NIC; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stands.
    pub fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        let path = self.path(&journal.uplink.nic)?;
        let mut bytes = serde_json::to_vec_pretty(journal).map_err(|e| JournalError::Broken(path.clone(), e))?;
        bytes.push(b'\n');
        self.replace(&path, &bytes).map_err(|e| JournalError::File("writing", path, e))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes the one of a NIC: it is not taken over.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, nic: &str) -> Result<(), JournalError> {
        let path = self.path(nic)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(JournalError::File("removing", path, e)),
            _ => Ok(()),
        }
    }

    /// Where the one of a NIC is, or would be.
    ///
    /// # Errors
    /// When the older file cannot be read.
    pub fn path(&self, nic: &str) -> Result<PathBuf, JournalError> {
        let older = self.0.join(OLDER);
        if read(&older)?.is_some_and(|journal| journal.uplink.nic == nic) {
            return Ok(older);
        }
        Ok(self.0.join(format!("{PREFIX}{nic}{SUFFIX}")))
    }

    fn files(&self) -> Result<Vec<PathBuf>, JournalError> {
        let failed = |e| JournalError::File("reading", self.0.clone(), e);
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(is_journal) {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

fn is_journal(name: &str) -> bool {
    name == OLDER || name.strip_prefix(PREFIX).is_some_and(|rest| rest.ends_with(SUFFIX))
}

/// Whether a file that cannot be read is about the NIC or bridge of this name, as far as its own name tells.
fn may_be_about(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let nic = file.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    nic.is_none_or(|nic| nic == name || bridge_name(nic) == name)
}

fn read(path: &Path) -> Result<Option<Journal>, JournalError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| JournalError::Broken(path.to_owned(), e)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(JournalError::File("reading", path.to_owned(), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::item::Kind;

    fn journal(nic: &str, phase: Phase) -> Journal {
        let item =
            Item { lasts: "valid_lft 10 preferred_lft 5".into(), ..Item::new(Kind::Address, true, "10.0.0.1/24") };
        let uplink = Uplink {
            nic: nic.into(),
            bridge: bridge_name(nic),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            userspace: false,
            items: vec![item],
        };
        Journal { uplink, phase, failures: 1, purpose: Purpose::Network }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("state"));
        assert_eq!(store.find("eth0").unwrap(), None);
        for phase in [Phase::Taking, Phase::Failed { at: 7, why: "no answer".into() }] {
            let journal = journal("eth0", phase);
            store.write(&journal).unwrap();
            assert_eq!(store.find("eth0").unwrap(), Some(journal.clone()));
            assert_eq!(store.find("breth0").unwrap(), Some(journal));
            assert_eq!(store.find("eth1").unwrap(), None);
        }
        std::fs::write(store.path("eth0").unwrap(), "{").unwrap();
        assert!(store.find("breth0").unwrap_err().to_string().contains("uplink-eth0.json"));
        store.remove("eth0").unwrap();
        store.remove("eth0").unwrap();
        assert_eq!(store.find("eth0").unwrap(), None);
    }

    #[test]
    fn each_nic_has_its_own_and_an_older_daemons_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let older = Journal { purpose: Purpose::Gateway, ..journal("eth0", Phase::Taken) };
        let text = serde_json::to_string(&older).unwrap().replace(r#","purpose":"gateway""#, "");
        assert!(!text.contains("purpose"), "{text}");
        std::fs::write(dir.path().join(OLDER), text).unwrap();
        store.write(&journal("eth1", Phase::Taken)).unwrap();
        store.write(&Journal { failures: 0, ..older.clone() }).unwrap();
        assert!(!dir.path().join("uplink-eth0.json").exists());
        let nics: Vec<_> = store.all().unwrap().into_iter().map(|j| j.unwrap().uplink.nic).collect();
        assert_eq!(nics, ["eth1", "eth0"]);
        // A broken one is nobody's but its own NIC's.
        std::fs::write(dir.path().join("uplink-eth1.json"), "{").unwrap();
        assert!(store.find("eth0").unwrap().is_some() && store.find("eth1").is_err());
        assert_eq!(store.all().unwrap().iter().filter(|j| j.is_ok()).count(), 1);
        store.remove("eth0").unwrap();
        assert!(!dir.path().join(OLDER).exists());
    }
}
