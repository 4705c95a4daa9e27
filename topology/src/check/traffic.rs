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

/// Traffic that may pass. Everything is more than all ports of all protocols that have ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    everything: bool,
    /// Sorted; those of one protocol neither meet nor touch.
    ranges: Vec<Range>,
}

impl Traffic {
    /// Whatever there is.
    pub fn everything() -> Traffic {
        Traffic { everything: true, ranges: Vec::new() }
    }

    /// One port.
    pub fn port(protocol: Protocol, number: u16) -> Traffic {
        Traffic { everything: false, ranges: vec![(protocol, number, number)] }
    }

    /// No restriction.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Nothing passes.
    pub fn is_nothing(&self) -> bool {
        !self.everything && self.ranges.is_empty()
    }

    /// What both have.
    pub fn and(&self, other: &Traffic) -> Traffic {
        if self.everything || other.everything {
            return if self.everything { other.clone() } else { self.clone() };
        }
        let mut both = Traffic::default();
        for (protocol, first, last) in &self.ranges {
            let same = other.ranges.iter().filter(|(of, from, to)| of == protocol && from <= last && to >= first);
            both.ranges.extend(same.map(|(_, from, to)| (*protocol, *first.max(from), *last.min(to))));
        }
        both
    }

    /// `tcp/80`, `tcp/8000-8080`, `udp` for all its ports; `everything`.
    pub fn texts(&self) -> Vec<String> {
        if self.everything {
            return vec!["everything".to_owned()];
        }
        let text = |(protocol, first, last): &Range| match (protocol.name(), *first, *last) {
            (name, 0, u16::MAX) => name.to_owned(),
            (name, first, last) if first == last => format!("{name}/{first}"),
            (name, first, last) => format!("{name}/{first}-{last}"),
        };
        self.ranges.iter().map(text).collect()
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
        Traffic { everything: false, ranges: sorted }
    }
}

/// The union of sets.
impl FromIterator<Traffic> for Traffic {
    fn from_iter<I: IntoIterator<Item = Traffic>>(sets: I) -> Traffic {
        let mut everything = false;
        let ranges = sets.into_iter().flat_map(|set| {
            everything |= set.everything;
            set.ranges
        });
        let union: Traffic = ranges.collect();
        if everything { Traffic::everything() } else { union }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions_and_intersections() {
        use Protocol::{Tcp, Udp};
        let of = |ranges: &[Range]| ranges.iter().copied().collect::<Traffic>();
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
    }
}
