//! What is named as an uplink: a bridge, or a NIC that can be taken over, or one that must not be. Pure.
//!
//! In: the host. Out: a choice, or a refusal that names the interface, what is in the way, and what to do. Must not: plan steps.

use std::collections::BTreeMap;

use super::host::{Host, Interface};
use super::item::{Kind, LONGEST_NAME};
use super::journal::Uplink;
use crate::gateway::Bridge;

/// What the name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A bridge of OVS, which is used as it is.
    Bridge(String),
    /// Neither a bridge nor an interface: the bridge may still come.
    Absent,
    /// A NIC.
    TakeOver(Uplink),
}

/// Why an interface is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{nic}: {problem}; {advice}")]
pub struct Refusal {
    /// The interface.
    pub nic: String,
    /// What is in the way.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

/// The name of the bridge that a NIC is taken over into.
pub fn bridge_name(nic: &str) -> String {
    format!("br{nic}")
}

/// What `name` is, and whether it can be the uplink.
///
/// # Errors
/// When it is an interface that must not be taken over.
pub fn choose(host: &Host, name: &str) -> Result<Choice, Refusal> {
    if host.bridges.contains_key(name) {
        return Ok(Choice::Bridge(name.to_owned()));
    }
    let Some(nic) = host.interface(name) else { return Ok(Choice::Absent) };
    if let Some(bridge) = host.bridge_of(name) {
        return Ok(Choice::Bridge(bridge.to_owned()));
    }
    let refuse = |problem: String, advice: &str| Err(Refusal { nic: name.into(), problem, advice: advice.into() });
    let bridge = bridge_name(name);
    if bridge.len() > LONGEST_NAME {
        let problem = format!("its bridge would be {bridge:?}, and names of interfaces end at {LONGEST_NAME} bytes");
        return refuse(
            problem,
            "make a bridge with this interface inside and the host's addresses on it, and name that",
        );
    }
    if let Some((problem, advice)) = shape(host, nic).or_else(|| above(host, nic)).or_else(|| load(host, nic)) {
        return refuse(problem, advice);
    }
    let Some(mac) = nic.mac else { return refuse("it is no Ethernet interface".into(), "name the host's uplink") };
    if host.bridges.contains_key(&bridge) {
        let problem = format!("Open_vSwitch has a bridge {bridge} without it");
        return refuse(problem, "add the interface to that bridge, or delete the bridge (ovs-vsctl del-br)");
    }
    if host.interface(&bridge).is_some() {
        return refuse(format!("an interface {bridge} is there, which is no bridge of Open_vSwitch"), "rename it");
    }
    Ok(Choice::TakeOver(Uplink {
        nic: name.to_owned(),
        bridge,
        mac: mac.to_string(),
        mtu: nic.mtu,
        userspace: host.userspace,
        items: host.carried(name).cloned().collect(),
    }))
}

/// What it is.
fn shape(host: &Host, nic: &Interface) -> Option<(String, &'static str)> {
    if let Some(master) = nic.master {
        let problem = format!("it is a port of {} (master)", host.name(master));
        return Some((problem, "name that interface, which has the addresses"));
    }
    match nic.kind.as_str() {
        "bridge" => Some((
            "it is a bridge of the kernel (kind bridge)".into(),
            "name the NIC inside, after moving the bridge's addresses to it, or make a bridge of Open_vSwitch",
        )),
        "openvswitch" | "tun" | "dummy" | "vrf" | "macvlan" | "ipvlan" | "macvtap" | "ipvtap" => Some((
            format!("it is made by software (kind {}) and leads to no wire", nic.kind),
            "name the NIC, bond or VLAN that leads to the host's network",
        )),
        _ if nic.mac.is_none() => {
            Some(("it is no Ethernet interface".into(), "name the NIC, bond or VLAN that leads to the host's network"))
        }
        _ if !nic.up => Some(("it is down".into(), "set it up (ip link set up) with the host's addresses")),
        _ => None,
    }
}

/// What sits on it.
fn above(host: &Host, nic: &Interface) -> Option<(String, &'static str)> {
    let mut on_it = host.interfaces.iter().filter(|i| i.lower == Some(nic.index) && i.kind != "veth");
    let in_the_way = on_it.find(|i| i.kind != "vlan" || i.up && host.addresses(&i.name).next().is_some())?;
    let problem = match in_the_way.kind.as_str() {
        "vlan" => format!("VLAN {} on it has addresses, and would lose its packets to the bridge", in_the_way.name),
        kind => format!("{} sits on it (kind {kind}), and would lose its packets to the bridge", in_the_way.name),
    };
    Some((problem, "make a bridge with what both need, and name that"))
}

/// What it carries.
fn load(host: &Host, nic: &Interface) -> Option<(String, &'static str)> {
    if let Some(unsayable) = host.unsayable.iter().find(|u| u.of.is_on(&nic.name)) {
        let advice = "remove it, or prepare a bridge with everything on it, and name that";
        return Some((format!("{} of \"{}\" cannot be moved", unsayable.what, unsayable.of), advice));
    }
    if host.addresses(&nic.name).next().is_none() {
        return Some(("it has no address".into(), "name the interface with the host's addresses"));
    }
    let label = host.carried(&nic.name).find_map(|i| i.moved(&nic.name, &bridge_name(&nic.name)).long_label())?;
    Some((format!("the label of an address would become {label:?}, longer than {LONGEST_NAME} bytes"), "shorten it"))
}

/// Ports of a bridge that would go with it: others than its own, its uplink and what OVN put there.
pub fn others<'a>(bridges: &'a BTreeMap<String, Bridge>, uplink: &'a Uplink) -> Vec<&'a str> {
    let ports = bridges.get(&uplink.bridge).into_iter().flat_map(|bridge| &bridge.ports);
    let own = |name: &str| name == uplink.bridge || name == uplink.nic;
    ports.filter(|(name, port)| !own(name) && port.kind != "patch").map(|(name, _)| name.as_str()).collect()
}

impl super::item::Item {
    /// A label that is longer than the kernel takes.
    fn long_label(&self) -> Option<String> {
        let (_, label) = self.words.split_once(" label ")?;
        let label = label.split(' ').next()?;
        (self.kind == Kind::Address && label.len() > LONGEST_NAME).then(|| label.to_owned())
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
