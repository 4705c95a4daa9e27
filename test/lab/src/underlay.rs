//! A physical network beside the fabric (`--underlay`): a switch with VLANs, on which every node has a second NIC.
//!
//! ```text
//!   PREFIX-underlay:   bridge `switch` --+-- node1   == trunk ==  eth1 in PREFIX-node1, bare: no addresses, down
//!   (an OVS of its own)                  +-- node2   == trunk ==  eth1 in PREFIX-node2
//!                                        +-- vlan100 -- access -- vlan100 in PREFIX-outside, without addresses, up
//!                                        +-- vlan200 -- access -- vlan200 in PREFIX-outside
//! ```
//! OVS, for the kernel's bridge need not know VLANs. `--mode underlay` puts all pods on VLAN 100, as the cluster's default Network.
//! In: a layout. Out: a switch that forwards; objects that say who is on it. It must not make what the master or a node daemon makes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::{Condition, await_condition};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cluster;
use crate::fabric::ip_batch;
use crate::layout::Layout;
use crate::options::Mode;
use crate::{nested, ovn};

/// The namespace of the switch, and the home of its OVS.
pub const PLACE: &str = "underlay";
/// The VLANs that lead to the host outside.
pub const VLANS: [u16; 2] = [100, 200];
/// The nodes' NICs on it.
pub const NIC: &str = "eth1";
/// The ProviderNetwork, and the Network of all pods, of `--mode underlay`.
pub const PROVIDER: &str = "fabric";
/// See `PROVIDER`.
pub const DEFAULT: &str = "v100";
/// See `subnets`.
const SUBNETS: [(&str, &str); 2] = [("192.168.100.0/24", "192.168.100.1"), ("fd00:100::/64", "fd00:100::1")];
/// The definitions of what may be on it.
const CRDS: &str = include_str!("../../../deploy/crds.yaml");
/// How long the API server may take for a kind, and the daemons for a network.
const LIMIT: Duration = Duration::from_secs(60);

/// Lays the cables and starts the switch; the namespaces must be there.
///
/// # Errors
/// Names the command that failed, or the daemon that does not come up.
pub fn start(layout: &Layout) -> Result<()> {
    let (place, outside) = (layout.place(PLACE), layout.netns("outside"));
    let hosts = hosts(layout);
    hosts.iter().try_for_each(|host| connect(layout, host))?;
    for vlan in VLANS.map(|vlan| format!("vlan{vlan}")) {
        ip_batch(&place, &cable(&vlan, &vlan, &outside))?;
        // As on the fabric: its packets pass userspace switches.
        layout.place("outside").output(&["ethtool", "-K", &vlan, "tx", "off"])?;
        ip_batch(&layout.place("outside"), &format!("link set {vlan} up\n"))?;
    }
    ovn::start_ovs(layout, PLACE)?;
    let mut commands = vec!["add-br switch -- set bridge switch datapath_type=netdev".to_owned()];
    commands.extend(hosts.iter().map(|host| format!("add-port switch {host}")));
    commands.extend(VLANS.map(|vlan| format!("add-port switch vlan{vlan} tag={vlan}")));
    let command = format!("-- {}", commands.join(" -- "));
    let words: Vec<&str> = command.split(' ').collect();
    ovn::vsctl(layout, PLACE, &words).context("configuring the switch with VLANs")
}

/// Who has a NIC on it: nodes, or where these are VMs their hypervisors.
fn hosts(layout: &Layout) -> Vec<String> {
    let nodes = layout.options.node_names();
    if layout.options.mode != Mode::Nested {
        return nodes;
    }
    nodes.iter().map(|node| nested::hypervisor(node)).collect()
}

/// Lays a host's cable to the switch; its namespace must be there.
///
/// # Errors
/// What `ip` said.
pub fn connect(layout: &Layout, host: &str) -> Result<()> {
    ip_batch(&layout.place(PLACE), &cable(host, NIC, &layout.netns(host)))
}

/// The same of a node that boots: in user space a switch holds on to the link that is gone.
///
/// # Errors
/// What `ip` or `ovs-vsctl` said.
pub fn reconnect(layout: &Layout, node: &str) -> Result<()> {
    connect(layout, node)?;
    ovn::vsctl(layout, PLACE, &["--", "--if-exists", "del-port", node])
        .and_then(|()| ovn::vsctl(layout, PLACE, &["--", "add-port", "switch", node]))
        .context("plugging a node into the switch with VLANs")
}

/// Pulls it, though something may still hold the node's namespace.
///
/// # Errors
/// What `ip` said.
pub fn disconnect(layout: &Layout, node: &str) -> Result<()> {
    layout.place(PLACE).output(&["ip", "link", "delete", node]).map(drop)
}

fn cable(here: &str, there: &str, netns: &str) -> String {
    format!("link add {here} type veth peer name {there} netns {netns}\nlink set {here} arp off up\n")
}

/// Makes the kinds of objects known to the lab's API server that say who is on it.
///
/// # Errors
/// When it refuses them.
pub async fn define(layout: &Layout) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    cluster::apply(&client, CRDS).await?;
    for name in ["providernetworks.ovenbird.io", "networks.ovenbird.io"] {
        within(Api::<CustomResourceDefinition>::all(client.clone()), name, is_crd_established()).await?;
    }
    Ok(())
}

/// Puts the pods of all namespaces on VLAN 100: before there are any, and before the daemons.
///
/// # Errors
/// When the API server refuses the objects.
pub async fn put_pods_on(layout: &Layout) -> Result<()> {
    let (subnets, routers): (Vec<_>, Vec<_>) = subnets(layout).unzip();
    let network = json!({
        "providerNetwork": PROVIDER, "vlan": VLANS[0], "subnets": subnets, "gateway": {"ovn": routers}, "default": true,
    });
    let manifest = provider() + &object("Network", DEFAULT, &network);
    let client = cluster::connect(&layout.kubeconfig()).await?;
    cluster::apply(&client, &manifest).await.map(drop)
}

/// The subnets of the default Network, each with the address of OVN's router there.
pub fn subnets(layout: &Layout) -> impl Iterator<Item = (&'static str, &'static str)> {
    let family = layout.options.family;
    SUBNETS.into_iter().filter(move |(net, _)| if net.contains(':') { family.has_v6() } else { family.has_v4() })
}

/// The physical network, on which all nodes are by [`NIC`].
pub fn provider() -> String {
    object("ProviderNetwork", PROVIDER, &json!({"mtu": 1500, "nodes": [{"interface": NIC}]}))
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    let object = json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    format!("---\n{object}\n")
}

/// Waits until all nodes are on the physical network, and all Networks in effect as they now are.
///
/// # Errors
/// Names what is not, with its status.
pub async fn ready(layout: &Layout) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    let nodes = layout.options.node_names();
    let here = |provider: Option<&DynamicObject>| {
        provider
            .is_some_and(|provider| nodes.iter().all(|node| provider.data["status"]["nodes"][node]["ready"] == true))
    };
    // Where nodes are VMs, it is their hypervisors that are on it.
    if layout.options.mode != Mode::Nested {
        within(api(&client, "ProviderNetwork"), PROVIDER, here).await?;
    }
    let networks = api(&client, "Network");
    for network in networks.list(&ListParams::default()).await.context("listing Networks")? {
        let accepted = |network: Option<&DynamicObject>| {
            let Some(network) = network else { return false };
            let conditions = network.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let of_now = |c: &&Value| c["observedGeneration"].as_i64() == network.metadata.generation;
            conditions.iter().filter(of_now).any(|c| c["status"] == "True")
        };
        within(networks.clone(), network.metadata.name.as_deref().unwrap_or_default(), accepted).await?;
    }
    Ok(())
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let (group, version) = ("ovenbird.io".to_owned(), "v1alpha1".to_owned());
    let plural = format!("{}s", kind.to_lowercase());
    let api_version = format!("{group}/{version}");
    Api::all_with(client.clone(), &ApiResource { api_version, group, version, kind: kind.into(), plural })
}

async fn within<K>(api: Api<K>, name: &str, wanted: impl Condition<K>) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + serde::Serialize + 'static,
{
    match timeout(LIMIT, await_condition(api.clone(), name, wanted)).await {
        Ok(seen) => seen.map(drop).with_context(|| format!("watching {name}")),
        Err(_) => {
            let now = api.get(name).await.with_context(|| format!("reading {name}"))?;
            bail!("{name} is not as it should be after {LIMIT:?}: {}", serde_json::to_string(&now).unwrap_or_default())
        }
    }
}
