//! What the master and the node daemon have in common as processes: settings, logging, signals, access to the API server, and the
//! HTTP server of metrics and probes.
//!
//! Must not: know what either of them does.

pub mod access;
pub mod http;
pub mod process;
pub mod rights;
pub mod settings;
