//! The kinds of owners that translation knows. Names are part of row identity: frozen once released.

use ovenbird_reconcile::{Owner, OwnerKind};

use crate::facts::{AdminKey, AdminKind};

/// The cluster as a whole; its key is empty.
pub const CLUSTER: OwnerKind = OwnerKind { rank: 10, name: "Cluster" };
/// A set of pods that selectors name, by its text (see `selection`).
pub const POD_SELECTOR: OwnerKind = OwnerKind { rank: 12, name: "PodSelector" };
/// What the policies of a namespace share, by its name.
pub const NETPOL_NAMESPACE: OwnerKind = OwnerKind { rank: 14, name: "NetpolNamespace" };
/// A ServiceCIDR, by name.
pub const SERVICE_CIDR: OwnerKind = OwnerKind { rank: 15, name: "ServiceCIDR" };
/// A Network, by name.
pub const NETWORK: OwnerKind = OwnerKind { rank: 18, name: "Network" };
/// A Node, by name.
pub const NODE: OwnerKind = OwnerKind { rank: 20, name: "Node" };
/// A Pod as the other end of policies, by `namespace/name`: its addresses are known there before rules apply that let it through.
pub const PEER: OwnerKind = OwnerKind { rank: 24, name: "Peer" };
/// A NetworkPolicy, by `namespace/name`; its rules are there before pods are isolated.
pub const NETWORK_POLICY: OwnerKind = OwnerKind { rank: 26, name: "NetworkPolicy" };
/// An AdminNetworkPolicy, by name.
pub const ADMIN_NETWORK_POLICY: OwnerKind = OwnerKind { rank: 27, name: "AdminNetworkPolicy" };
/// A BaselineAdminNetworkPolicy, by name.
pub const BASELINE_ADMIN_NETWORK_POLICY: OwnerKind = OwnerKind { rank: 27, name: "BaselineAdminNetworkPolicy" };
/// A ClusterNetworkPolicy, by name.
pub const CLUSTER_NETWORK_POLICY: OwnerKind = OwnerKind { rank: 27, name: "ClusterNetworkPolicy" };
/// A Pod, by `namespace/name`.
pub const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };
/// A Service, by `namespace/name`.
pub const SERVICE: OwnerKind = OwnerKind { rank: 40, name: "Service" };

/// The kind of owners of an admin policy.
pub fn of_admin(kind: AdminKind) -> OwnerKind {
    match kind {
        AdminKind::AdminNetworkPolicy => ADMIN_NETWORK_POLICY,
        AdminKind::BaselineAdminNetworkPolicy => BASELINE_ADMIN_NETWORK_POLICY,
        AdminKind::ClusterNetworkPolicy => CLUSTER_NETWORK_POLICY,
    }
}

/// The admin policy that an owner stands for.
pub fn admin_key(owner: &Owner) -> Option<AdminKey> {
    let kind = AdminKind::ALL.into_iter().find(|kind| of_admin(*kind) == owner.kind)?;
    Some((kind, owner.key.clone()))
}

/// The one owner of kind [`CLUSTER`].
pub fn cluster() -> Owner {
    Owner::new(CLUSTER, "")
}
