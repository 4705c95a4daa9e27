//! The node daemon: chassis settings, management port, pod ports, gateway.
//!
//! ```text
//! kubelet -> ovenbird-cni (shim) -> [cni-server] -> [plug] -> desired {veth in the pod's netns, Port, Interface}
//!   -> [net] and [vswitch: diff on Open_vSwitch] -> ovn-installed -> result
//! ```
//!
//! `daemon` puts the parts together; each file's header says what it is for.

pub mod annotations;
pub mod base;
pub mod cable;
pub mod capability;
pub mod chassis;
pub mod classic;
pub mod cluster;
pub mod cni_conf;
pub mod config;
pub mod daemon;
pub mod dhcp;
pub mod gateway;
pub mod known;
pub mod management;
pub mod metrics;
pub mod mode;
pub mod nested;
pub mod net;
pub mod nft;
pub mod plug;
pub mod pods;
pub mod readiness;
#[cfg(test)]
mod real_ovn_tests;
pub mod remove;
pub mod restore;
pub mod rows;
pub mod service_cidrs;
pub mod step;
mod sweep;
#[cfg(test)]
mod testing;
pub mod tool;
pub mod underlay;
pub mod uplink;
pub mod vswitch;
mod vswitch_task;
