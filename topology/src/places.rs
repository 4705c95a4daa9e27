//! What Services must know of the nodes, and no more: a change of anything else of a node concerns no Service.
//!
//! Must not: know Services.

use std::net::IpAddr;

use ovsdb::Str;

use crate::facts::NodeFact;

/// A node that has a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name.
    pub node: Str,
    /// Zone.
    pub zone: Option<Str>,
    /// It has a gateway router.
    pub router: bool,
    /// Addresses at which its gateway router serves node ports: IPv4, IPv6.
    pub node_addresses: [usize; 2],
}

/// What all nodes have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Common {
    /// Most addresses of a node at which node ports are served: IPv4, IPv6.
    pub node_addresses: [usize; 2],
    /// Some node forwards in user space.
    pub userspace: bool,
}

impl Place {
    /// The place of a node that has a switch. `addresses` are those by which others reach it, `None` without a gateway router.
    pub fn of(node: &NodeFact, addresses: Option<&[IpAddr]>) -> Place {
        let count = |v4: bool| addresses.into_iter().flatten().filter(|address| address.is_ipv4() == v4).count();
        let serves = node.gateway.as_ref().and_then(|l3| l3.as_ref().ok()).is_some_and(|l3| l3.node_port);
        Place {
            node: node.name.clone(),
            zone: node.zone().cloned(),
            router: addresses.is_some(),
            node_addresses: if serves { [count(true), count(false)] } else { [0, 0] },
        }
    }
}

impl Common {
    /// Of these nodes and their places.
    pub fn of<'a>(mut nodes: impl Iterator<Item = &'a NodeFact>, places: &[Place]) -> Common {
        let most = |family: usize| places.iter().map(|place| place.node_addresses[family]).max().unwrap_or(0);
        Common { node_addresses: [most(0), most(1)], userspace: nodes.any(|node| node.userspace) }
    }
}
