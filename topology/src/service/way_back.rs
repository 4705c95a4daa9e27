//! externalTrafficPolicy Local: endpoints see the client's own address, and their answers must find the way by which it came in.
//!
//! Must not: know the way (`gateway::answers` does).

use std::collections::BTreeSet;

use ovenbird_reconcile::{Diagnostic, Output, Owner};

use crate::facts::{NetworkFact, ServiceFact};
use crate::gateway::{self, Answering};
use crate::underlay::{self, WayOut};
use crate::view::View;

use super::endpoints::Port;
use super::tell_once;
use super::variants::is_outside;

/// Adds the way back from the endpoints of a protocol, whose ports these are.
pub(super) fn add(view: &View<'_>, owner: &Owner, service: &ServiceFact, ports: &[Port<'_>], output: &mut Output) {
    let Some(protocol) = ports.first().map(|port| port.service.protocol).filter(|_| service.external_local) else {
        return;
    };
    let nodes: BTreeSet<&str> = ports.iter().flat_map(Port::serving_nodes).collect();
    for (node, v4) in nodes.into_iter().flat_map(|node| [(node, true), (node, false)]) {
        let here = ports.iter().filter(|port| port.v4 == v4).flat_map(|port| port.answering_on(node));
        let pods: Vec<_> = here.filter(|backend| !is_outside(view, backend)).collect();
        let addresses: BTreeSet<_> = pods.iter().map(|backend| backend.address()).collect();
        let on_wire = addresses.iter().filter_map(|ip| underlay::network_at(view, *ip));
        tell(on_wire.filter(|network| underlay::way_out(network, v4) != WayOut::Ovn), output);
        let ports = pods.iter().map(|backend| backend.port).collect();
        gateway::answers(view, owner, &Answering { node, protocol, addresses, ports }, output);
    }
}

/// Says of endpoints whose answers go past the node.
fn tell<'a>(networks: impl Iterator<Item = &'a NetworkFact>, output: &mut Output) {
    let names: BTreeSet<&str> = networks.map(|network| &*network.name).collect();
    for name in names {
        let message = format!(
            "clients outside do not reach endpoints on Network {name}, whose way out is not OVN's; use policy Cluster, or the endpoints' own addresses"
        );
        let told = Diagnostic::warning("ExternalLocalUnsupported", "spec.externalTrafficPolicy", message);
        tell_once(told, &mut output.diagnostics);
    }
}
