//! The first process of a real node: it makes the node's private mounts, then collects orphans until it is killed.
//!
//! The kernel then ends every process of the node, and its mounts go with the last. Everything the node writes below /etc, /opt,
//! /var and /run lands in LAB_DIR/NODE. In: a layout. Out: a file system that looks like a node's own. It must run as pid 1
//! of new mount, process, IPC and host name namespaces (`unshare`), and must not change a mount that others see.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::layout::Layout;

/// Appears in the node's folder when its mounts are made.
pub const READY: &str = "init.ready";
/// Machine-wide settings that the kubelet insists on and would write where they differ. It gets to see plain files instead.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the mounts and stays. Only returns on failure.
///
/// # Errors
/// Names the mount that failed.
pub fn run(layout: &Layout, node: &str) -> Result<std::convert::Infallible> {
    if std::process::id() != 1 {
        bail!("this must be the first process of a process namespace");
    }
    fs::write("/proc/sys/kernel/hostname", node).context("setting the host name")?;
    let home = layout.home(node);
    let disk = home.join("disk");
    private_run(layout, &home)?;
    for top in ["etc", "opt", "var"] {
        overlay(&disk, top)?;
    }
    // The runtime makes overlays of its own, and one cannot lie on another.
    bind(&disk.join("containerd"), Path::new("/var/lib/containerd"))?;
    own_sys()?;
    mount_at("proc", "/proc", "proc", "")?;
    shadow_sysctls()?;
    write_hosts(layout)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("letting containers see later mounts")?;
    fs::write(home.join(READY), "").context("telling that the node is ready")?;
    collect()
}

/// A /run of its own, in which the lab's folder keeps its path.
fn private_run(layout: &Layout, home: &Path) -> Result<()> {
    let run = home.join("run");
    fs::create_dir_all(&run).context("creating the folder of /run")?;
    mount_at("tmpfs", &run, "tmpfs", "mode=755")?;
    for folder in ["lock", "netns"] {
        fs::create_dir(run.join(folder)).with_context(|| format!("creating /run/{folder}"))?;
    }
    if let Ok(inside) = layout.dir().strip_prefix("/run") {
        bind(layout.dir(), &run.join(inside))?;
    }
    bind_all(&run, Path::new("/run"))
}

/// What is written below `/TOP` lands in the node's folder.
fn overlay(disk: &Path, top: &str) -> Result<()> {
    let (upper, work) = (disk.join(top), disk.join(format!("{top}.work")));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let options = format!("lowerdir=/{top},upperdir={},workdir={}", upper.display(), work.display());
    mount_at("overlay", format!("/{top}"), "overlay", &options)
}

/// /sys of the node's network, with the cgroups where they were.
fn own_sys() -> Result<()> {
    let (cgroups, aside) = (Path::new("/sys/fs/cgroup"), Path::new("/run/cgroup"));
    bind_all(cgroups, aside)?;
    umount2("/sys", MntFlags::MNT_DETACH).context("unmounting /sys")?;
    mount_at("sysfs", "/sys", "sysfs", "")?;
    bind_all(aside, cgroups)?;
    umount2(aside, MntFlags::MNT_DETACH).context("unmounting the cgroups' second place")
}

fn shadow_sysctls() -> Result<()> {
    for (name, value) in SYSCTLS {
        let (real, shadow) = (Path::new("/proc/sys").join(name), Path::new("/run/sysctl").join(name));
        if !real.exists() {
            continue;
        }
        if let Some(folder) = shadow.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(&shadow, format!("{value}\n")).with_context(|| format!("writing {}", shadow.display()))?;
        mount(Some(&shadow), &real, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("shadowing {}", real.display()))?;
    }
    Ok(())
}

/// Names of the nodes; and no resolver, which would be the machine's.
fn write_hosts(layout: &Layout) -> Result<()> {
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, index) in layout.options.node_names().iter().zip(1..) {
        hosts.extend(layout.options.node_addresses(index).iter().map(|address| format!("{address} {name}\n")));
    }
    for (file, text) in [("/etc/hosts", hosts.as_str()), ("/etc/resolv.conf", "")] {
        // It may be a link to somewhere in the machine's /run.
        let _ = fs::remove_file(file);
        fs::write(file, text).with_context(|| format!("writing {file}"))?;
    }
    if !Path::new("/etc/mtab").exists() {
        symlink("/proc/self/mounts", "/etc/mtab").context("linking /etc/mtab")?;
    }
    Ok(())
}

fn mount_at(source: &str, target: impl AsRef<Path>, kind: &str, options: &str) -> Result<()> {
    let target = target.as_ref();
    mount(Some(source), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} on {}", target.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    bind_with(from, to, MsFlags::MS_BIND)
}

fn bind_all(from: &Path, to: &Path) -> Result<()> {
    bind_with(from, to, MsFlags::MS_BIND | MsFlags::MS_REC)
}

fn bind_with(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    for folder in [from, to] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("binding {} to {}", from.display(), to.display()))
}

/// Waits for orphans to end, for ever.
fn collect() -> Result<std::convert::Infallible> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().context("blocking SIGCHLD")?;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => drop(children.wait().context("waiting for SIGCHLD")?),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("collecting an orphan"),
        }
    }
}
