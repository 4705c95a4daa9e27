//! How a Service spreads connections: session affinity and scheduler, as far as OVN can.
//!
//! Inputs: the Service, what its nodes have in common. Outputs: options and hash fields of rows; a complaint for what is done another way or
//! not at all. Must not: choose endpoints.

use ovenbird_api::annotation::SCHEDULER;
use ovenbird_api::service::{DEFAULT_WEIGHT, Scheduler};
use ovenbird_reconcile::{Diagnostic, Severity};
use ovenbird_schema::northbound::load_balancer::SelectionFields;

use super::endpoints::Backend;
use super::layers::Layer;
use crate::build::complaint;
use crate::facts::ServiceFact;
use crate::view::View;

/// Longest `options:affinity_timeout`, in seconds: an idle timeout of OpenFlow.
const LONGEST_TIMEOUT: u32 = u16::MAX as u32;

/// See the file header.
pub(super) struct Settings {
    /// `options:hairpin_snat_ip`.
    pub hairpin: String,
    weights: bool,
    spread: Spread,
    has_v6: bool,
}

/// How the endpoint of a connection is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// By a hash of the connection.
    Evenly,
    /// By a hash of the client's port. The userspace datapath lets a packet be looked up anew six times (MAX_RECIRC_DEPTH in dpif-netdev.c)
    /// and drops it at the seventh; a hash that the datapath computes is one of them, and one too many for what enters by a gateway
    /// router and stays on its node. One of fields costs none.
    ByPort,
    /// By a hash of the client's address.
    BySource,
    /// As the client's last connection, for so many seconds.
    Remembered(u32),
}

impl Settings {
    /// The settings of a Service.
    pub fn of(view: &View<'_>, service: &ServiceFact, diagnostics: &mut Vec<Diagnostic>) -> Settings {
        let masquerade = view.config().masquerade();
        let mut spread = if view.common().userspace { Spread::ByPort } else { Spread::Evenly };
        let mut weights = false;
        match &service.scheduler {
            None | Some(Ok(Scheduler::RoundRobin)) => {}
            Some(Ok(Scheduler::SourceHash)) => spread = Spread::BySource,
            Some(Ok(Scheduler::Weighted)) => weights = true,
            Some(Err(error)) => {
                diagnostics.push(complaint(Severity::Warning, "SchedulerRefused", SCHEDULER, error));
            }
        }
        if let Some(seconds) = service.affinity {
            spread = affinity(view, service, seconds, diagnostics);
        }
        Settings {
            hairpin: format!("{} {}", masquerade.hairpin(true), masquerade.hairpin(false)),
            weights,
            spread,
            has_v6: service.cluster_ips.iter().any(|ip| ip.is_ipv6()),
        }
    }

    /// How often an endpoint is named. A weight that cannot be read counts as none.
    pub fn weight(&self, view: &View<'_>, backend: &Backend<'_>) -> u8 {
        let node = backend.endpoint.node.as_deref().filter(|_| self.weights);
        let pod = node.and_then(|node| view.pod_at(node, backend.address()));
        pod.and_then(|pod| pod.weight.as_ref()?.as_ref().ok()).copied().unwrap_or(DEFAULT_WEIGHT)
    }

    /// `options:affinity_timeout` of a layer's rows.
    pub fn timeout(&self, layer: &Layer) -> Option<u32> {
        match self.spread {
            Spread::Remembered(seconds) if remembers(layer) => Some(seconds),
            _ => None,
        }
    }

    /// `selection_fields` of a layer's rows. The fields of IPv6 addresses are newer than OVN 23.03; there, the client's MAC stands for
    /// its address.
    pub fn fields(&self, layer: &Layer) -> impl Iterator<Item = SelectionFields> + use<> {
        let hashed = match self.spread {
            Spread::Evenly | Spread::ByPort => false,
            Spread::BySource => true,
            Spread::Remembered(_) => !remembers(layer),
        };
        let v6 = layer.template.map_or(self.has_v6, |v4| !v4);
        let fields = [
            (hashed, SelectionFields::IpSrc),
            (hashed && v6, SelectionFields::EthSrc),
            (self.spread == Spread::ByPort, SelectionFields::TpSrc),
        ];
        fields.into_iter().filter(|(wanted, _)| *wanted).map(|(_, field)| field)
    }
}

/// False where OVN cannot remember clients: of variables, and where it would change the address of those that it knows again (its flows for
/// these know no `skip_snat` in OVN 23.03).
fn remembers(layer: &Layer) -> bool {
    layer.template.is_none() && !layer.skip_snat
}

/// What becomes of session affinity.
fn affinity(view: &View<'_>, service: &ServiceFact, seconds: u32, diagnostics: &mut Vec<Diagnostic>) -> Spread {
    let why = if view.common().userspace {
        "nodes of this cluster forward in user space, where OVN cannot remember clients".to_owned()
    } else if seconds > LONGEST_TIMEOUT {
        format!("OVN remembers clients for {LONGEST_TIMEOUT} s at most")
    } else {
        if service.external_local || service.ports.iter().any(|port| port.node_port != 0) {
            let message = "OVN remembers no clients of node ports and none where externalTrafficPolicy Local keeps their address: there the \
                endpoint follows from the client's address and the timeout is not honoured; nothing needs to be done if clients may stay \
                longer";
            diagnostics.push(timeout_complaint(Severity::Note, message.to_owned()));
        }
        return Spread::Remembered(seconds);
    };
    let message = format!(
        "the timeout of {seconds} s is not honoured: {why}, so the endpoint follows from the client's address and changes when the \
         endpoints do; nothing needs to be done if clients may stay longer"
    );
    diagnostics.push(timeout_complaint(Severity::Warning, message));
    Spread::BySource
}

fn timeout_complaint(severity: Severity, message: String) -> Diagnostic {
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds".to_owned();
    Diagnostic { severity, reason: "AffinityTimeoutIgnored", field, message }
}
