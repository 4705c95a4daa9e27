//! Names of Northbound rows and of host interfaces, as runbooks and tools for OVN on Kubernetes know them.
//!
//! Kubernetes names have no `_`, so that no two inputs meet in one name. Must not: know what the rows hold.

/// The one distributed router (Logical_Router).
pub const CLUSTER_ROUTER: &str = "ovn_cluster_router";
/// The switch between the cluster router and the gateway routers (Logical_Switch).
pub const JOIN_SWITCH: &str = "join";
/// The host's own interface on its node switch.
pub const MANAGEMENT_INTERFACE: &str = "ovn-k8s-mp0";
/// The network that an external bridge stands for, in `ovn-bridge-mappings` and the options of localnet ports.
pub const PHYSICAL_NETWORK: &str = "physnet";
/// The OVS bridge that ovn-controller programs.
pub const INTEGRATION_BRIDGE: &str = "br-int";

/// A pod's port (Logical_Switch_Port, and `iface-id` on the node).
pub fn lsp_name(namespace: &str, pod: &str) -> String {
    [namespace, "_", pod].concat()
}

/// A node's switch (Logical_Switch).
pub fn node_switch(node: &str) -> &str {
    node
}

/// Switch end of the link between a node switch and the cluster router (Logical_Switch_Port).
pub fn switch_to_router(node: &str) -> String {
    ["stor-", node].concat()
}

/// Router end of it (Logical_Router_Port).
pub fn router_to_switch(node: &str) -> String {
    ["rtos-", node].concat()
}

/// Gateway_Chassis that pins a node's router port to its chassis.
pub fn gateway_chassis(node: &str, chassis: &str) -> String {
    ["rtos-", node, "-", chassis].concat()
}

/// Port of [`MANAGEMENT_INTERFACE`] (Logical_Switch_Port).
pub fn management_port(node: &str) -> String {
    ["k8s-", node].concat()
}

/// Router end of the link between a router and the join switch (Logical_Router_Port).
pub fn router_to_join(router: &str) -> String {
    ["rtoj-", router].concat()
}

/// Switch end of it (Logical_Switch_Port).
pub fn join_to_router(router: &str) -> String {
    ["jtor-", router].concat()
}

/// A node's gateway router (Logical_Router).
pub fn gateway_router(node: &str) -> String {
    ["GR_", node].concat()
}

/// The switch between a gateway router and the node's uplink (Logical_Switch).
pub fn external_switch(node: &str) -> String {
    ["ext_", node].concat()
}

/// Router end of the link between a router and its external switch (Logical_Router_Port).
pub fn router_to_external(router: &str) -> String {
    ["rtoe-", router].concat()
}

/// Port of an external switch on the external bridge (localnet Logical_Switch_Port).
pub fn localnet_port(bridge: &str, node: &str) -> String {
    [bridge, "_", node].concat()
}

/// Port of the external bridge that ovn-controller makes for a localnet port (OVS Port).
pub fn patch_to_integration(localnet_port: &str) -> String {
    ["patch-", localnet_port, "-to-", INTEGRATION_BRIDGE].concat()
}

/// What the name of the port of br-int begins with that ovn-controller makes for a localnet port, whose name follows (OVS Port).
pub const PATCH_FROM_INTEGRATION: &str = "patch-br-int-to-";

/// Switch end of it (Logical_Switch_Port).
pub fn external_to_router(router: &str) -> String {
    ["etor-", router].concat()
}

/// The switch of a `Network` (Logical_Switch); the links to its router port are named after it as those of a node's switch.
pub fn network_switch(network: &str) -> String {
    ["NET_", network].concat()
}

/// Port of a network's switch by which it is on the physical network (localnet Logical_Switch_Port).
pub fn network_localnet(network: &str) -> String {
    ["localnet-NET_", network].concat()
}

/// Destinations of a family to which pods keep their own address (Address_Set).
pub fn non_masquerade(v4: bool) -> &'static str {
    if v4 { "non_masquerade_v4" } else { "non_masquerade_v6" }
}

/// Key of a namespaced object: `namespace/name`.
pub fn key(namespace: &str, name: &str) -> String {
    [namespace, "/", name].concat()
}
