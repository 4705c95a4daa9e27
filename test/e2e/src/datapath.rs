//! Waiting for what OVS in user space may hold up: before 3.1.3 a datapath flow can outlive the OpenFlow rules that it was made from ("dpif-netdev:
//! Fix dpif_netdev_flow_put"), most of all one that drops. Forgetting the flows mends it.
//!
//! In: a lab, a condition. Out: whether it came to hold; that it needed help is printed. It must not help at once: what is slow is not wrong.

use std::time::Duration;

use anyhow::Result;
use ovenbird_lab::{Lab, Mode, nested, wait_for};

use crate::LIMIT;

/// How long rules may take by themselves.
const ALONE: Duration = Duration::from_secs(10);

/// Hosts with a switch in user space that OVN, or a VM's daemon, has rules in.
pub fn switches(lab: &Lab) -> Vec<String> {
    let options = &lab.layout().options;
    let nodes = options.node_names();
    match options.mode {
        // The kernel's datapath has nothing to forget.
        Mode::Classic => Vec::new(),
        Mode::Nested => nodes.iter().map(|node| nested::hypervisor(node)).chain(nodes.clone()).collect(),
        Mode::Overlay | Mode::Underlay => nodes,
    }
}

/// Has the switches of all nodes make their datapath flows anew.
///
/// # Errors
/// When a switch does not answer.
pub fn forget_flows(lab: &Lab) -> Result<()> {
    switches(lab).iter().try_for_each(|host| lab.exec_node(host, &["ovs-appctl", "revalidator/purge"]).map(drop))
}

/// Waits until a condition holds, with help when it does not by itself.
///
/// # Errors
/// What is wrong, in the end.
pub fn eventually(lab: &Lab, what: &str, mut condition: impl FnMut() -> Result<()>) -> Result<()> {
    if wait_for(what, ALONE, || condition().is_ok()).is_ok() {
        return Ok(());
    }
    println!("{what}: once the datapath had forgotten its flows");
    forget_flows(lab)?;
    let mut seen = Ok(());
    wait_for(what, LIMIT, || {
        seen = condition();
        seen.is_ok()
    })
    .or(seen)
}
