//! Which network the cluster has, and so what runs on this node beside what every node runs.
//!
//! In: texts of flags. Out: the mode with its settings, or an error that names the flag. Must not: look at the host.

use ovenbird_daemon::settings::{SettingError, wrong};

use crate::classic;
use crate::config::Settings;

/// See the file header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// OVN's, over its tunnels.
    Overlay,
    /// kbr0 and obr0.
    Classic(ovenbird_classic::Settings),
    /// OVN's, but it is on the hypervisor: this host is a VM, with this bridge.
    Nested(String),
}

impl NetworkMode {
    /// Validates the settings that concern the mode.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn new(s: &Settings) -> Result<NetworkMode, SettingError> {
        match s.network_mode.as_deref() {
            None | Some("overlay") => Ok(NetworkMode::Overlay),
            Some("classic") => classic::settings::new(s).map(NetworkMode::Classic),
            Some("nested") => {
                link("nested-bridge", s.nested_bridge.as_deref().unwrap_or("breth0")).map(NetworkMode::Nested)
            }
            Some(other) => {
                Err(wrong("network-mode", format!("{other:?} is unknown"), "choose overlay, classic or nested"))
            }
        }
    }

    /// The VM's bridge, of a nested node.
    pub fn nested_in(&self) -> Option<&str> {
        if let NetworkMode::Nested(bridge) = self { Some(bridge) } else { None }
    }
}

/// A name that the kernel takes for a link (`dev_valid_name`).
pub(crate) fn link(flag: &'static str, name: &str) -> Result<String, SettingError> {
    let odd = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | ',' | '"');
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(wrong(flag, format!("{name:?} is no name of an interface"), "choose 1 to 15 letters and digits"));
    }
    Ok(name.to_owned())
}
