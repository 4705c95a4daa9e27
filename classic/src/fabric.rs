//! What one node of a classic network should have, from what is known of all nodes.
//!
//! ```text
//! [Fabric] --links--> peers that it has tunnels with        (by the mesh)
//!          --routes, neighbours, addresses--> kbr0          [flows] --> obr0, [rows] --> Open_vSwitch
//! ```
//!
//! Must not: ask what there is, but for [`Existing`]: names and numbers of ports that somebody made.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::{Mac, address};

use crate::settings::{Attach, Mesh, Settings};

/// A node, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the Node.
    pub name: String,
    /// Its end of tunnels.
    pub address: IpAddr,
    /// Subnets of its pods, at most one of each family. The first address of each is kbr0's.
    pub subnets: Vec<IpNet>,
}

/// See the file header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// The shape.
    pub settings: Settings,
    /// This node.
    pub own: Member,
    /// The others, sorted by name.
    pub peers: Vec<Member>,
    /// The networks of all pods.
    pub cluster: Vec<IpNet>,
    /// OVS forwards in user space.
    pub userspace: bool,
    /// MTU of pods.
    pub mtu: u32,
}

/// What joins the bridges, as the kernel and OVS name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Link that is a port of the Linux bridge.
    pub link: &'static str,
    /// Port of the OVS bridge; `None` for the bridge's own.
    pub port: Option<&'static str>,
}

/// Tunnel ports of the OVS bridge that are there, whoever made them: by remote address, `None` for the one that flows steer.
pub type Existing = BTreeMap<Option<IpAddr>, String>;

/// A route through kbr0: (destination, next hop).
pub type Hop = (IpNet, Option<IpAddr>);

impl Member {
    /// Addresses of its kbr0, with the subnets' prefixes.
    pub fn gateways(&self) -> Vec<IpNet> {
        let of = |subnet: &IpNet| Some(address::on_subnet(address::router(*subnet)?, *subnet));
        self.subnets.iter().filter_map(of).collect()
    }

    /// MAC of its kbr0: that of OVN's router port, so that pods need not learn another when the mode changes.
    pub fn mac(&self) -> Option<Mac> {
        Mac::of_any(self.gateways().iter().map(IpNet::addr))
    }

    /// MAC of its obr0: another than kbr0's.
    pub fn switch_mac(&self) -> Option<Mac> {
        let Mac([_, rest @ ..]) = self.mac()?;
        let [a, b, c, d, e] = rest;
        Some(Mac([0x0e, a, b, c, d, e]))
    }
}

impl Fabric {
    /// The peers with which this node has tunnels, where each has a port of its own.
    pub fn links(&self) -> Vec<&Member> {
        let all: Vec<&Member> = self.peers.iter().collect();
        let own = self.place();
        match self.settings.mesh {
            Mesh::Full => all,
            Mesh::Hub if own == 0 => all,
            Mesh::Hub => all.into_iter().take(1).collect(),
            // Among n peers and us, the neighbours of place p are the peers p - 1 and p, counted round.
            Mesh::Ring if all.len() < 3 => all,
            Mesh::Ring => vec![all[(own + all.len() - 1) % all.len()], all[own % all.len()]],
        }
    }

    /// Place of this node among all, by name.
    pub fn place(&self) -> usize {
        self.peers.iter().filter(|peer| peer.name < self.own.name).count()
    }

    /// What joins the bridges.
    pub fn attachment(&self) -> Attachment {
        match self.settings.attach {
            Attach::Local => Attachment { link: "", port: None },
            Attach::Internal => Attachment { link: "tun0", port: Some("tun0") },
            Attach::Veth => Attachment { link: "vkbr0", port: Some("vobr0") },
        }
    }

    /// The link that is a port of the Linux bridge.
    pub fn joined_link(&self) -> &str {
        match self.attachment().link {
            "" => &self.settings.ovs_bridge,
            link => link,
        }
    }

    /// Routes through kbr0 beyond its own subnets. The cluster's networks are on its link: addresses of IPv4 pods are asked for by ARP.
    /// For IPv6 the next hop is the peer's kbr0, as replies to link-local askers (RFC 4861 7.2.2) cannot be told to be for this node.
    pub fn routes(&self) -> Vec<Hop> {
        let mut routes: Vec<Hop> = self.cluster.iter().map(|net| (net.trunc(), None)).collect();
        for subnet in self.peers.iter().flat_map(|peer| &peer.subnets).filter(|subnet| subnet.addr().is_ipv6()) {
            if let Some(router) = address::router(*subnet) {
                routes.push((IpNet::from(router), None));
                routes.push((subnet.trunc(), Some(router)));
            }
        }
        routes
    }

    /// Permanent neighbours on kbr0: the next hops of [`Fabric::routes`].
    pub fn neighbours(&self) -> Vec<(IpAddr, Mac)> {
        let of = |peer: &Member| {
            let mac = peer.mac()?;
            let own = peer.gateways().into_iter().map(|net| net.addr());
            Some(own.filter(IpAddr::is_ipv6).map(move |ip| (ip, mac)).collect::<Vec<_>>())
        };
        self.peers.iter().filter_map(of).flatten().collect()
    }

    /// Own address in the family of a network, by which the node is known there.
    pub fn source(&self, of: &IpNet) -> Option<IpAddr> {
        let v4 = of.addr().is_ipv4();
        self.own.gateways().iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == v4)
    }
}

#[cfg(test)]
#[path = "fabric_tests.rs"]
mod tests;
