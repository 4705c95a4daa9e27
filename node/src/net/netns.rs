//! Work inside another network namespace, on a thread of its own.
//!
//! setns(2) changes the calling thread for good, so it is never called on a thread of the runtime: a short-lived one
//! enters, works and ends. A netlink socket opened there stays bound to that namespace and can be used from anywhere.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::{NetError, NetnsId};

/// Opens the namespace's file.
pub fn open(path: &Path) -> Result<File, NetError> {
    File::open(path).map_err(|e| NetError::Netns(path.to_owned(), e))
}

/// Identity of the namespace at a path.
pub fn id(path: &Path) -> Result<NetnsId, NetError> {
    let meta = std::fs::metadata(path).map_err(|e| NetError::Netns(path.to_owned(), e))?;
    Ok(NetnsId { dev: meta.dev(), ino: meta.ino() })
}

/// Runs `work` inside the namespace, within the runtime's context.
pub async fn run<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    let path: PathBuf = path.to_owned();
    let (tx, rx) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let inside = path.clone();
    let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
        let _runtime = runtime.enter();
        // Nobody listens when the caller was cancelled.
        drop(tx.send(enter(&inside).and_then(|()| work())));
    });
    thread.map_err(|e| NetError::Enter(path.clone(), e))?;
    rx.await.unwrap_or_else(|_| Err(NetError::Thread(path, "the thread ended early".into())))
}

fn enter(path: &Path) -> Result<(), NetError> {
    setns(open(path)?, CloneFlags::CLONE_NEWNET).map_err(|e| NetError::Enter(path.to_owned(), e.into()))
}
