//! A node's power: off, with everything that ran on it at once, and on again with what its disk held.
//!
//! In: a layout, a node's name. Out: a node as after a crash, or as after a boot. It must not change the API server's objects: what
//! becomes of those is for the cluster to find out.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::kubelet::Store;
use crate::layout::Layout;
use crate::options::{Api, Mode};
use crate::place::{create_netns, delete_netns};
use crate::{components, down, fabric, nested, real, underlay, up};

/// What brings the API server into namespaces.
const GATE: &str = "gate";
const END_LIMIT: Duration = Duration::from_secs(10);

/// Cuts the power of a node: no process gets to say a word, and its network is gone. Its disk keeps what was written.
///
/// # Errors
/// When it is no node of the lab, or a process does not end.
pub fn off(layout: &Layout, node: &str) -> Result<()> {
    layout.options.index_of(node)?;
    let prefix = format!("{node}/");
    let records = layout.processes().all();
    let own = records.iter().filter(|record| record.spec.name.starts_with(&prefix)).map(|record| record.id);
    down::end(own)?;
    match layout.options.mode {
        Mode::Nested => nested::disconnect(layout, node)?,
        _ => fabric::disconnect(layout, node)?,
    }
    if layout.options.has_vlans() && layout.options.mode != Mode::Nested {
        underlay::disconnect(layout, node)?;
    }
    delete_netns(&layout.netns(node))?;
    match layout.options.api {
        Api::Real => real::cgroups::remove_node(layout.prefix(), node),
        _ => end_sandboxes(layout, node),
    }
}

/// What a container runtime holds in memory. The lab kubelet makes its pods anew.
fn end_sandboxes(layout: &Layout, node: &str) -> Result<()> {
    let store = Store::new(layout, node)?;
    for sandbox in store.all() {
        down::end(sandbox.process.into_iter())?;
        store.remove(&sandbox)?;
    }
    Ok(())
}

/// Boots a node after `off`: its switch, ovn-controller, runtime, kubelet and node daemon start as on the first day, on the disk that
/// is there.
///
/// # Errors
/// Names what does not come up.
pub fn on(layout: &Layout, node: &str) -> Result<()> {
    let index = layout.options.index_of(node)?;
    create_netns(&layout.netns(node))?;
    match layout.options.mode {
        Mode::Nested => nested::reconnect(layout, node)?,
        _ => fabric::connect(layout, node)?,
    }
    if layout.options.has_vlans() {
        underlay::reconnect(layout, node)?;
    }
    // Sockets and pid files of the time before.
    for entry in fs::read_dir(layout.home(node)).with_context(|| format!("listing the folder of {node}"))?.flatten() {
        let path = entry.path();
        if ["sock", "pid", "ctl", "mgmt", "snoop", "ready"]
            .iter()
            .any(|end| path.extension().is_some_and(|e| e == *end))
        {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    match layout.options.mode {
        Mode::Nested => nested::start_vm(layout, node, index)?,
        _ => up::start_host(layout, node, index)?,
    }
    let processes = layout.processes();
    if layout.options.api == Api::Real {
        real::start_kubelet(layout, node, index)?;
        real::start_kube_proxy(layout, node)?;
    } else {
        // It stands in the namespace that is gone.
        processes.get(GATE)?.id.end(Signal::SIGKILL, END_LIMIT)?;
        processes.start_again(GATE)?;
        processes.start(components::kubelet(layout, node))?;
    }
    processes.start(components::node(layout, node, index)?).map(drop)
}
