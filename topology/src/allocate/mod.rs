//! Choices: which subnet and id a node gets, which addresses a pod gets. Pure; the master writes them to annotations, and
//! `ovenbird render` makes them up for manifests that carry none.
//!
//! Order of use: first `reserve` what annotations say, then `allocate` the rest; the lowest free value is chosen (but of tags,
//! see `tags`), so equal inputs in equal order give equal choices. Errors name the object and the next step. Must not: remember across restarts
//! (the truth is in Kubernetes), quarantine what is released.

mod addresses;
mod ids;
mod subnets;
mod tags;

pub use addresses::{AddressError, AddressPool};
pub use ids::{IdError, NodeIds};
pub use subnets::{NodeSubnets, SubnetError};
pub use tags::{TagError, TagPool};

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::{Mac, PodNetwork, PodRoute, address};

use crate::Config;

/// The pod annotation for addresses on a node's subnets: MAC by rule, gateway .1, routes to pods, services and the join
/// switch by that gateway. `None` without addresses.
pub fn attachment(config: &Config, subnets: &[IpNet], addresses: &[IpAddr]) -> Option<PodNetwork> {
    let subnet_of = |a: &IpAddr| subnets.iter().copied().find(|s| s.contains(a));
    let on_subnet: Vec<(IpAddr, IpNet)> = addresses.iter().filter_map(|a| Some((*a, subnet_of(a)?))).collect();
    let gateways: Vec<IpAddr> = on_subnet.iter().filter_map(|(_, subnet)| address::router(*subnet)).collect();
    let destinations = config.cluster_subnets().iter().map(|s| s.net);
    let destinations =
        destinations.chain(config.service_cidrs().iter().copied()).chain(config.join_subnets().iter().copied());
    let route = |dest: IpNet| {
        let next_hop = gateways.iter().copied().find(|g| g.is_ipv4() == dest.addr().is_ipv4())?;
        Some(PodRoute { dest, next_hop: Some(next_hop) })
    };
    Some(PodNetwork {
        probe: false,
        dhcp: false,
        mac: Mac::of_any(on_subnet.iter().map(|(a, _)| *a))?,
        addresses: on_subnet.iter().map(|(a, subnet)| address::on_subnet(*a, *subnet)).collect(),
        routes: destinations.filter_map(route).collect(),
        gateways,
        mtu: None,
        tag: None,
    })
}
