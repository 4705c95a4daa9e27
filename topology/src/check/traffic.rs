//! Sets of traffic, by protocol and destination port.
//!
//! What rules let through is a union, what two ends let through is an intersection. Must not: know who sends.

use ovenbird_api::Protocol;

/// First and last port of a protocol.
pub(super) type Range = (Protocol, u16, u16);

/// All ports of a protocol.
pub(super) const fn all(protocol: Protocol) -> Range {
    (protocol, 0, u16::MAX)
}

/// Traffic: ports of the protocols that have ports, and what has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// What has no ports, such as ICMP.
    other: bool,
    /// Sorted; those of one protocol neither meet nor touch.
    ranges: Vec<Range>,
}

impl Traffic {
    /// Whatever there is.
    pub fn everything() -> Traffic {
        Traffic { other: true, ranges: Protocol::ALL.map(all).to_vec() }
    }

    /// What has no ports.
    pub fn without_ports() -> Traffic {
        Traffic { other: true, ranges: Vec::new() }
    }

    /// One port.
    pub fn port(protocol: Protocol, number: u16) -> Traffic {
        Traffic { other: false, ranges: vec![(protocol, number, number)] }
    }

    /// No restriction.
    pub fn is_everything(&self) -> bool {
        *self == Traffic::everything()
    }

    /// It is empty.
    pub fn is_nothing(&self) -> bool {
        !self.other && self.ranges.is_empty()
    }

    /// What both have.
    pub fn and(&self, other: &Traffic) -> Traffic {
        let mut both = Traffic { other: self.other && other.other, ranges: Vec::new() };
        for (protocol, first, last) in &self.ranges {
            let same = other.ranges.iter().filter(|(of, from, to)| of == protocol && from <= last && to >= first);
            both.ranges.extend(same.map(|(_, from, to)| (*protocol, *first.max(from), *last.min(to))));
        }
        both
    }

    /// What the other does not have.
    pub fn less(&self, other: &Traffic) -> Traffic {
        self.and(&other.complement())
    }

    fn complement(&self) -> Traffic {
        let mut ranges = Vec::new();
        for protocol in Protocol::ALL {
            let mut next = Some(0);
            for (_, first, last) in self.ranges.iter().filter(|(of, ..)| *of == protocol) {
                let gap = next.zip(first.checked_sub(1)).filter(|(from, to)| from <= to);
                ranges.extend(gap.map(|(from, to)| (protocol, from, to)));
                next = last.checked_add(1);
            }
            ranges.extend(next.map(|from| (protocol, from, u16::MAX)));
        }
        Traffic { other: !self.other, ranges }
    }

    /// `tcp/80`, `tcp/8000-8080`, `udp` for all its ports, `other` for what has none; `everything`.
    pub fn texts(&self) -> Vec<String> {
        if self.is_everything() {
            return vec!["everything".to_owned()];
        }
        let text = |(protocol, first, last): &Range| match (protocol.name(), *first, *last) {
            (name, 0, u16::MAX) => name.to_owned(),
            (name, first, last) if first == last => format!("{name}/{first}"),
            (name, first, last) => format!("{name}/{first}-{last}"),
        };
        self.ranges.iter().map(text).chain(self.other.then(|| "other".to_owned())).collect()
    }
}

/// The union; it costs one sort.
impl FromIterator<Range> for Traffic {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Traffic {
        let mut sorted: Vec<Range> = ranges.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, before| {
            let joined = next.0 == before.0 && next.1 <= before.2.saturating_add(1);
            if joined {
                before.2 = before.2.max(next.2);
            }
            joined
        });
        Traffic { other: false, ranges: sorted }
    }
}

/// The union of sets.
impl FromIterator<Traffic> for Traffic {
    fn from_iter<I: IntoIterator<Item = Traffic>>(sets: I) -> Traffic {
        let mut other = false;
        let ranges = sets.into_iter().flat_map(|set| {
            other |= set.other;
            set.ranges
        });
        let union: Traffic = ranges.collect();
        Traffic { other, ..union }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn of(ranges: &[Range]) -> Traffic {
        ranges.iter().copied().collect()
    }

    #[test]
    fn unions_and_intersections() {
        use Protocol::{Tcp, Udp};
        let web = of(&[all(Udp), (Tcp, 8000, 8010), (Tcp, 80, 80), (Tcp, 8011, 8020), (Tcp, 8001, 8002)]);
        assert_eq!(web.texts(), ["tcp/80", "tcp/8000-8020", "udp"]);
        assert_eq!(web.and(&Traffic::everything()), web);
        let other = of(&[(Tcp, 1, 8005), (Tcp, 8020, 9000)]);
        assert_eq!(web.and(&other).texts(), ["tcp/80", "tcp/8000-8005", "tcp/8020"]);
        assert!(web.and(&Traffic::port(Tcp, 443)).is_nothing());
        let sets = [other.clone(), Traffic::everything(), web];
        assert_eq!(sets[..1].iter().cloned().collect::<Traffic>(), other);
        assert_eq!(sets.into_iter().collect::<Traffic>(), Traffic::everything());
        assert_eq!(of(&[all(Tcp), (Tcp, 65535, 65535), (Udp, 1, 1)]).texts(), ["tcp", "udp/1"]);
        let rest = Traffic::everything().less(&of(&[(Tcp, 0, 21), (Tcp, 23, 65534), all(Udp)]));
        assert_eq!(rest.texts(), ["tcp/22", "tcp/65535", "sctp", "other"]);
    }

    fn traffic() -> impl Strategy<Value = Traffic> {
        let end = || prop_oneof![0u16..6, 65530..=65535u16];
        let range = (0..3usize, end(), end()).prop_map(|(p, a, b)| (Protocol::ALL[p], a.min(b), a.max(b)));
        let ranges = proptest::collection::vec(range, 0..6);
        (ranges, any::<bool>()).prop_map(|(ranges, other)| Traffic { other, ..of(&ranges) })
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in traffic(), b in traffic()) {
            let (both, rest) = (a.and(&b), a.less(&b));
            prop_assert!(both.and(&rest).is_nothing() && rest.and(&b).is_nothing());
            prop_assert_eq!([both.clone(), rest].into_iter().collect::<Traffic>(), a.clone());
            prop_assert_eq!(&both, &b.and(&a));
            prop_assert_eq!(a.complement().complement(), a);
        }
    }
}
