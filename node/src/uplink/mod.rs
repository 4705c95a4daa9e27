//! Takes a NIC that carries the host's addresses over into a bridge of Open_vSwitch, and gives it back: addresses, routes and rules move as a
//! transaction. So the gateway gets its uplink, and a physical network its NIC.
//!
//! ```text
//! [kernel] --> Host --> [choose] --> Uplink --> [journal]        [words]: netlink --> Item, in the words of ip(8)
//!                       Host, Uplink --> [plan] --> Steps --> [apply] --> ovs-vsctl, ip -batch, nft
//! [task]: which of these when: at the daemon's start, for a ProviderNetwork, at boot (--restore-uplink), at --cleanup, for --dry-run
//! [ask]: whether the API server answers
//! ```
//!
//! A bridge that the operator prepared is never changed. Each file's header says what it is for.

pub mod apply;
pub mod ask;
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

pub use journal::Purpose;
pub use task::Task;
