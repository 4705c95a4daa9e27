//! The fact of an EndpointSlice: a part of the endpoints of one Service and one address family.
//!
//! A cluster has as many endpoints here as pods in Services, so each is about 64 bytes: names of nodes are shared, hints are rare
//! where traffic is not to stay near. Must not: judge which endpoints get traffic.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint as FullEndpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_api::name;
use ovsdb::Str;

use super::service::is_ours;
use super::{Protocol, key, label};
use crate::intern::Interner;

/// Label of a slice: the Service that it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSliceFact {
    /// `namespace/name`.
    pub key: Str,
    /// `namespace/name` of its Service, by label `kubernetes.io/service-name`; `None` when there is nothing to serve.
    pub service: Option<Str>,
    /// `ports`, those with a number.
    pub ports: Box<[SlicePort]>,
    /// `endpoints`, those with an address.
    pub endpoints: Box<[Endpoint]>,
}

/// A port that all endpoints of a slice have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: Str,
    /// `protocol`.
    pub protocol: Protocol,
    /// Number at the endpoint.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first of `addresses`, which is the one that counts.
    pub address: IpAddr,
    /// `conditions`.
    pub conditions: Conditions,
    /// `nodeName`.
    pub node: Option<Str>,
    /// `hints`.
    pub hints: Option<Box<Hints>>,
}

/// Conditions of an endpoint, as absent ones are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes new connections; absent is true.
    pub ready: bool,
    /// As `ready`, without regard to termination; absent is as `ready`.
    pub serving: bool,
    /// Going away; absent is false.
    pub terminating: bool,
}

/// Who should use an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones`.
    pub zones: Box<[Str]>,
    /// `forNodes`.
    pub nodes: Box<[Str]>,
}

impl EndpointSliceFact {
    /// The fact of an EndpointSlice.
    pub fn from_k8s(object: &EndpointSlice, interner: &mut Interner) -> EndpointSliceFact {
        let ports = object.ports.as_deref().unwrap_or_default();
        EndpointSliceFact::new(&object.metadata, ports, &object.endpoints, interner)
    }

    /// The fact of an EndpointSlice from its parts.
    pub fn new(
        meta: &ObjectMeta,
        ports: &[EndpointPort],
        endpoints: &[FullEndpoint],
        interner: &mut Interner,
    ) -> EndpointSliceFact {
        let service = label(meta, SERVICE_NAME).filter(|name| !name.is_empty() && is_ours(meta));
        let Some(service) = service else {
            return EndpointSliceFact {
                key: key(meta),
                service: None,
                ports: Box::default(),
                endpoints: Box::default(),
            };
        };
        EndpointSliceFact {
            key: key(meta),
            service: Some(interner.intern(&name::key(meta.namespace.as_deref().unwrap_or_default(), service))),
            ports: ports.iter().filter_map(|p| SlicePort::new(p, interner)).collect(),
            // Of addressType FQDN there is none.
            endpoints: endpoints.iter().filter_map(|e| Endpoint::new(e, interner)).collect(),
        }
    }
}

impl SlicePort {
    fn new(port: &EndpointPort, interner: &mut Interner) -> Option<SlicePort> {
        Some(SlicePort {
            name: interner.intern(port.name.as_deref().unwrap_or_default()),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: port.port?.try_into().ok()?,
        })
    }
}

impl Endpoint {
    fn new(endpoint: &FullEndpoint, interner: &mut Interner) -> Option<Endpoint> {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let hints = endpoint.hints.as_ref().map(|hints| Hints {
            zones: hints.for_zones.iter().flatten().map(|zone| interner.intern(&zone.name)).collect(),
            nodes: hints.for_nodes.iter().flatten().map(|node| interner.intern(&node.name)).collect(),
        });
        Some(Endpoint {
            address: endpoint.addresses.first()?.parse().ok()?,
            conditions: Conditions {
                ready,
                serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            },
            node: endpoint.node_name.as_deref().map(|node| interner.intern(node)),
            hints: hints.filter(|hints| *hints != Hints::default()).map(Box::new),
        })
    }
}
