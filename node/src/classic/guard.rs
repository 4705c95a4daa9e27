//! Keeps the table of what may pass which pod's port (`ovenbird_classic::guard`).
//!
//! ```text
//! admit: a port's addresses and limits --> table --> nft, when different          forget: with the next write
//! ```
//!
//! Must not: decide what may pass.

use ipnet::IpNet;
use ovenbird_classic::guard::{Link, Links, table};
use ovenbird_nft::Table;
use tokio::sync::Mutex;

use crate::nft::{self, NftError};
use crate::rows::PodPort;

/// See the file header.
#[derive(Debug)]
pub struct Guard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    links: Links,
    /// What the kernel has; `None` when that is not known.
    written: Option<Table>,
}

impl Guard {
    /// With the ports of an earlier daemon; nothing is written.
    pub fn new(ports: &[PodPort]) -> Guard {
        Guard { state: Mutex::new(State { links: ports.iter().map(link).collect(), written: None }) }
    }

    /// Lets a pod's link speak, from the return on.
    ///
    /// # Errors
    /// When nftables refuse.
    pub async fn admit(&self, port: &PodPort) -> Result<(), NftError> {
        let mut state = self.state.lock().await;
        let (name, link) = link(port);
        state.links.insert(name, link);
        let want = table(&state.links);
        match state.written.take() {
            Some(old) => drop(nft::write(&old, &want).await?),
            None => drop(nft::replace(&want).await?),
        }
        state.written = Some(want);
        Ok(())
    }

    /// Forgets a link that goes; its elements go with the next write.
    pub fn forget(&self, name: &str) {
        // Else a write is under way, and the elements of a link that is gone stay until the next one goes, which harms nobody.
        if let Ok(mut state) = self.state.try_lock() {
            state.links.remove(name);
        }
    }

    /// Somebody else may have changed the table: the next write compares.
    pub fn suspect(&self) {
        // A write that is under way compares by itself, when it fails.
        if let Ok(mut state) = self.state.try_lock() {
            state.written = None;
        }
    }
}

fn link(port: &PodPort) -> (String, Link) {
    let addresses = port.addresses.iter().map(IpNet::addr).collect();
    (PodPort::host_name(&port.attachment), Link { addresses, bandwidth: port.bandwidth })
}
