//! Arithmetic on subnets: the n-th address, and who has which.
//!
//! In a node's subnet .0 names the subnet, .1 is the router, .2 the management port; pods have .3 and up, and the last IPv4
//! address (broadcast) stays free. In the join subnet .1 is the cluster router and .ID the gateway router of node ID.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Position of the router in a node's or the join subnet.
pub const ROUTER: u128 = 1;
/// Position of the management port in a node's subnet.
pub const MANAGEMENT: u128 = 2;
/// First position that pods have in a node's subnet.
pub const FIRST_POD: u128 = 3;
/// Longest prefix of a node's IPv4 subnet: router, management port and one pod, beside the subnet's own and broadcast.
pub const LONGEST_V4_PREFIX: u8 = 29;
/// Longest prefix of a node's IPv6 subnet.
pub const LONGEST_V6_PREFIX: u8 = 125;

/// The n-th address of a subnet (0 is the subnet's own); `None` beyond its end.
pub fn nth(subnet: IpNet, n: u128) -> Option<IpAddr> {
    if n > last_index(subnet) {
        return None;
    }
    match subnet.network() {
        IpAddr::V4(base) => u32::try_from(n).ok().map(|n| IpAddr::V4(Ipv4Addr::from(u32::from(base) | n))),
        IpAddr::V6(base) => Some(IpAddr::V6(Ipv6Addr::from(u128::from(base) | n))),
    }
}

/// Position of an address in a subnet; `None` when it is not inside.
pub fn index_of(subnet: IpNet, address: IpAddr) -> Option<u128> {
    match (subnet.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(a)) => u128::from(u32::from(a)).checked_sub(u128::from(u32::from(base))),
        (IpAddr::V6(base), IpAddr::V6(a)) => u128::from(a).checked_sub(u128::from(base)),
        _ => None,
    }
    .filter(|n| *n <= last_index(subnet))
}

/// Position of the last address of a subnet.
pub fn last_index(subnet: IpNet) -> u128 {
    let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
    1u128.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |size| size - 1)
}

/// Last position that pods have in a node's subnet.
pub fn last_pod(subnet: IpNet) -> u128 {
    last_index(subnet) - u128::from(matches!(subnet, IpNet::V4(_)))
}

/// The router's address in a node's or the join subnet, `None` when the subnet is too small.
pub fn router(subnet: IpNet) -> Option<IpAddr> {
    nth(subnet, ROUTER)
}

/// The management port's address in a node's subnet, `None` when the subnet is too small.
pub fn management(subnet: IpNet) -> Option<IpAddr> {
    nth(subnet, MANAGEMENT)
}

/// An address with the prefix length of its subnet, as interfaces carry it.
pub fn on_subnet(address: IpAddr, subnet: IpNet) -> IpNet {
    // The only failure would be a prefix length beyond the family's; then the host route is what remains true.
    IpNet::new(address, subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(address))
}

/// True when two subnets share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn nth_and_its_inverse() {
        for (subnet, n, want) in [
            ("10.128.2.0/23", 1, Some("10.128.2.1")),
            ("10.128.2.0/23", 256, Some("10.128.3.0")),
            ("10.128.2.0/23", 512, None),
            ("fd01:0:0:2::/64", 2, Some("fd01:0:0:2::2")),
            ("10.0.0.1/32", 0, Some("10.0.0.1")),
            ("10.0.0.1/32", 1, None),
            ("::/0", u128::MAX, Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ("0.0.0.0/0", u128::from(u32::MAX), Some("255.255.255.255")),
        ] {
            let got = nth(net(subnet), n);
            assert_eq!(got, want.map(|w| w.parse().unwrap()), "{subnet} {n}");
            if let Some(address) = got {
                assert_eq!(index_of(net(subnet), address), Some(n));
            }
        }
        assert_eq!(index_of(net("10.128.2.0/23"), "10.128.1.255".parse().unwrap()), None);
        assert_eq!(index_of(net("10.128.2.0/23"), "10.128.4.0".parse().unwrap()), None);
        assert_eq!(index_of(net("10.128.2.0/23"), "fd01::1".parse().unwrap()), None);
    }

    #[test]
    fn ends_and_overlaps() {
        assert_eq!(last_pod(net("10.128.2.0/23")), 510, "broadcast stays free");
        assert_eq!(last_pod(net("fd01::/64")), u128::from(u64::MAX));
        assert!(overlap(net("10.0.0.0/8"), net("10.128.0.0/14")));
        assert!(!overlap(net("10.0.0.0/16"), net("10.1.0.0/16")));
        assert!(!overlap(net("0.0.0.0/0"), net("::/0")));
    }
}
