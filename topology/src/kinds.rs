//! The kinds of owners that translation knows. Names are part of row identity: frozen once released.

use ovenbird_reconcile::{Owner, OwnerKind};

/// The cluster as a whole; its key is empty.
pub const CLUSTER: OwnerKind = OwnerKind { rank: 10, name: "Cluster" };
/// A set of pods that selectors name, by its text (see `selection`).
pub const POD_SELECTOR: OwnerKind = OwnerKind { rank: 12, name: "PodSelector" };
/// What the policies of a namespace share, by its name.
pub const NETPOL_NAMESPACE: OwnerKind = OwnerKind { rank: 14, name: "NetpolNamespace" };
/// A ServiceCIDR, by name.
pub const SERVICE_CIDR: OwnerKind = OwnerKind { rank: 15, name: "ServiceCIDR" };
/// A Node, by name.
pub const NODE: OwnerKind = OwnerKind { rank: 20, name: "Node" };
/// A Pod as the other end of policies, by `namespace/name`: its addresses are known there before rules apply that let it through.
pub const PEER: OwnerKind = OwnerKind { rank: 24, name: "Peer" };
/// A NetworkPolicy, by `namespace/name`; its rules are there before pods are isolated.
pub const NETWORK_POLICY: OwnerKind = OwnerKind { rank: 26, name: "NetworkPolicy" };
/// A Pod, by `namespace/name`.
pub const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };
/// A Service, by `namespace/name`.
pub const SERVICE: OwnerKind = OwnerKind { rank: 40, name: "Service" };

/// The one owner of kind [`CLUSTER`].
pub fn cluster() -> Owner {
    Owner::new(CLUSTER, "")
}
