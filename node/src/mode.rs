//! Which network the cluster has, and so what runs on this node beside what every node runs.
//!
//! In: texts of flags. Out: the mode with its settings, or an error that names the flag. Must not: look at the host.

use ipnet::IpNet;
use ovenbird_daemon::settings::{SettingError, parse, wrong};
use ovenbird_topology::config::DEFAULT_JOIN_SUBNETS;

use crate::classic;
use crate::config::Settings;

/// See the file header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// OVN's, over its tunnels, or with pods on Networks alone: which of these the master decides.
    Overlay,
    /// kbr0 and obr0.
    Classic(ovenbird_classic::Settings),
    /// OVN's, but it is on the hypervisor: this host is a VM.
    Nested(Nested),
}

/// Settings of a nested node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// The VM's bridge.
    pub bridge: String,
    /// Networks of the join switch, as the master has them: in them is the address with which the VM speaks for others.
    pub join_subnets: [IpNet; 2],
}

impl Nested {
    fn new(s: &Settings) -> Result<Nested, SettingError> {
        let (v4, v6) = DEFAULT_JOIN_SUBNETS.split_once(',').unwrap_or_default();
        let subnet = |flag, given: &Option<String>, usual: &str| {
            let remedy = "write a network such as 100.64.0.0/16 or fd98::/64, as for the master";
            parse(flag, given.as_deref().unwrap_or(usual), remedy)
        };
        Ok(Nested {
            bridge: link("nested-bridge", s.nested_bridge.as_deref().unwrap_or("breth0"))?,
            join_subnets: [
                subnet("gateway-v4-join-subnet", &s.gateway_v4_join_subnet, v4)?,
                subnet("gateway-v6-join-subnet", &s.gateway_v6_join_subnet, v6)?,
            ],
        })
    }
}

impl NetworkMode {
    /// Validates the settings that concern the mode.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn new(s: &Settings) -> Result<NetworkMode, SettingError> {
        match s.network_mode.as_deref() {
            None | Some("overlay" | "underlay") => Ok(NetworkMode::Overlay),
            Some("classic") => classic::settings::new(s).map(NetworkMode::Classic),
            Some("nested") => Nested::new(s).map(NetworkMode::Nested),
            Some(other) => Err(wrong(
                "network-mode",
                format!("{other:?} is unknown"),
                "choose overlay, underlay, classic or nested",
            )),
        }
    }

    /// The VM's bridge, of a nested node.
    pub fn nested_in(&self) -> Option<&str> {
        if let NetworkMode::Nested(nested) = self { Some(&nested.bridge) } else { None }
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
