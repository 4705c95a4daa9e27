//! A node's cgroup: two kubelets on one kernel would delete each other's pods, had not each a root of its own.
//!
//! `/PREFIX/NODE` in every hierarchy of version 1, or in the one of version 2. In: names. Out: folders below /sys/fs/cgroup. It must
//! not touch a cgroup that is not below PREFIX.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::wait_for;

const TOP: &str = "/sys/fs/cgroup";
/// Tasks that were killed leave within moments.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// The cgroup of a node, as the kubelet takes it.
pub fn of_node(prefix: &str, node: &str) -> String {
    format!("/{prefix}/{node}")
}

/// Makes a node's cgroup.
///
/// # Errors
/// Names the folder.
pub fn create(prefix: &str, node: &str) -> Result<()> {
    for top in hierarchies()? {
        let folders = [top.join(prefix), top.join(prefix).join(node)];
        for folder in &folders {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        // A cpuset of version 1 is born empty and then takes no task.
        for file in ["cpuset.mems", "cpuset.cpus"].iter().filter(|file| top.join(file).exists() && is_v1(&top)) {
            let all = fs::read(top.join(file)).with_context(|| format!("reading {file}"))?;
            for folder in &folders {
                fs::write(folder.join(file), &all)
                    .with_context(|| format!("writing {file} of {}", folder.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes all cgroups of a lab once their tasks have gone. Fine when there are none.
///
/// # Errors
/// Names a folder that cannot be removed.
pub fn remove(prefix: &str) -> Result<()> {
    remove_below(Path::new(prefix))
}

/// Removes the cgroups of one node once its tasks have gone. Fine when there are none.
///
/// # Errors
/// Names a folder that cannot be removed.
pub fn remove_node(prefix: &str, node: &str) -> Result<()> {
    remove_below(&Path::new(prefix).join(node))
}

fn remove_below(path: &Path) -> Result<()> {
    for top in hierarchies()?.into_iter().map(|top| top.join(path)) {
        wait_for(&format!("the tasks of {} to leave", top.display()), LEAVE_LIMIT, || remove_tree(&top).is_ok())?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(folder)
}

fn is_v1(top: &Path) -> bool {
    top != Path::new(TOP)
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if Path::new(TOP).join("cgroup.controllers").exists() {
        return Ok(vec![TOP.into()]);
    }
    let entries = fs::read_dir(TOP).with_context(|| format!("listing {TOP}"))?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.is_dir() && !path.is_symlink()).collect())
}
