//! Pure translation: facts from Kubernetes go in, Northbound rows come out.
//!
//! ```text
//! Change -> [snapshot] -> dirty owners -> [view] -> one function per feature -> Output (rows, members, complaints)
//! ```
//!
//! Must not: do I/O, read a clock, use randomness, remember what was written.

pub mod allocate;
mod bucket;
mod build;
pub mod check;
mod cluster;
pub mod config;
mod engine;
pub mod facts;
mod gateway;
mod host_port;
mod intern;
pub mod kinds;
mod nested;
mod node;
mod places;
mod pod;
mod policies;
mod policy;
mod reads;
pub mod selection;
mod service;
mod service_cidr;
mod snapshot;
pub mod text;
pub mod underlay;
mod view;

pub use config::{Config, ConfigError};
pub use engine::Engine;
pub use facts::{
    AdminKind, AdminPolicyFact, Change, EndpointSliceFact, Fact, FactKey, HostPort, NamespaceFact, NetworkFact,
    NetworkPolicyFact, NodeFact, PodAddresses, PodFact, ProviderNetworkFact, ServiceCidrFact, ServiceFact,
};
pub use intern::Interner;
pub use service::endpoints;
