//! Where an ADD is, so that a deadline can say which step is missing and what to check. Steps are timed for the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ovenbird_cni_server::{CniError, Code, PodRef};

use crate::metrics::Metrics;

/// The steps of ADD, each a wait for somebody else or the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Attachments of an earlier daemon.
    Restore,
    /// The pod's annotation.
    Pod,
    /// Open_vSwitch and br-int.
    Vswitch,
    /// The veth.
    Link,
    /// ovn-controller's word that flows are installed.
    Ovn,
    /// Whether others have the addresses.
    Probe,
    /// The answers of a DHCP server.
    Lease,
    /// OVN's leave for the address that it gave.
    Address,
}

impl Step {
    /// Short name, as metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Restore => "restore",
            Step::Pod => "annotation",
            Step::Vswitch => "vswitch",
            Step::Link => "link",
            Step::Ovn => "ovn-installed",
            Step::Probe => "probe",
            Step::Lease => "lease",
            Step::Address => "address",
        }
    }

    /// The error of an ADD whose deadline came in this step; `found` is what is known beyond.
    pub fn timed_out(self, pod: &PodRef, found: Option<String>) -> CniError {
        let PodRef { namespace, name, .. } = pod;
        let (what, check) = match self {
            Step::Restore => (
                "the ports of the previous run to be read".to_owned(),
                "is ovsdb-server running, and does the API server answer?".to_owned(),
            ),
            Step::Pod => (
                format!("annotation k8s.ovn.org/pod-networks on pod {namespace}/{name}"),
                "is ovenbird-master running, and are there Events on the pod?".to_owned(),
            ),
            Step::Vswitch => {
                ("Open_vSwitch with bridge br-int".to_owned(), "are ovsdb-server and ovs-vswitchd running?".to_owned())
            }
            Step::Link | Step::Probe => {
                ("the kernel to make the pod's interface".to_owned(), "see the log of ovenbird-node".to_owned())
            }
            Step::Lease => (
                "a DHCP server to give an address".to_owned(),
                "does one serve the VLAN of the pod's Network, and has it free addresses?".to_owned(),
            ),
            Step::Address => (
                format!(
                    "annotation ovenbird.io/lease on pod {namespace}/{name} to have effect, so that the router, or the DHCP server, answers the pod"
                ),
                "is ovenbird-master running, and are there Events on the pod?".to_owned(),
            ),
            Step::Ovn => (
                "ovn-controller to install the port (external_ids:ovn-installed)".to_owned(),
                format!(
                    "does Logical_Switch_Port {} exist (ovn-nbctl), and is ovn-controller connected (ovn-appctl -t \
                     ovn-controller connection-status)?",
                    ovenbird_api::name::lsp_name(namespace, name)
                ),
            ),
        };
        let details = found.map_or(check.clone(), |found| format!("{found}; {check}"));
        CniError::new(Code::TryAgainLater, format!("timed out waiting for {what}")).details(details)
    }
}

/// The step that an ADD is in.
pub struct Progress<'a> {
    now: Mutex<(Step, Instant)>,
    metrics: &'a Metrics,
}

impl<'a> Progress<'a> {
    /// At the first step.
    pub fn new(metrics: &'a Metrics) -> Progress<'a> {
        Progress { now: Mutex::new((Step::Restore, Instant::now())), metrics }
    }

    /// Goes to a step.
    pub fn at(&self, step: Step) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.step(now.0.name(), now.1.elapsed());
        *now = (step, Instant::now());
    }

    /// The step.
    pub fn step(&self) -> Step {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.step(now.0.name(), now.1.elapsed());
    }
}
