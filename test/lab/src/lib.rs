//! The lab: a small cluster on one machine, on real OVS and OVN.
//!
//! Nodes are network namespaces with their own ovsdb-server, ovs-vswitchd and ovn-controller; a central namespace has Northbound,
//! Southbound and northd; an embedded API server and a lab kubelet stand in for Kubernetes, or the real thing runs (`real`). Root is
//! needed, a kernel module is not.
//!
//! The binary `ovenbird-lab` is for people, [`Lab`] is for tests. It must not be imported by anything outside `test/`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod api_server;
mod cluster;
mod components;
pub mod conformance;
pub mod databases;
pub mod demo;
mod down;
mod fabric;
pub mod gate;
pub mod kubelet;
mod lab;
mod layout;
mod matrix;
pub mod nested;
mod options;
mod ovn;
pub mod pki;
pub mod place;
mod power;
pub mod probe;
mod process;
mod progress;
pub mod real;
pub mod scheduler;
mod status;
mod switch;
pub mod table;
pub mod testing;
pub mod underlay;
mod up;

pub use cluster::connect;
pub use down::down;
pub use lab::{Lab, Scene};
pub use layout::Layout;
pub use matrix::{Cell, Check, Destination, Matrix, Source};
pub use options::{Api, DEFAULT_DIR, Encap, Family, Mode, Options, ServiceModel, Uplink};
pub use place::Place;
pub use process::{ProcessId, Processes, Record, Spec, wait_for};
pub use progress::Progress;
pub use status::Status;
