//! What moves between a NIC and its bridge: addresses, routes, permanent neighbours and rules, in the words of ip(8).
//!
//! The words are what is compared, kept in the journal, shown to a person and given to ip(8): there is no second form that could differ.
//! In: words. Out: the same for another interface. Must not: read the kernel (`kernel`), nor choose what moves (`plan`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of an interface (IFNAMSIZ less its zero).
pub const LONGEST_NAME: usize = 15;

/// The flag of an address that skips duplicate detection.
const NO_DAD: &str = " nodad";

/// Which object of ip(8) it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `ip address`.
    Address,
    /// `ip route`.
    Route,
    /// `ip neighbour`.
    Neighbour,
    /// `ip rule`.
    Rule,
}

/// One address, route, neighbour or rule.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Item {
    /// Its object.
    pub kind: Kind,
    /// IPv4, not IPv6.
    pub v4: bool,
    /// What follows `add` or `del`, e.g. `default via 172.30.0.1 dev eth0 proto static`.
    pub words: String,
    /// How long it lasts, as `ip` is told when it is added; empty for ever. It runs out, so it makes no difference between two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lasts: String,
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        (self.kind, self.v4, &self.words) == (other.kind, other.v4, &other.words)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.object(), self.words)
    }
}

impl Kind {
    /// As people write it.
    pub const fn object(self) -> &'static str {
        match self {
            Kind::Address => "addr",
            Kind::Route => "route",
            Kind::Neighbour => "neigh",
            Kind::Rule => "rule",
        }
    }
}

impl Item {
    /// One that lasts for ever.
    pub fn new(kind: Kind, v4: bool, words: impl Into<String>) -> Item {
        Item { kind, v4, words: words.into(), lasts: String::new() }
    }

    /// Whether an interface is among the words.
    pub fn is_on(&self, device: &str) -> bool {
        self.devices().any(|d| d == device)
    }

    /// The interfaces among the words; each hop of a route names its own.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        let words = self.words.split(' ');
        words.clone().zip(words.skip(1)).filter(|(key, _)| names_device(key)).map(|(_, device)| device)
    }

    /// The same on another interface.
    pub fn moved(&self, from: &str, to: &str) -> Item {
        let mut key = "";
        let mut words = Vec::new();
        for word in self.words.split(' ') {
            words.push(match word.strip_prefix(from) {
                Some("") if names_device(key) => to.to_owned(),
                // Labels begin with the interface's name.
                Some(rest) if key == "label" => [to, rest].concat(),
                _ => word.to_owned(),
            });
            key = word;
        }
        Item { words: words.join(" "), ..self.clone() }
    }

    /// A route that needs no other: its destination is on the link.
    pub fn is_direct(&self) -> bool {
        !self.words.split(' ').any(|word| word == "via")
    }

    /// `ADDRESS/PREFIX` of an address, destination of a route.
    pub fn subject(&self) -> &str {
        self.words.split(' ').next().unwrap_or_default()
    }

    /// Whether it is an IPv6 address that looks for its duplicates (RFC 4862 section 5.4) where it is added.
    pub fn has_dad(&self) -> bool {
        self.kind == Kind::Address && !self.v4 && !self.words.contains(NO_DAD)
    }

    /// The same, but for whether it looks for its duplicates.
    pub fn is_nearly(&self, other: &Item) -> bool {
        let bare = |item: &Item| item.words.replace(NO_DAD, "");
        (self.kind, self.v4) == (other.kind, other.v4) && bare(self) == bare(other)
    }
}

fn names_device(key: &str) -> bool {
    matches!(key, "dev" | "iif" | "oif")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_interfaces_are_replaced() {
        for (kind, words, moved) in [
            (
                Kind::Route,
                "default nexthop via 10.0.0.1 dev eth0 weight 1 nexthop via 10.1.0.1 dev eth1 weight 1",
                "default nexthop via 10.0.0.1 dev breth0 weight 1 nexthop via 10.1.0.1 dev eth1 weight 1",
            ),
            (Kind::Rule, "pref 9 from all iif eth0 lookup 7", "pref 9 from all iif breth0 lookup 7"),
            (Kind::Address, "10.0.0.1/24 dev eth0 label eth0:1", "10.0.0.1/24 dev breth0 label breth0:1"),
            (Kind::Address, "10.0.0.1/24 dev eth01", "10.0.0.1/24 dev eth01"),
        ] {
            let item = Item::new(kind, true, words);
            assert_eq!(item.moved("eth0", "breth0").words, moved);
            assert_eq!(item.moved("eth0", "breth0").moved("breth0", "eth0"), item);
        }
    }
}
