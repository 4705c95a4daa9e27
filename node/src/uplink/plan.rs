//! The steps from a host as it is to one whose NIC is in its bridge, or back. Pure.
//!
//! ```text
//! to_bridge:  make the bridge, set it up | add the port | [routes, addresses off the NIC, on the bridge] | silence the NIC's own stack
//! to_nic:     let it speak again | [routes, addresses off the bridge, on the NIC] | delete the bridge
//! ```
//!
//! Both directions start from what is there: after half of the steps of one, each direction's plan is the rest of its way, and after
//! the last it is empty. So there is no log of steps that an interruption could cut short: the journal says what moves, the host how far
//! it got. The steps in brackets go to one ip(8) together; only between the first and the last of them is the host without its address.
//!
//! Addresses leave before they come: the kernel, when an address goes, drops every route of the main table that prefers it as a
//! source, on whatever interface (fib_sync_down_addr). IPv6 addresses come without duplicate detection, which would keep them silent for
//! a second: they were this very host's a moment ago. Must not: read the host, or choose what moves.

use std::fmt;

use super::host::Host;
use super::item::{Item, Kind};
use super::journal::Uplink;

/// First part of the names of our tables of nftables (family netdev), each of which keeps a NIC's packets from the host's stack.
pub const TABLE: &str = "ovenbird-uplink";

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `ovs-vsctl`, one transaction, that returns when vswitchd has done it.
    Ovs(Vec<String>),
    /// A file for nft(8).
    Nft(String),
    /// `ip link set .. up`.
    Up(String),
    /// `ip .. add`; of a route beside others to the same destination `append`.
    Add(Item, bool),
    /// `ip addr change`: gives an IPv6 address its flags back.
    Change(Item),
    /// `ip .. del`.
    Delete(Item),
}

impl Step {
    /// Whether ip(8) must be told the family: the words of a rule may fit both.
    pub fn is_v6_rule(&self) -> bool {
        matches!(self, Step::Add(item, _) | Step::Delete(item) if item.kind == Kind::Rule && !item.v4)
    }

    /// The line for `ip -batch`, when it is a step of ip(8).
    pub fn ip(&self) -> Option<String> {
        let lasts = |item: &Item| if item.lasts.is_empty() { String::new() } else { format!(" {}", item.lasts) };
        Some(match self {
            Step::Ovs(_) | Step::Nft(_) => return None,
            Step::Up(device) => format!("link set {device} up"),
            Step::Add(item, beside) => {
                let (verb, dad) = (if *beside { "append" } else { "add" }, if item.has_dad() { " nodad" } else { "" });
                format!("{} {verb} {}{dad}{}", item.kind.object(), item.words, lasts(item))
            }
            Step::Change(item) => format!("addr change {}{}", item.words, lasts(item)),
            Step::Delete(item) => format!("{} del {}", item.kind.object(), item.words),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Ovs(args) => write!(f, "ovs-vsctl {}", args.join(" ")),
            Step::Nft(text) => write!(f, "nft '{text}'"),
            other => {
                write!(f, "ip {}{}", if other.is_v6_rule() { "-6 " } else { "" }, other.ip().unwrap_or_default())
            }
        }
    }
}

/// Steps as a numbered list.
pub fn list(steps: &[Step]) -> String {
    let width = steps.len().to_string().len();
    steps.iter().zip(1..).map(|(step, n)| format!("{n:>width$}. {step}\n")).collect()
}

/// What is missing for the NIC to be in its bridge and everything on it.
pub fn to_bridge(host: &Host, uplink: &Uplink) -> Vec<Step> {
    let Uplink { nic, bridge, .. } = uplink;
    let have = host.bridges.get(bridge);
    let mut steps = Vec::new();
    if have.is_none() {
        steps.push(add_bridge(uplink));
    }
    if !host.interface(bridge).is_some_and(|i| i.up) {
        steps.push(Step::Up(bridge.clone()));
    }
    if !have.is_some_and(|b| b.ports.contains_key(nic)) {
        steps.push(Step::Ovs(["--may-exist", "add-port", bridge, nic].map(str::to_owned).into()));
    }
    steps.extend(moves(host, &uplink.items, nic, bridge));
    // Last: until then the stack is where packets to the host's addresses arrive.
    if uplink.userspace && !host.silenced.iter().any(|(silent, _)| silent == nic) {
        let chain = format!("chain ingress {{ type filter hook ingress device \"{nic}\" priority 0; policy drop; }}");
        steps.push(Step::Nft(format!("table netdev {} {{ {chain}; }}", table(nic))));
    }
    steps
}

/// Name of the table for a NIC. nft(8) takes fewer characters than the kernel does for names of interfaces.
fn table(nic: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    format!("{TABLE}-{}", nic.chars().map(allowed).collect::<String>())
}

/// What is missing for everything to be on the NIC, and no bridge.
pub fn to_nic(host: &Host, uplink: &Uplink) -> Vec<Step> {
    let mut steps = Vec::new();
    let silencing = host.silenced.iter().filter(|(nic, _)| *nic == uplink.nic);
    steps.extend(silencing.map(|(_, table)| Step::Nft(format!("delete table netdev {table}"))));
    steps.extend(moves(host, &uplink.items, &uplink.bridge, &uplink.nic));
    if host.bridges.contains_key(&uplink.bridge) {
        steps.push(Step::Ovs(["--if-exists", "del-br", &uplink.bridge].map(str::to_owned).into()));
    }
    steps
}

fn add_bridge(uplink: &Uplink) -> Step {
    let Uplink { nic, bridge, mac, mtu, .. } = uplink;
    let mut words = format!(
        "--may-exist add-br {bridge} -- set bridge {bridge} fail_mode=standalone other_config:hwaddr={mac} \
         external_ids:bridge-uplink={nic}"
    );
    if uplink.userspace {
        words.push_str(" datapath_type=netdev");
    }
    words.push_str(&format!(" -- set interface {bridge} mtu_request={mtu}"));
    Step::Ovs(words.split(' ').map(str::to_owned).collect())
}

/// Everything off one interface, and `items` (as they are on either) on the other.
fn moves(host: &Host, items: &[Item], from: &str, to: &str) -> Vec<Step> {
    let wanted: Vec<Item> = items.iter().map(|item| item.moved(from, to)).collect();
    let missing = |kind| wanted.iter().filter(move |i| i.kind == kind && !host.items.iter().any(|h| h.is_nearly(i)));
    let leaving = |kind| host.carried(from).rev().filter(move |i| i.kind == kind);
    let delete = |item: &Item| Step::Delete(item.clone());
    let add = |item: &Item| {
        let twin =
            |other: &&Item| other.kind == Kind::Route && other.v4 == item.v4 && other.subject() == item.subject();
        let beside = item.kind == Kind::Route
            && (wanted.iter().filter(twin).count() > 1 || host.items.iter().filter(twin).any(|i| !i.is_on(from)));
        Step::Add(item.clone(), beside)
    };
    // A route through a gateway needs the one that leads to the gateway.
    let (near, far): (Vec<_>, Vec<_>) = missing(Kind::Route).partition(|route| route.is_direct());
    let (near_leaving, far_leaving): (Vec<_>, Vec<_>) = leaving(Kind::Route).partition(|route| route.is_direct());
    let mut steps: Vec<Step> = far_leaving.into_iter().chain(near_leaving).map(delete).collect();
    steps.extend(leaving(Kind::Neighbour).map(delete));
    // The last that came goes first, and the others come in their order again, wherever that is cut short: the first IPv4 address of a
    // network takes the others with it, and from the order the kernel chooses sources. It lists those of IPv6 the last first.
    let (v4, v6): (Vec<_>, Vec<_>) = leaving(Kind::Address).partition(|address| address.v4);
    steps.extend(v6.into_iter().rev().chain(v4).map(delete));
    let (v4, v6): (Vec<_>, Vec<_>) = missing(Kind::Address).partition(|address| address.v4);
    steps.extend(v4.into_iter().chain(v6.into_iter().rev()).map(add));
    steps.extend(near.into_iter().chain(far).map(add));
    steps.extend(missing(Kind::Neighbour).map(add));
    steps.extend(missing(Kind::Rule).map(add));
    steps.extend(leaving(Kind::Rule).map(delete));
    let unlike = wanted.iter().filter(|item| item.has_dad() && !host.items.contains(item));
    steps.extend(unlike.map(|item| Step::Change(item.clone())));
    steps
}

/// What should be on the bridge of a NIC that was taken over, as it would be on the NIC; `ours` tells what the gateway put there.
///
/// Where the bridge has its addresses and the NIC has none, it is what is there. Where the distribution has given the NIC addresses
/// again, or nothing is there, the journal counts, too: what it says of a family whose addresses are gone, or among those that came.
/// After steps that were cut short it counts in any case.
pub fn standing(host: &Host, uplink: &Uplink, cut_short: bool, ours: impl Fn(&Item) -> bool) -> Vec<Item> {
    let Uplink { nic, bridge, items: kept, .. } = uplink;
    let mut all = Vec::new();
    for v4 in [true, false] {
        let of = |item: &&Item| item.v4 == v4 && !ours(item);
        let on_nic: Vec<Item> = host.carried(nic).filter(of).cloned().collect();
        let on_bridge: Vec<Item> = host.carried(bridge).filter(of).map(|i| i.moved(bridge, nic)).collect();
        let kept = || kept.iter().filter(of).cloned();
        let addresses = |items: &[Item]| items.iter().filter(|i| i.kind == Kind::Address).count();
        let there = addresses(&on_nic) + addresses(&on_bridge);
        let known = |items: &[Item]| kept().any(|k| k.kind == Kind::Address && items.contains(&k));
        let lost = cut_short || there == 0 || addresses(&on_nic) > 0 && (known(&on_nic) || known(&on_bridge));
        let found = on_bridge.into_iter().chain(on_nic);
        for item in kept().filter(|_| lost).chain(found) {
            if !all.contains(&item) {
                all.push(item);
            }
        }
    }
    // As `kernel` lists them.
    all.sort_by_key(|item| (item.kind, !item.v4));
    all
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
