//! [`Cable`] of the classic network: the host end of a pod's veth is a port of kbr0.
//!
//! ```text
//! declare --> /run/ovenbird/ports/LINK.json          until_connected --> policies cover the pod --> port of kbr0
//! ```
//!
//! On the way its limits come into force, too, with the guard. The files are gone with the next boot, as the links are. Must not: trust a file whose link or namespace is gone (`restore` looks).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ovenbird_cni_server::{Attachment, CniError, Code};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::guard::Guard;
use super::policy::Covered;
use crate::cable::Cable;
use crate::net::{NetError, NetOps, causes};
use crate::rows::PodPort;
use crate::vswitch::Vswitch;

/// See the file header.
pub struct Ports<N> {
    net: Arc<N>,
    vswitch: Vswitch,
    bridge: String,
    folder: PathBuf,
    guard: Guard,
    /// The bridge stands.
    stands: watch::Sender<bool>,
    /// Pods to which their policies apply already.
    covered: watch::Receiver<Covered>,
    /// Ports that are on their way into a new bridge.
    joining: Mutex<JoinSet<()>>,
}

impl<N: NetOps> Ports<N> {
    /// Ports of `bridge`, remembered in `folder`, which is made, for pods that are `covered`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(
        net: Arc<N>,
        vswitch: Vswitch,
        bridge: &str,
        folder: PathBuf,
        covered: watch::Receiver<Covered>,
    ) -> std::io::Result<Ports<N>> {
        std::fs::create_dir_all(&folder)?;
        Ok(Ports {
            net,
            vswitch,
            bridge: bridge.to_owned(),
            guard: Guard::new(&read_ports(&folder)),
            folder,
            stands: watch::Sender::new(false),
            covered,
            joining: Mutex::default(),
        })
    }

    /// The bridge stands; where it may be a new one its ports are plugged in again, each as soon as it is covered.
    pub fn stand(self: &Arc<Self>, new: bool) {
        if new {
            self.guard.suspect();
        }
        let mut joining = JoinSet::new();
        for port in new.then(|| read_ports(&self.folder)).into_iter().flatten() {
            let own = self.clone();
            joining.spawn(async move {
                match own.join(&port).await {
                    // Of a pod that is on its way out, or a file that restore has not looked at yet.
                    Some(Ok(_) | Err(NetError::NoLink(_))) | None => {}
                    Some(Err(e)) => warn!("{e}: {}", causes(&e)),
                }
            });
        }
        if new {
            // Who still waited does so anew.
            *self.joining.lock().unwrap_or_else(PoisonError::into_inner) = joining;
        }
        self.stands.send_replace(true);
    }

    /// Makes a pod's link a port once policies cover it: before that nothing reaches it, and nothing comes out. True when it was none; `None` when the
    /// daemon is stopping.
    async fn join(&self, port: &PodPort) -> Option<Result<bool, NetError>> {
        self.covered.clone().wait_for(|covered| covered.covers(port)).await.ok()?;
        Some(self.plug(port).await)
    }

    /// Makes a pod's link a port, which lets out what came in. True when it was none.
    async fn plug(&self, port: &PodPort) -> Result<bool, NetError> {
        let link = PodPort::host_name(&port.attachment);
        self.guard.admit(port).await.map_err(|e| NetError::Guard(link.clone(), e))?;
        let new = self.net.join(&link, &self.bridge).await?;
        self.net.reflect(&link).await?;
        Ok(new)
    }

    fn file(&self, attachment: &Attachment) -> PathBuf {
        self.folder.join(format!("{}.json", PodPort::host_name(attachment)))
    }
}

/// The ports that an earlier daemon declared.
fn read_ports(folder: &Path) -> Vec<PodPort> {
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(e) => {
            warn!("reading {}: {e}", folder.display());
            return Vec::new();
        }
    };
    let paths = files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    paths.filter_map(|path| read_port(&path)).collect()
}

fn read_port(path: &Path) -> Option<PodPort> {
    let text = std::fs::read_to_string(path).ok()?;
    let ids: BTreeMap<String, String> = serde_json::from_str(&text).ok()?;
    let port = PodPort::from_ids(|key| ids.get(key).map(String::as_str));
    if port.is_none() {
        warn!("{} tells of no port; it is left alone", path.display());
    }
    port
}

/// In one step: a reader finds all of it or nothing.
fn write_port(path: &Path, port: &PodPort) -> std::io::Result<()> {
    let ids: BTreeMap<&str, String> = port.external_ids().into_iter().collect();
    let draft = path.with_extension("new");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(serde_json::to_string_pretty(&ids)?.as_bytes())?;
    std::fs::rename(&draft, path)
}

impl<N: NetOps> Cable for Ports<N> {
    async fn ports(&self) -> Result<Vec<PodPort>, CniError> {
        Ok(read_ports(&self.folder))
    }

    async fn until_ready(&self) -> Result<bool, CniError> {
        // The sender lives as long as self.
        drop(self.stands.subscribe().wait_for(|stands| *stands).await);
        Ok(self.vswitch.state().borrow().userspace)
    }

    fn declare(&self, port: &PodPort) {
        let file = self.file(&port.attachment);
        if let Err(e) = write_port(&file, port) {
            warn!("writing {}: {e}; a daemon that starts later will not know this port", file.display());
        }
    }

    fn withdraw(&self, attachment: &Attachment) -> impl Future<Output = ()> + Send + use<N> {
        let file = self.file(attachment);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => warn!("removing {}: {e}", file.display()),
            _ => {}
        }
        self.guard.forget(&PodPort::host_name(attachment));
        std::future::ready(())
    }

    async fn until_connected(&self, port: &PodPort, _: &[IpAddr]) -> Result<(), CniError> {
        let stopping = || CniError::new(Code::TryAgainLater, "the daemon is stopping".to_owned());
        let joined = self.join(port).await.ok_or_else(stopping)?;
        let refused = |e: NetError| CniError::new(Code::Internal, e.to_string()).details(causes(&e));
        joined.map(drop).map_err(refused)
    }

    async fn connected(&self, port: &PodPort) -> Result<Result<(), String>, CniError> {
        if !self.covered.borrow().covers(port) {
            return Ok(Err("policies do not cover it yet".to_owned()));
        }
        Ok(match self.plug(port).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!("it was no port of {}; it is one again", self.bridge)),
            Err(e) => Err(format!("{e}: {}", causes(&e))),
        })
    }

    async fn fault(&self, attachment: &Attachment) -> Option<String> {
        let port = read_port(&self.file(attachment))?;
        let uncovered = !self.covered.borrow().covers(&port);
        uncovered.then(|| {
            "policies do not cover it yet (may we list Pods, Namespaces and policies? does nft work? see the log)"
                .to_owned()
        })
    }

    fn polices(&self, _: bool) -> bool {
        // kbr0 is the kernel's, whatever obr0 is.
        true
    }

    fn allow_deletes(&self) {
        self.vswitch.allow_deletes();
    }
}
