//! Endpoints of Services, as far as a node must know them: its own, for health checks and because those that are the host itself must see
//! their clients (externalTrafficPolicy Local); and which of UDP are gone, or a Service's first.
//!
//! ```text
//! watch EndpointSlices --+--> Local: by slice, who is here --> health checks, gateway
//!       Services (which have policy Local) --^
//!                        +--> UDP endpoints that are no more, addresses of Services that had none before --> [conntrack]
//! ```
//!
//! Must not: choose endpoints (the master does), or keep more than that of a slice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use ovenbird_api::name;
use ovenbird_daemon::rights;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::services::{Port, Protocol, Services};
use crate::known;

/// Slices with endpoints on this node, by namespace/name.
pub type Local = BTreeMap<String, Here>;

/// What a slice says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The Service, namespace/name.
    pub service: String,
    /// Ready endpoints: names of pods, or addresses.
    pub ready: BTreeSet<String>,
    /// Addresses of ready endpoints.
    pub addresses: Vec<IpAddr>,
    /// Name, protocol and number of each port.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// What is told of endpoints.
#[derive(Debug)]
pub struct Told {
    /// Those on this node of Services with externalTrafficPolicy Local; `None` while it is not known who they are.
    pub local: watch::Receiver<Option<Local>>,
    /// Addresses and ports of UDP whose connections are to be forgotten: at which nobody is ready any more; and those of Services that have
    /// their first endpoint, for what was sent before OVN knew the Service went to its address itself, and goes on doing so.
    pub stale: mpsc::UnboundedReceiver<SocketAddr>,
}

/// Watches EndpointSlices.
pub fn watch_endpoints(client: Client, node: String, services: watch::Receiver<Option<Services>>) -> Told {
    follow_endpoints(known::watch_all(Api::<EndpointSlice>::all(client)), node, services)
}

/// Follows a watch of all EndpointSlices.
pub fn follow_endpoints(
    all: impl Stream<Item = watcher::Result<Event<EndpointSlice>>> + Send + 'static,
    node: String,
    mut services: watch::Receiver<Option<Services>>,
) -> Told {
    let (local_tx, local) = watch::channel(None);
    let (stale_tx, stale) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        if services.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut slices = Slices { node, ..Slices::default() };
        let mut listing = None;
        let mut all = std::pin::pin!(all);
        loop {
            let gone = tokio::select! {
                event = all.next() => match event {
                    Some(Ok(event)) => slices.take(event, &mut listing),
                    Some(Err(e)) if rights::was_told(&e) => {
                        // The gateway goes on with what the master makes of them.
                        slices.listed = true;
                        slices.untold = true;
                        Vec::new()
                    }
                    Some(Err(e)) => {
                        warn!("watching EndpointSlices: {e}");
                        Vec::new()
                    }
                    None => return,
                },
                changed = services.changed() => match changed {
                    Ok(()) => {
                        slices.untold = true;
                        Vec::new()
                    }
                    Err(_) => return,
                },
            };
            // Most slices have nothing here.
            let services = services.borrow_and_update();
            if slices.listed && std::mem::take(&mut slices.untold) {
                publish(&local_tx, &slices.local, services.as_ref());
            }
            // Who does not listen has ended.
            for address in gone.into_iter().chain(slices.begun(services.as_ref())) {
                let _ = stale_tx.send(address);
            }
        }
    });
    Told { local, stale }
}

/// Tells those slices whose Services have externalTrafficPolicy Local.
fn publish(tx: &watch::Sender<Option<Local>>, slices: &Local, services: Option<&Services>) {
    let is_local = |here: &Here| services.and_then(|s| s.get(&here.service)).is_some_and(|service| service.local);
    let chosen = slices.iter().filter(|(_, here)| is_local(here)).map(|(key, here)| (key.clone(), here.clone()));
    let new = Some(chosen.collect());
    tx.send_if_modified(|old| {
        let differs = *old != new;
        *old = new;
        differs
    });
}

/// What is kept of slices.
#[derive(Debug, Default)]
struct Slices {
    node: String,
    local: Local,
    /// `local`, or which Services it is told of, is not what was told.
    untold: bool,
    /// All have been named once.
    listed: bool,
    /// Ready endpoints of UDP, by slice, with its Service.
    udp: BTreeMap<String, (String, BTreeSet<SocketAddr>)>,
    /// Slices with such endpoints, by Service.
    serving: BTreeMap<String, BTreeSet<String>>,
    /// Services whose first endpoint of UDP has come, until it is known which addresses they have.
    begun: BTreeSet<String>,
}

impl Slices {
    /// Takes an event in, with the keys that the list under way has named. Returns the UDP endpoints that are gone.
    fn take(&mut self, event: Event<EndpointSlice>, listing: &mut Option<BTreeSet<String>>) -> Vec<SocketAddr> {
        match event {
            Event::Init => {
                *listing = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(slice) | Event::Apply(slice) => {
                let key = key(&slice);
                listing.iter_mut().for_each(|keys| keys.extend([key.clone()]));
                self.set(key, Some(&slice))
            }
            Event::Delete(slice) => self.set(key(&slice), None),
            Event::InitDone => {
                self.listed = true;
                self.untold = true;
                let named = listing.take().unwrap_or_default();
                let known = self.udp.keys().chain(self.local.keys());
                let missing: BTreeSet<String> = known.filter(|key| !named.contains(*key)).cloned().collect();
                missing.into_iter().flat_map(|key| self.set(key, None)).collect()
            }
        }
    }

    fn set(&mut self, key: String, slice: Option<&EndpointSlice>) -> Vec<SocketAddr> {
        let here = slice.and_then(|slice| here(slice, &self.node));
        self.untold |= self.local.get(&key) != here.as_ref();
        match here {
            Some(here) => drop(self.local.insert(key.clone(), here)),
            None => drop(self.local.remove(&key)),
        }
        let now = slice.map(ready_udp).unwrap_or_default();
        let (service, before) = self.udp.remove(&key).unwrap_or_default();
        let gone = before.difference(&now).copied().collect();
        let serving = slice.and_then(service_of).filter(|_| !now.is_empty());
        self.begun
            .extend(serving.iter().filter(|service| self.listed && !self.serving.contains_key(*service)).cloned());
        if let Some(slices) = self.serving.get_mut(&service) {
            slices.remove(&key);
            if slices.is_empty() {
                self.serving.remove(&service);
            }
        }
        if let Some(service) = serving {
            self.serving.entry(service.clone()).or_default().insert(key.clone());
            self.udp.insert(key, (service, now));
        }
        gone
    }

    /// Addresses and ports of UDP of Services whose first endpoint has come, once each.
    fn begun(&mut self, services: Option<&Services>) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        self.begun.retain(|key| {
            let Some(service) = services.and_then(|services| services.get(key)) else {
                return self.serving.contains_key(key);
            };
            let addresses = service.cluster_ips.iter().chain(&service.vips);
            let ports = service.ports.iter().filter(|port| port.protocol == Protocol::Udp);
            all.extend(addresses.flat_map(|ip| ports.clone().map(|port| SocketAddr::new(*ip, port.port))));
            false
        });
        all
    }
}

fn key(slice: &EndpointSlice) -> String {
    name::key(&slice.namespace().unwrap_or_default(), &slice.name_any())
}

/// The Service of a slice, namespace/name.
fn service_of(slice: &EndpointSlice) -> Option<String> {
    let service = slice.labels().get("kubernetes.io/service-name")?;
    Some(name::key(&slice.namespace().unwrap_or_default(), service))
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// Where ready endpoints of a slice listen for UDP.
fn ready_udp(slice: &EndpointSlice) -> BTreeSet<SocketAddr> {
    let ports = slice.ports.iter().flatten().filter(|port| port.protocol.as_deref() == Some("UDP"));
    let ports: Vec<u16> = ports.filter_map(|port| port.port.and_then(|number| u16::try_from(number).ok())).collect();
    let addresses = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
    let addresses = addresses.filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
    addresses.flat_map(|address| ports.iter().map(move |port| SocketAddr::new(address, *port))).collect()
}

/// What a slice says of this node; `None` without a ready endpoint here.
fn here(slice: &EndpointSlice, node: &str) -> Option<Here> {
    let service = service_of(slice)?;
    let endpoints = slice.endpoints.iter().filter(|e| e.node_name.as_deref() == Some(node) && is_ready(e));
    let mut here = Here { service, ..Here::default() };
    for endpoint in endpoints {
        let address = endpoint.addresses.first();
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.as_ref());
        here.ready.extend(pod.or(address).cloned());
        here.addresses.extend(address.and_then(|address| address.parse::<IpAddr>().ok()));
    }
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        let number = port.port.and_then(|number| u16::try_from(number).ok())?;
        Some((port.name.clone().unwrap_or_default(), Protocol::parse(port.protocol.as_deref())?, number))
    });
    here.ports = ports.collect();
    (!here.ready.is_empty()).then_some(here)
}

/// Services whose every endpoint on this node is the host itself, in one family.
#[derive(Debug)]
pub struct Hosts<'a> {
    by_service: BTreeMap<&'a str, Vec<&'a Here>>,
    pods: &'a [IpNet],
}

impl<'a> Hosts<'a> {
    /// Of these slices; addresses in the networks of pods, `pods`, are not the host's.
    pub fn new(local: &'a Local, pods: &'a [IpNet]) -> Hosts<'a> {
        let mut by_service: BTreeMap<&str, Vec<&Here>> = BTreeMap::new();
        local.values().for_each(|here| by_service.entry(&here.service).or_default().push(here));
        Hosts { by_service, pods }
    }

    /// Where the host itself serves a port of a Service; `None` when a pod here does, too, or nobody.
    pub fn serving(&self, service: &str, port: &Port, v4: bool) -> Option<SocketAddr> {
        let mut found = None;
        for here in self.by_service.get(service)? {
            let number = here.ports.iter().find(|(name, protocol, _)| (name, protocol) == (&port.name, &port.protocol));
            let Some((_, _, number)) = number else { continue };
            for address in here.addresses.iter().filter(|address| address.is_ipv4() == v4) {
                if self.pods.iter().any(|net| net.contains(address)) {
                    return None;
                }
                found = found.or(Some(SocketAddr::new(*address, *number)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}, {"port": 53, "protocol": "UDP"}],
        }))
        .unwrap()
    }

    fn endpoint(address: &str, node: &str, ready: Option<bool>, pod: Option<&str>) -> Value {
        json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready},
               "targetRef": pod.map(|name| json!({"kind": "Pod", "name": name}))})
    }

    #[test]
    fn ready_endpoints_on_this_node_count_once() {
        let slice = slice(&json!([
            endpoint("10.128.0.3", "node1", Some(true), Some("a")),
            endpoint("10.128.0.4", "node1", None, Some("a")),
            endpoint("10.128.0.5", "node1", Some(false), Some("b")),
            endpoint("10.128.1.3", "node2", Some(true), Some("c")),
            endpoint("192.0.2.1", "node1", Some(true), None),
        ]));
        let found = here(&slice, "node1").unwrap();
        assert_eq!(
            (found.service.as_str(), found.ready),
            ("default/web", ["192.0.2.1", "a"].map(str::to_owned).into())
        );
        assert_eq!(here(&slice, "node3"), None);
    }

    #[test]
    fn udp_endpoints_that_are_gone_are_told_once() {
        let ready = |address: &str| endpoint(address, "node2", Some(true), None);
        let mut slices = Slices { node: "node1".into(), ..Slices::default() };
        let mut listing = None;
        let mut take = |event| text(&slices.take(event, &mut listing));
        let of = |endpoints: &[Value]| slice(&json!(endpoints));
        assert_eq!(take(Event::Init), "");
        assert_eq!(take(Event::InitApply(of(&[ready("10.128.1.3"), ready("10.128.1.4")]))), "");
        assert_eq!(take(Event::InitDone), "");
        let leaving = endpoint("10.128.1.3", "node2", Some(false), None);
        assert_eq!(take(Event::Apply(of(&[leaving, ready("10.128.1.4")]))), "10.128.1.3:53");
        assert_eq!(take(Event::Apply(of(&[ready("10.128.1.4"), ready("10.128.1.5")]))), "");
        // A watch that was interrupted lists again.
        assert_eq!(take(Event::Init), "");
        assert_eq!(take(Event::InitApply(of(&[ready("10.128.1.5")]))), "10.128.1.4:53");
        assert_eq!(take(Event::InitDone), "");
        assert_eq!(take(Event::Init), "");
        assert_eq!(take(Event::InitDone), "10.128.1.5:53");
    }

    #[test]
    fn a_service_begins_with_its_first_udp_endpoint() {
        let of = |name: &str, ready| {
            let mut slice = slice(&json!([endpoint("10.128.1.3", "node2", Some(ready), None)]));
            slice.metadata.name = Some(name.into());
            slice
        };
        let web = super::super::services::Service {
            cluster_ips: ["10.96.0.7", "fd96::7"].map(|ip| ip.parse().unwrap()).into(),
            vips: ["192.0.2.1".parse().unwrap()].into(),
            ports: [(Protocol::Tcp, 80), (Protocol::Udp, 53)]
                .map(|(protocol, port)| Port { name: String::new(), protocol, port, node_port: None })
                .into(),
            ..Default::default()
        };
        let (unknown, known) = (Services::new(), Services::from([("default/web".to_owned(), web)]));
        let mut slices = Slices { node: "node1".into(), ..Slices::default() };
        let mut listing = None;
        let mut after = |event, services| {
            slices.take(event, &mut listing);
            text(&slices.begun(services))
        };
        // What there is at the start has been known to OVN, too.
        assert_eq!(after(Event::Init, Some(&known)), "");
        assert_eq!(after(Event::InitApply(of("old", true)), Some(&known)), "");
        assert_eq!(after(Event::InitDone, Some(&known)), "");
        assert_eq!(after(Event::Apply(of("old", true)), Some(&known)), "");
        assert_eq!(after(Event::Apply(of("other", true)), Some(&known)), "", "it is not the first");
        assert_eq!(after(Event::Apply(of("old", false)), Some(&known)), "");
        assert_eq!(after(Event::Delete(of("other", true)), Some(&known)), "");
        // Its addresses may be known later.
        assert_eq!(after(Event::Apply(of("new", true)), Some(&unknown)), "");
        assert_eq!(after(Event::Apply(of("other", true)), Some(&known)), "10.96.0.7:53 [fd96::7]:53 192.0.2.1:53");
        assert_eq!(after(Event::Apply(of("other", true)), Some(&known)), "");
    }

    fn text(addresses: &[SocketAddr]) -> String {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_host_serves_where_no_pod_does() {
        let pods = ["10.128.0.0/14".parse().unwrap(), "192.168.100.0/24".parse().unwrap()];
        let (host, pod) =
            (endpoint("172.30.0.11", "node1", None, Some("proxy")), endpoint("10.128.0.3", "node1", None, Some("a")));
        let serving = |endpoints: &[&Value], name: &str, protocol| {
            let slice = here(&slice(&json!(endpoints)), "node1").map(|here| ("default/web-1".to_owned(), here));
            let local = slice.into_iter().collect();
            let port = Port { name: name.into(), protocol, port: 80, node_port: None };
            Hosts::new(&local, &pods).serving("default/web", &port, true)
        };
        assert_eq!(serving(&[&host], "http", Protocol::Tcp), Some("172.30.0.11:8080".parse().unwrap()));
        assert_eq!(serving(&[&host], "", Protocol::Udp), Some("172.30.0.11:53".parse().unwrap()));
        assert_eq!(serving(&[&host], "http", Protocol::Udp), None);
        assert_eq!(serving(&[&host, &pod], "http", Protocol::Tcp), None);
        let on_vlan = endpoint("192.168.100.3", "node1", None, Some("b"));
        assert_eq!(serving(&[&on_vlan], "http", Protocol::Tcp), None);
        assert_eq!(serving(&[], "http", Protocol::Tcp), None);
    }
}
