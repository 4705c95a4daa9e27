//! Takes a lab down: exactly what is recorded, whatever state a crash left it in.
//!
//! In: LAB_DIR. Out: nothing of the lab left. It must not search for processes by name, and it must not need any of the lab's
//! daemons to work.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::kubelet::Store;
use crate::layout::Layout;
use crate::options::Api;
use crate::place::delete_netns;
use crate::process::{ProcessId, Processes};
use crate::real::cgroups;

const END_LIMIT: Duration = Duration::from_secs(10);

/// Ends every recorded process, removes the namespaces and the folder. Returns false when there was nothing.
///
/// # Errors
/// When something could not be ended or removed; it can be called again.
pub fn down(dir: &Path) -> Result<bool> {
    if !dir.exists() {
        return Ok(false);
    }
    // Kubelets first: they would start pods' commands anew.
    let (kubelets, others): (Vec<_>, Vec<_>) =
        Processes::new(dir).all().into_iter().partition(|record| record.spec.name.ends_with("/kubelet"));
    end(kubelets.iter().map(|record| record.id))?;
    let sandboxes = Store::of_lab(dir);
    let commands = sandboxes.iter().filter_map(|sandbox| sandbox.process);
    end(others.iter().map(|record| record.id).chain(commands))?;
    // A lab.json that is missing or broken means that nothing was made yet: it is written first, and as a whole.
    let layout = Layout::load(dir).ok();
    let own = layout.as_ref().map(Layout::namespaces).unwrap_or_default();
    let pods = sandboxes.into_iter().filter(|sandbox| !sandbox.host_network).map(|sandbox| sandbox.netns);
    for name in pods.chain(own) {
        delete_netns(&name)?;
    }
    if let Some(layout) = layout.filter(|layout| layout.options.api == Api::Real) {
        cgroups::remove(layout.prefix())?;
    }
    fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    Ok(true)
}

/// Kills all at once, then waits for each: nothing here keeps state worth a graceful stop.
///
/// # Errors
/// When one does not end.
pub fn end(ids: impl Iterator<Item = ProcessId> + Clone) -> Result<()> {
    ids.clone().for_each(|id| id.signal(Signal::SIGKILL));
    ids.into_iter().try_for_each(|id| id.end(Signal::SIGKILL, END_LIMIT))
}
