//! What is known of a take-over across the end of the daemon and of the host: one file, written before the first step.
//!
//! ```text
//! (none) --> taking --> taken <--> restoring      taking, returning --> (none)
//!              |          +--> returning
//!              +--> failed --> (after a pause) taking
//! ```
//!
//! In and out: `STATE_DIR/uplink.json`. Must not: decide what follows from a phase (`task`).

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::item::Item;

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

/// The journal in a folder.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// The one in this folder.
    pub fn new(state_dir: &Path) -> Store {
        Store(state_dir.join("uplink.json"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What it says; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is broken.
    pub fn read(&self) -> Result<Option<Journal>, JournalError> {
        match fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| JournalError::Broken(self.0.clone(), e)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(JournalError::File("reading", self.0.clone(), e)),
        }
    }

    /// Replaces it; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stands.
    pub fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        let mut bytes = serde_json::to_vec_pretty(journal).map_err(|e| JournalError::Broken(self.0.clone(), e))?;
        bytes.push(b'\n');
        self.replace(&bytes).map_err(|e| JournalError::File("writing", self.0.clone(), e))
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let new = self.0.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        File::open(folder)?.sync_all()
    }

    /// Removes it: nothing is taken over.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        match fs::remove_file(&self.0) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(JournalError::File("removing", self.0.clone(), e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::item::Kind;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("state"));
        assert_eq!(store.read().unwrap(), None);
        let item =
            Item { lasts: "valid_lft 10 preferred_lft 5".into(), ..Item::new(Kind::Address, true, "10.0.0.1/24") };
        let uplink = Uplink {
            nic: "eth0".into(),
            bridge: "breth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            userspace: false,
            items: vec![item],
        };
        for phase in [Phase::Taking, Phase::Failed { at: 7, why: "no answer".into() }] {
            let journal = Journal { uplink: uplink.clone(), phase, failures: 1 };
            store.write(&journal).unwrap();
            assert_eq!(store.read().unwrap(), Some(journal));
        }
        std::fs::write(store.path(), "{").unwrap();
        assert!(store.read().unwrap_err().to_string().contains("uplink.json"));
        store.remove().unwrap();
        store.remove().unwrap();
        assert_eq!(store.read().unwrap(), None);
    }
}
