//! The kinds of owners that translation knows. Names are part of row identity: frozen once released.

use ovenbird_reconcile::{Owner, OwnerKind};

/// The cluster as a whole; its key is empty.
pub const CLUSTER: OwnerKind = OwnerKind { rank: 10, name: "Cluster" };
/// A ServiceCIDR, by name.
pub const SERVICE_CIDR: OwnerKind = OwnerKind { rank: 15, name: "ServiceCIDR" };
/// A Node, by name.
pub const NODE: OwnerKind = OwnerKind { rank: 20, name: "Node" };
/// A Pod, by `namespace/name`.
pub const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };
/// A Service, by `namespace/name`.
pub const SERVICE: OwnerKind = OwnerKind { rank: 40, name: "Service" };

/// The one owner of kind [`CLUSTER`].
pub fn cluster() -> Owner {
    Owner::new(CLUSTER, "")
}
