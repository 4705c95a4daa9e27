//! The node in `--network-mode classic`: bridges, tunnels and pods without OVN.
//!
//! ```text
//! Nodes, kernel, settings --> [task]: Fabric --> Open_vSwitch, flows of obr0, kbr0 with addresses and routes, nftables
//! Services, EndpointSlices --> [services] --> nftables, health checks; connections of UDP that they left [conntrack] forgets
//! the node's Pods --> [host_ports] --> nftables
//! Pods, Namespaces, policies --> [policy] --> nftables; which pods are covered; [weights] --> [services]
//! CNI --> plug --> [ports]: veth is a port of kbr0         [daemon] puts the parts together
//! ```
//!
//! What a node should have is decided by the crate `ovenbird-classic`.

mod conntrack;
pub mod daemon;
pub mod guard;
pub mod host_ports;
pub mod nodes;
pub mod policy;
pub mod ports;
pub mod services;
pub mod settings;
pub mod task;
pub mod weights;
