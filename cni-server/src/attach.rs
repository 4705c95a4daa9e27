//! What the CNI server asks of whoever plugs cables: the trait [`Attach`] and the plain values that go through it.
//!
//! Must not: know the wire. `request` makes these values, `result` prints them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::error::CniError;

/// What identifies an attachment (SPEC.md: container id and interface name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox.
    pub container_id: String,
    /// `CNI_IFNAME`: interface inside the sandbox.
    pub ifname: String,
}

/// The pod that a sandbox is for, from `CNI_ARGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; runtimes older than containerd 1.6 do not send it.
    pub uid: Option<String>,
}

/// ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Which attachment.
    pub attachment: Attachment,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Whose sandbox.
    pub pod: PodRef,
}

/// DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Del {
    /// Which attachment.
    pub attachment: Attachment,
    /// Path of the network namespace, absent when it is gone.
    pub netns: Option<PathBuf>,
}

/// CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which attachment.
    pub attachment: Attachment,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Result of the ADD, as the runtime kept it.
    pub previous: Attached,
}

/// An interface made by ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Link name.
    pub name: String,
    /// MAC address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// MTU in bytes; 0 when unknown.
    pub mtu: u32,
    /// Network namespace path when the link is inside the sandbox.
    pub sandbox: Option<String>,
}

/// An address made by ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Address with its prefix length.
    pub address: IpNet,
    /// Gateway of the subnet.
    pub gateway: Option<IpAddr>,
    /// Position in [`Attached::interfaces`].
    pub interface: Option<usize>,
}

/// A route made by ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub gw: Option<IpAddr>,
}

/// Result of ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Host end and sandbox end.
    pub interfaces: Vec<Interface>,
    /// Addresses of the sandbox end.
    pub ips: Vec<Ip>,
    /// Routes inside the sandbox.
    pub routes: Vec<Route>,
}

/// Does what the commands of CNI say. `deadline` is when the caller stops waiting: an implementation that waits for others
/// gives up a little before and says which step is missing.
///
/// A future of `add` or `check` is dropped when the runtime goes away; one of `del` or `gc` always runs to its end.
pub trait Attach: Send + Sync + 'static {
    /// Makes the attachment, or finds it made: the same ADD twice gives the same result.
    fn add(&self, add: Add, deadline: Instant) -> impl Future<Output = Result<Attached, CniError>> + Send;
    /// Removes the attachment. One that does not exist is a success.
    fn del(&self, del: Del, deadline: Instant) -> impl Future<Output = Result<(), CniError>> + Send;
    /// Verifies that the attachment is as ADD made it.
    fn check(&self, check: Check, deadline: Instant) -> impl Future<Output = Result<(), CniError>> + Send;
    /// What is attached, as far as it is known without asking anybody: the sandbox's end with its addresses.
    fn find(&self, attachment: &Attachment) -> Option<Attached>;
    /// Ok when ADD can be served now.
    fn status(&self) -> Result<(), CniError>;
    /// Removes every attachment that is not in `valid`.
    fn gc(&self, valid: Vec<Attachment>, deadline: Instant) -> impl Future<Output = Result<(), CniError>> + Send;
    /// Told after each request: command (`ADD`, ...; `?` when unreadable), time taken, error code or 0.
    fn observe(&self, command: &'static str, elapsed: Duration, code: u32) {
        let _ = (command, elapsed, code);
    }
}
