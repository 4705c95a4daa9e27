//! Facts: slim copies of Kubernetes objects, with only what a feature reads.
//!
//! Inputs: objects of k8s-openapi. Outputs: values that compare equal when nothing of interest changed, so that a heartbeat
//! is no event. Annotations are parsed here, once; a text that cannot be parsed is kept as its error. A pod is about 300
//! bytes: texts that repeat are shared. Must not: judge a fact against the configuration or against other facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ovenbird_api::service::parse_weight;
pub use ovenbird_api::underlay::NetworkStatus;
use ovenbird_api::{AclLogging, AnnotationError, L3Gateway, Lease, Mac, PodNetwork, annotation, name, nested, node};
pub use ovenbird_api::{HostPort, Protocol, ProviderNetworkSpec, ProviderNetworkStatus};
use ovsdb::Str;

use crate::intern::Interner;

mod admin_policy;
mod blocks;
mod container_port;
mod host_port;
mod network;
mod network_policy;
mod rule;
mod service;
mod service_cidr;
mod slice;

pub use admin_policy::{AdminAction, AdminKey, AdminKind, AdminPolicyFact, AdminPolicySpec, AdminRule, Tier};
pub use container_port::ContainerPort;
pub use network::{NetworkFact, NetworkSpec, ProviderNetworkFact};
pub use network_policy::NetworkPolicyFact;
pub use rule::{Numbers, Peers, PortMatch, Rule};
pub use service::{ServiceFact, ServicePort};
pub use service_cidr::ServiceCidrFact;
pub use slice::{Conditions, Endpoint, EndpointSliceFact, Hints, SlicePort};

/// Label of a Node: the zone that it stands in.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Label that every Namespace has: its name.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// An annotation: absent, read, or not readable.
pub type Annotated<T> = Option<Result<T, Box<AnnotationError>>>;

/// Labels, sorted by key.
pub type Labels = Box<[(Str, Str)]>;

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// `metadata.name`.
    pub name: Str,
    /// `metadata.creationTimestamp`, seconds since 1970; the older of two that conflict wins.
    pub created: i64,
    /// `spec.podCIDRs`, those that are subnets.
    pub pod_cidrs: Vec<IpNet>,
    /// Annotation `node-subnets`.
    pub subnets: Annotated<Vec<IpNet>>,
    /// Annotation `node-id`.
    pub id: Annotated<u16>,
    /// Annotation `node-chassis-id`.
    pub chassis: Annotated<Str>,
    /// Annotation `node-mgmt-port-mac-addresses`.
    pub management_mac: Annotated<Mac>,
    /// Annotation `l3-gateway-config`; absent too when it says that there is no gateway.
    pub gateway: Annotated<Box<L3Gateway>>,
    /// Annotation `host-cidrs`.
    pub host_cidrs: Annotated<Vec<IpNet>>,
    /// Annotation `pod-mtu`.
    pub pod_mtu: Annotated<u32>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The node's bridge is of the userspace datapath: annotation `datapath-type`.
    pub userspace: bool,
    /// Annotation `parent-port`: the node is a VM, and this is its port.
    pub parent: Annotated<Box<Str>>,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// `namespace/name`; see [`PodFact::namespace`] and [`PodFact::name`].
    pub key: Str,
    /// UID of what runs on the node: `metadata.uid`, or of a static pod the kubelet's, which outlives its mirrors.
    pub uid: Str,
    /// `spec.nodeName`, once bound.
    pub node: Option<Str>,
    /// Annotation `pod-networks`.
    pub network: Annotated<PodAddresses>,
    /// Annotation `lease`: the address of a pod whose Network leaves it to a DHCP server.
    pub lease: Annotated<Ipv4Addr>,
    /// Annotation `network`: the Network that it is on, `None` for its node's switch.
    pub on: Option<Str>,
    /// Annotation `weight`.
    pub weight: Annotated<u8>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// Ports of the node that lead to the pod; none on the host's network, where ports are the node's own.
    pub host_ports: Box<[HostPort]>,
    /// Ports of the containers that have a name.
    pub ports: Box<[ContainerPort]>,
    /// All containers are done for good, and its address is given back to a DHCP server: phase Succeeded or Failed, or deleted and all terminated.
    pub finished: bool,
}

/// What a pod's port needs of its annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddresses {
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// MAC.
    pub mac: Mac,
    /// A DHCP server gives the address: it is the lease's.
    pub dhcp: bool,
    /// On a nested node: VLAN tag.
    pub tag: Option<u16>,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFact {
    /// `metadata.name`.
    pub name: Str,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Annotation `acl-logging`.
    pub acl_logging: Annotated<AclLogging>,
}

/// Any fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A Node.
    Node(NodeFact),
    /// A Pod.
    Pod(PodFact),
    /// A Namespace.
    Namespace(NamespaceFact),
    /// A Service.
    Service(ServiceFact),
    /// An EndpointSlice.
    EndpointSlice(EndpointSliceFact),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidrFact),
    /// A NetworkPolicy.
    NetworkPolicy(NetworkPolicyFact),
    /// An AdminNetworkPolicy, BaselineAdminNetworkPolicy or ClusterNetworkPolicy.
    AdminPolicy(AdminPolicyFact),
    /// A Network.
    Network(NetworkFact),
    /// A ProviderNetwork.
    ProviderNetwork(ProviderNetworkFact),
}

/// Name of a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    /// A Node by name.
    Node(Str),
    /// A Pod by `namespace/name`.
    Pod(Str),
    /// A Namespace by name.
    Namespace(Str),
    /// A Service by `namespace/name`.
    Service(Str),
    /// An EndpointSlice by `namespace/name`.
    EndpointSlice(Str),
    /// A ServiceCIDR by name.
    ServiceCidr(Str),
    /// A NetworkPolicy by `namespace/name`.
    NetworkPolicy(Str),
    /// An admin policy by kind and name.
    AdminPolicy(AdminKey),
    /// A Network by name.
    Network(Str),
    /// A ProviderNetwork by name.
    ProviderNetwork(Str),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is there, new or changed.
    Upsert(Fact),
    /// The object is gone.
    Delete(FactKey),
}

impl Fact {
    /// The fact's name.
    pub fn key(&self) -> FactKey {
        match self {
            Fact::Node(node) => FactKey::Node(node.name.clone()),
            Fact::Pod(pod) => FactKey::Pod(pod.key.clone()),
            Fact::Namespace(namespace) => FactKey::Namespace(namespace.name.clone()),
            Fact::Service(service) => FactKey::Service(service.key.clone()),
            Fact::EndpointSlice(slice) => FactKey::EndpointSlice(slice.key.clone()),
            Fact::ServiceCidr(cidr) => FactKey::ServiceCidr(cidr.name.clone()),
            Fact::NetworkPolicy(policy) => FactKey::NetworkPolicy(policy.key.clone()),
            Fact::AdminPolicy(policy) => FactKey::AdminPolicy(policy.key.clone()),
            Fact::Network(network) => FactKey::Network(network.name.clone()),
            Fact::ProviderNetwork(provider) => FactKey::ProviderNetwork(provider.name.clone()),
        }
    }
}

impl NodeFact {
    /// The fact of a Node.
    pub fn from_k8s(object: &Node) -> NodeFact {
        let cidrs = object.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref());
        NodeFact::new(&object.metadata, cidrs.unwrap_or_default())
    }

    /// The fact of a Node from its parts: `metadata` (name, creationTimestamp, annotations) and `spec.podCIDRs`.
    pub fn new(meta: &ObjectMeta, cidrs: &[String]) -> NodeFact {
        NodeFact {
            name: meta.name.as_deref().unwrap_or_default().into(),
            created: created(meta),
            pod_cidrs: cidrs.iter().filter_map(|text| text.parse().ok()).collect(),
            subnets: annotated(meta, annotation::NODE_SUBNETS, node::parse_subnets),
            id: annotated(meta, annotation::NODE_ID, node::parse_id),
            chassis: annotated(meta, annotation::NODE_CHASSIS_ID, |text| node::parse_chassis_id(text).map(Str::from)),
            management_mac: annotated(meta, annotation::NODE_MGMT_PORT_MACS, node::parse_management_mac),
            gateway: annotated(meta, annotation::L3_GATEWAY_CONFIG, |text| Ok(L3Gateway::parse(text)?.map(Box::new)))
                .and_then(Result::transpose),
            host_cidrs: annotated(meta, annotation::HOST_CIDRS, node::parse_host_cidrs),
            pod_mtu: annotated(meta, annotation::POD_MTU, node::parse_pod_mtu),
            labels: meta.labels.iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
            userspace: meta
                .annotations
                .as_ref()
                .and_then(|all| all.get(annotation::DATAPATH_TYPE))
                .is_some_and(|t| t == "netdev"),
            parent: annotated(meta, annotation::PARENT_PORT, |text| {
                Ok(Box::new(nested::parse_parent_port(text)?.into()))
            }),
        }
    }

    /// Label `topology.kubernetes.io/zone`, unless it is empty.
    pub fn zone(&self) -> Option<&Str> {
        let at = self.labels.binary_search_by(|(key, _)| (**key).cmp(ZONE)).ok()?;
        Some(&self.labels[at].1).filter(|zone| !zone.is_empty())
    }
}

impl PodFact {
    /// The fact of a Pod.
    pub fn from_k8s(object: &Pod, interner: &mut Interner) -> PodFact {
        let spec = object.spec.as_ref();
        let node = spec.and_then(|s| s.node_name.as_deref());
        let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
        let host_ports = spec.filter(|_| !host_network).map(host_port::of).unwrap_or_default();
        let ports = spec.filter(|_| !host_network).map(|s| container_port::of(s, interner)).unwrap_or_default();
        PodFact { host_ports, ports, ..PodFact::new(&object.metadata, node, host_network, finished(object), interner) }
    }

    /// The fact of a Pod from its parts: `metadata` (namespace, name, uid, creationTimestamp, labels, annotations),
    /// `spec.nodeName`, `spec.hostNetwork`, and whether all its containers are done for good. It asks for no ports of the node, and its ports
    /// have no names.
    pub fn new(
        meta: &ObjectMeta,
        node: Option<&str>,
        host_network: bool,
        finished: bool,
        interner: &mut Interner,
    ) -> PodFact {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let text = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
        let static_uid = text(annotation::STATIC_POD_UID);
        let network = annotated(meta, annotation::POD_NETWORKS, |text| PodNetwork::parse(text).map(PodAddresses::from));
        let lease = annotated(meta, annotation::LEASE, |text| Lease::parse(text).map(|lease| lease.address.addr()));
        // Its node removes the annotation when it has told the server, for which it needs the port.
        let holds = lease.is_some() && matches!(&network, Some(Ok(addresses)) if addresses.dhcp);
        PodFact {
            key: name::key(namespace, meta.name.as_deref().unwrap_or_default()).into(),
            uid: static_uid.or(meta.uid.as_deref()).unwrap_or_default().into(),
            node: node.filter(|text| !text.is_empty()).map(|text| interner.intern(text)),
            network,
            lease,
            on: text(annotation::NETWORK).filter(|text| !text.is_empty()).map(|text| interner.intern(text)),
            weight: annotated(meta, annotation::WEIGHT, parse_weight),
            labels: labels(meta, interner),
            created: created(meta),
            host_network,
            host_ports: Box::default(),
            ports: Box::default(),
            finished: finished && !holds,
        }
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or("", |(_, name)| name)
    }

    /// The addresses of its annotations, a lease's included; `None` without, and while they cannot be read.
    pub fn addresses(&self) -> Option<PodAddresses> {
        let addresses = *self.network.as_ref()?.as_ref().ok()?;
        let leased = self.lease.as_ref().and_then(|lease| lease.as_ref().ok()).filter(|_| addresses.dhcp);
        Some(PodAddresses { v4: leased.copied().or(addresses.v4), ..addresses })
    }

    /// The number of a port by its name.
    pub fn number(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let named = |port: &&ContainerPort| port.protocol == protocol && *port.name == *name;
        self.ports.iter().find(named).map(|port| port.number)
    }

    /// The node on which the pod must have a port: bound, not on the host's network, not finished.
    pub fn attached_to(&self) -> Option<&Str> {
        self.node.as_ref().filter(|_| !self.host_network && !self.finished)
    }
}

impl NamespaceFact {
    /// The fact of a Namespace.
    pub fn from_k8s(object: &Namespace, interner: &mut Interner) -> NamespaceFact {
        NamespaceFact::new(&object.metadata, interner)
    }

    /// The fact of a Namespace from its `metadata` (name, labels, annotations).
    pub fn new(meta: &ObjectMeta, interner: &mut Interner) -> NamespaceFact {
        let name = meta.name.as_deref().unwrap_or_default();
        // The API server sees to it; what did not pass one, such as a file, may lack it.
        let mut labels = labels(meta, interner).into_vec();
        labels.retain(|(key, _)| &**key != NAME_LABEL);
        let at = labels.partition_point(|(key, _)| &**key < NAME_LABEL);
        labels.insert(at, (interner.intern(NAME_LABEL), interner.intern(name)));
        NamespaceFact {
            name: name.into(),
            labels: labels.into(),
            acl_logging: annotated(meta, annotation::ACL_LOGGING, AclLogging::parse),
        }
    }
}

impl PodAddresses {
    /// The addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl From<PodNetwork> for PodAddresses {
    fn from(network: PodNetwork) -> PodAddresses {
        let mut addresses = PodAddresses { v4: None, v6: None, mac: network.mac, dhcp: network.dhcp, tag: network.tag };
        for net in network.addresses {
            match net.addr() {
                IpAddr::V4(v4) => addresses.v4 = Some(v4),
                IpAddr::V6(v6) => addresses.v6 = Some(v6),
            }
        }
        addresses
    }
}

fn annotated<T>(meta: &ObjectMeta, key: &str, parse: impl FnOnce(&str) -> Result<T, AnnotationError>) -> Annotated<T> {
    let text = meta.annotations.as_ref()?.get(key)?;
    Some(parse(text).map_err(Box::new))
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// `namespace/name`.
fn key(meta: &ObjectMeta) -> Str {
    name::key(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()).into()
}

fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

fn labels(meta: &ObjectMeta, interner: &mut Interner) -> Labels {
    let pairs = meta.labels.iter().flatten();
    pairs.map(|(key, value)| (interner.intern(key), interner.intern(value))).collect()
}

fn finished(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let terminated = |c: &k8s_openapi::api::core::v1::ContainerStatus| {
        c.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    pod.metadata.deletion_timestamp.is_some() && !containers.is_empty() && containers.iter().all(terminated)
}
