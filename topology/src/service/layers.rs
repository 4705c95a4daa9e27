//! The layers of a Service: sets of addresses that are served in the same places under the same policy.
//!
//! | addresses | policy Cluster | policy Local |
//! |---|---|---|
//! | cluster IPs | everywhere, all endpoints | everywhere, the node's own endpoints |
//! | external IPs, load balancer addresses, node ports | as cluster IPs | routers: the node's own endpoints, the client's address is kept; switches: all endpoints, for pods are no outside |
//!
//! No address is in two layers of one place. Must not: look at endpoints but for whether there are node ports to serve.

use std::net::IpAddr;

use crate::facts::ServiceFact;
use crate::view::View;

use super::endpoints::Port;

/// See the file header.
pub(super) struct Layer {
    /// First part of the names of rows for some nodes.
    pub stem: &'static str,
    /// Name of the row that all nodes share.
    pub shared: &'static str,
    /// Addresses served.
    pub addresses: Vec<Address>,
    /// Only a node's own endpoints answer.
    pub local: bool,
    /// On node switches.
    pub switches: bool,
    /// On gateway routers.
    pub routers: bool,
    /// Only for what a host hands over by its management port.
    pub management: bool,
    /// Endpoints see the client's own address.
    pub skip_snat: bool,
    /// Family of a layer whose addresses are variables: true for IPv4.
    pub template: Option<bool>,
}

/// An address at which a Service is served.
pub(super) struct Address {
    /// As in a key of `vips`: IPv6 in brackets, or `^` and a variable.
    pub text: String,
    /// The address, if it is one outside the cluster, which another Service may have.
    pub outside: Option<IpAddr>,
    /// IPv4.
    pub v4: bool,
    /// At the node port, not the Service's port.
    pub node_port: bool,
}

/// Everything at once: the layer of cluster IPs under policy Cluster.
const CLUSTER: Layer = Layer {
    stem: "node",
    shared: "cluster",
    addresses: Vec::new(),
    local: false,
    switches: true,
    routers: true,
    management: false,
    skip_snat: false,
    template: None,
};

/// The layers that a Service has.
pub(super) fn of(view: &View<'_>, service: &ServiceFact, ports: &[Port<'_>]) -> Vec<Layer> {
    let mut layers = Vec::with_capacity(1);
    let internal = || service.cluster_ips.iter().map(|ip| Address::of(*ip));
    let external = || service.outside().map(|ip| Address { outside: Some(ip), ..Address::of(ip) });
    let mut everywhere = Vec::new();
    if service.internal_local {
        layers.push(Layer {
            stem: "node_internal",
            shared: "internal",
            addresses: internal().collect(),
            local: true,
            ..CLUSTER
        });
    } else {
        everywhere.extend(internal());
    }
    if service.external_local {
        layers.push(Layer {
            stem: "node_external",
            shared: "node_switch",
            addresses: external().collect(),
            routers: false,
            ..CLUSTER
        });
        layers.push(Layer {
            stem: "node_local",
            shared: "node_local_router",
            addresses: external().collect(),
            local: true,
            switches: false,
            skip_snat: true,
            ..CLUSTER
        });
    } else {
        everywhere.extend(external());
    }
    layers.push(Layer { addresses: everywhere, ..CLUSTER });
    if ports.iter().any(|port| port.service.node_port != 0) {
        node_ports(view, service, &mut layers);
    }
    layers.retain(|layer| !layer.addresses.is_empty());
    layers
}

/// The layers of node ports: one for each family, for a row of variables can have but one.
fn node_ports(view: &View<'_>, service: &ServiceFact, layers: &mut Vec<Layer>) {
    let common = view.common();
    for (v4, count) in [true, false].into_iter().zip(common.node_addresses) {
        if !service.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4) {
            continue;
        }
        let addresses = || (0..count).map(|i| Address::variable(v4, i)).collect();
        let name = |both: [&'static str; 2]| both[usize::from(!v4)];
        let template = Some(v4);
        let behind = || {
            let address = view.config().masquerade().host_etp_local(v4);
            vec![Address { node_port: true, ..Address::of(address) }]
        };
        if service.internal_local {
            // The host's own way to a node port: its cluster address is for the node's own endpoints only.
            layers.push(Layer {
                stem: name(["node_host_IPv4", "node_host_IPv6"]),
                shared: name(["host_IPv4", "host_IPv6"]),
                addresses: behind(),
                switches: false,
                ..CLUSTER
            });
        }
        if !service.external_local {
            layers.push(Layer {
                stem: name(["node_template_IPv4", "node_template_IPv6"]),
                shared: name(["node_switch_template_IPv4_merged", "node_switch_template_IPv6_merged"]),
                addresses: addresses(),
                template,
                ..CLUSTER
            });
            continue;
        }
        layers.push(Layer {
            stem: name(["node_external_template_IPv4", "node_external_template_IPv6"]),
            shared: name(["node_switch_template_IPv4", "node_switch_template_IPv6"]),
            addresses: addresses(),
            routers: false,
            template,
            ..CLUSTER
        });
        layers.push(Layer {
            stem: name(["node_local_template_IPv4", "node_local_template_IPv6"]),
            shared: name(["node_router_template_IPv4", "node_router_template_IPv6"]),
            addresses: addresses(),
            local: true,
            switches: false,
            skip_snat: true,
            template,
            ..CLUSTER
        });
        // Where the host hands traffic from outside over to OVN by the management port.
        layers.push(Layer {
            stem: name(["node_masquerade_IPv4", "node_masquerade_IPv6"]),
            shared: name(["masquerade_IPv4", "masquerade_IPv6"]),
            addresses: behind(),
            local: true,
            routers: false,
            management: true,
            skip_snat: true,
            ..CLUSTER
        });
    }
}

impl Address {
    fn of(ip: IpAddr) -> Address {
        Address { text: bracketed(ip), outside: None, v4: ip.is_ipv4(), node_port: false }
    }

    /// The n-th address of the node that the row is used on.
    fn variable(v4: bool, n: usize) -> Address {
        Address { text: format!("^NODEIP_IPv{}_{n}", if v4 { 4 } else { 6 }), outside: None, v4, node_port: true }
    }
}

/// An address as it stands before a port.
pub(crate) fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") }
}
