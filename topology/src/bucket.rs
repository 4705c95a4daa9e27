//! Buckets: the grains in which reads of facts are recorded and changes of facts are told.
//!
//! A bucket is kept as a 64-bit hash of its name, 8 bytes per read. Should two buckets meet in one hash, an owner is
//! translated once more than needed and yields the same; nothing is missed. Must not: be used for anything but dirt.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use rustc_hash::FxHasher;

use crate::facts::{AdminKey, HostPort, Protocol};

/// A part of the snapshot that owners read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// The subnets that a node may use.
    pub fn subnets(node: &str) -> Bucket {
        Bucket::named(0, node)
    }

    /// The pods of a node, or of a Network (see [`crate::underlay::scope`]), that claim an address.
    pub fn claims(node: &str, address: IpAddr) -> Bucket {
        Bucket::named(1, (node, address))
    }

    /// What is wrong with a node's gateway.
    pub fn gateway(node: &str) -> Bucket {
        Bucket::named(2, node)
    }

    /// The nodes that have a switch, with their zones.
    pub fn places() -> Bucket {
        Bucket::named(3, "")
    }

    /// What all nodes have in common.
    pub fn nodes() -> Bucket {
        Bucket::named(4, "")
    }

    /// The pods of a node that ask for a port of it.
    pub fn host_port(node: &str, wanted: &HostPort) -> Bucket {
        Bucket::named(5, (node, wanted.port, wanted.protocol.as_str()))
    }

    /// The addresses by which others reach a node.
    pub fn host(node: &str) -> Bucket {
        Bucket::named(6, node)
    }

    /// The Services that ask for an address outside the cluster.
    pub fn outside(address: IpAddr) -> Bucket {
        Bucket::named(7, address)
    }

    /// All ServiceCIDRs.
    pub fn service_cidrs() -> Bucket {
        Bucket::named(8, "")
    }

    /// How a namespace's policies are logged.
    pub fn acl_logging(namespace: &str) -> Bucket {
        Bucket::named(9, namespace)
    }

    /// The numbers that a port name means to the pods of a selection.
    pub fn port_numbers(selection: &str, protocol: Protocol, name: &str) -> Bucket {
        Bucket::named(10, (selection, protocol.as_str(), name))
    }

    /// Whether there is any policy.
    pub fn any_policy() -> Bucket {
        Bucket::named(11, "")
    }

    /// Labels and addresses of all nodes.
    pub fn node_addresses() -> Bucket {
        Bucket::named(12, "")
    }

    /// All NetworkPolicies, and the labels of namespaces.
    pub fn network_policies() -> Bucket {
        Bucket::named(13, "")
    }

    /// The place of an admin policy among the others.
    pub fn admin_place(key: &AdminKey) -> Bucket {
        Bucket::named(14, (key.0.as_str(), &key.1))
    }

    /// How a pass is written, and the policies of the last tier.
    pub fn passes() -> Bucket {
        Bucket::named(15, "")
    }

    /// A Network that has effect, by name.
    pub fn network(name: &str) -> Bucket {
        Bucket::named(16, name)
    }

    /// All Networks that have effect.
    pub fn networks() -> Bucket {
        Bucket::named(17, "")
    }

    /// A ProviderNetwork.
    pub fn provider(name: &str) -> Bucket {
        Bucket::named(18, name)
    }

    /// A namespace's labels.
    pub fn labels(namespace: &str) -> Bucket {
        Bucket::named(19, namespace)
    }

    /// A node's chassis.
    pub fn chassis(node: &str) -> Bucket {
        Bucket::named(20, node)
    }

    /// The parent port of a node that is a VM.
    pub fn parent(node: &str) -> Bucket {
        Bucket::named(21, node)
    }

    /// The pods of a node that claim a tag.
    pub fn tag(node: &str, tag: u16) -> Bucket {
        Bucket::named(22, (node, tag))
    }

    fn named(kind: u8, name: impl Hash) -> Bucket {
        let mut hasher = FxHasher::default();
        (kind, name).hash(&mut hasher);
        Bucket(hasher.finish())
    }
}
