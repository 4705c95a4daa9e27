//! What this node needs before it can serve pods: named parts, each ready or not. `/readyz`, CNI STATUS and the CNI
//! configuration file all ask here. Must not: decide what to do about a missing part.

use std::sync::Arc;

use ovenbird_daemon::http::Pages;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::vswitch::Vswitch;

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// Open_vSwitch is replicated and the bridge of the pods' network exists.
    Vswitch,
    /// The pods of this node have been listed.
    Pods,
    /// Attachments of an earlier daemon have been taken over.
    Restored,
    /// The master has given this node its subnets.
    Subnets,
    /// The management port is configured and bound by ovn-controller.
    ManagementPort,
    /// The bridges of the classic network stand.
    Fabric,
    /// The table of Services of the classic network stands.
    Services,
    /// The CNI socket is served.
    Socket,
}

/// What every node needs.
const ALWAYS: [Part; 5] = [Part::Vswitch, Part::Pods, Part::Restored, Part::Subnets, Part::Socket];

impl Part {
    /// What is missing and where to look.
    pub const fn text(self) -> &'static str {
        match self {
            Part::Vswitch => {
                "Open_vSwitch and its bridge (are ovsdb-server, ovs-vswitchd and, with OVN, ovn-controller running?)"
            }
            Part::Pods => "the list of this node's pods (does the API server answer, and may we list them?)",
            Part::Restored => "attachments of the previous run",
            Part::Subnets => {
                "annotation k8s.ovn.org/node-subnets on the Node (is ovenbird-master running, and may we list Nodes?)"
            }
            Part::ManagementPort => {
                "management port ovn-k8s-mp0 bound by ovn-controller (is it connected to the Southbound?)"
            }
            Part::Fabric => "the bridges between pods and tunnels (see the log of ovenbird-node)",
            Part::Services => {
                "the table of Services (may we list Services and EndpointSlices? is nft installed? see the log)"
            }
            Part::Socket => "the CNI socket",
        }
    }
}

/// The parts' state. Shared; whoever provides a part sets it.
#[derive(Debug)]
pub struct Readiness {
    ready: watch::Sender<u8>,
    /// What is needed beyond [`ALWAYS`].
    own: Vec<Part>,
}

impl Readiness {
    /// Of a node that is ready with these parts beside those that every node has.
    pub fn with(parts: &[Part]) -> Readiness {
        Readiness { ready: watch::Sender::new(0), own: parts.to_vec() }
    }

    fn needed(&self) -> impl Iterator<Item = Part> {
        ALWAYS.into_iter().chain(self.own.iter().copied())
    }

    /// Sets a part.
    pub fn set(&self, part: Part, ready: bool) {
        let bit = 1 << part as u8;
        self.ready.send_if_modified(|bits| {
            let new = if ready { *bits | bit } else { *bits & !bit };
            std::mem::replace(bits, new) != new
        });
    }

    /// The parts that are missing.
    pub fn missing(&self) -> Vec<Part> {
        let bits = *self.ready.borrow();
        self.needed().filter(|p| bits & (1 << *p as u8) == 0).collect()
    }

    /// Waits for one part.
    pub async fn wait(&self, part: Part) {
        // The sender lives as long as self, so this cannot fail.
        drop(self.ready.subscribe().wait_for(|bits| bits & (1 << part as u8) != 0).await);
    }

    /// Waits for all parts.
    pub async fn wait_all(&self) {
        let all = self.needed().fold(0, |bits, p| bits | 1 << p as u8);
        drop(self.ready.subscribe().wait_for(|bits| bits & all == all).await);
    }
}

/// What /metrics and /readyz show.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Readiness.
    pub readiness: Arc<Readiness>,
    /// Its counters are shown.
    pub vswitch: Vswitch,
}

impl Pages for Shown {
    fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.metrics.vswitch(&self.vswitch.state().borrow());
        self.metrics.encode()
    }

    fn missing(&self) -> Vec<&'static str> {
        self.readiness.missing().into_iter().map(Part::text).collect()
    }
}
