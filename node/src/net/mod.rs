//! The kernel's side of a node: links, addresses and routes, behind the trait [`NetOps`] so that logic is tested without root.
//!
//! [`linux::Linux`] does it by rtnetlink; `fake::Fake` keeps it in memory for tests. Every operation may be repeated: what is
//! already so stays untouched. Must not: know OVSDB, Kubernetes or CNI.

mod bridge;
mod ethtool;
#[cfg(test)]
pub mod fake;
pub mod linux;
mod message;
pub mod neighbour;
pub(crate) mod netns;
pub mod packet;
pub mod probe;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use ovenbird_api::Mac;

pub(crate) use bridge::ensure_sysctl;
pub(crate) use message::OUR_PROTOCOL;

/// Identity of a network namespace: device and inode of its nsfs file. A path may come to name another namespace; this
/// does not, as long as the namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// A route on one link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; `None` for a destination on the link.
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// MTU of the way, when it is less than the link's.
    pub mtu: Option<u32>,
    /// Metric, `None` for the kernel's own: the lowest wins.
    pub metric: Option<u32>,
}

impl Route {
    /// A route with nothing said but where to.
    pub fn to(dst: IpNet, via: Option<IpAddr>) -> Route {
        Route { dst, via, src: None, mtu: None, metric: None }
    }
}

/// A veth pair between this namespace and a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Name of the host end.
    pub host: String,
    /// Network namespace of the sandbox.
    pub netns: PathBuf,
    /// Name of the sandbox end.
    pub ifname: String,
    /// MAC of the sandbox end.
    pub mac: Mac,
    /// MTU of both ends.
    pub mtu: u32,
    /// Addresses of the sandbox end.
    pub addresses: Vec<IpNet>,
    /// Routes in the sandbox.
    pub routes: Vec<Route>,
    /// Leave no checksum to hardware that does not exist: needed when OVS forwards in user space.
    pub checksum_in_software: bool,
}

/// How an existing link (that OVS made) should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// Name.
    pub name: String,
    /// MAC.
    pub mac: Mac,
    /// MTU.
    pub mtu: u32,
    /// Its global addresses: exactly these.
    pub addresses: Vec<IpNet>,
    /// Our routes on it: exactly these.
    pub routes: Vec<Route>,
    /// As in [`Veth`].
    pub checksum_in_software: bool,
}

/// What is wanted of a link that is somebody else's: the external bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLink {
    /// Name.
    pub name: String,
    /// Addresses that it should have beside its own.
    pub addresses: Vec<IpNet>,
    /// Permanent neighbours beside its own.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Our routes on it: exactly these. Others' stay.
    pub routes: Vec<Route>,
}

/// A link as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC, `None` for links without.
    pub mac: Option<Mac>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Addresses, without link-local ones.
    pub addresses: Vec<IpNet>,
}

/// What a host has: its links, and the way by which packets to anywhere leave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// All links.
    pub links: Vec<Link>,
    /// Hops of the default routes of both families.
    pub default_hops: Vec<Hop>,
}

/// A hop of a default route; a route with several (ECMP) makes one of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Of the IPv4 default route, not of the IPv6 one.
    pub v4: bool,
    /// Index of the link.
    pub index: u32,
    /// Next hop, `None` when everything is on the link.
    pub via: Option<IpAddr>,
    /// Metric of the route: the lowest wins.
    pub metric: u32,
}

impl HostNetwork {
    /// Index of the link of the default route of a family.
    pub fn default_link(&self, v4: bool) -> Option<u32> {
        self.default_hops.iter().filter(|hop| hop.v4 == v4).min_by_key(|hop| hop.metric).map(|hop| hop.index)
    }

    /// Next hops of the best default route of each family over a link, IPv4 first.
    pub fn next_hops(&self, link: u32) -> Vec<IpAddr> {
        let of_family = |v4| {
            let hops =
                || self.default_hops.iter().filter(move |hop| hop.v4 == v4 && hop.index == link && hop.via.is_some());
            let best = hops().map(|hop| hop.metric).min();
            hops().filter(move |hop| Some(hop.metric) == best).filter_map(|hop| hop.via)
        };
        of_family(true).chain(of_family(false)).collect()
    }
}

/// A step of network set-up that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The namespace's file.
    #[error("opening network namespace {0}")]
    Netns(PathBuf, #[source] std::io::Error),
    /// Entering it.
    #[error("entering network namespace {0}")]
    Enter(PathBuf, #[source] std::io::Error),
    /// Probing addresses.
    #[error("probing addresses on {0}")]
    Probe(String, #[source] std::io::Error),
    /// Talking to DHCP servers.
    #[error("talking to DHCP servers on {0}")]
    Dhcp(String, #[source] std::io::Error),
    /// The thread that was to enter it.
    #[error("running in network namespace {0}: {1}")]
    Thread(PathBuf, String),
    /// A netlink socket.
    #[error("opening a netlink socket")]
    Socket(#[source] std::io::Error),
    /// One request.
    #[error("{0}")]
    Request(String, #[source] rtnetlink::Error),
    /// A link that should be there.
    #[error("interface {0} does not exist")]
    NoLink(String),
    /// The name of a bridge is another's.
    #[error("interface {0} is no bridge; rename it, or choose another name for the bridge")]
    NoBridge(String),
    /// Whose packets a port may send.
    #[error("letting {0} speak")]
    Guard(String, #[source] crate::nft::NftError),
    /// A link that should not be there.
    #[error("the sandbox {netns} already has an interface {ifname} that is not ours")]
    Taken {
        /// The sandbox.
        netns: PathBuf,
        /// The interface.
        ifname: String,
    },
    /// A kernel setting below /proc/sys.
    #[error("setting {0}")]
    Sysctl(String, #[source] std::io::Error),
    /// A neighbour that was asked.
    #[error("asking {0} for its MAC")]
    Ask(IpAddr, #[source] std::io::Error),
    /// Checksum offload.
    #[error("switching off transmit checksum offload of {0}")]
    Offload(String, #[source] std::io::Error),
}

/// The causes of an error, as one text for messages and logs.
pub fn causes(error: &dyn std::error::Error) -> String {
    let texts = std::iter::successors(error.source(), |e| e.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}

/// Network operations of a node.
pub trait NetOps: Send + Sync + 'static {
    /// Identity of the namespace at a path.
    fn netns_id(&self, path: &Path) -> Result<NetnsId, NetError>;
    /// Makes the pair, the host end up, and returns the host end's MAC. A left-over link with the host end's name is replaced.
    fn create_veth(&self, veth: &Veth) -> impl Future<Output = Result<Mac, NetError>> + Send;
    /// Sets the sandbox end up, with its addresses and routes.
    fn configure_veth(&self, veth: &Veth) -> impl Future<Output = Result<(), NetError>> + Send;
    /// Asks on the sandbox's link, which is up, who has these addresses; the first of them that somebody has.
    fn probe(
        &self,
        veth: &Veth,
        addresses: &[IpAddr],
    ) -> impl Future<Output = Result<Option<(IpAddr, Mac)>, NetError>> + Send;
    /// A link of a sandbox.
    fn sandbox_link(&self, netns: &Path, ifname: &str) -> impl Future<Output = Result<Option<Link>, NetError>> + Send;
    /// Takes an address off a link of a sandbox; one that is not there is a success.
    fn remove_address(
        &self,
        netns: &Path,
        ifname: &str,
        address: IpAddr,
    ) -> impl Future<Output = Result<(), NetError>> + Send;
    /// A link of this namespace, without its addresses.
    fn host_link(&self, name: &str) -> impl Future<Output = Result<Option<Link>, NetError>> + Send;
    /// Deletes a link of this namespace; one that does not exist is a success.
    fn delete_link(&self, name: &str) -> impl Future<Output = Result<(), NetError>> + Send;
    /// Makes a link of this namespace a port of a bridge, up. True when it was not.
    fn join(&self, link: &str, bridge: &str) -> impl Future<Output = Result<bool, NetError>> + Send;
    /// Lets what a port of a bridge sends come out there again: a pod that calls itself by a Service.
    fn reflect(&self, link: &str) -> impl Future<Output = Result<(), NetError>> + Send;
    /// Sets a link of this namespace up.
    fn set_up(&self, name: &str) -> impl Future<Output = Result<(), NetError>> + Send;
    /// Makes a link of this namespace as it should be. True when something had to be changed.
    fn apply_host_link(&self, link: &HostLink) -> impl Future<Output = Result<bool, NetError>> + Send;
    /// Gives a link of this namespace what is wanted. True when something had to be changed.
    fn apply_shared_link(&self, link: &SharedLink) -> impl Future<Output = Result<bool, NetError>> + Send;
    /// The host's links, addresses and default routes.
    fn host_network(&self) -> impl Future<Output = Result<HostNetwork, NetError>> + Send;
}
