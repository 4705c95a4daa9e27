//! Ownership written for people and tools: the external_ids that ovn-kubernetes and its tools know.
//!
//! Ownership itself is in the UUID (`identity`); these four keys are for reading. Source: ovn-kubernetes, db_object_ids.go.
//! Must not: be read back by us.

use ovsdb::{Atom, Str};

/// Controller of the cluster's default network.
pub const DEFAULT_CONTROLLER: &str = "default-network-controller";

/// Owner keys of a row: `k8s.ovn.org/{id,name,owner-controller,owner-type}`, sorted by key, ready for [`crate::Want::Keys`] (merge
/// further keys and sort again; `Desired` sorts anyway).
///
/// `kind` is the owner type (`NetworkPolicy`), `name` the object (`namespace:name` when namespaced), `keys` what tells several
/// rows of one object apart (direction, index, family, ...), in their order.
pub fn external_ids(controller: &str, kind: &str, name: &str, keys: &[&str]) -> Vec<(Atom, Option<Atom>)> {
    let mut id = format!("{controller}:{kind}:{name}");
    for key in keys {
        id.push(':');
        id.push_str(key);
    }
    let pair = |key: &str, value: &str| (Atom::from(key), Some(Atom::String(Str::from(value))));
    vec![
        pair("k8s.ovn.org/id", &id),
        pair("k8s.ovn.org/name", name),
        pair("k8s.ovn.org/owner-controller", controller),
        pair("k8s.ovn.org/owner-type", kind),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_ovn_kubernetes_writes_them() {
        let ids = external_ids(DEFAULT_CONTROLLER, "NetworkPolicy", "default:web", &["Ingress", "0"]);
        let texts: Vec<_> =
            ids.iter().map(|(k, v)| (k.as_str().unwrap(), v.as_ref().unwrap().as_str().unwrap())).collect();
        assert_eq!(
            texts,
            [
                ("k8s.ovn.org/id", "default-network-controller:NetworkPolicy:default:web:Ingress:0"),
                ("k8s.ovn.org/name", "default:web"),
                ("k8s.ovn.org/owner-controller", "default-network-controller"),
                ("k8s.ovn.org/owner-type", "NetworkPolicy"),
            ]
        );
        assert!(ids.is_sorted_by_key(|(k, _)| k));
    }
}
