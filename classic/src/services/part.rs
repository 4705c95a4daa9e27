//! A Service's part in the table.
//!
//! | entered by | client | endpoints | none |
//! |---|---|---|---|
//! | cluster IP | any | all, or the node's own (internalTrafficPolicy Local) | refused; dropped when some are elsewhere |
//! | external or load-balancer address, NodePort | pod, node; with policy Cluster any | all | refused |
//! | ... with externalTrafficPolicy Local | outside | the node's own, which see the client's address | dropped when some are elsewhere |
//!
//! In: the Service, its slices, settings. Must not: look at other Services; who has an address that two want, `Parts` knows.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ovenbird_api::Protocol;
use ovenbird_api::service::{DEFAULT_WEIGHT, Scheduler};
use ovenbird_nft::Table;
use ovenbird_topology::endpoints::{Backend, Port, Viewpoint};
use ovenbird_topology::{EndpointSliceFact, ServiceFact};

use super::affinity::Session;
use super::base::Kind;
use super::entry::{Choice, Entered, Way};
use super::udp::Answers;
use super::{Settings, Weights};

/// True when pods' weights matter to a Service.
pub(super) fn is_weighted(service: &ServiceFact) -> bool {
    matches!(service.scheduler, Some(Ok(Scheduler::Weighted)))
}

/// The part, and who answers for its ports of UDP. `slices` are the Service's.
pub(super) fn of(
    settings: &Settings,
    weights: &Weights,
    service: &ServiceFact,
    slices: &[&EndpointSliceFact],
) -> (Table, Answers) {
    let (mut table, mut udp) = (Table::default(), Answers::new());
    for v4 in [true, false].into_iter().filter(|v4| settings.pods(*v4).is_some()) {
        let cluster_ips: Vec<IpAddr> = service.cluster_ips.iter().filter(|ip| ip.is_ipv4() == v4).copied().collect();
        if cluster_ips.is_empty() {
            continue;
        }
        for ip in &cluster_ips {
            Kind::ClusterIps.add(&mut table, v4, ip.to_string());
        }
        for port in &service.ports {
            let port = Port::new(port, v4, slices);
            Part { settings, weights, service, port: &port, table: &mut table, udp: &mut udp }.add(&cluster_ips);
        }
    }
    (table, udp)
}

/// One port in one family.
struct Part<'a> {
    settings: &'a Settings,
    weights: &'a Weights,
    service: &'a ServiceFact,
    port: &'a Port<'a>,
    table: &'a mut Table,
    udp: &'a mut Answers,
}

impl Part<'_> {
    fn add(&mut self, cluster_ips: &[IpAddr]) {
        let (settings, service) = (self.settings, self.service);
        let at = Viewpoint { node: Some(&settings.node), zone: settings.zone.as_deref() };
        let all = self.targets(&self.port.answering(at));
        let own = self.targets(&self.port.answering_on(&settings.node));
        let way = Way { v4: self.port.v4, node_port: false, outside: false };
        let number = self.port.service.port;
        let (internal, role) = if service.internal_local { (&own, "_local") } else { (&all, "") };
        for ip in cluster_ips {
            self.enter(way, *ip, number, internal, role);
        }
        let vips = service.outside().filter(|ip| ip.is_ipv4() == way.v4 && settings.is_outside(*ip));
        let vips: Vec<_> = vips.map(|ip| (false, ip, number)).collect();
        let node_port = Some(self.port.service.node_port).filter(|port| *port != 0 && settings.node_ports);
        let node_port = node_port.zip(cluster_ips.first()).map(|(port, ip)| (true, *ip, port));
        for (node_port, ip, number) in vips.into_iter().chain(node_port) {
            let way = Way { node_port, ..way };
            self.enter(way, ip, number, &all, "");
            if service.external_local {
                self.enter(Way { outside: true, ..way }, ip, number, &own, "_outside");
            }
        }
        self.restrict();
        for endpoint in all.iter().chain(&own).filter(|to| settings.is_own_pod(to.ip())) {
            Kind::Hairpin.add(self.table, way.v4, format!("{0} . {0}", endpoint.ip()));
        }
    }

    /// Each endpoint as often as it has lots: once, or where weights matter by its share in them.
    fn targets(&self, backends: &[Backend<'_>]) -> Vec<SocketAddr> {
        let own = |b: &Backend<'_>| self.weights.get(&b.address()).copied().unwrap_or(DEFAULT_WEIGHT).max(1);
        let weight = |b: &Backend<'_>| if is_weighted(self.service) { own(b) } else { 1 };
        let divisor = backends.iter().map(weight).fold(0, greatest_common_divisor).max(1);
        let lots = |b: &Backend<'_>| {
            let target = SocketAddr::new(b.address(), b.port);
            std::iter::repeat_n(target, usize::from(weight(b) / divisor))
        };
        backends.iter().flat_map(lots).collect()
    }

    /// Makes an address and a port lead to these endpoints. `role` names them.
    fn enter(&mut self, way: Way, address: IpAddr, port: u16, endpoints: &[SocketAddr], role: &str) {
        let protocol = self.port.service.protocol;
        let at = Entered { address, protocol, port, endpoints };
        if protocol == Protocol::Udp {
            let by = (!way.node_port).then_some(address);
            self.udp.entry((by, port)).or_default().extend(endpoints);
        }
        if endpoints.is_empty() {
            match (self.port.is_served(), way) {
                (true, _) => way.enter(self.table, at, "drop".to_owned()),
                // Under this way there is another.
                (false, Way { outside: true, .. }) => {}
                (false, Way { node_port: true, v4, .. }) => {
                    Kind::NoEndpointPorts.add(self.table, v4, format!("{} . {port}", protocol.name()));
                }
                (false, Way { v4, .. }) if !self.service.cluster_ips.contains(&address) => {
                    Kind::NoEndpoints.add(self.table, v4, format!("{address} . {} . {port}", protocol.name()));
                }
                // All that is left of cluster IPs is refused.
                (false, _) => {}
            }
            return;
        }
        match (self.service.affinity, &self.service.scheduler) {
            (Some(timeout), _) => {
                let session = Session { service: self.service, protocol, port: self.port.service.port, timeout };
                let chain = session.add(self.table, self.settings, way, role, endpoints);
                way.enter(self.table, at, format!("goto {chain}"));
            }
            (None, Some(Ok(Scheduler::SourceHash))) => way.balance(self.table, at, Choice::BySource, self.settings),
            (None, _) => way.balance(self.table, at, Choice::Random, self.settings),
        }
    }

    /// `loadBalancerSourceRanges`. A family without ranges is open.
    fn restrict(&mut self) {
        let v4 = self.port.v4;
        let ranges = self.service.source_ranges.iter().filter(|net| net.addr().is_ipv4() == v4);
        // Those that overlap would be refused.
        let ranges = IpNet::aggregate(&ranges.map(IpNet::trunc).collect());
        if ranges.is_empty() || ranges.iter().any(|net| net.prefix_len() == 0) {
            return;
        }
        let node_may = self.settings.addresses.iter().any(|ip| ranges.iter().any(|net| net.contains(ip)));
        let port = format!("{} . {}", self.port.service.protocol.name(), self.port.service.port);
        for vip in self.service.ingress.iter().filter(|ip| ip.is_ipv4() == v4) {
            Kind::Restricted.add(self.table, v4, format!("{vip} . {port}"));
            let mut ranges = ranges.clone();
            if node_may {
                // A load balancer's address may be the node's own, and its source then.
                ranges.push(IpNet::from(*vip));
                ranges = IpNet::aggregate(&ranges);
            }
            for net in ranges {
                let net =
                    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
                Kind::Allowed.add(self.table, v4, format!("{vip} . {port} . {net}"));
            }
        }
    }
}

fn greatest_common_divisor(a: u8, b: u8) -> u8 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
