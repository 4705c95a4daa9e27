//! Feature: ports of the node that lead to a pod (`hostPort`), as load balancers of that node alone.
//!
//! Inputs: the Pod with its addresses, the addresses of its node's gateway, who else asks for the ports. Outputs: one row of
//! Load_Balancer for each protocol, used by the node's gateway router (if it has one), which leaves the client's address in place, and by its
//! switch. Of two pods that ask for one port the older has it; the other gets a complaint. Must not: serve loopback addresses,
//! which never leave the host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ovenbird_reconcile::{DesiredRow, Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::{load_balancer as lb, logical_router as lr, logical_switch as ls};
use ovsdb::{Atom, Datum, Str};

use crate::build::{RowBuilder, contribution};
use crate::facts::{HostPort, PodAddresses, PodFact, Protocol};
use crate::gateway::{self, Answering};
use crate::node;
use crate::service::{bracketed, forget_gone, protocol_of};
use crate::underlay::{self, WayOut};
use crate::view::View;

/// Adds the rows of a pod that has its port on the switch of `on`.
pub(crate) fn add(
    view: &View<'_>,
    owner: &Owner,
    pod: &PodFact,
    on: &Str,
    addresses: &PodAddresses,
    output: &mut Output,
) {
    if pod.host_ports.is_empty() {
        return;
    }
    let network = pod.on.as_ref().and_then(|name| view.network(name));
    // A gateway on the wire would send the answer past the node's gateway router, which has to know it again.
    let served = |own: &IpAddr| network.is_none_or(|network| underlay::way_out(network, own.is_ipv4()) == WayOut::Ovn);
    if let Some(network) = network.filter(|_| !addresses.iter().all(|own| served(&own))) {
        let problem = format!(
            "ports of nodes lead to pods on Network {} in families without a physical gateway only; reach the pod by its own address",
            network.name
        );
        output.diagnostics.push(complaint(Severity::Warning, "HostPortUnsupported", "hostPort", problem));
    }
    let host = view.host_addresses(on);
    for protocol in Protocol::ALL {
        let mut vips: Vec<(Atom, Atom)> = Vec::new();
        let mut ports = BTreeSet::new();
        for wanted in pod.host_ports.iter().filter(|wanted| wanted.protocol == protocol) {
            if let Some(holder) = view.host_port_holder(on, wanted).filter(|key| **key != pod.key) {
                let (port, protocol) = (wanted.port, protocol.as_str());
                let problem = format!(
                    "port {port}/{protocol} of node {on} belongs to pod {holder}, which is older; choose another port or node"
                );
                output.diagnostics.push(complaint(Severity::Error, "HostPortInUse", "hostPort", problem));
                continue;
            }
            ports.insert(wanted.target);
            vips.extend(host.iter().filter(|address| wanted.covers(**address)).filter_map(|address| {
                let target = addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4() && served(own))?;
                Some((socket(*address, wanted.port).into(), socket(target, wanted.target).into()))
            }));
        }
        if !vips.is_empty() {
            let row = row(view, owner, pod, protocol, vips);
            let member = row.id.uuid();
            // A VM has none: its kernel lets others in.
            if view.has_router(on) {
                output.contributions.push(contribution(&lr::TABLE, gateway::router(on), lr::LOAD_BALANCER, member));
            }
            output.contributions.push(contribution(&ls::TABLE, node::switch(on), ls::LOAD_BALANCER, member));
            output.rows.push(row);
            for v4 in [true, false] {
                let addresses = addresses.iter().filter(|own| own.is_ipv4() == v4).collect();
                let who = Answering { node: on, protocol, addresses, ports: ports.clone() };
                gateway::answers(view, owner, &who, output);
            }
        }
    }
    output.diagnostics.extend(pod.host_ports.iter().filter_map(|wanted| unknown(wanted, on, host)));
}

/// A complaint about an address that the node does not have. Before it has a gateway, nothing is known of its addresses.
fn unknown(wanted: &HostPort, on: &str, host: &[IpAddr]) -> Option<Diagnostic> {
    let address = wanted.address.filter(|a| !a.is_loopback() && !a.is_unspecified() && !host.is_empty())?;
    let problem = format!("node {on} has no address {address}; use one of its own, or none for all");
    (!host.contains(&address)).then(|| complaint(Severity::Warning, "HostAddressUnknown", "hostIP", problem))
}

fn complaint(severity: Severity, reason: &'static str, field: &str, message: String) -> Diagnostic {
    Diagnostic { severity, reason, field: format!("spec.containers[].ports[].{field}"), message }
}

fn socket(address: IpAddr, port: u16) -> String {
    format!("{}:{port}", bracketed(address))
}

fn row(view: &View<'_>, owner: &Owner, pod: &PodFact, protocol: Protocol, vips: Vec<(Atom, Atom)>) -> DesiredRow {
    let masquerade = view.config().masquerade();
    let hairpin = format!("{} {}", masquerade.hairpin(true), masquerade.hairpin(false));
    let shared = |text: &str| Some(Atom::String(view.text(text)));
    let options = [
        ("event", shared("false")),
        ("hairpin_snat_ip", shared(&hairpin)),
        ("neighbor_responder", shared("none")),
        ("reject", shared("false")),
        ("skip_snat", shared("true")),
        ("ct_flush", forget_gone(protocol).and_then(shared)),
    ];
    let role = format!("hostport_{}", protocol.as_str());
    RowBuilder::new(view, &lb::TABLE, owner, &role, lb::EXTERNAL_IDS, &[])
        .exactly(lb::name(format!("HostPort_{}_{}", pod.key, protocol.as_str())))
        .exactly(lb::protocol(Some(protocol_of(protocol))))
        .exactly((lb::VIPS, Datum::map(vips)))
        .keys(lb::OPTIONS, options)
        .build()
}
