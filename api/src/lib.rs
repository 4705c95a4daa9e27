//! What Kubernetes sees of us: annotations, object names, addresses and MACs, quantities and well-known paths.
//!
//! Inputs and outputs are texts and plain values. Must not: do I/O, know Kubernetes object types, OVSDB, or any daemon.
//! Every other crate may import this one, so it stays small.

pub mod acl_logging;
pub mod address;
pub mod annotation;
pub mod bandwidth;
pub mod gateway;
pub mod lease;
pub mod mac;
pub mod mark;
pub mod masquerade;
pub mod mode;
pub mod name;
pub mod nested;
pub mod node;
pub mod path;
pub mod pod;
pub mod port;
pub mod service;
pub mod underlay;

pub use acl_logging::{AclLogging, LogSeverity};
pub use annotation::AnnotationError;
pub use gateway::{GatewayMode, L3Gateway};
pub use lease::Lease;
pub use mac::Mac;
pub use masquerade::{Masquerade, MasqueradeError};
pub use pod::{PodNetwork, PodRoute};
pub use port::{HostPort, HostPorts, Protocol};
pub use underlay::{ProviderNetworkSpec, ProviderNetworkStatus};
