//! Ownership written where people and tools look: `external_ids` of each row.
//!
//! Keys are those of ovn-kubernetes. They inform only: what is ours is told by the UUID (`reconcile::identity`).

use ovenbird_reconcile::Owner;
use ovsdb::Atom;

use crate::view::View;

/// Value of `k8s.ovn.org/owner-controller`.
const CONTROLLER: &str = "default-network-controller";
const OWNER_CONTROLLER: &str = "k8s.ovn.org/owner-controller";
const OWNER_TYPE: &str = "k8s.ovn.org/owner-type";
const OWNER_NAME: &str = "k8s.ovn.org/name";
const OWNER_ID: &str = "k8s.ovn.org/id";

/// Keys for the row that `owner` has under `role` in a table; `k8s.ovn.org/id` is unique in it.
pub(crate) fn external_ids(view: &View<'_>, owner: &Owner, role: &str) -> Vec<(Atom, Option<Atom>)> {
    let kind = owner.kind.name;
    let name = owner.key.replace('/', ":");
    let mut id = [CONTROLLER, ":", kind].concat();
    for part in [&name, role].into_iter().filter(|part| !part.is_empty()) {
        id.push(':');
        id.push_str(part);
    }
    let key = |key| Atom::String(view.text(key));
    let mut pairs = vec![
        (key(OWNER_ID), Some(id.into())),
        (key(OWNER_CONTROLLER), Some(key(CONTROLLER))),
        (key(OWNER_TYPE), Some(key(kind))),
    ];
    if !name.is_empty() {
        pairs.push((key(OWNER_NAME), Some(name.into())));
    }
    pairs
}
