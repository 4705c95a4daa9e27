//! What a lab is asked to be, and the addresses that follow from it.
//!
//! In: command line or a test. Out: a validated plan of names and addresses. It must not touch the system.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::nested;

/// Where the lab lives unless told otherwise.
pub const DEFAULT_DIR: &str = "/run/ovenbird-lab";
/// More nodes than one machine carries.
const MAX_NODES: u16 = 100;

/// IP families of nodes and pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

impl Family {
    /// Whether IPv4 is in it.
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }

    /// Whether IPv6 is in it.
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }

    fn contains(self, address: &IpAddr) -> bool {
        if address.is_ipv4() { self.has_v4() } else { self.has_v6() }
    }
}

/// How packets travel between nodes (ovn-controller(8), `ovn-encap-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Encap {
    /// RFC 8926, UDP port 6081.
    Geneve,
    /// RFC 7348, UDP port 4789.
    Vxlan,
}

impl fmt::Display for Encap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Geneve { "geneve" } else { "vxlan" })
    }
}

/// The network of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Mode {
    /// OVN's.
    #[default]
    Overlay,
    /// kbr0 and obr0, without OVN: no central databases, no ovn-controller.
    Classic,
    /// OVN's, and all pods are on a VLAN of the physical network that `--underlay` makes, which this mode asks for by itself.
    Underlay,
    /// OVN's, and nodes are VMs on hypervisors: it is there, and not in the nodes.
    Nested,
}

impl Mode {
    /// The network mode as the API knows it.
    pub fn api(self) -> ovenbird_api::mode::Mode {
        use ovenbird_api::mode::Mode;
        match self {
            Self::Overlay => Mode::Overlay,
            Self::Classic => Mode::Classic,
            Self::Underlay => Mode::Underlay,
            Self::Nested => Mode::Nested,
        }
    }

    /// What the daemons are told with `--network-mode`, the master first.
    pub fn network_modes(self) -> [&'static str; 2] {
        match self {
            Self::Overlay => ["overlay", "overlay"],
            Self::Underlay => ["underlay", "underlay"],
            Self::Classic => ["classic", "classic"],
            // VMs are nodes of an overlay.
            Self::Nested => ["overlay", "nested"],
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Classic => "classic",
            Self::Underlay => "underlay",
            Self::Nested => "nested",
        })
    }
}

/// How the Northbound and the Southbound are served (ovsdb(7), "Service Models").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum ServiceModel {
    /// One server for each: components `central/nb` and `central/sb`.
    #[default]
    Standalone,
    /// Three for each, joined into a cluster: `central/nb1` to `central/nb3`, `central/sb1` to `central/sb3`.
    Raft,
}

/// What a node's uplink is before Ovenbird comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Uplink {
    /// In a bridge `br-ex`, as an operator prepares it.
    #[default]
    Bridge,
    /// A NIC `eth0` with the node's addresses, which the node daemon takes over into `breth0`.
    Nic,
}

/// Which API server the lab talks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Api {
    /// The lab's own stand-in, `ovenbird-apiserver`.
    Embedded,
    /// Real Kubernetes, built by `make kube-build`: control plane, and on each node containerd and kubelet.
    Real,
    /// One that runs already; its address must be reachable from the machine's root namespace.
    Kubeconfig(PathBuf),
}

impl FromStr for Api {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "embedded" => Self::Embedded,
            "real" => Self::Real,
            path => Self::Kubeconfig(path.into()),
        })
    }
}

/// What to build.
#[derive(Clone, Debug, Serialize, Deserialize, Args)]
pub struct Options {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NODES)))]
    pub nodes: u16,
    /// Network of the cluster
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub mode: Mode,
    /// IP families of nodes and pods
    #[arg(long, value_enum, default_value_t = Family::Dual)]
    pub family: Family,
    /// Encapsulation between nodes
    #[arg(long, value_enum, default_value_t = Encap::Geneve)]
    pub encap: Encap,
    /// `embedded`, `real` (real Kubernetes on every node, after `make kube-build`), or the kubeconfig of an API server that runs already
    #[arg(long, default_value = "embedded")]
    pub api: Api,
    /// A tree made by debootstrap whose OVN and OVS daemons run instead of the machine's
    #[arg(long, value_name = "DIR")]
    pub ovn: Option<PathBuf>,
    /// How the Northbound and the Southbound are served
    #[arg(long, value_enum, default_value_t)]
    pub databases: ServiceModel,
    /// The Northbound and the Southbound by ssl: over the network, with certificates that the lab makes
    #[arg(long)]
    pub tls: bool,
    /// Number of masters (one leads, the others wait)
    #[arg(long, default_value_t = 1)]
    pub masters: u16,
    /// What a node's uplink is before Ovenbird comes
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub uplink: Uplink,
    /// A second NIC on every node, on a switch with VLANs
    #[arg(long)]
    #[serde(default)]
    pub underlay: bool,
    /// Services are kube-proxy's, which runs on every node, and not the node daemons'; for --mode classic on --api real
    #[arg(long)]
    #[serde(default)]
    pub kube_proxy: bool,
    /// Pod networks, CIDR/PREFIX-PER-NODE, one per family
    #[arg(long, value_name = "CIDRS")]
    pub cluster_subnets: Option<String>,
    /// A further argument for every master, e.g. --master-arg=--disable-snat
    #[arg(long = "master-arg", value_name = "ARG", allow_hyphen_values = true)]
    #[serde(default)]
    pub master_args: Vec<String>,
    /// A further argument for every node daemon, e.g. --node-arg=--gateway-mode=local
    #[arg(long = "node-arg", value_name = "ARG", allow_hyphen_values = true)]
    #[serde(default)]
    pub node_args: Vec<String>,
    /// Folder of ovenbird-master, ovenbird-node, ovenbird-cni, ovenbird-apiserver (default: next to this program)
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// OVS, OVN and the API server only: no Ovenbird daemon, no kubelet; the lab sets the chassis up itself
    #[arg(long)]
    pub bare: bool,
    /// The lab's folder; its last part names the lab's namespaces
    #[arg(skip)]
    pub dir: PathBuf,
    /// Nodes that were given other addresses than their number's: the host part on the fabric
    #[arg(skip)]
    #[serde(default)]
    pub moved: BTreeMap<String, u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            mode: Mode::default(),
            family: Family::Dual,
            encap: Encap::Geneve,
            api: Api::Embedded,
            ovn: None,
            databases: ServiceModel::Standalone,
            tls: false,
            masters: 1,
            uplink: Uplink::default(),
            underlay: false,
            kube_proxy: false,
            cluster_subnets: None,
            master_args: Vec::new(),
            node_args: Vec::new(),
            bin_dir: None,
            bare: false,
            dir: DEFAULT_DIR.into(),
            moved: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// Names the option and what to give instead.
    pub fn validate(&self) -> Result<()> {
        if self.nodes == 0 || self.nodes > MAX_NODES {
            bail!("--nodes {}: give 1 to {MAX_NODES}", self.nodes);
        }
        if !self.dir.is_absolute() {
            bail!("--dir {}: give an absolute path", self.dir.display());
        }
        if let Some(tree) = &self.ovn
            && !tree.join("usr/bin/ovn-controller").exists()
        {
            bail!(
                "--ovn {}: no usr/bin/ovn-controller in it; give a debootstrap tree with ovn-central, ovn-host and openvswitch-switch",
                tree.display()
            );
        }
        if self.kube_proxy && (self.mode != Mode::Classic || self.api != Api::Real) {
            bail!(
                "--kube-proxy: OVN serves Services itself, and a lab without kubelets has none: give --mode classic --api real"
            );
        }
        if self.mode == Mode::Nested {
            nested::validate(self)?;
        }
        if self.mode == Mode::Underlay && self.bare {
            bail!("--mode underlay --bare: somebody must put the pods on the VLAN; give --underlay --bare");
        }
        self.prefix().map(drop)
    }

    /// Whether there is a physical network with VLANs.
    pub fn has_vlans(&self) -> bool {
        self.underlay || self.mode == Mode::Underlay
    }

    /// What the lab's namespaces are called before the dash: the last part of its folder.
    ///
    /// # Errors
    /// When the folder's name is not usable as part of a file name.
    pub fn prefix(&self) -> Result<&str> {
        self.dir.file_name().and_then(|name| name.to_str()).context("--dir: its last part must be a plain name")
    }

    /// The pod networks, in the syntax of `--cluster-subnets`.
    pub fn cluster_subnets(&self) -> String {
        match &self.cluster_subnets {
            Some(given) => given.clone(),
            None => match self.family {
                Family::V4 => "10.244.0.0/16/24".into(),
                Family::V6 => "fd00:10:244::/48/64".into(),
                Family::Dual => "10.244.0.0/16/24,fd00:10:244::/48/64".into(),
            },
        }
    }

    /// The Service networks, in the syntax of `--service-cluster-ip-range`.
    pub fn service_cidrs(&self) -> &'static str {
        match self.family {
            Family::V4 => "10.96.0.0/16",
            Family::V6 => "fd00:10:96::/112",
            Family::Dual => "10.96.0.0/16,fd00:10:96::/112",
        }
    }

    /// Node names: `node1` and so on.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|index| format!("node{index}")).collect()
    }

    /// A node's number.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn index_of(&self, node: &str) -> Result<u16> {
        let (names, mut indices) = (self.node_names(), 1..);
        names
            .iter()
            .zip(&mut indices)
            .find(|(name, _)| *name == node)
            .map(|(_, index)| index)
            .with_context(|| format!("no node {node}: there are {}", names.join(", ")))
    }

    /// Addresses of a node on the fabric, IPv4 first: node 1 is 172.30.0.11 and fd30::11, unless it has moved.
    pub fn node_addresses(&self, index: u16) -> Vec<IpAddr> {
        self.fabric_addresses(self.moved.get(&format!("node{index}")).copied().unwrap_or(10 + index))
    }

    /// Addresses of the central namespace on the fabric: 172.30.0.1 and fd30::1. Also the nodes' default gateway.
    pub fn central_addresses(&self) -> Vec<IpAddr> {
        self.fabric_addresses(1)
    }

    /// Addresses on the fabric of the place `outside`, a host that is no node: 172.30.0.5 and fd30::5.
    pub fn outside_addresses(&self) -> Vec<IpAddr> {
        self.fabric_addresses(5)
    }

    /// Addresses of `outside` beyond the fabric, reached through nodes' default routes: 203.0.113.5 and 2001:db8::5.
    pub fn beyond_addresses(&self) -> Vec<IpAddr> {
        let all = [IpAddr::from([203, 0, 113, 5]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 5u16])];
        all.into_iter().filter(|address| self.family.contains(address)).collect()
    }

    /// Host part in decimal digits for both families, so that a person sees the node in either.
    fn fabric_addresses(&self, host: u16) -> Vec<IpAddr> {
        let texts = [format!("172.30.0.{host}"), format!("fd30::{host}")];
        texts.iter().filter_map(|text| text.parse().ok()).filter(|address| self.family.contains(address)).collect()
    }
}

/// Prefix length of the fabric's network in an address's family.
pub fn fabric_prefix(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}
