//! Where a process or a piece of work runs: a network namespace, with a foreign OVN release also a root tree, in the real lab also
//! the other namespaces of a node.
//!
//! Namespaces belong to threads on Linux. So everything here starts a thread, moves it, and lets it work or spawn: children inherit
//! the thread's place, the caller never moves. Mounts made for a root tree are private to that thread and its children and
//! vanish with them: there is nothing to unmount at `down`.
//!
//! In: names of namespaces, commands. Out: children and results. It must not know what runs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::process::Record;

const NETNS_DIR: &str = "/run/netns";

/// A network namespace (the root one when `None`) and a root tree (the machine's own when `None`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name under `/run/netns`.
    pub netns: Option<String>,
    /// A tree made by debootstrap, whose programs run instead of the machine's.
    pub root: Option<RootTree>,
    /// Record of the process that holds a real node's namespaces (`NODE/init`): mounts, processes, IPC and host name are then the
    /// node's, and so is the network unless `netns` names another in the node's own `/run/netns`.
    pub node: Option<PathBuf>,
}

/// A root tree and the folders of the machine that must be seen inside it under their own paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootTree {
    /// The tree's top folder.
    pub dir: PathBuf,
    /// Absolute paths bound into the tree.
    pub shared: Vec<PathBuf>,
}

impl Place {
    /// A namespace of this machine's own tree.
    pub fn netns(name: impl Into<String>) -> Self {
        Self { netns: Some(name.into()), ..Self::default() }
    }

    /// The namespaces of a real node.
    pub fn node(init_record: PathBuf) -> Self {
        Self { node: Some(init_record), ..Self::default() }
    }

    /// Does `work` in this place on a thread of its own.
    ///
    /// # Errors
    /// When the place cannot be entered, or what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.in_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// As `run`, for work that starts a process: that process, not the thread, is one of the node's.
    ///
    /// # Errors
    /// As `run`.
    pub fn launch<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.in_thread(|| {
            if let Some(record) = &self.node {
                // The child's alone: a thread that did this could start no other thread.
                setns(namespace(init_of(record)?, "pid")?, CloneFlags::CLONE_NEWPID)
                    .context("choosing the node's processes")?;
            }
            self.enter()?;
            work()
        })
    }

    fn in_thread<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the work in {self:?} panicked"))?)
    }

    /// Starts `command` in this place.
    ///
    /// # Errors
    /// When the place cannot be entered or the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.launch(|| command.spawn().with_context(|| format!("starting {program}")))
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or its exit code is not 0; the text then carries its stderr.
    pub fn output(&self, argv: &[&str]) -> Result<String> {
        let [program, args @ ..] = argv else { bail!("no command given") };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let output = self.launch(|| command.output().with_context(|| format!("starting {program}")))?;
        if !output.status.success() {
            bail!(
                "`{}` failed ({}): {}",
                argv.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Moves the calling thread. Only for a thread that does nothing else afterwards, or a process about to `exec`.
    ///
    /// # Errors
    /// When the namespace does not exist, or the privilege is missing.
    pub fn enter(&self) -> Result<()> {
        if let Some(record) = &self.node {
            enter_node(init_of(record)?, self.netns.is_none()).context("entering a node's namespaces")?;
        }
        if let Some(name) = &self.netns {
            let path = netns_path(name);
            let file = File::open(&path).with_context(|| format!("opening network namespace {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering network namespace {name}"))?;
        }
        match &self.root {
            Some(root) => root.enter().with_context(|| format!("entering root tree {}", root.dir.display())),
            None => Ok(()),
        }
    }
}

impl RootTree {
    fn enter(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("unsharing the mount namespace")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
        for scratch in ["run", "tmp"] {
            mount(Some("tmpfs"), &self.dir.join(scratch), Some("tmpfs"), MsFlags::empty(), none)
                .with_context(|| format!("mounting a tmpfs on {scratch}"))?;
        }
        for path in
            ["/proc", "/dev", "/sys", NETNS_DIR].iter().map(Path::new).chain(self.shared.iter().map(AsRef::as_ref))
        {
            let target = self.dir.join(path.strip_prefix("/").unwrap_or(path));
            fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))?;
            mount(Some(path), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .with_context(|| format!("binding {}", path.display()))?;
        }
        nix::unistd::chroot(&self.dir).context("chroot")?;
        std::env::set_current_dir("/").context("changing to the tree's /")
    }
}

/// The pid of a node's first process: the only child of the recorded `unshare`.
fn init_of(record: &Path) -> Result<u32> {
    let read = || format!("reading {}", record.display());
    let record: Record = serde_json::from_slice(&fs::read(record).with_context(read)?).with_context(read)?;
    let pid = record.id.pid;
    if !record.id.alive() {
        bail!("{} does not run", record.spec.name);
    }
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("finding a node's first process")?;
    children.trim().parse().with_context(|| format!("{} has not started its first process yet", record.spec.name))
}

fn namespace(pid: u32, kind: &str) -> Result<File> {
    File::open(format!("/proc/{pid}/ns/{kind}"))
        .with_context(|| format!("opening the {kind} namespace of process {pid}"))
}

fn enter_node(init: u32, and_network: bool) -> Result<()> {
    let mut kinds = vec![("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS)];
    if and_network {
        kinds.push(("net", CloneFlags::CLONE_NEWNET));
    }
    // Last: afterwards /proc is the node's.
    kinds.push(("mnt", CloneFlags::CLONE_NEWNS));
    // Threads share their root and working folder; one that does cannot change its mounts.
    unshare(CloneFlags::CLONE_FS).context("leaving the other threads' folders")?;
    for (kind, flag) in kinds {
        setns(namespace(init, kind)?, flag).with_context(|| format!("entering the {kind} namespace"))?;
    }
    Ok(())
}

/// The path that names a network namespace, as `ip netns` uses it.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes a network namespace with its loopback up.
///
/// # Errors
/// When the name is taken or the privilege is missing.
pub fn create_netns(name: &str) -> Result<()> {
    // `ip` also makes /run/netns a shared mount, under a lock: a second way of doing so would end in mounts on top of mounts.
    Place::default().output(&["ip", "netns", "add", name])?;
    Place::netns(name).output(&["ip", "link", "set", "lo", "up"]).map(drop)
}

/// Removes a network namespace's name; it ends with the last process inside. One that is not there is no error.
///
/// # Errors
/// What `ip netns delete` said.
pub fn delete_netns(name: &str) -> Result<()> {
    if !netns_path(name).exists() {
        return Ok(());
    }
    Place::default().output(&["ip", "netns", "delete", name]).map(drop)
}

/// The inode that identifies a network namespace as long as it lives.
///
/// # Errors
/// When there is no such namespace.
pub fn netns_inode(name: &str) -> Result<u64> {
    let path = netns_path(name);
    Ok(fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.ino())
}
