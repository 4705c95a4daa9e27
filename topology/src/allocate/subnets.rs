//! Node subnets: each node gets one part of a cluster subnet for each address family.
//!
//! What is in use is kept as intervals, so that subnets of other sizes (an annotation from before the host prefix was
//! changed, a `spec.podCIDRs` entry) fit beside those of the configured size.

use std::collections::BTreeMap;

use ipnet::IpNet;
use ovenbird_api::address::{self, LONGEST_V4_PREFIX, LONGEST_V6_PREFIX};
use ovenbird_api::annotation::NODE_SUBNETS;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::config::{ClusterSubnet, Config, is_v4};

/// Which node has which subnets.
#[derive(Clone, Debug)]
pub struct NodeSubnets {
    pools: Vec<Pool>,
    by_node: FxHashMap<Str, Vec<IpNet>>,
}

/// One cluster subnet.
#[derive(Clone, Debug)]
struct Pool {
    whole: ClusterSubnet,
    /// First position -> last position and holder; positions count addresses of `whole`. Intervals never overlap.
    used: BTreeMap<u128, (u128, Str)>,
    /// No part of the configured size that starts below is free.
    hint: u128,
}

/// A subnet that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Another node has the subnet or a part of it.
    #[error(
        "node {node}: subnet {subnet} overlaps that of node {holder}; remove the annotation {NODE_SUBNETS} of one of them"
    )]
    Taken {
        /// The node that wants it.
        node: Str,
        /// The subnet.
        subnet: IpNet,
        /// The node that has it.
        holder: Str,
    },
    /// The subnet is not inside cluster-subnets.
    #[error(
        "node {node}: subnet {subnet} is outside cluster-subnets; remove the annotation {NODE_SUBNETS} or extend them"
    )]
    Outside {
        /// The node that wants it.
        node: Str,
        /// The subnet.
        subnet: IpNet,
    },
    /// The subnet has no room for router, management port and pods.
    #[error("node {node}: subnet {subnet} is too small for a node; remove the annotation {NODE_SUBNETS}")]
    TooSmall {
        /// The node that wants it.
        node: Str,
        /// The subnet.
        subnet: IpNet,
    },
    /// All parts are in use.
    #[error(
        "node {node}: no {family} subnet is free in cluster-subnets ({whole}); add one or remove nodes that are gone"
    )]
    Exhausted {
        /// The node that wants one.
        node: Str,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The full cluster subnets.
        whole: String,
    },
}

impl NodeSubnets {
    /// Nothing is in use yet.
    pub fn new(config: &Config) -> NodeSubnets {
        let pool = |whole: &ClusterSubnet| Pool { whole: *whole, used: BTreeMap::new(), hint: 0 };
        NodeSubnets { pools: config.cluster_subnets().iter().map(pool).collect(), by_node: FxHashMap::default() }
    }

    /// The subnets of a node.
    pub fn get(&self, node: &str) -> &[IpNet] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Takes the subnets that a node's annotation names, in place of any others it had: all or, on an error, none (and the
    /// node keeps what it had).
    ///
    /// # Errors
    /// When one is outside cluster-subnets, too small, or another node's.
    pub fn reserve(&mut self, node: &str, subnets: &[IpNet]) -> Result<(), SubnetError> {
        let name: Str = node.into();
        for subnet in subnets {
            let pool =
                self.pool_of(*subnet).ok_or_else(|| SubnetError::Outside { node: name.clone(), subnet: *subnet })?;
            if subnet.prefix_len() > longest_prefix(subnet) {
                return Err(SubnetError::TooSmall { node: name, subnet: *subnet });
            }
            if let Some(holder) = self.pools[pool].holder(*subnet, node) {
                return Err(SubnetError::Taken { node: name, subnet: *subnet, holder });
            }
        }
        self.release(node);
        for subnet in subnets {
            self.take(&name, *subnet);
        }
        Ok(())
    }

    /// The node's subnets, one of each family of cluster-subnets. A family it lacks is filled from `pod_cidrs` where that
    /// lies inside cluster-subnets and is free, otherwise by the lowest free part.
    ///
    /// # Errors
    /// When a family is exhausted; the node then keeps what it had.
    pub fn allocate(&mut self, node: &str, pod_cidrs: &[IpNet]) -> Result<Vec<IpNet>, SubnetError> {
        let mut chosen = self.get(node).to_vec();
        for v4 in [true, false] {
            let has_pool = self.pools.iter().any(|p| is_v4(&p.whole.net) == v4);
            if !has_pool || chosen.iter().any(|s| is_v4(s) == v4) {
                continue;
            }
            chosen.push(match pod_cidrs.iter().find(|c| is_v4(c) == v4 && self.is_free(**c, node)) {
                Some(cidr) => cidr.trunc(),
                None => self.lowest_free(node, v4)?,
            });
        }
        chosen.sort_by_key(|s| !is_v4(s));
        self.reserve(node, &chosen)?;
        Ok(chosen)
    }

    /// Frees the node's subnets.
    pub fn release(&mut self, node: &str) {
        for subnet in self.by_node.remove(node).unwrap_or_default() {
            if let Some(i) = self.pool_of(subnet) {
                let pool = &mut self.pools[i];
                let (first, _) = pool.interval(subnet);
                pool.used.remove(&first);
                pool.hint = pool.hint.min(first - first % pool.part());
            }
        }
    }

    /// Node subnets in use. For metrics.
    pub fn used(&self) -> usize {
        self.pools.iter().map(|p| p.used.len()).sum()
    }

    fn take(&mut self, node: &Str, subnet: IpNet) {
        if let Some(i) = self.pool_of(subnet) {
            let (first, last) = self.pools[i].interval(subnet);
            self.pools[i].used.insert(first, (last, node.clone()));
            self.by_node.entry(node.clone()).or_default().push(subnet);
        }
    }

    fn pool_of(&self, subnet: IpNet) -> Option<usize> {
        self.pools.iter().position(|p| p.whole.net.contains(&subnet))
    }

    fn is_free(&self, cidr: IpNet, node: &str) -> bool {
        let pool = self.pool_of(cidr).map(|i| &self.pools[i]);
        cidr.prefix_len() <= longest_prefix(&cidr) && pool.is_some_and(|p| p.holder(cidr, node).is_none())
    }

    fn lowest_free(&mut self, node: &str, v4: bool) -> Result<IpNet, SubnetError> {
        let mut of_family = self.pools.iter_mut().filter(|p| is_v4(&p.whole.net) == v4);
        if let Some(found) = of_family.find_map(Pool::lowest_free) {
            return Ok(found);
        }
        let whole = self.pools.iter().filter(|p| is_v4(&p.whole.net) == v4).map(|p| p.whole.to_string());
        let whole = whole.collect::<Vec<_>>().join(",");
        Err(SubnetError::Exhausted { node: node.into(), family: if v4 { "IPv4" } else { "IPv6" }, whole })
    }
}

impl Pool {
    /// Addresses in a part of the configured size.
    fn part(&self) -> u128 {
        1 << (self.whole.net.max_prefix_len() - self.whole.host_prefix)
    }

    /// First and last position of a subnet inside.
    fn interval(&self, subnet: IpNet) -> (u128, u128) {
        let first = address::index_of(self.whole.net, subnet.network()).unwrap_or(0);
        (first, first + address::last_index(subnet))
    }

    /// The last interval in use that touches `first..=last`.
    fn overlapping(&self, first: u128, last: u128) -> Option<&(u128, Str)> {
        self.used.range(..=last).next_back().map(|(_, held)| held).filter(|(end, _)| *end >= first)
    }

    /// A node other than `node` that has a part of the subnet.
    fn holder(&self, subnet: IpNet, node: &str) -> Option<Str> {
        let (first, mut last) = self.interval(subnet);
        // The node's own intervals inside are stepped over: they are about to be replaced.
        while let Some((start, (end, holder))) = self.used.range(..=last).next_back() {
            if *end < first {
                return None;
            }
            if &**holder != node {
                return Some(holder.clone());
            }
            last = start.checked_sub(1)?;
        }
        None
    }

    fn lowest_free(&mut self) -> Option<IpNet> {
        let part = self.part();
        while self.hint <= address::last_index(self.whole.net) {
            let Some((end, _)) = self.overlapping(self.hint, self.hint + part - 1) else {
                let base = address::nth(self.whole.net, self.hint)?;
                return IpNet::new(base, self.whole.host_prefix).ok();
            };
            self.hint = (end / part + 1) * part;
        }
        None
    }
}

fn longest_prefix(subnet: &IpNet) -> u8 {
    if is_v4(subnet) { LONGEST_V4_PREFIX } else { LONGEST_V6_PREFIX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_JOIN_SUBNETS, DEFAULT_MTU};

    fn subnets(cluster: &str) -> NodeSubnets {
        NodeSubnets::new(&Config::parse(cluster, "", DEFAULT_JOIN_SUBNETS, DEFAULT_MTU).unwrap())
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn one_part_of_each_family_lowest_first() {
        let mut subnets = subnets("fd01::/48/64,10.128.0.0/14/23");
        subnets.reserve("c", &nets(&["10.128.0.0/23", "fd01:0:0:1::/64"])).unwrap();
        assert_eq!(subnets.allocate("a", &[]), Ok(nets(&["10.128.2.0/23", "fd01::/64"])));
        assert_eq!(subnets.allocate("b", &[]), Ok(nets(&["10.128.4.0/23", "fd01:0:0:2::/64"])));
        assert_eq!(subnets.allocate("a", &[]), Ok(nets(&["10.128.2.0/23", "fd01::/64"])), "what it has");
        subnets.release("a");
        assert_eq!(subnets.allocate("d", &[]), Ok(nets(&["10.128.2.0/23", "fd01::/64"])));
    }

    #[test]
    fn pod_cidrs_are_taken_where_they_fit_and_are_free() {
        let mut subnets = subnets("10.244.0.0/16/24");
        let cidrs = nets(&["192.168.0.0/24", "fd00::/64", "10.244.7.0/24"]);
        assert_eq!(subnets.allocate("a", &cidrs), Ok(nets(&["10.244.7.0/24"])));
        assert_eq!(subnets.allocate("b", &cidrs), Ok(nets(&["10.244.0.0/24"])), "taken: the lowest free instead");
        assert_eq!(subnets.allocate("c", &nets(&["10.244.2.0/23"])), Ok(nets(&["10.244.2.0/23"])), "of another size");
        assert_eq!(subnets.allocate("d", &[]), Ok(nets(&["10.244.1.0/24"])));
        assert_eq!(subnets.allocate("e", &[]), Ok(nets(&["10.244.4.0/24"])), "2 and 3 are c's");
        assert_eq!(subnets.allocate("f", &nets(&["10.244.9.0/30"])), Ok(nets(&["10.244.5.0/24"])), "too small");
    }

    #[test]
    fn conflicts_take_nothing_and_name_both_nodes() {
        let mut subnets = subnets("10.244.0.0/16/24,fd01::/48/64");
        subnets.reserve("a", &nets(&["10.244.0.0/24"])).unwrap();
        for (want, error) in [
            (&["fd01::/64", "10.244.0.0/24"][..], "node b: subnet 10.244.0.0/24 overlaps that of node a; remove the"),
            (&["fd01::/64", "10.244.0.0/23"], "node b: subnet 10.244.0.0/23 overlaps that of node a"),
            (&["10.244.0.128/25"], "node b: subnet 10.244.0.128/25 overlaps that of node a"),
            (&["10.0.0.0/24"], "node b: subnet 10.0.0.0/24 is outside cluster-subnets"),
            (&["10.244.1.0/31"], "node b: subnet 10.244.1.0/31 is too small"),
        ] {
            let got = subnets.reserve("b", &nets(want)).unwrap_err().to_string();
            assert!(got.starts_with(error), "{got}");
        }
        assert!(subnets.get("b").is_empty());
        subnets.reserve("a", &nets(&["10.244.0.0/23"])).unwrap();
        assert_eq!(subnets.get("a"), nets(&["10.244.0.0/23"]), "a node may grow over its own");
    }

    #[test]
    fn a_partly_lost_annotation_is_completed() {
        let mut subnets = subnets("10.244.0.0/16/24,fd01::/48/64");
        subnets.reserve("a", &nets(&["fd01:0:0:5::/64"])).unwrap();
        assert_eq!(subnets.allocate("a", &[]), Ok(nets(&["10.244.0.0/24", "fd01:0:0:5::/64"])));
    }

    #[test]
    fn subnets_run_out() {
        let mut subnets = subnets("10.244.0.0/23/24,10.250.0.0/24/24,fd01::/48/64");
        for node in ["a", "b", "c"] {
            subnets.allocate(node, &[]).unwrap();
        }
        let error = subnets.allocate("d", &[]).unwrap_err().to_string();
        let want =
            "node d: no IPv4 subnet is free in cluster-subnets (10.244.0.0/23/24,10.250.0.0/24/24); add one or remove";
        assert!(error.starts_with(want), "{error}");
        assert_eq!(subnets.used(), 6, "nothing was taken for d");
    }
}
