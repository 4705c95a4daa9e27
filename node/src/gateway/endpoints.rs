//! The endpoints that this node has, of Services with externalTrafficPolicy Local: how many there are, for health checks, and which are the host
//! itself, for these must see the client's address.
//!
//! ```text
//! Services (any with policy Local?) --> watch EndpointSlices --> Local: by slice, who is here
//! ```
//!
//! EndpointSlices are watched from the first Service on that needs it: most nodes never do. Must not: choose endpoints that are pods (the
//! master does).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use ovenbird_api::name;
use ovenbird_daemon::{access, rights};
use tokio::sync::watch;
use tracing::warn;

use super::services::{Port, Protocol, Services};
use crate::config::Config;

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

/// Watches what is needed. The receiver holds `None` while it is not known which endpoints are here.
pub fn watch_local(
    client: Client,
    node: String,
    mut services: watch::Receiver<Option<Services>>,
) -> watch::Receiver<Option<Local>> {
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        let needed = |s: &Services| s.values().any(|service| service.local);
        if services.wait_for(Option::is_some).await.is_ok_and(|s| !s.as_ref().is_some_and(needed)) {
            tx.send_replace(Some(Local::new()));
        }
        if services.wait_for(|s| s.as_ref().is_some_and(needed)).await.is_ok() {
            follow(client, &node, &tx).await;
        }
    });
    rx
}

async fn follow(client: Client, node: &str, tx: &watch::Sender<Option<Local>>) {
    let all = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default());
    let mut all = std::pin::pin!(all.backoff(access::watch_backoff()));
    let mut listing = Local::new();
    while let Some(event) = all.next().await {
        let key = |s: &EndpointSlice| name::key(&s.namespace().unwrap_or_default(), &s.name_any());
        let change = |key: String, here: Option<Here>| {
            tx.send_if_modified(|all| {
                let all = all.get_or_insert_default();
                let differs = all.get(&key) != here.as_ref();
                match here {
                    Some(here) => drop(all.insert(key, here)),
                    None => drop(all.remove(&key)),
                }
                differs
            });
        };
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(slice)) => listing.extend(here(&slice, node).map(|here| (key(&slice), here))),
            Ok(Event::InitDone) => drop(tx.send_replace(Some(std::mem::take(&mut listing)))),
            Ok(Event::Apply(slice)) => change(key(&slice), here(&slice, node)),
            Ok(Event::Delete(slice)) => change(key(&slice), None),
            Err(e) if rights::was_told(&e) => {
                // The gateway goes on with what the master makes of them.
                tx.send_if_modified(|all| all.is_none() && all.insert(Local::new()).is_empty());
            }
            Err(e) => warn!("watching EndpointSlices: {e}"),
        }
    }
}

/// What a slice says of this node; `None` without a ready endpoint here.
fn here(slice: &EndpointSlice, node: &str) -> Option<Here> {
    let service = slice.labels().get("kubernetes.io/service-name")?;
    let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().filter(|e| e.node_name.as_deref() == Some(node)).filter(ready);
    let mut here = Here { service: name::key(&slice.namespace().unwrap_or_default(), service), ..Here::default() };
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
    /// Of these slices; addresses in `config`'s pod networks are not the host's.
    pub fn new(local: &'a Local, config: &'a Config) -> Hosts<'a> {
        let mut by_service: BTreeMap<&str, Vec<&Here>> = BTreeMap::new();
        local.values().for_each(|here| by_service.entry(&here.service).or_default().push(here));
        Hosts { by_service, pods: &config.cluster_subnets }
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
    use crate::config::Settings;

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
    fn the_host_serves_where_no_pod_does() {
        let node = Settings { node_name: Some("node1".into()), ..Settings::default() };
        let config = Config::new(Settings { cluster_subnets: Some("10.128.0.0/14".into()), ..node }).unwrap();
        let (host, pod) =
            (endpoint("172.30.0.11", "node1", None, Some("proxy")), endpoint("10.128.0.3", "node1", None, Some("a")));
        let serving = |endpoints: &[&Value], name: &str, protocol| {
            let slice = here(&slice(&json!(endpoints)), "node1").map(|here| ("default/web-1".to_owned(), here));
            let local = slice.into_iter().collect();
            let port = Port { name: name.into(), protocol, port: 80, node_port: None };
            Hosts::new(&local, &config).serving("default/web", &port, true)
        };
        assert_eq!(serving(&[&host], "http", Protocol::Tcp), Some("172.30.0.11:8080".parse().unwrap()));
        assert_eq!(serving(&[&host], "", Protocol::Udp), Some("172.30.0.11:53".parse().unwrap()));
        assert_eq!(serving(&[&host], "http", Protocol::Udp), None);
        assert_eq!(serving(&[&host, &pod], "http", Protocol::Tcp), None);
        assert_eq!(serving(&[], "http", Protocol::Tcp), None);
    }
}
