//! The host as a take-over sees it: interfaces, what they carry, and the bridges of Open_vSwitch. Values only.
//!
//! In: `kernel` fills it. Out: questions that `choose` and `plan` ask. Must not: read anything.

use std::collections::BTreeMap;

use ovenbird_api::Mac;

use super::item::{Item, Kind};
use super::words::Unsayable;
use crate::gateway::Bridge;

/// An interface of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC, when it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// IFLA_INFO_KIND: `bond`, `vlan`, `bridge`, ...; empty for hardware.
    pub kind: String,
    /// Index of the bond, bridge or VRF that it is in.
    pub master: Option<u32>,
    /// Index of the interface that it sits on, in this namespace.
    pub lower: Option<u32>,
}

/// Everything that a take-over depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// What they carry, in the kernel's order, without what the kernel makes by itself.
    pub items: Vec<Item>,
    /// What could not be said again.
    pub unsayable: Vec<Unsayable>,
    /// Bridges of Open_vSwitch but br-int.
    pub bridges: BTreeMap<String, Bridge>,
    /// Open_vSwitch forwards in user space: the kernel's stack sees the NIC's packets, too.
    pub userspace: bool,
    /// Tables of ours in nftables that keep them from it: NIC, and name of the table.
    pub silenced: Vec<(String, String)>,
}

impl Host {
    /// An interface by its name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    /// The name of the interface with this index.
    pub fn name(&self, index: u32) -> &str {
        self.interfaces.iter().find(|i| i.index == index).map_or("?", |i| &i.name)
    }

    /// What an interface carries.
    pub fn carried<'a>(&'a self, device: &'a str) -> impl DoubleEndedIterator<Item = &'a Item> + Clone {
        self.items.iter().filter(move |item| item.is_on(device))
    }

    /// Its addresses.
    pub fn addresses<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Item> + Clone {
        self.carried(device).filter(|item| item.kind == Kind::Address)
    }

    /// The bridge that has a port of this name.
    pub fn bridge_of(&self, port: &str) -> Option<&str> {
        let has = |(name, bridge): &(&String, &Bridge)| *name != port && bridge.ports.contains_key(port);
        self.bridges.iter().find(has).map(|(name, _)| name.as_str())
    }
}
