//! The classic network: Linux bridge kbr0, OVS bridge obr0, tunnels between nodes, no OVN. What a node of it should have, as pure functions.
//!
//! ```text
//! pod -- veth -- kbr0 (gateway of the node's subnet) -- attachment -- obr0 -- tunnel ~~~ obr0 -- kbr0 -- pod
//! nodes, settings --> [fabric] --> rows of Open_vSwitch, flows of obr0, routes and neighbours of kbr0, what is masqueraded
//! Services, EndpointSlices --> [services] --> tables of nftables        hostPort --> [host_ports]   policies --> [policy]   pods' ports --> [guard]   [masquerade]
//! ```
//!
//! Must not: do I/O, or know the master: a node's subnets and address are all that it is to others.

pub mod fabric;
mod flows;
pub mod guard;
pub mod host_ports;
pub mod masquerade;
pub mod policy;
mod rows;
pub mod services;
pub mod settings;

pub use fabric::{Attachment, Existing, Fabric, Member};
pub use settings::{Attach, Mesh, Settings, Tunnel, Variant};
