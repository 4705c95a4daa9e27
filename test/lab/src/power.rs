//! A node's power: off, with everything that ran on it at once, and on again with what its disk held.
//!
//! In: a layout, a node's name. Out: a node as after a crash, or as after a boot. It must not change the API server's objects: what
//! becomes of those is for the cluster to find out.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::options::Api;
use crate::place::{create_netns, delete_netns};
use crate::{components, down, fabric, real, up};

/// Cuts the power of a real node: no process gets to say a word, and its network is gone. Its disk keeps what was written.
///
/// # Errors
/// When it is no node of a real lab, or a process does not end.
pub fn off(layout: &Layout, node: &str) -> Result<()> {
    index(layout, node)?;
    let prefix = format!("{node}/");
    let records = layout.processes().all();
    let own = records.iter().filter(|record| record.spec.name.starts_with(&prefix)).map(|record| record.id);
    down::end(own)?;
    fabric::disconnect(layout, node)?;
    delete_netns(&layout.netns(node))?;
    real::cgroups::remove_node(layout.prefix(), node)
}

/// Boots a node after `off`: its switch, ovn-controller, runtime, kubelet and node daemon start as on the first day, on the disk that
/// is there.
///
/// # Errors
/// Names what does not come up.
pub fn on(layout: &Layout, node: &str) -> Result<()> {
    let index = index(layout, node)?;
    create_netns(&layout.netns(node))?;
    fabric::connect(layout, node)?;
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
    up::start_host(layout, node, index)?;
    real::start_kubelet(layout, node, index)?;
    layout.processes().start(components::node(layout, node, index)?).map(drop)
}

fn index(layout: &Layout, node: &str) -> Result<u16> {
    if layout.options.api != Api::Real {
        bail!("the power of {node}: only a real lab (--api real) has nodes with disks of their own");
    }
    layout.options.index_of(node)
}
