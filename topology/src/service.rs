//! Feature: Services, as load balancers.
//!
//! ```text
//! Service, EndpointSlices -> [layers] which addresses, where, under which policy
//!                         -> [variants] where nodes differ, and how   -> [endpoints] who answers there
//!                         -> one row for each variant: to a group when all share it, else to single switches and routers
//! ```
//!
//! Inputs: the Service, its slices; of the nodes only what [`crate::places`] tells, and only when the Service needs it. Outputs: rows of
//! Load_Balancer, one for each protocol as long as all nodes serve it alike. Must not: make a row per node for what is the same
//! everywhere.

pub mod endpoints;
mod layers;
mod settings;
mod source_ranges;
mod variants;
mod way_back;

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_reconcile::{Contribution, DesiredRow, Diagnostic, Output, Owner};
use ovenbird_schema::northbound::{
    load_balancer as lb, load_balancer_group as group, logical_router as lr, logical_switch as ls,
};
use ovsdb::{Atom, Datum, Uuid};

use crate::build::{RowBuilder, contribution};
use crate::cluster::load_balancer_group;
use crate::facts::{EndpointSliceFact, Protocol, ServiceFact, ServicePort};
use crate::view::View;
use crate::{gateway, node, underlay};
use endpoints::Port;
use layers::Layer;
pub(crate) use layers::bracketed;
use settings::Settings;
use variants::{Attachment, Variant};

/// A Service's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(service) = view.own_service(owner).filter(|s| !s.cluster_ips.is_empty()) else {
        return Output::default();
    };
    let mut output = Output::default();
    let settings = Settings::of(view, service, &mut output.diagnostics);
    if service.internal_local {
        tell_of_networks(view, &mut output);
    }
    let slices = view.own_slices(owner);
    for protocol in Protocol::ALL {
        let mut ports = ports(service, protocol, &slices);
        if ports.is_empty() {
            continue;
        }
        ports.iter_mut().for_each(|port| refuse(view, service, port, &mut output.diagnostics));
        for layer in layers::of(view, service, &ports) {
            for variant in variants::of(view, &layer, &ports) {
                let part = Part { service, protocol, layer: &layer, ports: &ports };
                let row = row(view, owner, &part, &settings, &variant);
                let member = row.id.uuid();
                output.contributions.extend(variant.attachments.iter().map(|place| attach(place, member)));
                output.rows.push(row);
            }
        }
        source_ranges::add(view, owner, service, &ports, &mut output);
        way_back::add(view, owner, service, &ports, &mut output);
    }
    output
}

/// Says that a Network's switch is one for all nodes: endpoints that are near are none there.
fn tell_of_networks(view: &View<'_>, output: &mut Output) {
    let names: Vec<&str> = view.networks().iter().map(|network| &*network.name).collect();
    if names.is_empty() {
        return;
    }
    let message = format!("pods on the Networks {} reach all endpoints, on whichever node", names.join(", "));
    let told = Diagnostic::warning("InternalLocalUnsupported", "spec.internalTrafficPolicy", message);
    output.diagnostics.push(told);
}

/// What several ports of a Service give rise to is one thing to say.
fn tell_once(told: Diagnostic, diagnostics: &mut Vec<Diagnostic>) {
    if !diagnostics.contains(&told) {
        diagnostics.push(told);
    }
}

fn ports<'a>(service: &'a ServiceFact, protocol: Protocol, slices: &[&'a EndpointSliceFact]) -> Vec<Port<'a>> {
    let mut ports = Vec::new();
    for v4 in [true, false] {
        if service.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4) {
            let of_protocol = service.ports.iter().filter(|port| port.protocol == protocol);
            ports.extend(of_protocol.map(|port| Port::new(port, v4, slices)));
        }
    }
    ports
}

/// Notes the addresses outside the cluster at which the port is not this Service's.
fn refuse(view: &View<'_>, service: &ServiceFact, port: &mut Port<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for ip in service.outside().filter(|ip| ip.is_ipv4() == port.v4) {
        let problem = if let Some((whose, net)) = own_network(view, ip) {
            format!("{ip} is inside {whose} {net}, which is the cluster's own; use another address")
        } else if let Some(holder) = view.outside_holder(ip, port.service).filter(|key| **key != service.key) {
            let ServicePort { port, protocol, .. } = port.service;
            format!("{ip} port {port} ({}) belongs to Service {holder}, which is older; use another", protocol.as_str())
        } else {
            continue;
        };
        let field = if service.external_ips.contains(&ip) { "spec.externalIPs" } else { "status.loadBalancer.ingress" };
        tell_once(Diagnostic::warning("AddressRefused", field, problem), diagnostics);
        port.refused.push(ip);
    }
}

/// The network of the cluster that an address is inside of, and what names it.
fn own_network(view: &View<'_>, ip: IpAddr) -> Option<(String, IpNet)> {
    let settings = view.config().networks().map(|(setting, net)| (setting.to_owned(), net));
    let added =
        view.service_cidrs().flat_map(|fact| fact.cidrs.iter().map(|net| (format!("ServiceCIDR {}", fact.name), *net)));
    settings.chain(added).find(|(_, net)| net.contains(&ip))
}

/// What a row is made of.
struct Part<'a> {
    service: &'a ServiceFact,
    protocol: Protocol,
    layer: &'a Layer,
    ports: &'a [Port<'a>],
}

fn attach(place: &Attachment<'_>, member: Uuid) -> Contribution {
    match place {
        Attachment::Group(which) => {
            contribution(&group::TABLE, load_balancer_group(*which), group::LOAD_BALANCER, member)
        }
        Attachment::Switch(node) => contribution(&ls::TABLE, node::switch(node), ls::LOAD_BALANCER, member),
        Attachment::Network(name) => contribution(&ls::TABLE, underlay::switch(name), ls::LOAD_BALANCER, member),
        Attachment::Router(node) => contribution(&lr::TABLE, gateway::router(node), lr::LOAD_BALANCER, member),
    }
}

fn row(view: &View<'_>, owner: &Owner, part: &Part<'_>, settings: &Settings, variant: &Variant<'_>) -> DesiredRow {
    let Part { service, protocol, layer, ports } = part;
    let role = format!("{}_{}", protocol.as_str(), variant.scope);
    let shared = |text: &str| Some(Atom::String(view.text(text)));
    let flag = |on: bool| shared(if on { "true" } else { "false" });
    let balanced = variants::balance(view, layer, ports, variant.answer, |b| settings.weight(view, b));
    let extra = [
        ("k8s.ovn.org/kind", Atom::String(view.text(owner.kind.name))),
        ("k8s.ovn.org/owner", Atom::String(owner.key.clone())),
    ];
    let family = layer.template.map(|v4| if v4 { "ipv4" } else { "ipv6" });
    let mut options = vec![
        ("event", flag(false)),
        ("hairpin_snat_ip", shared(&settings.hairpin)),
        ("neighbor_responder", shared("none")),
        ("reject", flag(balanced.reject)),
        // A router gives its own address to what it refuses with, too, unless told to skip that: the host would not know it again.
        ("skip_snat", flag(layer.skip_snat || balanced.empty)),
        ("affinity_timeout", settings.timeout(layer).map(|seconds| Atom::String(view.text(&seconds.to_string())))),
        ("ct_flush", forget_gone(*protocol).and_then(shared)),
    ];
    if let Some(family) = family {
        options.extend([("template", flag(true)), ("address-family", shared(family))]);
    }
    RowBuilder::new(view, &lb::TABLE, owner, &role, lb::EXTERNAL_IDS, &extra)
        .exactly(lb::name(format!("Service_{}_{role}", service.key)))
        .exactly(lb::protocol(Some(protocol_of(*protocol))))
        .exactly(lb::selection_fields(settings.fields(layer)))
        .exactly((lb::VIPS, Datum::map(balanced.vips)))
        .keys(lb::OPTIONS, options)
        .build()
}

/// `options:ct_flush`: a client of UDP that goes on sending from its port would be led to an endpoint that is gone for as long as it sends.
/// Connections of the other protocols end by themselves, and an endpoint that shuts down may end those it has.
pub(crate) fn forget_gone(protocol: Protocol) -> Option<&'static str> {
    (protocol == Protocol::Udp).then_some("true")
}

pub(crate) fn protocol_of(protocol: Protocol) -> lb::Protocol {
    match protocol {
        Protocol::Tcp => lb::Protocol::Tcp,
        Protocol::Udp => lb::Protocol::Udp,
        Protocol::Sctp => lb::Protocol::Sctp,
    }
}
