//! The judge of NetworkPolicy and of admin policies, independent of the translation that it judges.
//!
//! ```text
//! Kubernetes objects, packet --[evaluate]--------------------> what the API promises
//! Northbound rows,    packet --[rows]--[expression]--[frame]-> what OVN would do
//! ```
//!
//! [`evaluate`] knows the API and no OVN; [`rows`] knows OVN and no Kubernetes. What both say of a packet must agree. Must not:
//! share code with the crate `topology`.

pub mod evaluate;
pub mod expression;
pub mod frame;
pub mod generate;
pub mod packet;
pub mod rows;
pub mod translate;

pub use evaluate::{Cluster, Host, Verdict};
pub use packet::{Packet, Protocol};
pub use rows::Rows;
