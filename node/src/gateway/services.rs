//! Services as the node's gateway needs them: ports, addresses, policies. Pure, but for the watch that feeds it.
//!
//! ```text
//! watch Services --> Services (slim) --> Served --> flows, nftables
//! ```
//!
//! Must not: choose endpoints or keep any; only that the host itself serves here (`endpoints::Hosts`) makes a difference. Nor translate to
//! OVN (the master does).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::Stream;
use k8s_openapi::api::core::v1::{Service as KubeService, ServiceSpec, ServiceStatus};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
pub use ovenbird_api::Protocol;
use ovenbird_api::{HostPorts, Masquerade};
use tokio::sync::watch;

use super::endpoints::Hosts;
use crate::known::{self, Absence};

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `name`.
    pub name: String,
    /// Transport.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `nodePort`.
    pub node_port: Option<u16>,
}

/// A Service, slim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Ports.
    pub ports: Vec<Port>,
    /// `clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`, and load-balancer addresses whose ipMode is VIP (KEP-1860).
    pub vips: BTreeSet<IpAddr>,
    /// `externalTrafficPolicy` is Local.
    pub local: bool,
    /// `internalTrafficPolicy` is Local.
    pub internal_local: bool,
    /// `loadBalancerSourceRanges` are given: the gateway router sees to them.
    pub restricted: bool,
    /// `healthCheckNodePort`.
    pub health_port: Option<u16>,
}

/// All Services that have an address and are not served by others, by namespace/name.
pub type Services = BTreeMap<String, Service>;

/// What Services are entered by, beside their cluster addresses, and the address and port in OVN that each stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// NodePorts.
    pub node_ports: BTreeMap<(Protocol, u16), Targets>,
    /// External and load-balancer addresses; ports of the node that lead to pods, at its own.
    pub vips: BTreeMap<(IpAddr, Protocol, u16), Targets>,
    /// Those of them that are ports of the node.
    pub host_ports: BTreeSet<(IpAddr, Protocol, u16)>,
    /// What from the wire is the host's own to answer.
    pub direct: Direct,
}

/// What comes from the wire for Services with externalTrafficPolicy Local whose endpoints here are the host itself: OVN would have to change
/// the client's address, or never see the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// NodePorts.
    pub node_ports: BTreeMap<(Protocol, u16), Vec<SocketAddr>>,
    /// External and load-balancer addresses.
    pub vips: BTreeMap<(IpAddr, Protocol, u16), Vec<SocketAddr>>,
}

/// Where the host's own packets go: addresses, at most one of each family, and a port of a Service or of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// `clusterIPs`; a pod's addresses; or the masquerade address behind which a gateway router has all endpoints.
    pub addresses: Vec<IpAddr>,
    /// `port`, or at the masquerade address `nodePort`.
    pub port: u16,
}

impl Targets {
    /// The address of a family.
    pub fn of_family(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == v4)
    }

    /// Of a port by which a Service is entered from outside. internalTrafficPolicy Local is not about that, so its cluster address is the
    /// wrong one, where there is a gateway router (`all_endpoints`) and a node port to tell Services apart by.
    fn from_outside(service: &Service, port: &Port, all_endpoints: Option<&Masquerade>) -> Targets {
        let addresses = &service.cluster_ips;
        match (all_endpoints, port.node_port) {
            (Some(masquerade), Some(node_port)) if service.internal_local => {
                let behind = |ip: &IpAddr| masquerade.host_etp_local(ip.is_ipv4());
                Targets { addresses: addresses.iter().map(behind).collect(), port: node_port }
            }
            _ => Targets { addresses: addresses.clone(), port: port.port },
        }
    }
}

impl Served {
    /// What these Services are entered by. Two that claim one address and port (nothing in the API forbids it) are served by name.
    pub fn of(services: &Services, all_endpoints: Option<&Masquerade>, hosts: &Hosts<'_>) -> Served {
        let mut served = Served::default();
        for (key, service) in services {
            for port in &service.ports {
                if service.local && !service.restricted {
                    served.direct.add(service, port, hosts, key);
                }
                let targets = || Targets::from_outside(service, port, all_endpoints);
                if let Some(node_port) = port.node_port {
                    served.node_ports.entry((port.protocol, node_port)).or_insert_with(targets);
                }
                for vip in &service.vips {
                    served.vips.entry((*vip, port.protocol, port.port)).or_insert_with(targets);
                }
            }
        }
        served
    }

    /// Adds ports of the node that lead to pods, at these addresses of it. Of two pods that ask for one, the first has it.
    pub fn add_host_ports(&mut self, pods: &[HostPorts], own: &[IpAddr]) {
        for pod in pods {
            for wanted in &pod.ports {
                for address in own.iter().filter(|address| wanted.covers(**address)) {
                    let key = (*address, wanted.protocol, wanted.port);
                    self.vips.entry(key).or_insert_with(|| {
                        self.host_ports.insert(key);
                        Targets { addresses: pod.addresses.clone(), port: wanted.target }
                    });
                }
            }
        }
    }
}

impl Direct {
    fn add(&mut self, service: &Service, port: &Port, hosts: &Hosts<'_>, key: &str) {
        for target in [true, false].into_iter().filter_map(|v4| hosts.serving(key, port, v4)) {
            if let Some(node_port) = port.node_port {
                self.node_ports.entry((port.protocol, node_port)).or_default().push(target);
            }
            for vip in service.vips.iter().filter(|vip| vip.is_ipv4() == target.is_ipv4()) {
                self.vips.entry((*vip, port.protocol, port.port)).or_default().push(target);
            }
        }
    }

    /// True when the host answers at a NodePort itself, in a family.
    pub fn has_node_port(&self, protocol: Protocol, port: u16, v4: bool) -> bool {
        self.node_ports.get(&(protocol, port)).into_iter().flatten().any(|to| to.is_ipv4() == v4)
    }
}

/// The slim form; `None` of a Service that others serve or that has no address.
pub fn slim(service: &KubeService) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    let labels = service.labels();
    // KEP-2447 and the conventions of service proxies.
    let of_others = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    let texts = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
    let cluster_ips: Vec<IpAddr> = texts.iter().filter_map(|ip| ip.parse().ok()).collect();
    if of_others.iter().any(|label| labels.contains_key(*label)) || cluster_ips.is_empty() {
        return None;
    }
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    Some(Service {
        ports: ports(spec),
        cluster_ips,
        vips: vips(spec, service.status.as_ref()),
        local,
        restricted: spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        health_port: spec.health_check_node_port.filter(|_| local).and_then(number),
    })
}

fn ports(spec: &ServiceSpec) -> Vec<Port> {
    let all = spec.ports.as_deref().unwrap_or_default().iter();
    let slim = all.filter_map(|p| {
        let protocol = Protocol::parse(p.protocol.as_deref())?;
        let name = p.name.clone().unwrap_or_default();
        Some(Port { name, protocol, port: number(p.port)?, node_port: p.node_port.and_then(number) })
    });
    slim.collect()
}

fn vips(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> BTreeSet<IpAddr> {
    let external = spec.external_ips.iter().flatten().map(String::as_str);
    let ingress = status.and_then(|s| s.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_deref());
    let balanced = ingress.unwrap_or_default().iter().filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    let texts = external.chain(balanced.filter_map(|i| i.ip.as_deref()));
    texts.filter_map(|ip| ip.parse().ok()).collect()
}

/// A port number; 0 is none.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p != 0)
}

/// Watches all Services. The receiver holds `None` until the first list is complete.
pub fn watch_services(client: Client) -> watch::Receiver<Option<Services>> {
    follow_services(known::watch_all(Api::<KubeService>::all(client)))
}

/// Follows a watch of all Services.
pub fn follow_services(
    all: impl Stream<Item = watcher::Result<Event<KubeService>>> + Send + 'static,
) -> watch::Receiver<Option<Services>> {
    known::follow(all, "Services", Absence::Waits, slim)
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
