//! The CNI protocol (versions 0.3.1 to 1.1.0 of the specification), server side.
//!
//! ```text
//! runtime -> ovenbird-cni (shim) -> unix socket, JSON-RPC 2.0 -> [server] -> [request] -> Attach -> [result] -> stdout text
//! ```
//!
//! [`request::parse_request`] turns bytes into one typed [`Request`] or a CNI error that says what to change; the
//! trait [`Attach`] does the work over plain values; [`result`] prints what came out in the layout of the version asked for.
//!
//! Must not: know Open vSwitch, netlink or Kubernetes clients. Those are `node/`.

pub mod attach;
mod config;
pub mod error;
pub mod request;
pub mod result;
pub mod server;
pub mod version;

pub use attach::{Add, Attach, Attached, Attachment, Check, Del, Interface, Ip, PodRef, Route};
pub use error::{CniError, Code};
pub use request::{Action, Request, parse_request};
pub use server::{Server, ServerConfig, ServerError};
pub use version::Version;
