//! Random small clusters, policies and packets, as proptest strategies, so that what fails shrinks.
//!
//! ```text
//! namespaces, pods (2 nodes), policies --[names from small alphabets, so that they meet]--> Cluster, packets between all ends
//! ```
//!
//! Output: [`Case`]s. Addresses follow from a pod's index, so that a case can be read. Some of the policies cannot be valid. Must not: know the
//! translation, or what a verdict should be.

pub mod admin;
mod policy;
mod text;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Namespace, Node, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::evaluate::{Cluster, Host};
use crate::packet::{self, Packet, Protocol};

/// Most policies of a case.
const POLICIES: usize = 4;
/// Pods of a case, at most; the address of the first is `.10`.
const PODS: usize = 8;
/// Nodes of a case: n0 and n1.
const NODES: u8 = 2;

/// A cluster, and packets to judge in it.
#[derive(Clone)]
pub struct Case {
    /// The cluster as the evaluator has it.
    pub cluster: Cluster,
    /// Its nodes as Kubernetes has them.
    pub nodes: Vec<Node>,
    /// Families of addresses that pods have.
    pub families: Families,
    /// Packets, none of them from and to the same address but for pods.
    pub packets: Vec<Packet>,
}

/// Families of addresses of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Dual stack.
    Both,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    V4Only,
    V6Only,
    /// On its node's network.
    Host,
    /// Phase Succeeded.
    Finished,
    /// Phase Failed, with the addresses of the first pod.
    Replaced,
    /// Without addresses.
    Pending,
}

#[derive(Clone, Debug)]
struct PodSketch {
    namespace: usize,
    node: u8,
    labels: BTreeMap<String, String>,
    kind: Kind,
    ports: Vec<ContainerPort>,
    second: Second,
    /// Ports of the second container; without any there is none.
    more: Vec<ContainerPort>,
}

/// What a pod's second container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// One as the first.
    Container,
    /// An init container that goes on running.
    Sidecar,
    /// One that has ended before the others began.
    Init,
}

/// A packet between ends by index.
#[derive(Clone, Debug)]
struct PacketSketch {
    ends: [usize; 2],
    v6: bool,
    protocol: Protocol,
    port: u16,
    /// To a port that the destination has a container for, if it has one, rather than to `port`.
    open: Option<usize>,
}

/// A case.
pub fn case() -> impl Strategy<Value = Case> {
    case_of(families())
}

/// Two cases of the same families.
pub fn pair() -> impl Strategy<Value = (Case, Case)> {
    families().prop_flat_map(|families| (case_of(Just(families)), case_of(Just(families))))
}

fn families() -> impl Strategy<Value = Families> {
    prop_oneof![6 => Just(Families::Both), 1 => Just(Families::V4), 1 => Just(Families::V6)]
}

fn case_of(families: impl Strategy<Value = Families>) -> impl Strategy<Value = Case> {
    let namespaces = vec(labels(), 2..=4);
    let pods = vec(pod(), 3..=PODS);
    let policies = vec(policy::policy(), 1..=POLICIES);
    let packets = vec(packet(), 1..150);
    (namespaces, pods, policies, families, packets).prop_map(|(namespaces, pods, policies, families, packets)| {
        build(&namespaces, pods, policies, families, &packets)
    })
}

fn build(
    namespaces: &[BTreeMap<String, String>],
    pods: Vec<PodSketch>,
    policies: Vec<(usize, NetworkPolicy)>,
    families: Families,
    packets: &[PacketSketch],
) -> Case {
    let namespace = |index: usize| format!("s{}", index % namespaces.len());
    let pods: Vec<Pod> =
        pods.into_iter().enumerate().map(|(index, pod)| pod.build(index, namespace(pod.namespace), families)).collect();
    let named = |(index, (home, mut policy)): (usize, (usize, NetworkPolicy))| {
        policy.metadata.name = Some(format!("p{index}"));
        policy.metadata.namespace = Some(namespace(home));
        policy
    };
    let policies = policies.into_iter().enumerate().map(named).collect();
    // An API server gives every namespace the label of its name.
    let object = |(index, labels): (usize, &BTreeMap<String, String>)| {
        let mut labels = labels.clone();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace(index));
        let metadata = ObjectMeta { name: Some(namespace(index)), labels: Some(labels), ..Default::default() };
        Namespace { metadata, ..Default::default() }
    };
    let cluster = Cluster {
        namespaces: namespaces.iter().enumerate().map(object).collect(),
        policies,
        nodes: hosts(families),
        pods,
    };
    let packets = packets.iter().filter_map(|sketch| sketch.build(&cluster, families)).collect();
    Case { cluster, nodes: nodes(families), families, packets }
}

/// Labels of a small alphabet.
fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(policy::key(), policy::value(), 0..=2)
}

fn pod() -> impl Strategy<Value = PodSketch> {
    let kind = prop_oneof![
        14 => Just(Kind::Plain),
        1 => Just(Kind::V4Only),
        1 => Just(Kind::V6Only),
        2 => Just(Kind::Host),
        1 => Just(Kind::Finished),
        1 => Just(Kind::Replaced),
        1 => Just(Kind::Pending),
    ];
    let second = prop_oneof![Just(Second::Container), Just(Second::Sidecar), Just(Second::Init)];
    (0usize..4, 0..NODES, labels(), kind, vec(port(), 0..=3), second, vec(port(), 0..=1)).prop_map(
        |(namespace, node, labels, kind, mut ports, second, more)| {
            // Kubernetes refuses a name that a container has twice; of two containers it does not.
            let mut names = std::collections::BTreeSet::new();
            ports.retain(|port| port.name.as_ref().is_none_or(|name| names.insert(name.clone())));
            PodSketch { namespace, node, labels, kind, ports, second, more }
        },
    )
}

fn port() -> impl Strategy<Value = ContainerPort> {
    let protocol =
        prop_oneof![2 => Just(None), 1 => Just(Some("TCP")), 1 => Just(Some("UDP")), 1 => Just(Some("SCTP"))];
    let port = (option::weighted(0.8, policy::port_name()), policy::port_number(), protocol);
    port.prop_map(|(name, number, protocol)| ContainerPort {
        name,
        container_port: number.into(),
        protocol: protocol.map(str::to_owned),
        ..Default::default()
    })
}

fn packet() -> impl Strategy<Value = PacketSketch> {
    let protocol = prop_oneof![
        4 => Just(Protocol::Tcp),
        2 => Just(Protocol::Udp),
        1 => Just(Protocol::Sctp),
        1 => Just(Protocol::Icmp),
    ];
    let open = option::weighted(0.5, 0usize..3);
    (any::<[u8; 2]>(), any::<bool>(), protocol, policy::port_number(), open).prop_map(
        |(ends, v6, protocol, port, open)| PacketSketch { ends: ends.map(usize::from), v6, protocol, port, open },
    )
}

impl PodSketch {
    fn build(&self, index: usize, namespace: String, families: Families) -> Pod {
        let number = if self.kind == Kind::Replaced { 10 } else { 10 + u8::try_from(index).unwrap_or(0) };
        // The first pod's addresses are of the first node in any case, so that whoever replaces it may have been there, too.
        let node = if index == 0 || self.kind == Kind::Replaced { 0 } else { self.node };
        let has = |v6: &&bool| match self.kind {
            Kind::V4Only => !**v6,
            Kind::V6Only => **v6,
            Kind::Pending => false,
            _ => true,
        };
        let own = |v6: &bool| if self.kind == Kind::Host { uplink(node, *v6) } else { pod_address(node, number, *v6) };
        let addresses: Vec<IpAddr> = families.list().iter().filter(has).map(own).collect();
        let nets = addresses.iter().map(|a| format!("\"{a}/{}\"", if a.is_ipv4() { 23 } else { 64 }));
        let network = format!(
            r#"{{"default":{{"ip_addresses":[{}],"mac_address":"0a:58:00:00:{node:02x}:{number:02x}"}}}}"#,
            nets.collect::<Vec<_>>().join(",")
        );
        let on_network = self.kind != Kind::Host && !addresses.is_empty();
        let annotations = on_network.then(|| BTreeMap::from([("k8s.ovn.org/pod-networks".to_owned(), network)]));
        let phase = match self.kind {
            Kind::Finished => "Succeeded",
            Kind::Replaced => "Failed",
            Kind::Pending => "Pending",
            _ => "Running",
        };
        let container = |name: &str, ports: &[ContainerPort]| Container {
            name: name.to_owned(),
            ports: Some(ports.to_owned()),
            ..Default::default()
        };
        let mut containers = vec![container("c", &self.ports)];
        let mut init = Vec::new();
        let second = container("d", &self.more);
        let always = Some("Always".to_owned());
        match self.second {
            _ if self.more.is_empty() => {}
            Second::Container => containers.push(second),
            Second::Sidecar => init.push(Container { restart_policy: always, ..second }),
            Second::Init => init.push(second),
        }
        Pod {
            metadata: ObjectMeta {
                namespace: Some(namespace),
                name: Some(format!("d{index}")),
                labels: Some(self.labels.clone()),
                annotations,
                ..Default::default()
            },
            spec: Some(PodSpec {
                containers,
                init_containers: (!init.is_empty()).then_some(init),
                node_name: Some(format!("n{node}")),
                host_network: (self.kind == Kind::Host).then_some(true),
                ..Default::default()
            }),
            status: Some(PodStatus {
                phase: Some(phase.to_owned()),
                pod_ips: Some(addresses.iter().map(|a| PodIP { ip: a.to_string() }).collect()),
                ..Default::default()
            }),
        }
    }
}

impl PacketSketch {
    fn build(&self, cluster: &Cluster, families: Families) -> Option<Packet> {
        // Pods are what matters: each stands in the list four times.
        let v6 = if self.v6 { families != Families::V4 } else { families == Families::V6 };
        let ends = ends(cluster, v6);
        let pods: Vec<IpAddr> = ends.iter().copied().filter(|a| cluster.pod_at(*a).is_some()).collect();
        let ends = [&ends[..], &pods.repeat(3)].concat();
        let [source, destination] = self.ends.map(|index| ends.get(index % ends.len()).copied());
        let (source, destination) = (source?, destination?);
        let (from, to) = (cluster.pod_at(source), cluster.pod_at(destination));
        if source == destination && from.is_none() {
            return None;
        }
        let specs = to.iter().flat_map(|pod| &pod.spec);
        let containers = specs.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let ports: Vec<&ContainerPort> = containers.flat_map(|c| c.ports.iter().flatten()).collect();
        let open = self.open.and_then(|index| ports.get(index)).map(|port| {
            let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"));
            (protocol.unwrap_or(self.protocol), u16::try_from(port.container_port).unwrap_or(self.port))
        });
        let (protocol, port) = open.unwrap_or((self.protocol, self.port));
        Some(Packet { source, destination, protocol, source_port: 40000, port })
    }
}

/// All addresses of a family that may send and receive: pods', nodes', some outside, and the one by which pods meet themselves.
pub fn ends(cluster: &Cluster, v6: bool) -> Vec<IpAddr> {
    let statuses = cluster.pods.iter().filter_map(|pod| pod.status.as_ref());
    let texts = statuses.flat_map(|status| status.pod_ips.iter().flatten());
    let pods = texts.filter_map(|ip| ip.ip.parse().ok());
    let management = cluster.nodes.iter().flat_map(|host| host.management.iter().copied());
    let nodes = management.chain((0..NODES).map(|n| uplink(n, v6)));
    let outside: [IpAddr; 2] = if v6 {
        [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)].map(IpAddr::V6)
    } else {
        [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 200)].map(IpAddr::V4)
    };
    let outside = outside.into_iter().chain([packet::hairpin(outside[0])]);
    let mut ends: Vec<IpAddr> = pods.chain(nodes).chain(outside).filter(|a| a.is_ipv6() == v6).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// An address of a node's subnet.
fn pod_address(node: u8, number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd01, 0, 0, node.into(), 0, 0, 0, number.into()).into()
    } else {
        Ipv4Addr::new(10, 128, 2 * node, number).into()
    }
}

/// A node's own address.
fn uplink(node: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, u16::from(node) + 3).into()
    } else {
        Ipv4Addr::new(172, 18, 0, node + 3).into()
    }
}

impl Families {
    /// The families, IPv6 as `true`.
    pub fn list(self) -> &'static [bool] {
        match self {
            Families::Both => &[false, true],
            Families::V4 => &[false],
            Families::V6 => &[true],
        }
    }
}

/// The nodes as the evaluator has them.
fn hosts(families: Families) -> Vec<Host> {
    let management = |n| families.list().iter().map(|v6| pod_address(n, 2, *v6)).collect();
    (0..NODES).map(|n| Host { name: format!("n{n}"), management: management(n) }).collect()
}

fn nodes(families: Families) -> Vec<Node> {
    (0..NODES).map(|n| node(n, families)).collect()
}

fn node(n: u8, families: Families) -> Node {
    let subnet = |v6: &bool| if *v6 { format!("\"fd01:0:0:{n}::/64\"") } else { format!("\"10.128.{}.0/23\"", 2 * n) };
    let subnets: Vec<String> = families.list().iter().map(subnet).collect();
    let annotations = [
        ("k8s.ovn.org/node-subnets", format!(r#"{{"default":[{}]}}"#, subnets.join(","))),
        ("k8s.ovn.org/node-id", (2 + n).to_string()),
        ("k8s.ovn.org/node-mgmt-port-mac-addresses", format!(r#"{{"default":"0a:58:00:00:{n:02x}:02"}}"#)),
        ("k8s.ovn.org/host-cidrs", format!(r#"["{}/16","{}/64"]"#, uplink(n, false), uplink(n, true))),
    ];
    let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let metadata = ObjectMeta { name: Some(format!("n{n}")), annotations: Some(annotations), ..Default::default() };
    Node { metadata, ..Default::default() }
}
