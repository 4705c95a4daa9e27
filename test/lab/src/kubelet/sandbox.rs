//! Sandboxes on disk: one JSON file each, written before the namespace is made and removed after it is gone.
//!
//! So neither a killed kubelet nor `down` can lose one.
//! In: pods. Out: files below LAB_DIR/NODE/kubelet/sandboxes, network namespaces. It must not talk to CNI plugins or the API.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::layout::Layout;
use crate::place::{create_netns, delete_netns, netns_path};
use crate::process::{ProcessId, write_atomic};

/// Which pod a sandbox belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl PodKey {
    /// The key of an object.
    pub fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        }
    }
}

/// A pod's network namespace and what runs in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// Container id, as the CNI plugins see it.
    pub id: String,
    /// The pod.
    pub pod: PodKey,
    /// Name of the network namespace; the node's own for a host-network pod.
    pub netns: String,
    /// Whether the pod uses the node's network.
    pub host_network: bool,
    /// Ports of the node that the pod asks for, as CNI has them (CONVENTIONS.md, `portMappings`).
    #[serde(default)]
    pub port_mappings: Vec<Value>,
    /// Result of the last plugin's ADD, once it succeeded.
    pub result: Option<Value>,
    /// The running command.
    pub process: Option<ProcessId>,
}

impl Sandbox {
    /// The pod's addresses from the ADD result, without prefix lengths.
    pub fn ips(&self) -> Vec<String> {
        let entries = self.result.as_ref().and_then(|result| result["ips"].as_array().cloned()).unwrap_or_default();
        let address = |entry: &Value| Some(entry["address"].as_str()?.split('/').next()?.to_owned());
        entries.iter().filter_map(address).collect()
    }

    /// The path that CNI plugins get as `CNI_NETNS`.
    pub fn netns_path(&self) -> PathBuf {
        netns_path(&self.netns)
    }

    /// Makes the namespace.
    ///
    /// # Errors
    /// When the privilege is missing.
    pub fn create(&self) -> Result<()> {
        if self.host_network { Ok(()) } else { create_netns(&self.netns) }
    }
}

/// The sandboxes of one node.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    node_netns: String,
    prefix: String,
}

impl Store {
    /// The sandboxes of a node of the lab.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(layout: &Layout, node: &str) -> Result<Self> {
        let folder = layout.home(node).join("kubelet/sandboxes");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { folder, node_netns: layout.netns(node), prefix: layout.netns("pod") })
    }

    /// A new sandbox for a pod, on disk only.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn draft(&self, pod: &Pod) -> Result<Sandbox> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let netns = if host_network { self.node_netns.clone() } else { format!("{}-{}", self.prefix, &id[..12]) };
        let port_mappings = if host_network { Vec::new() } else { port_mappings(pod) };
        let sandbox =
            Sandbox { id, pod: PodKey::of(pod), netns, host_network, port_mappings, result: None, process: None };
        self.save(&sandbox)?;
        Ok(sandbox)
    }

    /// Writes a sandbox's state.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn save(&self, sandbox: &Sandbox) -> Result<()> {
        write_atomic(&self.path(sandbox), &serde_json::to_vec_pretty(sandbox)?)
    }

    /// Removes a sandbox's namespace, then its record.
    ///
    /// # Errors
    /// When either cannot be removed.
    pub fn remove(&self, sandbox: &Sandbox) -> Result<()> {
        if !sandbox.host_network {
            delete_netns(&sandbox.netns)?;
        }
        fs::remove_file(self.path(sandbox)).context("removing a sandbox's record")
    }

    /// The sandbox of a pod, from an earlier life of the kubelet.
    pub fn of_pod(&self, uid: &str) -> Option<Sandbox> {
        self.all().into_iter().find(|sandbox| sandbox.pod.uid == uid)
    }

    /// All sandboxes of this node.
    pub fn all(&self) -> Vec<Sandbox> {
        read_all(&self.folder)
    }

    /// All sandboxes of a lab, whatever state it is in.
    pub fn of_lab(lab_dir: &Path) -> Vec<Sandbox> {
        let homes = fs::read_dir(lab_dir).into_iter().flatten().flatten();
        homes.flat_map(|home| read_all(&home.path().join("kubelet/sandboxes"))).collect()
    }

    fn path(&self, sandbox: &Sandbox) -> PathBuf {
        self.folder.join(format!("{}.json", sandbox.id))
    }
}

fn port_mappings(pod: &Pod) -> Vec<Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &ContainerPort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let host = port.host_port.filter(|number| *number != 0)?;
        let ip = port.host_ip.as_deref().unwrap_or_default();
        Some(json!({"hostPort": host, "containerPort": port.container_port, "protocol": protocol, "hostIP": ip}))
    };
    ports.filter_map(mapping).collect()
}

fn read_all(folder: &Path) -> Vec<Sandbox> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let records =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    records.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}
