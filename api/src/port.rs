//! Ports as Kubernetes names them: transports, and ports of the node that lead to a pod.
//!
//! Must not: judge who gets a port.

use std::net::IpAddr;

/// A transport (`protocol` of a port).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// From the text of a `protocol` field; absent is TCP.
    pub fn parse(text: Option<&str>) -> Option<Protocol> {
        let known = |p: &Protocol| p.as_str() == text.unwrap_or("TCP");
        Protocol::ALL.into_iter().find(known)
    }

    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }

    /// As ovs-ofctl and nft spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `hostIP`: the node's address, or the unspecified one of a family for all of that; absent for all.
    pub address: Option<IpAddr>,
    /// `hostPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `containerPort`.
    pub target: u16,
}

/// The ports of its node that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPorts {
    /// The ports.
    pub ports: Vec<HostPort>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

impl HostPort {
    /// From `hostIP`, `hostPort`, `protocol` and `containerPort` of a container's port; `None` when it asks for no port of the node, or
    /// for one that cannot be.
    pub fn new(address: Option<&str>, port: Option<i32>, protocol: Option<&str>, target: i32) -> Option<HostPort> {
        let text = address.unwrap_or_default();
        Some(HostPort {
            address: if text.is_empty() { None } else { Some(text.parse().ok()?) },
            port: port?.try_into().ok().filter(|port| *port != 0)?,
            protocol: Protocol::parse(protocol)?,
            target: target.try_into().ok()?,
        })
    }

    /// True when the port is asked for at this address of the node.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|own| own == address || own.is_unspecified() && own.is_ipv4() == address.is_ipv4())
    }

    /// True when only one of both can have what they ask for.
    pub fn meets(&self, other: &HostPort) -> bool {
        let at = |one: &HostPort, of: &HostPort| of.address.is_none_or(|address| one.covers(address));
        (self.port, self.protocol) == (other.port, other.protocol) && (at(self, other) || at(other, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_meet_where_an_address_is_shared() {
        let tcp = |address| HostPort::new(address, Some(80), None, 8080).unwrap();
        let (any, any4, one4, other4, one6) =
            (tcp(None), tcp(Some("0.0.0.0")), tcp(Some("10.0.0.1")), tcp(Some("10.0.0.2")), tcp(Some("fd00::1")));
        for (a, b, meet) in [
            (any, any, true),
            (any, one6, true),
            (any, any4, true),
            (any4, one4, true),
            (any4, one6, false),
            (one4, other4, false),
            (one4, one4, true),
        ] {
            assert_eq!((a.meets(&b), b.meets(&a)), (meet, meet), "{a:?} {b:?}");
        }
        let others = [HostPort { port: 81, ..any }, HostPort { protocol: Protocol::Udp, ..any }];
        assert!(others.iter().all(|other| !any.meets(other)));
    }

    #[test]
    fn what_asks_for_no_port_is_none() {
        for (address, port, protocol) in [
            (None, None, None),
            (None, Some(0), None),
            (None, Some(70000), None),
            (Some("x"), Some(1), None),
            (None, Some(1), Some("X")),
        ] {
            assert_eq!(HostPort::new(address, port, protocol, 1), None);
        }
    }
}
