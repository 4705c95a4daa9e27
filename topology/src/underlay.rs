//! Feature: pods on a physical network, a VLAN of it: one switch for all nodes, with a localnet port instead of tunnels.
//!
//! ```text
//! pods of all nodes - NET_x - localnet-NET_x (tag) - bridge of the ProviderNetwork - wire
//!                       '-(stor-NET_x | rtos-NET_x)- ovn_cluster_router        where the Network has spec.gateway.ovn
//! ```
//!
//! A pod is on the network that its annotation names, as long as that is for its namespace; so pods stay where they are when selectors
//! change in favour of another network. The router's port is on one chassis at a time, the first ready one of [`GATEWAYS`]: only so is the router one host on the wire, whoever
//! asks for it. What goes from pod to pod of a network never passes it.
//!
//! Inputs: the Network and its ProviderNetwork, the nodes where that is ready. Outputs: rows of the owner Network; nothing of one that is wrong in
//! itself or contradicts an older one. Must not: lead from one network to another through the cluster's router (they are told apart on the wire, so here).

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::annotation::{LEASE, NETWORK, POD_NETWORKS};
use ovenbird_api::{Mac, name};
use ovenbird_reconcile::{DesiredRow, Diagnostic, Output, Owner, Severity};
use ovenbird_schema::northbound::{
    gateway_chassis, logical_router as lr, logical_router_policy as policy, logical_router_port as lrp,
    logical_router_static_route as route, logical_switch as ls, logical_switch_port as lsp,
};
use ovsdb::{Atom, Str, Uuid};

mod networks;

pub use networks::{NetworkError, Networks, attachment, scope};

use crate::build::{self, RowBuilder, complaint, contribution, refused};
use crate::cluster::{self, Group, load_balancer_group};
use crate::config::is_v4;
use crate::facts::{NetworkFact, PodAddresses, PodFact, ProviderNetworkFact};
use crate::gateway::{self, INSIDE};
use crate::kinds;
use crate::policy as policies;
use crate::view::View;

/// Most chassis that stand by for a network's router port.
const GATEWAYS: usize = 3;
/// Priority of the policy that keeps networks apart: above all that leads elsewhere.
const APART: i64 = 1010;

/// Identity of a network's switch.
pub(crate) fn switch(network: &str) -> Uuid {
    build::id(&ls::TABLE, &Owner::new(kinds::NETWORK, network), "")
}

/// Subnets of a family to which the cluster's router has a way of its own.
pub(crate) fn routed<'a>(view: &View<'a>, v4: bool) -> impl Iterator<Item = IpNet> + use<'a> {
    let of =
        move |network: &'a NetworkFact| network.routers.iter().map(IpNet::trunc).filter(move |net| is_v4(net) == v4);
    view.networks().into_iter().flat_map(of)
}

/// The port of the cluster's router on a network's switch.
pub(crate) fn router_port(network: &str) -> String {
    name::router_to_switch(&name::network_switch(network))
}

/// By what the pods of a network leave the cluster, in a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayOut {
    /// By OVN's router, and the gateway of a node.
    Ovn,
    /// By a gateway on the wire.
    Physical,
    /// By nothing.
    None,
}

/// See [`WayOut`].
pub(crate) fn way_out(network: &NetworkFact, v4: bool) -> WayOut {
    // A DHCP server names a gateway on the wire.
    if network.dhcp && v4 || network.physical.iter().any(|gateway| gateway.is_ipv4() == v4) {
        return WayOut::Physical;
    }
    if network.routers.iter().any(|router| is_v4(router) == v4) { WayOut::Ovn } else { WayOut::None }
}

/// The ports of the cluster's router by which the pods of networks leave the cluster, in a family.
pub(crate) fn ports_on_way_out(view: &View<'_>, v4: bool) -> Vec<String> {
    let networks = view.networks().into_iter().filter(|network| way_out(network, v4) == WayOut::Ovn);
    networks.map(|network| router_port(&network.name)).collect()
}

/// The network whose address it may be: rather one that OVN routes to, for that is the only one of its subnet.
pub(crate) fn network_at<'a>(view: &View<'a>, ip: IpAddr) -> Option<&'a NetworkFact> {
    let has = |network: &&NetworkFact| network.subnets.iter().any(|net| net.contains(&ip));
    let all = view.networks().into_iter().filter(has);
    all.max_by_key(|network| network.routers.iter().any(|router| router.contains(&ip)))
}

/// The network of a pod that names one, when it may be on it with these addresses; `None` while there is no such network.
///
/// # Errors
/// A complaint, when it may not.
pub(crate) fn admit(
    view: &View<'_>,
    pod: &PodFact,
    network: &str,
    addresses: PodAddresses,
) -> Result<Option<Admitted>, Box<Output>> {
    let Some(fact) = view.network(network) else { return Ok(None) };
    if !view.is_for(fact, pod.namespace()) {
        let problem = format!(
            "Network {network} is not for namespace {}; make the pod anew, or change the Network's namespaceSelector",
            pod.namespace()
        );
        return Err(Box::new(refused("NetworkNotForNamespace", NETWORK, &problem)));
    }
    if fact.dhcp != addresses.dhcp {
        let problem =
            format!("Network {network} has another source of addresses than when they were chosen; make the pod anew");
        return Err(Box::new(refused("AddressSourceChanged", POD_NETWORKS, &problem)));
    }
    if fact.dhcp {
        return Ok(Some(leased(view, pod, fact, addresses)));
    }
    for ip in addresses.iter() {
        if !networks::is_pods(fact, ip) {
            let problem = format!(
                "address {ip} is not a pod address of Network {network}; remove both annotations and they are written anew"
            );
            return Err(Box::new(refused("AddressOutsideSubnet", POD_NETWORKS, &problem)));
        }
        if let Some(holder) = view.holder(&scope(network), ip).filter(|key| **key != pod.key) {
            let problem = format!(
                "address {ip} belongs to pod {holder}, which is older; remove both annotations and they are written anew"
            );
            return Err(Box::new(refused("AddressInUse", POD_NETWORKS, &problem)));
        }
    }
    Ok(Some(Admitted { addresses, problem: None }))
}

/// The addresses with which a pod has a port.
pub(crate) struct Admitted {
    /// Without those that it cannot have.
    pub addresses: PodAddresses,
    /// Why it has not all of them.
    pub problem: Option<Diagnostic>,
}

/// A pod with the lease of a DHCP server, or without: then it keeps its port, for it has to ask the server.
fn leased(view: &View<'_>, pod: &PodFact, network: &NetworkFact, addresses: PodAddresses) -> Admitted {
    let error = |reason, problem: &dyn ToString| Some(complaint(Severity::Error, reason, LEASE, &problem.to_string()));
    let problem = match (&pod.lease, addresses.v4.map(IpAddr::V4)) {
        (Some(Err(bad)), _) => error("InvalidAnnotation", bad),
        (_, Some(ip)) if !networks::is_pods(network, ip) => error(
            "LeaseOutsideSubnet",
            &format!(
                "the DHCP server gave {ip}, which is no pod address of Network {}; correct its range, or subnets of the Network",
                network.name
            ),
        ),
        (_, Some(ip)) => view.holder(&scope(&network.name), ip).filter(|key| **key != pod.key).and_then(|holder| {
            error(
                "LeaseInUse",
                &format!(
                    "the DHCP server gave {ip}, the address of pod {holder}, which is older; is there a second server?"
                ),
            )
        }),
        (_, None) => None,
    };
    let v4 = addresses.v4.filter(|_| problem.is_none());
    Admitted { addresses: PodAddresses { v4, ..addresses }, problem }
}

/// A network's rows.
pub(crate) fn translate(view: &View<'_>, owner: &Owner) -> Output {
    let mut output = Output::default();
    let Some(network) = view.own_network(owner) else { return output };
    let told = network.problems.iter().map(|p| Diagnostic::error("InvalidNetwork", &p.field, p.message.clone()));
    output.diagnostics.extend(told);
    let refused = view.network_errors(&network.name);
    output.diagnostics.extend(refused.iter().map(|e| Diagnostic::error("NetworkRefused", e.field(), e.to_string())));
    if !output.diagnostics.is_empty() {
        return output;
    }
    let provider = view.provider(&network.provider);
    if provider.is_none() {
        let problem =
            format!("ProviderNetwork {} does not exist; until it does, its pods are cut off", network.provider);
        output.diagnostics.push(Diagnostic::warning("ProviderNetworkMissing", "spec.providerNetwork", problem));
    }
    let switch = switch_row(view, owner, network);
    let localnet = localnet_row(view, owner, network);
    let on_switch = |row: &DesiredRow| contribution(&ls::TABLE, switch.id.uuid(), ls::PORTS, row.id.uuid());
    output.contributions.push(on_switch(&localnet));
    policies::add_to_network(view, owner, network, localnet.id.uuid(), &mut output);
    if network.dhcp {
        policies::add_dhcp_guard(view, owner, network, &mut output);
    }
    output.rows.extend([switch, localnet]);
    if !network.routers.is_empty() {
        add_router(view, owner, network, provider, &mut output);
    }
    output
}

fn switch_row(view: &View<'_>, owner: &Owner, network: &NetworkFact) -> DesiredRow {
    let v4 = network.subnets.iter().find(|net| is_v4(net));
    let v6 = network.subnets.iter().find(|net| !is_v4(net));
    RowBuilder::new(view, &ls::TABLE, owner, "", ls::EXTERNAL_IDS, &[])
        .exactly(ls::name(name::network_switch(&network.name)))
        .keys(
            ls::OTHER_CONFIG,
            [
                ("subnet", v4.map(|net| Atom::from(net.to_string()))),
                ("ipv6_prefix", v6.map(|net| Atom::from(net.network().to_string()))),
            ],
        )
        .exactly(ls::load_balancer_group([load_balancer_group(Group::Everywhere)]))
        .members(ls::ACLS)
        .members(ls::LOAD_BALANCER)
        .members(ls::PORTS)
        .build()
}

fn localnet_row(view: &View<'_>, owner: &Owner, network: &NetworkFact) -> DesiredRow {
    RowBuilder::new(view, &lsp::TABLE, owner, "localnet", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::network_localnet(&network.name)))
        .exactly(lsp::type_("localnet"))
        .exactly(lsp::addresses(["unknown"]))
        .exactly(lsp::tag_request(network.vlan.map(i64::from)))
        .keys(lsp::OPTIONS, [("network_name", Some(network.provider.clone().into()))])
        .build()
}

/// A node on which a network's router port may be.
struct Gateway<'a> {
    node: &'a Str,
    chassis: &'a Str,
}

/// The nodes for a network's router port, the first to be tried first: some of those where the physical network is ready, others for other
/// networks.
fn gateways<'a>(view: &View<'a>, owner: &Owner, provider: &'a ProviderNetworkFact) -> Vec<Gateway<'a>> {
    let ready = provider.ready.iter();
    let mut all: Vec<Gateway<'a>> =
        ready.filter_map(|node| Some(Gateway { node, chassis: view.chassis(node)? })).collect();
    // The weight of a node for this network: when one comes or goes, the order of the others stays.
    all.sort_by_cached_key(|gateway| build::id(&gateway_chassis::TABLE, owner, gateway.node));
    all.truncate(GATEWAYS);
    all
}

/// Adds the link to the cluster's router, and what that must know of the network.
fn add_router(
    view: &View<'_>,
    owner: &Owner,
    network: &NetworkFact,
    provider: Option<&ProviderNetworkFact>,
    output: &mut Output,
) {
    let gateways = provider.map(|provider| gateways(view, owner, provider)).unwrap_or_default();
    let Some(first) = gateways.first() else {
        let problem =
            "no node has the physical network ready: nothing routes yet; see the status of the ProviderNetwork";
        return output.diagnostics.push(Diagnostic::warning("NoGatewayNode", "spec.gateway.ovn", problem.to_owned()));
    };
    let switch_name = name::network_switch(&network.name);
    let port_name = router_port(&network.name);
    let pins: Vec<DesiredRow> = gateways
        .iter()
        .zip((1..=GATEWAYS as i64).rev())
        .map(|(gateway, priority)| {
            RowBuilder::new(view, &gateway_chassis::TABLE, owner, gateway.node, gateway_chassis::EXTERNAL_IDS, &[])
                .exactly(gateway_chassis::name(name::gateway_chassis(&switch_name, gateway.chassis)))
                .exactly(gateway_chassis::chassis_name(&**gateway.chassis))
                .exactly(gateway_chassis::priority(priority))
                .build()
        })
        .collect();
    let mac = Mac::of_any(network.routers.iter().map(IpNet::addr)).map(|mac| mac.to_string()).unwrap_or_default();
    let router_end = RowBuilder::new(view, &lrp::TABLE, owner, "", lrp::EXTERNAL_IDS, &[])
        .exactly(lrp::name(&*port_name))
        .exactly(lrp::mac(mac))
        .exactly(lrp::networks(network.routers.iter().map(IpNet::to_string)))
        .exactly(lrp::gateway_chassis(pins.iter().map(|row| row.id.uuid())))
        .keys(lrp::OPTIONS, [("route_table", Some(Atom::from(&*port_name)))])
        .build();
    let switch_end = RowBuilder::new(view, &lsp::TABLE, owner, "router", lsp::EXTERNAL_IDS, &[])
        .exactly(lsp::name(name::switch_to_router(&switch_name)))
        .exactly(lsp::type_("router"))
        .exactly(lsp::addresses(["router"]))
        // Neighbours on the wire learn where it is, also after it has moved to another chassis.
        .keys(
            lsp::OPTIONS,
            [
                ("router-port", Some(Atom::from(&*port_name))),
                ("nat-addresses", Some("router".into())),
                ("exclude-lb-vips-from-garp", Some("true".into())),
            ],
        )
        .build();
    output.contributions.push(contribution(&lr::TABLE, cluster::router(), lr::PORTS, router_end.id.uuid()));
    output.contributions.push(contribution(&ls::TABLE, switch(&network.name), ls::PORTS, switch_end.id.uuid()));
    output.rows.extend(pins);
    output.rows.extend([router_end, switch_end]);
    for router in &network.routers {
        if way_out(network, is_v4(router)) == WayOut::Ovn {
            add_way_out(view, owner, is_v4(router), &port_name, first, output);
        }
        keep_apart(view, owner, router, &port_name, output);
    }
}

/// Adds the way out of a network that has no physical gateway: by the gateway of the first node.
fn add_way_out(view: &View<'_>, owner: &Owner, v4: bool, port: &str, first: &Gateway<'_>, output: &mut Output) {
    let (ip, everywhere) = if v4 { ("ip4", "0.0.0.0/0") } else { ("ip6", "::/0") };
    let Some(hop) = view.ways_out(first.node).iter().find(|hop| hop.is_ipv4() == v4) else { return };
    let row = RowBuilder::new(view, &route::TABLE, owner, &format!("egress:{ip}"), route::EXTERNAL_IDS, &[])
        .exactly(route::ip_prefix(everywhere))
        .exactly(route::nexthop(hop.to_string()))
        .exactly(route::route_table(port))
        .build();
    output.contributions.push(contribution(&lr::TABLE, cluster::router(), lr::STATIC_ROUTES, row.id.uuid()));
    output.rows.push(row);
    let inside: Vec<String> = gateway::inside(view, v4).map(|net| net.to_string()).collect();
    let text = format!("inport == \"{port}\" && {ip}.dst == {{{}}}", inside.join(", "));
    let rule = Rule { role: format!("inside:{ip}"), priority: INSIDE, text, action: policy::Action::Allow };
    add_rule(view, owner, rule, output);
}

/// Adds the barrier towards other networks.
fn keep_apart(view: &View<'_>, owner: &Owner, router: &IpNet, port: &str, output: &mut Output) {
    let v4 = is_v4(router);
    let ip = if v4 { "ip4" } else { "ip6" };
    let others: Vec<String> =
        routed(view, v4).filter(|net| *net != router.trunc()).map(|net| net.to_string()).collect();
    if others.is_empty() {
        return;
    }
    let text = format!("inport == \"{port}\" && {ip}.dst == {{{}}}", others.join(", "));
    let rule = Rule { role: format!("apart:{ip}"), priority: APART, text, action: policy::Action::Drop };
    add_rule(view, owner, rule, output);
}

/// A policy of the cluster's router.
struct Rule {
    role: String,
    priority: i64,
    text: String,
    action: policy::Action,
}

fn add_rule(view: &View<'_>, owner: &Owner, rule: Rule, output: &mut Output) {
    let row = RowBuilder::new(view, &policy::TABLE, owner, &rule.role, policy::EXTERNAL_IDS, &[])
        .exactly(policy::priority(rule.priority))
        .exactly(policy::match_(rule.text))
        .exactly(policy::action(rule.action))
        .build();
    output.contributions.push(contribution(&lr::TABLE, cluster::router(), lr::POLICIES, row.id.uuid()));
    output.rows.push(row);
}

/// True when the address is one of a network's.
pub(crate) fn is_inside(view: &View<'_>, ip: IpAddr) -> bool {
    network_at(view, ip).is_some()
}
