//! From one network mode to another, as an operator does it: daemons off, the network taken off each node, daemons on in the other mode.
//!
//! In: a running lab. Out: the same lab in another mode; pods that ran must be made anew. It must not remove anything by itself: that is
//! the node daemon's part.

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::options::Mode;
use crate::{components, ovn};

/// What ends the daemons of a node, and takes its network off.
///
/// # Errors
/// What a daemon, or `ovenbird-node --remove-network`, says.
pub fn take_off(layout: &Layout) -> Result<()> {
    let processes = layout.processes();
    for (node, index) in layout.options.node_names().iter().zip(1..) {
        let own = [format!("{node}/ovenbird-node"), format!("{node}/ovn-controller")];
        for record in processes.all().iter().filter(|record| own.contains(&record.spec.name)) {
            record.id.end(nix::sys::signal::Signal::SIGTERM, components::END_LIMIT)?;
        }
        let mut argv = components::node(layout, node, index)?.argv;
        argv.push("--remove-network".into());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        layout.inside(node).output(&argv).with_context(|| format!("taking the network off {node}"))?;
    }
    Ok(())
}

/// Starts all that a mode needs, with the masters in that mode.
///
/// # Errors
/// Names what does not come up.
pub fn put_on(layout: &Layout) -> Result<()> {
    let processes = layout.processes();
    for index in 1..=layout.options.masters {
        processes
            .get(&components::master_name(index))?
            .id
            .end(nix::sys::signal::Signal::SIGTERM, components::END_LIMIT)?;
    }
    if layout.options.mode != Mode::Classic && processes.get("central/northd").is_err() {
        ovn::start_central(layout)?;
    }
    for index in 1..=layout.options.masters {
        processes.start(components::master(layout, index)?)?;
    }
    for (node, index) in layout.options.node_names().iter().zip(1..) {
        if layout.options.mode != Mode::Classic {
            ovn::start_controller(layout, node)?;
        }
        processes.start(components::node(layout, node, index)?)?;
    }
    Ok(())
}
