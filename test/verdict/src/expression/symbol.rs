//! The symbols: fields, and predicates, which are short for expressions.
//!
//! Input: a name. Output: what it is. Source: ovn-sb(5) "Symbols"; which fields are nominal follows from what OpenFlow can mask. Must not: parse.

use super::constant::Format;
use crate::frame::Field;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Symbol {
    /// An integer.
    Field(FieldSymbol),
    /// `inport` (`false`) or `outport` (`true`).
    Port(bool),
    /// Short for an expression; `nominal` ones cannot be negated.
    Predicate { expansion: &'static str, nominal: bool },
}

/// An integer field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldSymbol {
    /// Which.
    pub field: Field,
    /// Bits.
    pub width: u32,
    /// Only equality can be asked, not its opposite.
    pub nominal: bool,
    /// How constants other than numbers are written.
    pub format: Format,
}

/// Looks a name up.
pub(crate) fn find(name: &str) -> Option<Symbol> {
    use Format::{Mac, Number, V4, V6};
    let field = |field, width, nominal, format| Some(Symbol::Field(FieldSymbol { field, width, nominal, format }));
    let nominal = |expansion| Some(Symbol::Predicate { expansion, nominal: true });
    let boolean = |expansion| Some(Symbol::Predicate { expansion, nominal: false });
    match name {
        "inport" => Some(Symbol::Port(false)),
        "outport" => Some(Symbol::Port(true)),
        "eth.src" => field(Field::EthSrc, 48, false, Mac),
        "eth.dst" => field(Field::EthDst, 48, false, Mac),
        "eth.type" => field(Field::EthType, 16, true, Number),
        "ip.proto" => field(Field::IpProto, 8, true, Number),
        "ip.ttl" => field(Field::IpTtl, 8, true, Number),
        "ip4.src" => field(Field::Ip4Src, 32, false, V4),
        "ip4.dst" => field(Field::Ip4Dst, 32, false, V4),
        "ip6.src" => field(Field::Ip6Src, 128, false, V6),
        "ip6.dst" => field(Field::Ip6Dst, 128, false, V6),
        "tcp.src" => field(Field::TcpSrc, 16, false, Number),
        "tcp.dst" => field(Field::TcpDst, 16, false, Number),
        "udp.src" => field(Field::UdpSrc, 16, false, Number),
        "udp.dst" => field(Field::UdpDst, 16, false, Number),
        "sctp.src" => field(Field::SctpSrc, 16, false, Number),
        "sctp.dst" => field(Field::SctpDst, 16, false, Number),
        "icmp4.type" => field(Field::Icmp4Type, 8, true, Number),
        "icmp4.code" => field(Field::Icmp4Code, 8, true, Number),
        "icmp6.type" => field(Field::Icmp6Type, 8, true, Number),
        "icmp6.code" => field(Field::Icmp6Code, 8, true, Number),
        "eth.bcast" => boolean("eth.dst == ff:ff:ff:ff:ff:ff"),
        "eth.mcast" => boolean("eth.dst == 01:00:00:00:00:00/01:00:00:00:00:00"),
        "ip4" => nominal("eth.type == 0x800"),
        "ip6" => nominal("eth.type == 0x86dd"),
        "ip" => nominal("ip4 || ip6"),
        "arp" => nominal("eth.type == 0x806"),
        "tcp" => nominal("ip.proto == 6"),
        "udp" => nominal("ip.proto == 17"),
        "sctp" => nominal("ip.proto == 132"),
        "icmp4" => nominal("ip4 && ip.proto == 1"),
        "icmp6" => nominal("ip6 && ip.proto == 58"),
        "icmp" => nominal("icmp4 || icmp6"),
        "ip4.mcast" => boolean("ip4.dst == 224.0.0.0/4"),
        "ip6.mcast" => boolean("ip6.dst == ff00::/8"),
        "nd" => nominal("icmp6.type == {135, 136} && icmp6.code == 0 && ip.ttl == 255"),
        "nd_ns" => nominal("icmp6.type == 135 && icmp6.code == 0 && ip.ttl == 255"),
        "nd_na" => nominal("icmp6.type == 136 && icmp6.code == 0 && ip.ttl == 255"),
        "nd_rs" => nominal("icmp6.type == 133 && icmp6.code == 0 && ip.ttl == 255"),
        "nd_ra" => nominal("icmp6.type == 134 && icmp6.code == 0 && ip.ttl == 255"),
        _ => None,
    }
}
