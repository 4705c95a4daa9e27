//! What a lab is made of right now: nodes, pods, processes.
//!
//! In: the API server, the records of processes. Out: a report, as tables or JSON. It must not change anything.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::lab::Lab;
use crate::table::{Colour, Table};
use crate::up::is_ready;

/// The whole lab.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Nodes that have registered.
    pub nodes: Vec<NodeStatus>,
    /// Pods of all namespaces.
    pub pods: Vec<PodStatus>,
    /// What the lab has started.
    pub processes: Vec<ProcessStatus>,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its name, also for `ovenbird-lab exec`.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Whether its Ready condition holds.
    pub ready: bool,
    /// Its addresses on the fabric.
    pub addresses: Vec<String>,
    /// `k8s.ovn.org/node-subnets`, as the master wrote it.
    pub subnets: Option<String>,
}

/// One pod.
#[derive(Clone, Debug, Serialize)]
pub struct PodStatus {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The node it is bound to.
    pub node: Option<String>,
    /// `status.phase`.
    pub phase: String,
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// Whether it uses the node's network.
    pub host_network: bool,
}

/// One process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessStatus {
    /// As `ovenbird-lab component` takes it.
    pub name: String,
    /// Process id.
    pub pid: i32,
    /// Whether it runs.
    pub running: bool,
}

impl Status {
    /// Asks the API server and looks at the processes.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn of(lab: &Lab) -> Result<Self> {
        let client = lab.client().await?;
        let all = ListParams::default();
        let nodes = Api::<Node>::all(client.clone()).list(&all).await.context("listing nodes")?;
        let pods = Api::<Pod>::all(client).list(&all).await.context("listing pods")?;
        let processes = lab.layout().processes().all().into_iter();
        Ok(Self {
            nodes: nodes.iter().map(|node| NodeStatus::of(lab, node)).collect(),
            pods: pods.iter().map(PodStatus::of).collect(),
            processes: processes
                .map(|record| ProcessStatus { name: record.spec.name, pid: record.id.pid, running: record.id.alive() })
                .collect(),
        })
    }

    /// Nodes as a table.
    pub fn node_table(&self) -> Table {
        let mut table = Table::new(["NODE", "READY", "ADDRESSES", "POD SUBNETS"]);
        for node in &self.nodes {
            table.row([
                (node.name.clone(), Colour::Plain),
                if node.ready { ("yes".into(), Colour::Good) } else { ("no".into(), Colour::Bad) },
                (node.addresses.join(" "), Colour::Plain),
                (node.subnets.clone().unwrap_or_default(), Colour::Plain),
            ]);
        }
        table
    }

    /// Pods as a table.
    pub fn pod_table(&self) -> Table {
        let mut table = Table::new(["POD", "NODE", "PHASE", "ADDRESSES"]);
        for pod in &self.pods {
            let good = pod.phase == "Running" || pod.phase == "Succeeded";
            let ips: Vec<_> = pod.ips.iter().map(ToString::to_string).collect();
            table.row([
                (format!("{}/{}", pod.namespace, pod.name), Colour::Plain),
                (pod.node.clone().unwrap_or_default(), Colour::Plain),
                (pod.phase.clone(), if good { Colour::Good } else { Colour::Bad }),
                (ips.join(" "), Colour::Plain),
            ]);
        }
        table
    }

    /// Names of processes that should run and do not.
    pub fn ended(&self) -> Vec<&str> {
        self.processes.iter().filter(|process| !process.running).map(|process| process.name.as_str()).collect()
    }
}

impl NodeStatus {
    fn of(lab: &Lab, node: &Node) -> Self {
        let addresses = node.status.as_ref().and_then(|status| status.addresses.clone()).unwrap_or_default();
        Self {
            name: node.name_any(),
            netns: lab.layout().netns(&node.name_any()),
            ready: is_ready(node),
            addresses: addresses.into_iter().filter(|one| one.type_ == "InternalIP").map(|one| one.address).collect(),
            subnets: node.annotations().get("k8s.ovn.org/node-subnets").cloned(),
        }
    }
}

impl PodStatus {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            phase: status.phase.unwrap_or_else(|| "Pending".into()),
            ips: status.pod_ips.unwrap_or_default().iter().filter_map(|entry| entry.ip.parse().ok()).collect(),
            host_network: pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)),
        }
    }
}
