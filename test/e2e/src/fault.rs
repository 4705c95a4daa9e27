//! Daemons that are ended and started again, and what says that they have come back to their work.
//!
//! In: a lab. Out: a lab in which the daemon works again. It must not know what a test holds against the fault.

use std::fs;

use anyhow::{Context, Result};
use ovenbird_lab::{Lab, wait_for};

use crate::LIMIT;

/// What is ended and started again, and what says that it has done its work since.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// For people.
    pub name: &'static str,
    /// One after the other.
    pub components: &'static [&'static str],
    /// SIGKILL, else SIGTERM.
    pub kill: bool,
    /// When it is over.
    pub done: Done,
}

/// When a component has come back to its work.
#[derive(Clone, Copy, Debug)]
pub enum Done {
    /// Its log says so.
    Log(&'static str),
    /// ovn-northd has translated all.
    Southbound,
    /// Every ovn-controller has installed all.
    Nodes,
}

/// Waits until the API server, quick or real, answers.
///
/// # Errors
/// When it does not in time.
pub fn await_api(lab: &Lab) -> Result<()> {
    let ready = || lab.exec_node("central", &["kubectl", "get", "--raw", "/readyz"]).is_ok();
    wait_for("the API server to answer", LIMIT, ready)
}

/// A node daemon has its flows.
pub const FLOWS: Done = Done::Log("flows of the external bridge are as they should be");
/// A master knows all objects.
pub const LISTED: Done = Done::Log("every list is complete");

impl Fault {
    /// One component after the other, and after each `check`.
    ///
    /// # Errors
    /// When a component does not come back, or what `check` returns.
    pub fn strike(&self, lab: &Lab, check: impl Fn() -> Result<()>) -> Result<()> {
        for component in self.components {
            let before = self.said(lab, component);
            let end = if self.kill { Lab::kill } else { Lab::stop };
            end(lab, component)?;
            lab.start(component)?;
            match self.done {
                Done::Southbound => sync(lab, "--wait=sb")?,
                Done::Nodes => sync(lab, "--wait=hv")?,
                Done::Log(_) => {
                    wait_for(&format!("{component} to do its work"), LIMIT, || self.said(lab, component) > before)?;
                }
            }
            check().with_context(|| format!("after {} ({component})", self.name))?;
        }
        Ok(())
    }

    /// How often a component's log has said that it has done its work.
    fn said(&self, lab: &Lab, component: &str) -> usize {
        let Done::Log(words) = self.done else { return 0 };
        let log = lab.layout().processes().log_path(component);
        fs::read_to_string(log).unwrap_or_default().matches(words).count()
    }
}

/// Waits until what the Northbound says is so everywhere: `--wait=sb` or `--wait=hv` (ovn-nbctl(8)).
///
/// # Errors
/// When it does not come to that.
pub fn sync(lab: &Lab, how: &str) -> Result<()> {
    lab.exec_node("central", &["ovn-nbctl", "--timeout=60", how, "sync"]).map(drop)
}
