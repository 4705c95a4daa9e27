//! A case as text: its families unless it is dual stack, one object a line, in JSON, as little as says it; then the packets. What a failing property prints is what a case by name is
//! read from.
//!
//! Must not: know what a generated case looks like.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::{Case, Families, hosts, nodes};
use crate::evaluate::Cluster;
use crate::packet::{Packet, Protocol};

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cluster { pods, namespaces, policies, .. } = &self.cluster;
        let namespaces = namespaces.iter().map(serde_json::to_string);
        let pods = pods.iter().map(serde_json::to_string);
        let policies = policies.iter().map(serde_json::to_string);
        if self.families != Families::Both {
            writeln!(f, "families {:?}", self.families)?;
        }
        for line in namespaces.chain(pods).chain(policies) {
            writeln!(f, "{}", line.map_err(|_| std::fmt::Error)?)?;
        }
        self.packets.iter().try_for_each(|packet| writeln!(f, "{packet}"))
    }
}

impl std::str::FromStr for Case {
    /// The line that cannot be read, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let lines = || text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let families = match lines().next() {
            Some("families V4") => Families::V4,
            Some("families V6") => Families::V6,
            _ => Families::Both,
        };
        let cluster = Cluster { nodes: hosts(families), ..Cluster::default() };
        let mut case = Case { cluster, nodes: nodes(families), families, packets: Vec::new() };
        for line in lines().filter(|line| !line.starts_with("families ")) {
            case.add(line).map_err(|problem| format!("{line}: {problem}"))?;
        }
        Ok(case)
    }
}

impl Case {
    fn add(&mut self, line: &str) -> Result<(), String> {
        if !line.starts_with('{') {
            self.packets.push(packet(line).ok_or("no packet")?);
            return Ok(());
        }
        let object: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let added = match kind.as_str() {
            "Namespace" => serde_json::from_value::<Namespace>(object).map(|o| self.cluster.namespaces.push(o)),
            "Pod" => serde_json::from_value::<Pod>(object).map(|o| self.cluster.pods.push(o)),
            "NetworkPolicy" => serde_json::from_value::<NetworkPolicy>(object).map(|o| self.cluster.policies.push(o)),
            _ => return Err(format!("kind {kind}")),
        };
        added.map_err(|e| e.to_string())
    }
}

/// What `Display` of a packet writes.
fn packet(line: &str) -> Option<Packet> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, source, "->", destination] = words[..] else { return None };
    let protocol = Protocol::ALL.into_iter().find(|protocol| format!("{protocol:?}") == name)?;
    let end = |text: &str| -> Option<(IpAddr, u16)> {
        match protocol {
            Protocol::Icmp => Some((text.parse().ok()?, 0)),
            _ => text.rsplit_once(':').and_then(|(ip, port)| Some((ip.parse().ok()?, port.parse().ok()?))),
        }
    };
    let ((source, source_port), (destination, port)) = (end(source)?, end(destination)?);
    Some(Packet { source, destination, protocol, source_port, port })
}
