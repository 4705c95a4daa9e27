//! Which lists of the built-in types are merged item by item, and by which key. A table, from the patchMergeKey tags of
//! the Kubernetes API types. Everything that is not here is replaced as a whole.

/// How two versions of a list become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// The new one replaces the old one.
    Atomic,
    /// Items with the same value of this field are the same item.
    Keyed(&'static str),
    /// A set of strings.
    Set,
}
use ListKind::{Atomic, Keyed, Set};

/// Parent (any for `*`), field, kind: the list `field` of an object that is the value of `parent`, or an item of it.
const LISTS: &[(&str, &str, ListKind)] = &[
    ("*", "conditions", Keyed("type")),
    ("*", "containers", Keyed("name")),
    ("*", "initContainers", Keyed("name")),
    ("*", "ephemeralContainers", Keyed("name")),
    ("*", "volumes", Keyed("name")),
    ("*", "env", Keyed("name")),
    ("*", "volumeMounts", Keyed("mountPath")),
    ("*", "volumeDevices", Keyed("devicePath")),
    ("*", "imagePullSecrets", Keyed("name")),
    ("*", "hostAliases", Keyed("ip")),
    ("*", "topologySpreadConstraints", Keyed("topologyKey")),
    ("containers", "ports", Keyed("containerPort")),
    ("initContainers", "ports", Keyed("containerPort")),
    ("spec", "ports", Keyed("port")),
    ("spec", "podCIDRs", Set),
    ("status", "addresses", Keyed("type")),
    ("status", "podIPs", Keyed("ip")),
    ("status", "hostIPs", Keyed("ip")),
    ("metadata", "ownerReferences", Keyed("uid")),
    ("metadata", "finalizers", Set),
];

/// The kind of the list `field` under `parent`.
pub(super) fn list_kind(parent: &str, field: &str) -> ListKind {
    let found = LISTS.iter().find(|(under, name, _)| *name == field && (*under == "*" || *under == parent));
    found.map_or(Atomic, |(_, _, kind)| *kind)
}
