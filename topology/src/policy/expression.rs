//! Parts of OVN's match expressions (ovn-sb(5), Logical_Flow, `match`).
//!
//! Equal inputs give equal texts. Must not: know policies.

use ovenbird_api::Protocol;

use crate::Config;
use crate::facts::{Numbers, PortMatch};

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Side::Source => "src",
            Side::Destination => "dst",
        }
    }
}

/// All of the parts that there are.
pub(super) fn all(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" && ")
}

/// The address is in one set of each list, which `sets` names for IPv4 (`true`) and IPv6; `None` when there is no such address. Families
/// that the cluster does not have are left out.
pub(super) fn addresses(config: &Config, side: Side, mut sets: impl FnMut(bool) -> Vec<Vec<String>>) -> Option<String> {
    let mut families = Vec::new();
    for v4 in config.families() {
        let ip = if v4 { "ip4" } else { "ip6" };
        let texts = sets(v4).into_iter().map(|names| {
            let names = names.iter().map(|name| format!("${name}")).collect();
            Some(format!("{ip}.{} == {}", side.as_str(), set(names)?))
        });
        let texts: Option<Vec<String>> = texts.collect();
        families.extend(texts.map(|all| if all.len() > 1 { format!("({})", all.join(" && ")) } else { all.concat() }));
    }
    match families.len() {
        0 => None,
        1 => families.pop(),
        _ => Some(format!("({})", families.join(" || "))),
    }
}

/// One destination port.
pub(super) fn port(protocol: Protocol, number: u16) -> String {
    format!("{}.dst == {number}", protocol.name())
}

/// The ports that are given by number, all of one protocol; `None` without any.
pub(super) fn ports(ports: &[PortMatch]) -> Option<String> {
    let protocol = ports.first()?.protocol.name();
    if ports.iter().any(|port| port.numbers == Numbers::All) {
        return Some(protocol.to_owned());
    }
    // Sorted by the first number: what overlaps or touches becomes one.
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        let Numbers::Range(first, last) = port.numbers else { continue };
        match ranges.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    let single = |(first, last): &&(u16, u16)| first == last;
    let numbers = ranges.iter().filter(single).map(|(number, _)| number.to_string()).collect();
    let mut texts: Vec<String> = set(numbers).map(|set| format!("{protocol}.dst == {set}")).into_iter().collect();
    let wide = ranges.iter().filter(|range| !single(range));
    texts.extend(wide.map(|(first, last)| format!("{first} <= {protocol}.dst <= {last}")));
    match texts.len() {
        0 => None,
        1 => texts.pop(),
        _ => Some(format!("({})", texts.join(" || "))),
    }
}

/// `a`, or `{a, b}`; `None` of nothing.
fn set(mut items: Vec<String>) -> Option<String> {
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => Some(format!("{{{}}}", items.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(numbers: &[Numbers]) -> Option<String> {
        let mut all: Vec<PortMatch> =
            numbers.iter().map(|n| PortMatch { protocol: Protocol::Tcp, numbers: n.clone() }).collect();
        all.sort_unstable();
        ports(&all)
    }

    /// OVN does not take `&&` beside `||` without parentheses.
    #[test]
    fn several_sets_of_both_families() {
        let config = Config::parse("10.128.0.0/14/23,fd01::/48/64", "", "100.64.0.0/16,fd98::/64", 1400).unwrap();
        let text = addresses(&config, Side::Source, |v4| {
            vec![vec![format!("a{v4}"), format!("b{v4}")], vec![format!("c{v4}")]]
        });
        let wanted = "((ip4.src == {$atrue, $btrue} && ip4.src == $ctrue) || (ip6.src == {$afalse, $bfalse} && ip6.src == $cfalse))";
        assert_eq!(text.as_deref(), Some(wanted));
        assert_eq!(addresses(&config, Side::Source, |_| vec![vec!["a".into()], vec![]]), None);
    }

    #[test]
    fn ports_as_few_ranges() {
        use Numbers::{All, Named, Range};
        assert_eq!(text(&[Range(80, 80)]).as_deref(), Some("tcp.dst == 80"));
        assert_eq!(text(&[Range(443, 443), Range(80, 80)]).as_deref(), Some("tcp.dst == {80, 443}"));
        assert_eq!(
            text(&[Range(9000, 9009), Range(80, 80), Range(9005, 9020)]).as_deref(),
            Some("(tcp.dst == 80 || 9000 <= tcp.dst <= 9020)")
        );
        assert_eq!(text(&[Range(1, 65535), Range(65535, 65535)]).as_deref(), Some("1 <= tcp.dst <= 65535"));
        assert_eq!(text(&[Range(80, 80), All]).as_deref(), Some("tcp"));
        assert_eq!(text(&[Named("web".into())]), None);
    }
}
