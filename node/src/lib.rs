//! The node daemon: chassis settings, management port, pod ports.
//!
//! ```text
//! kubelet -> ovenbird-cni (shim) -> [cni-server] -> Attach -> [pipeline]
//!   -> desired {veth in the pod's netns, Port, Interface} -> [net] and [diff on Open_vSwitch] -> ovn-installed -> result
//! ```

pub mod metrics;
pub mod net;
pub mod plug;
pub mod pods;
pub mod readiness;
pub mod rows;
pub mod step;
#[cfg(test)]
mod testing;
pub mod vswitch;
mod vswitch_task;
