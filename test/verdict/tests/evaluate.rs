//! The reference against verdicts that were worked out by hand: `evaluate/cluster.yaml` is the cluster, `evaluate/NN-*.yaml` are policies and verdicts.
//!
//! A verdict is a line `FROM > TO PROTOCOL[/PORT] = EGRESS INGRESS`. An end is `namespace/pod`, the name of a node (its management port) or an
//! address; a `6` after a name is its IPv6 address. What an end says is `open`, `exempt`, `policy.index` of each rule that allows, or `!policy`
//! of each policy that isolates without one. Policies are named without their namespace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use ovenbird_verdict::evaluate::Decision;
use ovenbird_verdict::{Cluster, Host, Packet, Protocol};
use serde::Deserialize;

#[derive(Deserialize)]
struct World {
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    management: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Case {
    policies: Vec<NetworkPolicy>,
    verdicts: Vec<String>,
}

impl World {
    fn address(&self, end: &str) -> IpAddr {
        if let Ok(address) = end.parse() {
            return address;
        }
        let (name, index) = end.strip_suffix('6').map_or((end, 0), |name| (name, 1));
        if let Some(node) = self.nodes.iter().find(|node| node.name == name) {
            return node.management[index];
        }
        let key = |pod: &Pod| [pod.metadata.namespace.clone().unwrap(), pod.metadata.name.clone().unwrap()].join("/");
        let pod = self.pods.iter().find(|pod| key(pod) == name).unwrap_or_else(|| panic!("no {name}"));
        pod.status.as_ref().unwrap().pod_ips.as_ref().unwrap()[index].ip.parse().unwrap()
    }

    fn packet(&self, line: &str) -> Packet {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, ">", to, what] = words[..] else { panic!("{line}") };
        let (protocol, port) = what.split_once('/').unwrap_or((what, "0"));
        Packet {
            source: self.address(from),
            destination: self.address(to),
            protocol: Protocol::from_kubernetes(protocol).unwrap_or(Protocol::Icmp),
            source_port: 40000,
            port: port.parse().unwrap(),
        }
    }
}

fn short(decision: &Decision) -> String {
    let bare = |policy: &str| policy.split_once('/').unwrap().1.to_owned();
    match decision {
        Decision::Open => "open".to_owned(),
        Decision::Exempt => "exempt".to_owned(),
        Decision::Allowed(rules) => {
            let rules: Vec<String> = rules.iter().map(|r| format!("{}.{}", bare(&r.policy), r.index)).collect();
            rules.join(",")
        }
        Decision::Denied(policies) => {
            let policies: Vec<String> = policies.iter().map(|p| format!("!{}", bare(p))).collect();
            policies.join(",")
        }
    }
}

#[test]
fn verdicts_are_those_worked_out_by_hand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evaluate");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let world: World = serde_saphyr::from_str(&read("cluster.yaml")).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "cluster.yaml");
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let case: Case = serde_saphyr::from_str(&read(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let cluster = Cluster {
            pods: world.pods.clone(),
            namespaces: world.namespaces.clone(),
            policies: case.policies,
            nodes: world
                .nodes
                .iter()
                .map(|n| Host { name: n.name.clone(), management: n.management.clone() })
                .collect(),
        };
        for line in &case.verdicts {
            let (packet, expected) = line.split_once(" = ").unwrap();
            let verdict = cluster.verdict(&world.packet(packet));
            let found = format!("{} {}", short(&verdict.egress), short(&verdict.ingress));
            assert_eq!(verdict.allowed, !found.contains('!'));
            if found != expected {
                wrong.push(format!("{name}: {packet} = {found}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
