//! Plugs pods in and out; what the CNI server asks for is in `requests`.
//!
//! ```text
//! ADD: existing ports known -> pod's annotation -> rows of the pod's earlier sandbox gone -> veth into the sandbox
//!      -> Port, Interface -> addresses, routes \
//!                         -> ovn-installed -----> result
//!      on a Network: ... ovn-installed -> flows to the wire -> probe: nobody else has the addresses -> these, and routes
//!      or there from a DHCP server (see `lease`)
//! DEL: rows go, then the veth                 GC: DEL of all that are not named
//! ```
//!
//! Each attachment has a slot: one request at a time, and DEL ends an ADD under way. What is attached is known from the rows
//! (see `restore`), not from files. Must not: poll, or start a process.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use ovenbird_api::Mac;
use ovenbird_cni_server::{Add, Attached, Attachment, CniError, Code, Interface, Ip, Route};
use ovenbird_reconcile::Diagnostic;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

mod lease;
mod network;
mod requests;

pub use network::{Entered, Report};

use crate::cable::Cable;
use crate::dhcp::Leases;
use crate::metrics::Metrics;
use crate::net::{self, NetError, NetOps, Veth, causes};
use crate::pods::{PodBook, ReadyPod};
use crate::readiness::{Part, Readiness};
use crate::rows::PodPort;
use crate::step::{Progress, Step};
use crate::vswitch::Vswitch;

/// Tells a pod's owner something: (namespace, name, UID, what).
pub type Tell = Arc<dyn Fn(&str, &str, &str, Diagnostic) + Send + Sync>;

/// See the file header.
pub struct Plug<N, C = Vswitch> {
    net: Arc<N>,
    cable: Arc<C>,
    pods: Arc<PodBook>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    tell: Tell,
    report: Report,
    leases: Arc<Leases<N>>,
    entered: Arc<watch::Sender<Entered>>,
    mtu: u32,
    known: Mutex<Known>,
    /// Of sandboxes that went while no daemon ran: their rows are to go.
    stale: watch::Sender<Vec<PodPort>>,
    slots: Mutex<HashMap<Attachment, Arc<Slot>>>,
}

/// What is attached.
#[derive(Default)]
struct Known {
    ports: HashMap<Attachment, PodPort>,
    /// The Networks that they are on, of those that are and have been connected.
    on: HashMap<Attachment, String>,
    /// By Network: whether its way to the physical network was waited for.
    ways: HashMap<String, Arc<OnceCell<()>>>,
    /// Attachments whose DEL came before the ports of the previous run were taken over: these are not.
    dropped: HashSet<Attachment>,
}

/// One attachment's turn.
#[derive(Default)]
struct Slot {
    turn: tokio::sync::Mutex<()>,
    /// Ends the ADD under way.
    cancel: Mutex<CancellationToken>,
}

/// What a [`Plug`] works with.
pub struct Parts<N, C = Vswitch> {
    /// The kernel.
    pub net: Arc<N>,
    /// What the host ends are plugged into.
    pub cable: Arc<C>,
    /// The node's pods.
    pub pods: Arc<PodBook>,
    /// What must be there before ADD.
    pub readiness: Arc<Readiness>,
    /// Durations go there.
    pub metrics: Arc<Metrics>,
    /// Diagnostics go there.
    pub tell: Tell,
    /// Told of addresses that others have.
    pub report: Report,
    /// Addresses of DHCP servers.
    pub leases: Arc<Leases<N>>,
    /// Told which Networks have pods here.
    pub entered: Arc<watch::Sender<Entered>>,
    /// MTU of pods.
    pub mtu: u32,
}

impl<N: NetOps, C: Cable> Plug<N, C> {
    /// A plug that knows of no attachment yet.
    pub fn new(parts: Parts<N, C>) -> Plug<N, C> {
        let Parts { net, cable, pods, readiness, metrics, tell, report, leases, entered, mtu } = parts;
        let (known, stale, slots) = (Mutex::default(), watch::Sender::default(), Mutex::default());
        Plug { net, cable, pods, readiness, metrics, tell, report, leases, entered, mtu, known, stale, slots }
    }

    /// What the host ends are plugged into.
    pub fn cable(&self) -> &C {
        &self.cable
    }

    /// Takes an attachment over that an earlier daemon made. False when DEL was faster.
    pub fn take_over(&self, port: PodPort) -> bool {
        let mut known = self.known();
        let wanted = !known.dropped.contains(&port.attachment);
        if wanted {
            known.on.extend(port.on.clone().map(|network| (port.attachment.clone(), network)));
            self.declare(&mut known, port);
        }
        wanted
    }

    /// Tells of ports that were not taken over. Until [`Plug::await_stale`] has seen their rows go, no other port gets the names of theirs.
    pub fn leave(&self, stale: Vec<PodPort>) {
        self.stale.send_replace(stale);
    }

    /// Waits until rows of ports that were left are gone; to be called when deletes are allowed.
    pub async fn await_stale(&self) {
        let stale = self.stale.borrow().clone();
        for port in stale {
            let gone = {
                let known = self.known();
                // The same attachment again, wanted anew.
                (!known.ports.contains_key(&port.attachment)).then(|| self.cable.withdraw(&port.attachment))
            };
            if let Some(gone) = gone {
                gone.await;
            }
            self.stale.send_modify(|stale| stale.retain(|other| other != &port));
        }
    }

    /// Wants a port. Under the lock, so that row and record change in one order.
    fn declare(&self, known: &mut Known, port: PodPort) {
        self.cable.declare(&port);
        known.ports.insert(port.attachment.clone(), port);
        self.count(known);
    }

    /// All attachments.
    pub fn attachments(&self) -> Vec<PodPort> {
        self.known().ports.values().cloned().collect()
    }

    /// Removes an attachment's rows, then its link.
    ///
    /// # Errors
    /// When the kernel refuses to delete the link.
    pub async fn unplug(&self, attachment: &Attachment) -> Result<(), CniError> {
        self.leases.release(attachment).await;
        let gone = {
            let mut known = self.known();
            if self.readiness.missing().contains(&Part::Restored) {
                known.dropped.insert(attachment.clone());
            }
            known.ports.remove(attachment);
            known.on.remove(attachment);
            self.count(&known);
            self.cable.withdraw(attachment)
        };
        gone.await;
        self.net.delete_link(&PodPort::host_name(attachment)).await.map_err(|e| internal(&e))
    }

    /// A pod has one living sandbox: the runtime makes another one only when the earlier is lost, and two ports of one name would
    /// keep ovn-controller from binding either. A tag is one pod's: the master has given it anew, so that the earlier pod is gone.
    ///
    /// A row that goes when ovn-controller has bound a later one of the same name takes the binding with it (OVN 23.03, for one), so the
    /// earlier goes first.
    async fn unplug_rivals(&self, port: &PodPort) {
        let same = |p: &PodPort| p.lsp == port.lsp || (p.tag.is_some() && p.tag == port.tag);
        let rival = |p: &&PodPort| same(p) && p.attachment != port.attachment;
        // It cannot fail: the sender is ours.
        drop(self.stale.subscribe().wait_for(|stale| !stale.iter().any(|p| rival(&p))).await);
        let rivals: Vec<Attachment> = self.known().ports.values().filter(rival).map(|p| p.attachment.clone()).collect();
        for attachment in rivals {
            tracing::info!("sandbox {} replaces {}", port.attachment.container_id, attachment.container_id);
            if let Err(e) = self.unplug(&attachment).await {
                tracing::warn!("removing it: {e}");
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Whole after each of its short changes, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, known: &Known) {
        self.metrics.ports.set(i64::try_from(known.ports.len()).unwrap_or(i64::MAX));
    }

    fn slot(&self, attachment: &Attachment) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody holds are of no more use.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        slots.entry(attachment.clone()).or_default().clone()
    }

    async fn try_add(&self, add: &Add, progress: &Progress<'_>) -> Result<Attached, CniError> {
        self.readiness.wait(Part::Restored).await;
        let netns_id = self.net.netns_id(&add.netns).map_err(|e| {
            CniError::new(Code::UnknownContainer, format!("CNI_NETNS {} cannot be opened", add.netns.display()))
                .details(format!("{e}: {}", causes(&e)))
        })?;
        progress.at(Step::Pod);
        let pod = self.pods.until_ready(&add.pod).await?;
        progress.at(Step::Vswitch);
        let userspace = self.cable.until_ready().await?;
        progress.at(Step::Link);
        let names = (add.pod.namespace.as_str(), add.pod.name.as_str(), pod.uid.as_str());
        let network = (&pod.network, pod.on.as_deref());
        let bandwidth = pod.bandwidth.clone().unwrap_or_default();
        let port = PodPort::new(add.attachment.clone(), (add.netns.clone(), netns_id), names, network, bandwidth);
        let veth = self.veth(&port, &pod, userspace);
        let (host_mac, is_bare) = match self.existing(&port, &veth).await {
            Some(found) => found,
            None => {
                // Of an earlier attempt, or of a sandbox that this one replaces: ovn-installed must not be its.
                self.cable.withdraw(&port.attachment).await;
                self.unplug_rivals(&port).await;
                self.tell_limits(names, &pod, userspace);
                (self.net.create_veth(&veth).await.map_err(|e| link_error(&e))?, true)
            }
        };
        self.declare(&mut self.known(), port.clone());
        progress.at(Step::Ovn);
        let probed = pod.on.as_deref().filter(|_| is_bare && pod.network.probe && !pod.network.dhcp);
        let first = if probed.is_some() || pod.network.dhcp {
            // It gets its addresses when nobody else has them, or a server gives it one.
            &Veth { addresses: Vec::new(), routes: Vec::new(), ..veth.clone() }
        } else {
            &veth
        };
        tokio::try_join!(async { self.net.configure_veth(first).await.map_err(|e| link_error(&e)) }, async {
            self.cable.until_connected(&port, &pod.network.gateways).await
        },)?;
        let way = pod.on.as_deref().map(|network| self.enter(&port.attachment, network));
        if let (Some(network), Some(way)) = (probed, way) {
            progress.at(Step::Probe);
            self.wait_for_wire(network, &way).await;
            self.probe(names, network, &veth).await?;
            self.net.configure_veth(&veth).await.map_err(|e| link_error(&e))?;
        }
        if pod.network.dhcp {
            let (veth, router) = self.lease(add, &pod, &veth, progress).await?;
            let gateways: Vec<IpAddr> = router.into_iter().map(IpAddr::V4).collect();
            return Ok(attached(&veth, &gateways, host_mac));
        }
        Ok(attached(&veth, &pod.network.gateways, host_mac))
    }

    /// The host end's MAC when everything in the kernel is as this ADD would make it, and whether it has no addresses yet.
    async fn existing(&self, port: &PodPort, veth: &Veth) -> Option<(Mac, bool)> {
        if self.known().ports.get(&port.attachment) != Some(port) {
            return None;
        }
        let inside = self.net.sandbox_link(&veth.netns, &veth.ifname).await.ok()??;
        let host = self.net.host_link(&veth.host).await.ok()??;
        host.mac.filter(|_| inside.mac == Some(veth.mac)).map(|mac| (mac, inside.addresses.is_empty()))
    }

    fn veth(&self, port: &PodPort, pod: &ReadyPod, userspace: bool) -> Veth {
        let defaults = pod.network.gateways.iter().map(|gw| net::Route::to(default_route(gw.is_ipv4()), Some(*gw)));
        let others = pod.network.routes.iter().map(|r| net::Route::to(r.dest, r.next_hop));
        Veth {
            host: PodPort::host_name(&port.attachment),
            netns: port.netns.clone(),
            ifname: port.attachment.ifname.clone(),
            mac: port.mac,
            mtu: pod.network.mtu.unwrap_or(self.mtu),
            addresses: port.addresses.clone(),
            routes: others.chain(defaults).collect(),
            checksum_in_software: userspace,
        }
    }

    fn tell_limits(&self, (namespace, name, uid): (&str, &str, &str), pod: &ReadyPod, userspace: bool) {
        let warning = |reason, field: &str, message| {
            Diagnostic::warning(reason, format!("metadata.annotations[{field}]"), message)
        };
        match &pod.bandwidth {
            Err(e) => {
                let message = format!("{e}; the pod runs without bandwidth limits");
                (self.tell)(namespace, name, uid, warning("InvalidBandwidth", e.annotation, message));
            }
            Ok(limits) if limits.egress.is_some() && !self.cable.polices(userspace) => {
                let key = ovenbird_api::annotation::EGRESS_BANDWIDTH;
                let message = "the limit of traffic from the pod has no effect on this node: OVS forwards in user space \
                    and does not police a veth; use a node with the kernel datapath";
                (self.tell)(namespace, name, uid, warning("BandwidthNotEnforced", key, message.into()));
            }
            Ok(_) => {}
        }
    }
}

fn attached(veth: &Veth, gateways: &[IpAddr], host_mac: Mac) -> Attached {
    let host = Interface { name: veth.host.clone(), mac: host_mac.to_string(), mtu: veth.mtu, sandbox: None };
    let inside = Interface {
        name: veth.ifname.clone(),
        mac: veth.mac.to_string(),
        mtu: veth.mtu,
        sandbox: Some(veth.netns.to_string_lossy().into_owned()),
    };
    let gateway = |v4: bool| gateways.iter().copied().find(|g| g.is_ipv4() == v4);
    let ip = |a: &IpNet| Ip { address: *a, gateway: gateway(a.addr().is_ipv4()), interface: Some(1) };
    Attached {
        interfaces: vec![host, inside],
        ips: veth.addresses.iter().map(ip).collect(),
        routes: veth.routes.iter().map(|r| Route { dst: r.dst, gw: r.via }).collect(),
    }
}

fn default_route(v4: bool) -> IpNet {
    if v4 { ipnet::Ipv4Net::default().into() } else { ipnet::Ipv6Net::default().into() }
}

fn internal(error: &NetError) -> CniError {
    CniError::new(Code::Internal, error.to_string()).details(causes(error))
}

fn link_error(error: &NetError) -> CniError {
    CniError::new(Code::Internal, format!("setting up the pod's interface: {error}")).details(causes(error))
}

#[cfg(test)]
#[path = "plug_tests.rs"]
mod tests;
