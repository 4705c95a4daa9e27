//! Pod addresses of one node or of one Network: one address of each of its subnets per pod.

use std::net::IpAddr;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;
use ovenbird_api::address::{self, FIRST_POD};
use ovenbird_api::annotation::POD_NETWORKS;
use ovenbird_api::underlay::IpRange;
use rustc_hash::FxHashSet;

/// Addresses in use on one node.
#[derive(Clone, Debug)]
pub struct AddressPool {
    families: Vec<Family>,
}

/// Addresses in use in one subnet, by their position in it.
#[derive(Clone, Debug)]
struct Family {
    subnet: IpNet,
    used: Used,
    /// No position below is free.
    hint: u128,
    /// First position that a pod may have.
    first: u128,
    /// Positions that no pod has, with both ends.
    without: Vec<(u128, u128)>,
}

/// IPv4 subnets are small: a bit each. IPv6 subnets are not: a set.
#[derive(Clone, Debug)]
enum Used {
    Bits(FixedBitSet),
    Set(FxHashSet<u128>),
}

/// Addresses that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another pod has the address.
    #[error(
        "pod {pod}: address {address} is in use by another pod of the node; delete the annotation {POD_NETWORKS} of one"
    )]
    Taken {
        /// The pod that wants it.
        pod: String,
        /// The address.
        address: IpAddr,
    },
    /// The address is not one that a pod of the node can have.
    #[error(
        "pod {pod}: address {address} is not a pod address of the node's subnets; delete the annotation {POD_NETWORKS}"
    )]
    Outside {
        /// The pod that wants it.
        pod: String,
        /// The address.
        address: IpAddr,
    },
    /// All addresses are in use.
    #[error("pod {pod}: all addresses of {subnet} are in use; move pods to other nodes or give nodes larger subnets")]
    Exhausted {
        /// The pod that wants one.
        pod: String,
        /// The full subnet.
        subnet: IpNet,
    },
}

impl AddressPool {
    /// The free pool of a node with these subnets.
    pub fn new(subnets: &[IpNet]) -> AddressPool {
        AddressPool { families: subnets.iter().map(|subnet| Family::new(*subnet, FIRST_POD, Vec::new())).collect() }
    }

    /// The free pool of a network whose pods have all addresses of these subnets but some.
    pub fn without(subnets: &[IpNet], taken: &(impl Iterator<Item = IpRange> + Clone)) -> AddressPool {
        let family = |subnet: &IpNet| {
            let subnet = subnet.trunc();
            let (least, most) = (subnet.network(), subnet.broadcast());
            let of_family = taken.clone().filter(|range| range.first <= most && range.last >= least);
            let inside = of_family.filter_map(|range| {
                let (first, last) = (range.first.max(least), range.last.min(most));
                Some((address::index_of(subnet, first)?, address::index_of(subnet, last)?))
            });
            Family::new(subnet, 1, inside.collect())
        };
        AddressPool { families: subnets.iter().map(family).collect() }
    }

    /// The node's subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.families.iter().map(|f| f.subnet)
    }

    /// Takes the addresses that a pod's annotation names: all or, on an error, none.
    ///
    /// # Errors
    /// When one is in use, or cannot be a pod's.
    pub fn reserve(&mut self, pod: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), AddressError> {
        let mut taken = Vec::new();
        for address in addresses {
            match self.locate(address) {
                None => {
                    self.release(taken);
                    return Err(AddressError::Outside { pod: pod.to_owned(), address });
                }
                Some((family, index)) if family.used.contains(index) => {
                    self.release(taken);
                    return Err(AddressError::Taken { pod: pod.to_owned(), address });
                }
                Some((family, index)) => family.used.set(index, true),
            }
            taken.push(address);
        }
        Ok(())
    }

    /// The lowest free address of each subnet: all or, on an error, none.
    ///
    /// # Errors
    /// When a subnet is full.
    pub fn allocate(&mut self, pod: &str) -> Result<Vec<IpAddr>, AddressError> {
        let mut taken = Vec::with_capacity(self.families.len());
        for i in 0..self.families.len() {
            match self.families[i].take_lowest() {
                Some(address) => taken.push(address),
                None => {
                    self.release(taken);
                    return Err(AddressError::Exhausted { pod: pod.to_owned(), subnet: self.families[i].subnet });
                }
            }
        }
        Ok(taken)
    }

    /// Frees addresses; those that are not in use, or not of the node, are ignored.
    pub fn release(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if let Some((family, index)) = self.locate(address) {
                family.used.set(index, false);
                family.hint = family.hint.min(index);
            }
        }
    }

    /// (in use, all) pod addresses of the IPv4 subnet, or of the IPv6 subnet without one. For metrics.
    pub fn usage(&self) -> (u64, u64) {
        let fullest = self.families.iter().min_by_key(|f| f.size());
        fullest.map_or((0, 0), |f| (f.used.count(), u64::try_from(f.size()).unwrap_or(u64::MAX)))
    }

    fn locate(&mut self, address: IpAddr) -> Option<(&mut Family, u128)> {
        self.families.iter_mut().find_map(|family| {
            let index = address::index_of(family.subnet, address)?;
            let is_pods = (family.first..=address::last_pod(family.subnet)).contains(&index);
            (is_pods && family.next_allowed(index) == index).then_some((family, index))
        })
    }
}

impl Family {
    fn new(subnet: IpNet, first: u128, without: Vec<(u128, u128)>) -> Family {
        let used = match subnet {
            IpNet::V4(_) => Used::Bits(FixedBitSet::new()),
            IpNet::V6(_) => Used::Set(FxHashSet::default()),
        };
        Family { subnet: subnet.trunc(), used, hint: first, first, without }
    }

    /// The position, or the first behind it that a pod may have.
    fn next_allowed(&self, mut index: u128) -> u128 {
        while let Some((_, last)) = self.without.iter().find(|(first, last)| (*first..=*last).contains(&index)) {
            index = last.saturating_add(1);
        }
        index
    }

    fn take_lowest(&mut self) -> Option<IpAddr> {
        while self.hint <= address::last_pod(self.subnet) {
            let index = self.next_allowed(self.hint);
            if index > address::last_pod(self.subnet) {
                break;
            }
            self.hint = index + 1;
            if !self.used.contains(index) {
                self.used.set(index, true);
                return address::nth(self.subnet, index);
            }
        }
        None
    }

    fn size(&self) -> u128 {
        (address::last_pod(self.subnet) + 1).saturating_sub(self.first)
    }
}

impl Used {
    fn contains(&self, index: u128) -> bool {
        match self {
            Used::Bits(bits) => bits.contains(bit(index)),
            Used::Set(set) => set.contains(&index),
        }
    }

    fn set(&mut self, index: u128, used: bool) {
        match (self, used) {
            (Used::Bits(bits), _) => {
                bits.grow(bit(index) + 1);
                bits.set(bit(index), used);
            }
            (Used::Set(set), true) => drop(set.insert(index)),
            (Used::Set(set), false) => drop(set.remove(&index)),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Used::Bits(bits) => bits.count_ones(..) as u64,
            Used::Set(set) => set.len() as u64,
        }
    }
}

/// A position in an IPv4 subnet, below 2^24 (`config` refuses larger subnets).
fn bit(index: u128) -> usize {
    index as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnets: &[&str]) -> AddressPool {
        AddressPool::new(&subnets.iter().map(|s| s.parse().unwrap()).collect::<Vec<_>>())
    }

    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(IpAddr::to_string).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reserved_first_then_the_lowest_free_of_each_family() {
        let mut pool = pool(&["10.1.0.0/24", "fd01::/64"]);
        pool.reserve("ns/a", [ip("10.1.0.3"), ip("fd01::4")]).unwrap();
        assert_eq!(texts(&pool.allocate("ns/b").unwrap()), ["10.1.0.4", "fd01::3"]);
        assert_eq!(texts(&pool.allocate("ns/c").unwrap()), ["10.1.0.5", "fd01::5"]);
        pool.release([ip("10.1.0.3"), ip("192.0.2.1")]);
        assert_eq!(texts(&pool.allocate("ns/d").unwrap()), ["10.1.0.3", "fd01::6"]);
        assert_eq!(pool.usage(), (3, 252));
    }

    #[test]
    fn a_network_leaves_out_what_is_not_a_pods() {
        let subnets = ["192.168.100.0/28".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let taken = [
            "192.168.100.1-192.168.100.3",
            "192.168.100.3-192.168.100.4",
            "192.168.100.14-192.168.101.9",
            "fd00::-fd00::ff",
        ];
        let mut pool = AddressPool::without(&subnets, &taken.iter().map(|text| text.parse().unwrap()));
        assert_eq!(texts(&pool.allocate("ns/a").unwrap()), ["192.168.100.5", "fd00::100"]);
        pool.reserve("ns/b", [ip("192.168.100.13"), ip("fd00::200")]).unwrap();
        for outside in
            ["192.168.100.0", "192.168.100.2", "192.168.100.4", "192.168.100.14", "192.168.100.15", "fd00::1"]
        {
            assert!(matches!(pool.reserve("ns/c", [ip(outside)]), Err(AddressError::Outside { .. })), "{outside}");
        }
        pool.release([ip("192.168.100.1")]);
        for _ in 6..=12 {
            pool.allocate("ns/d").unwrap();
        }
        assert!(matches!(pool.allocate("ns/e"), Err(AddressError::Exhausted { .. })));
    }

    #[test]
    fn errors_take_nothing_and_name_the_pod() {
        let mut pool = pool(&["10.1.0.0/29", "fd01::/64"]);
        pool.reserve("ns/a", [ip("10.1.0.3")]).unwrap();
        let error = pool.reserve("ns/b", [ip("fd01::3"), ip("10.1.0.3")]).unwrap_err();
        assert!(error.to_string().starts_with("pod ns/b: address 10.1.0.3 is in use by another pod"), "{error}");
        for outside in ["10.1.0.1", "10.1.0.2", "10.1.0.7", "10.1.0.8", "fd02::3", "fd01::2"] {
            let error = pool.reserve("ns/b", [ip("fd01::3"), ip(outside)]).unwrap_err();
            assert!(matches!(error, AddressError::Outside { .. }), "{error}");
        }
        assert_eq!(texts(&pool.allocate("ns/c").unwrap()), ["10.1.0.4", "fd01::3"], "fd01::3 was given back");
        pool.allocate("ns/d").unwrap();
        pool.allocate("ns/e").unwrap();
        let error = pool.allocate("ns/f").unwrap_err().to_string();
        assert!(error.starts_with("pod ns/f: all addresses of 10.1.0.0/29 are in use; "), "{error}");
        pool.release([ip("10.1.0.5")]);
        assert_eq!(texts(&pool.allocate("ns/f").unwrap())[0], "10.1.0.5");
    }
}
