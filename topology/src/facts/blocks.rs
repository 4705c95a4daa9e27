//! Unions of blocks of addresses, each less its own exceptions, as the fewest subnets.
//!
//! Inputs: `ipBlock` peers. Output: subnets, IPv4 first. The work grows with the number of blocks and exceptions, not with the
//! addresses between them. Must not: know what the addresses are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Most subnets that one set may come to: as many addresses as OVN still takes in without trouble.
const MOST: usize = 1 << 16;

/// A block less some parts of it.
#[derive(Debug)]
pub(super) struct Block {
    /// The whole.
    pub cidr: IpNet,
    /// Parts of it.
    pub except: Vec<IpNet>,
}

/// A set of addresses comes to more subnets than one set may hold.
#[derive(Debug, thiserror::Error)]
#[error("with this block the rule comes to more than {MOST} subnets; use fewer exceptions, or several rules")]
pub(super) struct TooMany;

/// A set of addresses, of both families.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
    /// About the number of subnets so far.
    subnets: usize,
}

impl Blocks {
    /// Adds a block.
    ///
    /// # Errors
    /// When the whole would be too many subnets; the block is then not added.
    pub fn add(&mut self, block: &Block) -> Result<(), TooMany> {
        let ranges = less(range(&block.cidr), block.except.iter().map(range).collect());
        let v4 = matches!(block.cidr, IpNet::V4(_));
        let subnets: usize = ranges.iter().map(|range| subnets(v4, *range).count()).sum();
        if self.subnets + subnets > MOST {
            return Err(TooMany);
        }
        self.subnets += subnets;
        if v4 { &mut self.v4 } else { &mut self.v6 }.extend(ranges);
        Ok(())
    }

    /// The fewest subnets that cover the set, sorted.
    pub fn into_nets(self) -> Box<[IpNet]> {
        let v4 = union(self.v4).into_iter().flat_map(|range| subnets(true, range));
        let v6 = union(self.v6).into_iter().flat_map(|range| subnets(false, range));
        v4.chain(v6).collect()
    }
}

/// First and last address.
fn range(net: &IpNet) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (number(net.network()), number(net.broadcast()))
}

/// What is left of a range without some parts of it.
fn less((first, last): (u128, u128), except: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    let mut next = Some(first);
    for (from, to) in union(except) {
        let Some(begin) = next else { break };
        if begin < from {
            left.push((begin, from - 1));
        }
        next = to.checked_add(1).filter(|begin| *begin <= last);
    }
    left.extend(next.map(|begin| (begin, last)));
    left
}

/// Ranges that neither meet nor touch, sorted.
fn union(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// The fewest subnets that cover a range.
fn subnets(v4: bool, (first, last): (u128, u128)) -> Box<dyn Iterator<Item = IpNet>> {
    let narrow = |number: u128| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
    if v4 {
        Box::new(Ipv4Subnets::new(narrow(first), narrow(last), 0).map(IpNet::V4))
    } else {
        Box::new(Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0).map(IpNet::V6))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Block {
        Block { cidr: cidr.parse().unwrap(), except: except.iter().map(|net| net.parse().unwrap()).collect() }
    }

    fn shown(blocks: &[Block]) -> Vec<String> {
        let mut set = Blocks::default();
        blocks.iter().for_each(|block| set.add(block).unwrap());
        set.into_nets().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn exceptions_hold_for_their_own_block_only() {
        assert_eq!(shown(&[block("10.0.0.0/30", &["10.0.0.1/32"])]), ["10.0.0.0/32", "10.0.0.2/31"]);
        assert_eq!(shown(&[block("10.0.0.0/30", &["10.0.0.1/32"]), block("10.0.0.1/32", &[])]), ["10.0.0.0/30"]);
        assert_eq!(shown(&[block("10.0.0.0/31", &["10.0.0.0/32", "10.0.0.1/32"])]), [""; 0]);
    }

    #[test]
    fn whole_families() {
        let all = [block("0.0.0.0/0", &[]), block("::/0", &[])];
        assert_eq!(shown(&all), ["0.0.0.0/0", "::/0"]);
        assert_eq!(shown(&[block("::/0", &["8000::/1"])]), ["::/1"]);
        assert_eq!(shown(&[block("0.0.0.0/0", &["255.255.255.255/32"])]).len(), 32);
    }

    #[test]
    fn too_many_subnets_are_refused() {
        let mut set = Blocks::default();
        let except = (0..40_000u32)
            .map(|n| IpNet::from(IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) | u128::from(n * 4)))))
            .collect();
        assert!(set.add(&Block { cidr: "fd00::/8".parse().unwrap(), except }).is_err());
        assert!(set.add(&block("fd00::/8", &[])).is_ok());
        assert_eq!(set.into_nets().len(), 1);
    }

    proptest! {
        #[test]
        fn membership_is_that_of_the_blocks(blocks in prop::collection::vec((0u8..32, 26u8..=32, prop::collection::vec((0u8..64, 27u8..=32), 0..4)), 0..5)) {
            let net = |n: u8, len: u8| IpNet::new(IpAddr::from([10, 0, 0, n]), len).unwrap().trunc();
            let blocks: Vec<Block> = blocks.into_iter().map(|(n, len, except)| {
                let cidr = net(n, len);
                let except = except.into_iter().map(|(n, len)| net(n, len)).filter(|e| cidr.contains(e)).collect();
                Block { cidr, except }
            }).collect();
            let mut set = Blocks::default();
            blocks.iter().for_each(|b| set.add(b).unwrap());
            let nets = set.into_nets();
            for n in 0..=255u8 {
                let ip = IpAddr::from([10, 0, 0, n]);
                let wanted = blocks.iter().any(|b| b.cidr.contains(&ip) && !b.except.iter().any(|e| e.contains(&ip)));
                prop_assert_eq!(nets.iter().any(|net| net.contains(&ip)), wanted, "{}", ip);
            }
        }
    }
}
