//! Masquerade addresses: link-local addresses that stand for the host and for OVN on the link between them, the same on
//! every node and never on a wire.
//!
//! ```text
//! host (.2, .3) - br-ex - ext_N - rtoe-GR_N (.1)      .4: a next hop that nobody has      .5: a pod that calls itself
//! ```
//!
//! Numbers are those of ovn-kubernetes. Must not: know which node is which.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Longest IPv4 prefix that holds all masquerade addresses.
const LONGEST_V4: u8 = 29;
/// Longest IPv6 prefix that holds them.
const LONGEST_V6: u8 = 125;

/// The masquerade subnets. Methods take whether IPv4 is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// A masquerade subnet without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} has no room for the masquerade addresses; use a prefix of at most {LONGEST_V4} (IPv4) or {LONGEST_V6} (IPv6)"
)]
pub struct MasqueradeError(pub IpNet);

impl Masquerade {
    /// The addresses in these subnets; host bits are dropped.
    ///
    /// # Errors
    /// When one is too small.
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<Masquerade, MasqueradeError> {
        let (v4, v6) = (v4.trunc(), v6.trunc());
        if v4.prefix_len() > LONGEST_V4 {
            return Err(MasqueradeError(v4.into()));
        }
        if v6.prefix_len() > LONGEST_V6 {
            return Err(MasqueradeError(v6.into()));
        }
        Ok(Masquerade { v4, v6 })
    }

    /// The subnet.
    pub fn subnet(&self, v4: bool) -> IpNet {
        if v4 { self.v4.into() } else { self.v6.into() }
    }

    /// The gateway router, seen from the host: traffic of the host to Services has it as source when it leaves OVN again.
    pub fn ovn(&self, v4: bool) -> IpAddr {
        self.nth(v4, 1)
    }

    /// The host, seen from OVN: the source of the host's traffic to Services, and the target of Services whose endpoint is
    /// the host itself.
    pub fn host(&self, v4: bool) -> IpAddr {
        self.nth(v4, 2)
    }

    /// Whom the host asks by its node ports where a Service's cluster address will not do: on a gateway router it leads to all
    /// endpoints (internalTrafficPolicy Local is not about node ports), on a node switch to the node's own, with the client's address
    /// (externalTrafficPolicy Local).
    pub fn host_etp_local(&self, v4: bool) -> IpAddr {
        self.nth(v4, 3)
    }

    /// A next hop that nobody has: routes over it name a port and leave the MAC to a static entry.
    pub fn dummy_next_hop(&self, v4: bool) -> IpAddr {
        self.nth(v4, 4)
    }

    /// The source that a pod sees when it reaches itself through a Service.
    pub fn hairpin(&self, v4: bool) -> IpAddr {
        self.nth(v4, 5)
    }

    fn nth(&self, v4: bool, n: u8) -> IpAddr {
        if v4 {
            IpAddr::V4(Ipv4Addr::from(u32::from(self.v4.network()) | u32::from(n)))
        } else {
            IpAddr::V6(Ipv6Addr::from(u128::from(self.v6.network()) | u128::from(n)))
        }
    }
}

impl Default for Masquerade {
    /// 169.254.169.0/29 and fd69::/125.
    fn default() -> Masquerade {
        Masquerade {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 169, 0), LONGEST_V4),
            v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 0), LONGEST_V6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let all = |m: &Masquerade, v4| {
            [m.ovn(v4), m.host(v4), m.host_etp_local(v4), m.dummy_next_hop(v4), m.hairpin(v4)].map(|a| a.to_string())
        };
        let m = Masquerade::default();
        assert_eq!(
            all(&m, true),
            ["169.254.169.1", "169.254.169.2", "169.254.169.3", "169.254.169.4", "169.254.169.5"]
        );
        assert_eq!(all(&m, false), ["fd69::1", "fd69::2", "fd69::3", "fd69::4", "fd69::5"]);
        assert_eq!(m.subnet(true).to_string(), "169.254.169.0/29");
        let wide = Masquerade::new("169.254.0.9/17".parse().unwrap(), "fd69::/112".parse().unwrap()).unwrap();
        assert_eq!(wide.hairpin(true).to_string(), "169.254.0.5");
    }

    #[test]
    fn small_subnets_are_refused() {
        let (v4, v6) = ("169.254.169.0/30".parse().unwrap(), "fd69::/125".parse().unwrap());
        let error = Masquerade::new(v4, v6).unwrap_err().to_string();
        assert!(error.starts_with("169.254.169.0/30 has no room"), "{error}");
    }
}
