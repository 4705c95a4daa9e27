//! The first packet of a connection, as it stands on the wire after load balancing.
//!
//! Replies are not packets of their own: they pass when the first packet did. Must not: know pods or ports of switches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source of a packet that a pod sent to itself by way of a Service (`hairpin_snat_ip` of a Load_Balancer).
pub const HAIRPIN_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 5);
/// The same of IPv6.
pub const HAIRPIN_V6: Ipv6Addr = Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 5);

/// Protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// SCTP, 132.
    Sctp,
    /// An ICMP or ICMPv6 echo request, 1 or 58; without ports.
    Icmp,
}

/// See the file header. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Source port; without meaning for ICMP.
    pub source_port: u16,
    /// Destination port; without meaning for ICMP.
    pub port: u16,
}

impl Protocol {
    /// All, in order.
    pub const ALL: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];

    /// Number in the IP header (`ip.proto`) of the family.
    pub fn number(self, v6: bool) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
            Protocol::Icmp if v6 => 58,
            Protocol::Icmp => 1,
        }
    }

    /// The protocol of a name as Kubernetes spells it; ICMP has none there.
    pub fn from_kubernetes(name: &str) -> Option<Protocol> {
        match name {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// The source address by which a pod meets itself behind a Service, of the family of `address`.
pub fn hairpin(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => HAIRPIN_V4.into(),
        IpAddr::V6(_) => HAIRPIN_V6.into(),
    }
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Packet { source, destination, protocol, source_port, port } = self;
        match protocol {
            Protocol::Icmp => write!(f, "Icmp {source} -> {destination}"),
            _ => write!(f, "{protocol:?} {source}:{source_port} -> {destination}:{port}"),
        }
    }
}
