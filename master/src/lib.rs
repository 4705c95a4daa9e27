//! The central daemon: Kubernetes objects in, OVN Northbound rows out.

pub mod config;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod object;
pub mod watch;
