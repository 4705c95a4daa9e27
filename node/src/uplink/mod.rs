//! Takes the uplink NIC over into a bridge of Open_vSwitch, and gives it back: addresses, routes and rules move as a transaction.
//!
//! ```text
//! [kernel] --> Host --> [choose] --> Uplink --> [journal]        [words]: netlink --> Item, in the words of ip(8)
//!                       Host, Uplink --> [plan] --> Steps --> [apply] --> ovs-vsctl, ip -batch, nft
//! [task]: which of these when: at the daemon's start, at boot (--restore-uplink), at --cleanup, for --dry-run
//! ```
//!
//! A bridge that the operator prepared is never changed. Each file's header says what it is for.

pub mod apply;
pub mod choose;
pub mod host;
pub mod item;
pub mod journal;
pub mod kernel;
#[cfg(test)]
mod model;
pub mod plan;
#[cfg(test)]
mod real_tests;
pub mod task;
pub mod words;

pub use task::Task;
