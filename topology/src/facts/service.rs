//! The fact of a Service: which addresses and ports it has, and how traffic to them is meant to be spread.
//!
//! A Service that is not ours to serve (headless, ExternalName, or labelled for another proxy) keeps its key only. Must not: judge
//! values against other facts.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_api::service::{Scheduler, parse_scheduler};
use ovenbird_api::{Protocol, annotation};
use ovsdb::Str;

use super::{Annotated, annotated, created, key};
use crate::intern::Interner;

/// Label of objects that another proxy serves (KEP-2447).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of objects that are headless, whatever their addresses say.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when absent.
const DEFAULT_AFFINITY: u32 = 10800;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFact {
    /// `namespace/name`.
    pub key: Str,
    /// `metadata.creationTimestamp`, seconds since 1970; the older of two that ask for one address has it.
    pub created: i64,
    /// `spec.clusterIPs`; none when there is nothing to serve.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.externalIPs`.
    pub external_ips: Box<[IpAddr]>,
    /// `status.loadBalancer.ingress`: addresses whose ipMode is VIP (KEP-1860). To others, traffic leaves the cluster.
    pub ingress: Box<[IpAddr]>,
    /// `spec.loadBalancerSourceRanges`; empty allows all.
    pub source_ranges: Box<[IpNet]>,
    /// `spec.ports`.
    pub ports: Box<[ServicePort]>,
    /// `spec.sessionAffinity` ClientIP: its timeout in seconds.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy` is Local.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is Local.
    pub external_local: bool,
    /// Annotation `scheduler`.
    pub scheduler: Annotated<Scheduler>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, empty when it is the only port.
    pub name: Str,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `nodePort`, 0 without.
    pub node_port: u16,
}

impl ServiceFact {
    /// The fact of a Service.
    pub fn from_k8s(object: &Service, interner: &mut Interner) -> ServiceFact {
        let ingress = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref());
        ServiceFact::new(&object.metadata, object.spec.as_ref(), ingress.unwrap_or_default(), interner)
    }

    /// The fact of a Service from its parts: `metadata`, `spec` and `status.loadBalancer.ingress`.
    pub fn new(
        meta: &ObjectMeta,
        spec: Option<&ServiceSpec>,
        ingress: &[LoadBalancerIngress],
        interner: &mut Interner,
    ) -> ServiceFact {
        let nothing = || ServiceFact {
            key: key(meta),
            created: created(meta),
            cluster_ips: Box::default(),
            external_ips: Box::default(),
            ingress: Box::default(),
            source_ranges: Box::default(),
            ports: Box::default(),
            affinity: None,
            internal_local: false,
            external_local: false,
            scheduler: None,
        };
        let Some(spec) = spec.filter(|s| is_ours(meta) && s.type_.as_deref() != Some("ExternalName")) else {
            return nothing();
        };
        // Of a headless one, the text is None.
        let cluster_ips = addresses(spec.cluster_ips.as_deref().unwrap_or(spec.cluster_ip.as_slice()));
        if cluster_ips.is_empty() {
            return nothing();
        }
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let timeout =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds?.try_into().ok());
        ServiceFact {
            key: key(meta),
            created: created(meta),
            cluster_ips,
            external_ips: addresses(spec.external_ips.as_deref().unwrap_or_default()),
            ingress: ingress.iter().filter_map(vip).collect(),
            source_ranges: ranges.filter_map(|text| text.trim().parse().ok()).collect(),
            ports: ports(spec, interner),
            affinity: (spec.session_affinity.as_deref() == Some("ClientIP"))
                .then_some(timeout.unwrap_or(DEFAULT_AFFINITY)),
            internal_local: is_local(&spec.internal_traffic_policy),
            external_local: is_local(&spec.external_traffic_policy),
            scheduler: annotated(meta, annotation::SCHEDULER, parse_scheduler),
        }
    }
}

impl ServiceFact {
    /// The addresses by which it is used from outside, each once.
    pub fn outside(&self) -> impl Iterator<Item = IpAddr> {
        let ingress = self.ingress.iter().filter(|ip| !self.external_ips.contains(ip));
        self.external_ips.iter().chain(ingress).copied()
    }
}

/// False for objects that carry a label which takes them from the cluster's proxy.
pub(super) fn is_ours(meta: &ObjectMeta) -> bool {
    !meta.labels.iter().flatten().any(|(key, _)| [PROXY_NAME, HEADLESS].contains(&key.as_str()))
}

fn addresses(texts: &[String]) -> Box<[IpAddr]> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn vip(ingress: &LoadBalancerIngress) -> Option<IpAddr> {
    let is_vip = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
    ingress.ip.as_ref().filter(|_| is_vip)?.parse().ok()
}

fn ports(spec: &ServiceSpec, interner: &mut Interner) -> Box<[ServicePort]> {
    let mut port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(ServicePort {
            name: interner.intern(port.name.as_deref().unwrap_or_default()),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: port.port.try_into().ok()?,
            node_port: port.node_port.and_then(|p| p.try_into().ok()).unwrap_or(0),
        })
    };
    spec.ports.iter().flatten().filter_map(&mut port).collect()
}
