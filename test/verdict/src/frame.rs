//! A frame in a logical switch's pipeline: the values of the fields that a match can name.
//!
//! Inputs: a packet and where it is. Output: a value for each field, none where the frame has no such header (which is what ovn-sb(5) calls
//! an unmet prerequisite). Must not: know the syntax of matches.

use std::net::IpAddr;

use crate::packet::{Packet, Protocol};

/// See the file header.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Logical switch port by which the frame entered the switch.
    pub inport: &'a str,
    /// Port by which it will leave; empty in the ingress pipeline, where that is not yet known.
    pub outport: &'a str,
    /// Source MAC, 48 bits.
    pub eth_src: u64,
    /// Destination MAC, 48 bits.
    pub eth_dst: u64,
    /// What it carries.
    pub content: Content,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// An IP packet.
    Ip(Packet),
    /// An ARP request.
    Arp,
    /// A neighbour solicitation; the packet's protocol is ICMP, its family IPv6.
    Solicitation(Packet),
}

/// A field of integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of ovn-sb(5)")]
pub enum Field {
    EthSrc,
    EthDst,
    EthType,
    IpProto,
    IpTtl,
    Ip4Src,
    Ip4Dst,
    Ip6Src,
    Ip6Dst,
    TcpSrc,
    TcpDst,
    UdpSrc,
    UdpDst,
    SctpSrc,
    SctpDst,
    Icmp4Type,
    Icmp4Code,
    Icmp6Type,
    Icmp6Code,
}

impl Content {
    fn packet(&self) -> Option<&Packet> {
        match self {
            Content::Ip(packet) | Content::Solicitation(packet) => Some(packet),
            Content::Arp => None,
        }
    }
}

impl Frame<'_> {
    /// Value of a field; `None` when the frame has no such header.
    pub fn value(&self, field: Field) -> Option<u128> {
        match field {
            Field::EthSrc => Some(self.eth_src.into()),
            Field::EthDst => Some(self.eth_dst.into()),
            Field::EthType => Some(match self.content.packet().map(|p| p.source) {
                None => 0x806,
                Some(IpAddr::V4(_)) => 0x800,
                Some(IpAddr::V6(_)) => 0x86dd,
            }),
            _ => self.in_packet(field, self.content.packet()?),
        }
    }

    fn in_packet(&self, field: Field, packet: &Packet) -> Option<u128> {
        let v6 = packet.source.is_ipv6();
        let is_solicitation = matches!(self.content, Content::Solicitation(_));
        let port = |protocol, number: u16| (packet.protocol == protocol).then_some(number.into());
        let icmp = |of_v6, value: u8| (packet.protocol == Protocol::Icmp && v6 == of_v6).then_some(value.into());
        match field {
            Field::EthSrc | Field::EthDst | Field::EthType => None,
            Field::IpProto => Some(packet.protocol.number(v6).into()),
            Field::IpTtl => Some(if is_solicitation { 255 } else { 64 }),
            Field::Ip4Src => v4(packet.source),
            Field::Ip4Dst => v4(packet.destination),
            Field::Ip6Src => v6_of(packet.source),
            Field::Ip6Dst => v6_of(packet.destination),
            Field::TcpSrc => port(Protocol::Tcp, packet.source_port),
            Field::TcpDst => port(Protocol::Tcp, packet.port),
            Field::UdpSrc => port(Protocol::Udp, packet.source_port),
            Field::UdpDst => port(Protocol::Udp, packet.port),
            Field::SctpSrc => port(Protocol::Sctp, packet.source_port),
            Field::SctpDst => port(Protocol::Sctp, packet.port),
            Field::Icmp4Type => icmp(false, 8),
            Field::Icmp4Code => icmp(false, 0),
            Field::Icmp6Type => icmp(true, if is_solicitation { 135 } else { 128 }),
            Field::Icmp6Code => icmp(true, 0),
        }
    }
}

fn v4(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V4(v4) => Some(v4.to_bits().into()),
        IpAddr::V6(_) => None,
    }
}

fn v6_of(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6.to_bits()),
    }
}
