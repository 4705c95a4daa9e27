//! The cluster that policies are tried on: three namespaces of three pods on two nodes, in both families; Services; and who answers where.
//!
//! Inputs: a running lab. Output: ends with their places and addresses, the evaluator's view of the API's objects. Must not: know rows
//! of a table, or hold expectations.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use ovenbird_e2e::sctp::{self, Packet};
use ovenbird_e2e::service::{PORT, service, slices};
use ovenbird_e2e::{datapath, pods, witness};
use ovenbird_lab::{Lab, Mode, Place};
use ovenbird_verdict::{Cluster, Host};
use serde_json::{Value, json};

/// Namespaces and their labels.
const NAMESPACES: [(&str, &str); 3] =
    [("x", r#"{"team": "red", "tier": "front"}"#), ("y", r#"{"team": "blue"}"#), ("z", "{}")];
/// Pods: name, node, labels, names of ports.
const PODS: [(&str, usize, &str, &str); 9] = [
    ("x/a", 1, r#"{"app": "web", "env": "prod"}"#, "web TCP 80, dns UDP 53"),
    ("x/b", 2, r#"{"app": "db"}"#, "web TCP 8080, dns UDP 80"),
    ("x/c", 1, r#"{"app": "cache", "env": "test"}"#, "web TCP 80, dns TCP 8080"),
    ("y/a", 1, r#"{"app": "web"}"#, "web TCP 80, dns UDP 53"),
    ("y/b", 2, r#"{"app": "db", "env": "prod"}"#, "web TCP 8080, assoc SCTP 7002"),
    ("y/c", 2, "{}", ""),
    ("z/a", 1, r#"{"app": "web", "env": "test"}"#, "web TCP 8080, dns UDP 53, assoc SCTP 7003"),
    ("z/b", 2, "{}", "sidecar web TCP 80"),
    ("z/c", 1, r#"{"app": "db"}"#, "web UDP 80, init web TCP 80"),
];
/// Ports, besides that of endpoints of Services, on which everybody answers.
pub const PORTS: [u16; 3] = [80, 8080, 53];
/// Services: name, endpoint.
pub const SERVICES: [(&str, &str); 2] = [("x/web", "x/b"), ("z/edge", "z/a")];

/// Somebody who asks and answers.
#[derive(Clone, Debug)]
pub struct End {
    /// `NAMESPACE/POD`, `nodeN`, or `outside`.
    pub name: String,
    /// Its network.
    pub place: Place,
    /// IPv4, IPv6.
    pub ips: Vec<IpAddr>,
}

/// See the file header.
pub struct World {
    /// The lab below.
    pub lab: Lab,
    /// The API server.
    pub client: Client,
    /// Pods.
    pub pods: Vec<End>,
    /// Hosts of nodes.
    pub nodes: Vec<End>,
    /// A host that is no node.
    pub outside: End,
    /// Addresses from which nodes speak to their own pods.
    pub management: Vec<Host>,
    /// Who answers SCTP ends when nobody holds these any more.
    told: Vec<Receiver<Packet>>,
}

impl World {
    /// Makes all objects and waits until the pods run.
    pub async fn build(lab: Lab) -> Result<World> {
        let namespaces = NAMESPACES.map(|(name, labels)| namespace(name, labels));
        let objects: String = namespaces.iter().map(document).collect();
        lab.apply(&objects).await?;
        let names = PODS.map(|(name, ..)| name);
        lab.apply(&names.map(|name| document(&pod(name))).concat()).await?;
        lab.apply(&document(&host_pod())).await?;
        for (namespace, _) in NAMESPACES {
            lab.await_running(namespace).await?;
        }
        let options = &lab.layout().options;
        let (mut nodes, mut management) = (Vec::new(), Vec::new());
        for index in [1, 2] {
            let (name, place) = (format!("node{index}"), lab.scene(&format!("node{index}"))?.place().clone());
            let device = if options.mode == Mode::Classic { "kbr0" } else { "ovn-k8s-mp0" };
            management.push(Host { name: name.clone(), management: addresses_of(&place, device)? });
            nodes.push(End { name, place, ips: options.node_addresses(index) });
        }
        let outside = End {
            name: "outside".into(),
            place: lab.scene("outside")?.place().clone(),
            ips: options.outside_addresses(),
        };
        let client = lab.client().await?;
        let mut world = World { lab, client, pods: Vec::new(), nodes, outside, management, told: Vec::new() };
        for name in names {
            world.find_pod(name).await?;
        }
        for end in &world.nodes {
            answer(end, &end.ips)?;
        }
        answer(&world.outside, &world.beyond())?;
        world.make_services().await?;
        Ok(world)
    }

    /// Learns where a pod is, and makes it answer. Of a pod that was made anew it forgets the old one.
    pub async fn find_pod(&mut self, name: &str) -> Result<()> {
        let (namespace, short) = split(name);
        let ips = pods::ips(&pods::api(&self.lab, namespace).await?, short).await?;
        let end = End { name: name.to_owned(), place: self.lab.scene(name)?.place().clone(), ips };
        answer(&end, &end.ips)?;
        for ip in &end.ips {
            self.told.push(sctp::stand(&end.place, *ip)?);
        }
        match self.pods.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = end,
            None => self.pods.push(end),
        }
        Ok(())
    }

    /// A pod of that name.
    pub fn pod(&self, name: &str) -> Result<&End> {
        self.pods.iter().find(|end| end.name == name).with_context(|| format!("no pod {name}"))
    }

    /// Addresses of the host outside to which pods go.
    pub fn beyond(&self) -> Vec<IpAddr> {
        self.lab.layout().options.beyond_addresses()
    }

    /// The API's objects as the evaluator wants them, with these policies.
    pub async fn cluster(&self, policies: &[Value]) -> Result<Cluster> {
        let pods = Api::<Pod>::all(self.client.clone()).list(&ListParams::default()).await.context("listing pods")?;
        let namespaces = Api::<Namespace>::all(self.client.clone()).list(&ListParams::default()).await;
        let typed = |policy: &Value| serde_json::from_value(policy.clone()).context("reading a policy");
        Ok(Cluster {
            pods: pods.items,
            namespaces: namespaces.context("listing namespaces")?.items,
            policies: policies.iter().map(typed).collect::<Result<Vec<_>>>()?,
            nodes: self.management.clone(),
        })
    }

    /// Creates policies, as they stand: an empty list, a null and a missing one stay what they are.
    pub async fn create(&self, policies: &[Value]) -> Result<()> {
        for policy in policies {
            let object: DynamicObject = serde_json::from_value(policy.clone()).context("reading a policy")?;
            let created = self.api_of(policy).create(&PostParams::default(), &object).await;
            created.with_context(|| format!("creating {policy}"))?;
        }
        Ok(())
    }

    /// Gives a policy that is there another spec.
    pub async fn replace(&self, policy: &Value) -> Result<()> {
        let api = self.api_of(policy);
        let name = policy["metadata"]["name"].as_str().unwrap_or_default();
        let mut object = api.get(name).await.with_context(|| format!("reading {policy}"))?;
        object.data = json!({"spec": policy["spec"]});
        let replaced = api.replace(name, &PostParams::default(), &object).await;
        replaced.map(drop).with_context(|| format!("replacing {policy}"))
    }

    /// Deletes policies.
    pub async fn delete(&self, policies: &[Value]) -> Result<()> {
        for policy in policies {
            let name = policy["metadata"]["name"].as_str().unwrap_or_default();
            let deleted = self.api_of(policy).delete(name, &DeleteParams::default()).await;
            deleted.with_context(|| format!("deleting {policy}"))?;
        }
        Ok(())
    }

    /// Makes the datapaths of all nodes look up all flows anew, and forget all connections (ovs-vswitchd(8)). In user space a connection of
    /// SCTP is all between two pods: one that began with an answer, when the first policy came, would stay the wrong way round.
    pub fn forget_flows(&self) -> Result<()> {
        for host in datapath::switches(&self.lab) {
            for what in ["dpctl/flush-conntrack", "revalidator/purge"] {
                self.lab.exec_node(&host, &["ovs-appctl", what])?;
            }
        }
        Ok(())
    }

    fn api_of(&self, policy: &Value) -> Api<DynamicObject> {
        let namespace = policy["metadata"]["namespace"].as_str().unwrap_or_default();
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<NetworkPolicy>(&()))
    }

    /// One Service has a port on each node, the other keeps the address of who asks from outside.
    async fn make_services(&self) -> Result<()> {
        for (index, (name, endpoint)) in SERVICES.into_iter().enumerate() {
            let ((namespace, short), end) = (split(name), self.pod(endpoint)?);
            let endpoints: Vec<_> = end.ips.iter().map(|ip| (node_of(endpoint), *ip)).collect();
            let port = |name: &str, port: u16, node_port: u16| json!({"name": name, "protocol": name.to_uppercase(), "port": port, "targetPort": PORT, "nodePort": node_port});
            let ports = json!([port("tcp", 80, node_port(index)), port("udp", 53, node_port(index))]);
            let external = if short == "edge" { "Local" } else { "Cluster" };
            let spec = json!({"type": "NodePort", "externalTrafficPolicy": external, "ports": ports});
            let manifest = service(namespace, short, &cluster_ips(index), &json!({}), spec);
            self.lab.apply(&(manifest + &slices(namespace, short, &endpoints))).await?;
        }
        Ok(())
    }
}

/// Cluster addresses of Service number `index`.
pub fn cluster_ips(index: usize) -> [IpAddr; 2] {
    let index = u8::try_from(index).unwrap_or_default();
    [IpAddr::from([10, 96, 3, index + 1]), IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x301 + u16::from(index)])]
}

/// Port on nodes of Service number `index`, the same of both protocols.
pub fn node_port(index: usize) -> u16 {
    30300 + u16::try_from(index).unwrap_or_default()
}

/// Namespace and name.
pub fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}

/// The manifest of the pod of that name.
pub fn pod(name: &str) -> Value {
    let known = PODS.iter().find(|(known, ..)| *known == name);
    let (_, _, labels, ports) = known.copied().unwrap_or((name, 1, "{}", ""));
    let labels: Value = serde_json::from_str(labels).unwrap_or_default();
    let of_kind = |kind: &str| -> Vec<Value> {
        let of_kind = ports.split(", ").filter_map(|port| match port.split(' ').collect::<Vec<_>>()[..] {
            [name, protocol, number] if kind.is_empty() => Some((name, protocol, number)),
            [of, name, protocol, number] if of == kind => Some((name, protocol, number)),
            _ => None,
        });
        let object = |(name, protocol, number): (&str, &str, &str)| json!({"name": name, "protocol": protocol, "containerPort": number.parse::<u16>().unwrap_or_default()});
        of_kind.map(object).collect()
    };
    let ((namespace, short), node) = (split(name), node_of(name));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": short, "labels": labels},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none", "command": ["sleep", "infinity"], "ports": of_kind("")}],
            "initContainers": [
                {"name": "sidecar", "image": "none", "restartPolicy": "Always", "ports": of_kind("sidecar")},
                {"name": "init", "image": "none", "ports": of_kind("init")},
            ],
        },
    })
}

fn node_of(pod: &str) -> &'static str {
    match PODS.iter().find(|(name, ..)| *name == pod) {
        Some((_, 2, ..)) => "node2",
        _ => "node1",
    }
}

/// A pod on its node's network, with labels that policies select.
fn host_pod() -> Value {
    let container = json!({"name": "c", "image": "none", "command": ["sleep", "infinity"]});
    let spec = json!({"nodeName": "node1", "hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"namespace": "x", "name": "host", "labels": {"app": "host"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn namespace(name: &str, labels: &str) -> Value {
    let mut labels: Value = serde_json::from_str(labels).unwrap_or_default();
    labels["kubernetes.io/metadata.name"] = name.into();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// One document of a manifest.
pub fn document(object: &Value) -> String {
    format!("---\n{object}\n")
}

fn answer(end: &End, addresses: &[IpAddr]) -> Result<()> {
    PORTS.into_iter().chain([PORT]).try_for_each(|port| witness::stand(&end.place, &end.name, addresses, port))
}

/// Addresses of a device, but for those of the link alone.
fn addresses_of(place: &Place, device: &str) -> Result<Vec<IpAddr>> {
    let shown: Value = serde_json::from_str(&place.output(&["ip", "-j", "addr", "show", "dev", device])?)?;
    let entries = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let global = entries.iter().filter(|entry| entry["scope"] == "global");
    Ok(global.filter_map(|entry| entry["local"].as_str()?.parse().ok()).collect())
}

/// An address and a port, for people.
pub fn socket(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
