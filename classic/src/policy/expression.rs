//! Matches of ACLs (ovn-sb(5), Logical_Flow, `match`), as far as policies are written in them, as alternatives of conditions.
//!
//! ```text
//! either    both ("||" both)*         both   one ("&&" one)*
//! one       "(" either ")"  |  PORT "== @" GROUP  |  ADDRESS "==" "$" SET  |  PROTOCOL  |  PROTOCOL ".dst ==" NUMBER
//!           |  NUMBER "<=" PROTOCOL ".dst <=" NUMBER          sets and numbers may stand in braces: any of them
//! ```
//!
//! nftables has no "or" between conditions: hence the alternatives. Must not: know what a group or a set holds.

use ovenbird_api::Protocol;

/// What must all hold of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct All {
    /// The pod is in these groups.
    pub groups: Vec<String>,
    /// Its other end is in these sets of addresses.
    pub sets: Vec<SetMatch>,
    /// Its protocol and its destination port are these.
    pub ports: Vec<Ports>,
}

/// An address is in a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetMatch {
    /// Of IPv4 packets; otherwise of IPv6 ones.
    pub v4: bool,
    /// The source address; otherwise the destination.
    pub source: bool,
    /// Name of the set.
    pub name: String,
}

/// Destination ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// Of this protocol.
    pub protocol: Protocol,
    /// First and last of each range; empty for all.
    pub ranges: Vec<(u16, u16)>,
}

/// A text that is not of this grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: unknown from {rest:?} on")]
pub struct Unreadable {
    /// The text.
    pub text: String,
    /// The part that is not understood.
    pub rest: String,
}

/// The alternatives of a text: it matches a packet of which one of them holds.
pub(super) fn parse(text: &str) -> Result<Vec<All>, Unreadable> {
    let words = words(text);
    let mut reader = Reader { words: &words };
    let read = reader.either().filter(|_| reader.words.is_empty());
    read.ok_or_else(|| Unreadable { text: text.to_owned(), rest: reader.words.join(" ") })
}

/// Names, numbers and operators; `$NAME` and `@NAME` are one each.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '@');
        let same = |c: char| matches!(c, '&' | '|' | '=' | '<');
        let end = if name(first) {
            rest.find(|c| !name(c))
        } else if same(first) {
            rest.find(|c| !same(c))
        } else {
            Some(first.len_utf8())
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = after.trim_start();
    }
    words
}

struct Reader<'a> {
    words: &'a [&'a str],
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// Takes a word if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let there = self.words.first() == Some(&word);
        if there {
            self.words = &self.words[1..];
        }
        there
    }

    fn need(&mut self, word: &str) -> Option<()> {
        self.take(word).then_some(())
    }

    fn either(&mut self) -> Option<Vec<All>> {
        let mut all = self.both()?;
        while self.take("||") {
            for other in self.both()? {
                if !all.last_mut().is_some_and(|last| last.takes_ports_of(&other)) {
                    all.push(other);
                }
            }
        }
        Some(all)
    }

    fn both(&mut self) -> Option<Vec<All>> {
        let mut all = self.one()?;
        while self.take("&&") {
            let others = self.one()?;
            let pairs = all.iter().flat_map(|one| others.iter().map(move |other| one.and(other)));
            all = pairs.flatten().collect();
        }
        Some(all)
    }

    fn one(&mut self) -> Option<Vec<All>> {
        if self.take("(") {
            let all = self.either()?;
            self.need(")")?;
            return Some(all);
        }
        let word = self.next()?;
        if let Ok(first) = word.parse::<u16>() {
            self.need("<=")?;
            let protocol = destination(self.next()?)?;
            self.need("<=")?;
            return Some(of_ports(protocol, vec![(first, self.next()?.parse().ok()?)]));
        }
        if matches!(word, "inport" | "outport") {
            self.need("==")?;
            let groups = vec![self.next()?.strip_prefix('@')?.to_owned()];
            return Some(vec![All { groups, ..All::default() }]);
        }
        if let Some((v4, source)) = address(word) {
            self.need("==")?;
            let set = |word: &str| {
                let name = word.strip_prefix('$')?.to_owned();
                Some(All { sets: vec![SetMatch { v4, source, name }], ..All::default() })
            };
            return self.listed()?.into_iter().map(set).collect();
        }
        if let Some(protocol) = destination(word) {
            self.need("==")?;
            let number = |word: &str| word.parse().ok().map(|number| (number, number));
            return Some(of_ports(protocol, self.listed()?.into_iter().map(number).collect::<Option<_>>()?));
        }
        protocol(word).map(|protocol| of_ports(protocol, Vec::new()))
    }

    /// A word, or words in braces.
    fn listed(&mut self) -> Option<Vec<&'a str>> {
        if !self.take("{") {
            return Some(vec![self.next()?]);
        }
        let mut all = vec![self.next()?];
        while self.take(",") {
            all.push(self.next()?);
        }
        self.need("}")?;
        Some(all)
    }
}

impl All {
    /// Both hold; `None` when no packet is like that.
    fn and(&self, other: &All) -> Option<All> {
        let v4 = |all: &All| all.sets.first().map(|set| set.v4);
        let protocol = |all: &All| all.ports.first().map(|ports| ports.protocol);
        let differ = v4(self).zip(v4(other)).is_some_and(|(a, b)| a != b)
            || protocol(self).zip(protocol(other)).is_some_and(|(a, b)| a != b);
        (!differ).then(|| All {
            groups: union(&self.groups, &other.groups),
            sets: union(&self.sets, &other.sets),
            ports: union(&self.ports, &other.ports),
        })
    }

    /// Becomes this or the other, if they differ in ports alone.
    fn takes_ports_of(&mut self, other: &All) -> bool {
        let ([own], [more]) = (&mut self.ports[..], &other.ports[..]) else { return false };
        let alike = self.groups == other.groups && self.sets == other.sets && own.protocol == more.protocol;
        let some = !own.ranges.is_empty() && !more.ranges.is_empty();
        if alike && some {
            own.ranges.extend(&more.ranges);
        }
        alike && some
    }
}

fn union<T: Clone + PartialEq>(own: &[T], other: &[T]) -> Vec<T> {
    own.iter().chain(other.iter().filter(|item| !own.contains(item))).cloned().collect()
}

fn of_ports(protocol: Protocol, ranges: Vec<(u16, u16)>) -> Vec<All> {
    vec![All { ports: vec![Ports { protocol, ranges }], ..All::default() }]
}

fn protocol(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.name() == word)
}

fn destination(word: &str) -> Option<Protocol> {
    protocol(word.strip_suffix(".dst")?)
}

/// Family and side of an address.
fn address(word: &str) -> Option<(bool, bool)> {
    Some(match word {
        "ip4.src" => (true, true),
        "ip4.dst" => (true, false),
        "ip6.src" => (false, true),
        "ip6.dst" => (false, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let one = |all: &All| {
            let groups = all.groups.iter().map(|group| format!("@{group}"));
            let set = |set: &SetMatch| {
                format!("{}{}${}", if set.v4 { 4 } else { 6 }, if set.source { "s" } else { "d" }, set.name)
            };
            let ports = all.ports.iter().map(|ports| format!("{}{:?}", ports.protocol.name(), ports.ranges));
            groups.chain(all.sets.iter().map(set)).chain(ports).collect::<Vec<_>>().join(" ")
        };
        parse(text).unwrap().iter().map(one).collect()
    }

    #[test]
    fn alternatives_of_sets_and_families_with_ports_as_one() {
        let text = "outport == @g && ((ip4.src == {$a, $b} && ip4.src == $c) || (ip6.src == $d)) \
            && (tcp.dst == {80, 443} || 9000 <= tcp.dst <= 9020)";
        let ports = "tcp[(80, 80), (443, 443), (9000, 9020)]";
        let wanted = [format!("@g 4s$a 4s$c {ports}"), format!("@g 4s$b 4s$c {ports}"), format!("@g 6s$d {ports}")];
        assert_eq!(shown(text), wanted);
    }

    #[test]
    fn what_no_packet_can_be_is_no_alternative() {
        assert_eq!(shown("(ip4.dst == $a || ip6.dst == $b) && inport == @g && ip6.dst == $c"), ["@g 6d$b 6d$c"]);
        assert_eq!(shown("tcp.dst == 80 && udp"), [""; 0]);
        assert_eq!(shown("inport == @g && ip4.dst == $a && inport == @g && ip4.dst == $a"), ["@g 4d$a"]);
        assert_eq!(shown("sctp && sctp.dst == 1"), ["sctp[] sctp[(1, 1)]"]);
    }

    #[test]
    fn anything_else_is_unreadable() {
        for text in
            ["", "ip4.src == 10.0.0.1", "arp || nd", "tcp.dst != 80", "(tcp", "tcp)", "outport == g", "tcp & udp"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("tcp && icmp4").unwrap_err().to_string(), "\"tcp && icmp4\": unknown from \"\" on");
    }
}
