//! Feature: a pod's port on its node's switch, or on that of a Network (see `underlay`).
//!
//! Inputs: the Pod, which subnets its node may use, the Network that it names, who else claims its addresses. Outputs: one Logical_Switch_Port and its
//! membership (and load balancers for ports of the node, see `host_port`), as soon as the pod is bound and has addresses, so that its flows are there before CNI asks. Host-network and
//! finished pods have no port. A complaint, and no port, when the annotation is wrong, an address is not of the node's
//! subnets, or an older pod has it.

use std::fmt::Write;

use ovenbird_api::address::{self, FIRST_POD};
use ovenbird_api::annotation::{POD_NETWORKS, WEIGHT};
use ovenbird_api::name;
use ovenbird_reconcile::{DesiredRow, Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::{logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{Atom, Str};

use crate::build::{RowBuilder, complaint, contribution, refused};
use crate::facts::{PodAddresses, PodFact};
use crate::view::View;
use crate::{host_port, nested, node, policy, underlay};

/// A pod's rows.
pub fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let Some(pod) = view.own_pod(owner) else { return Output::default() };
    let Place { node, addresses, problem } = match place(view, pod) {
        Ok(Some(place)) => place,
        Ok(None) => return Output::default(),
        Err(refused) => return *refused,
    };
    let child = match nested::child(view, pod, node, &addresses) {
        Ok(child) => child,
        Err(refused) => return *refused,
    };
    let port = port_row(view, owner, pod, (node, child), &addresses);
    let id = port.id.uuid();
    let switch = pod.on.as_ref().map_or_else(|| node::switch(node), |network| underlay::switch(network));
    let member = contribution(&ls::TABLE, switch, ls::PORTS, id);
    let weight = pod.weight.as_ref().and_then(|weight| weight.as_ref().err());
    let diagnostics = weight.map(|error| complaint(Severity::Warning, "InvalidAnnotation", WEIGHT, error));
    let mut output = Output {
        rows: vec![port],
        contributions: vec![member],
        diagnostics: diagnostics.into_iter().chain(problem).collect(),
    };
    host_port::add(view, owner, pod, node, &addresses, &mut output);
    policy::add_to_pod(view, owner, pod, id, &mut output);
    if pod.on.is_some() {
        policy::add_to_node_group(view, node, id, &mut output);
    }
    output
}

/// With what a pod has a port.
pub(crate) struct Place<'a> {
    /// Its node.
    pub node: &'a Str,
    /// Its addresses: none before a DHCP server has given one.
    pub addresses: PodAddresses,
    /// Why it has not the address that it should.
    problem: Option<Diagnostic>,
}

/// Where a pod has a port; `None` while it has none.
///
/// # Errors
/// A complaint, when it cannot have one.
pub(crate) fn place<'a>(view: &View<'_>, pod: &'a PodFact) -> Result<Option<Place<'a>>, Box<Output>> {
    let (Some(node), Some(network)) = (pod.attached_to(), &pod.network) else { return Ok(None) };
    if let Err(error) = network {
        return Err(Box::new(refused("InvalidAnnotation", POD_NETWORKS, error)));
    }
    let Some(addresses) = pod.addresses() else { return Ok(None) };
    // Without a usable subnet there is no switch to have a port on, nor a way from the node to it; the Node's own complaint says why.
    let Some(subnets) = view.subnets(node).filter(|s| !s.usable.is_empty()) else { return Ok(None) };
    if let Some(network) = &pod.on {
        let place = |a: underlay::Admitted| Place { node, addresses: a.addresses, problem: a.problem };
        return Ok(underlay::admit(view, pod, network, addresses)?.map(place));
    }
    for ip in addresses.iter() {
        let fits = subnets
            .usable
            .iter()
            .any(|s| address::index_of(*s, ip).is_some_and(|n| (FIRST_POD..=address::last_pod(*s)).contains(&n)));
        if !fits {
            let problem = format!(
                "address {ip} is not a pod address of node {node}'s subnets; remove the annotation and it is written anew"
            );
            return Err(Box::new(refused("AddressOutsideSubnet", POD_NETWORKS, &problem)));
        }
        if let Some(holder) = view.holder(node, ip).filter(|key| **key != pod.key) {
            let problem = format!(
                "address {ip} belongs to pod {holder}, which is older; remove the annotation and it is written anew"
            );
            return Err(Box::new(refused("AddressInUse", POD_NETWORKS, &problem)));
        }
    }
    Ok(Some(Place { node, addresses, problem: None }))
}

fn port_row(
    view: &View<'_>,
    owner: &Owner,
    pod: &PodFact,
    (node, child): (&Str, Option<(&Str, u16)>),
    addresses: &PodAddresses,
) -> DesiredRow {
    let mut text = addresses.mac.to_string();
    for ip in addresses.iter() {
        // Writing to a String cannot fail.
        let _ = write!(text, " {ip}");
    }
    // What probes for an address sends none of its own (RFC 5227 section 2.1.1); neighbour discovery OVN lets do so. Nor has who has no lease,
    // and nothing but DHCP and probes is to come from there.
    let probed = pod.on.as_deref().and_then(|on| view.network(on)).is_some_and(|network| network.probe);
    let secured =
        if probed && addresses.v4.is_some() || addresses.dhcp { format!("{text} 0.0.0.0") } else { text.clone() };
    let (text, secured): (Str, Str) = (text.into(), secured.into());
    let namespace = Atom::String(view.text(pod.namespace()));
    let extra = [("namespace", namespace), ("pod", Atom::String(view.text("true")))];
    let row = RowBuilder::new(view, &lsp::TABLE, owner, "", lsp::EXTERNAL_IDS, &extra)
        .exactly(lsp::name(name::lsp_name(pod.namespace(), pod.name())))
        .exactly(lsp::addresses([text.clone()]))
        .exactly(lsp::port_security([secured]))
        .keys(
            lsp::OPTIONS,
            // Only a manifest that no API server has seen is without UID.
            [
                ("iface-id-ver", (!pod.uid.is_empty()).then(|| pod.uid.clone().into())),
                ("requested-chassis", child.is_none().then(|| node.clone().into())),
            ],
        );
    match child {
        Some((parent, tag)) => row.child_of(parent, tag).build(),
        None => row.build(),
    }
}
