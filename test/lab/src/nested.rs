//! Nodes that are VMs on OVN hypervisors (`--mode nested`): node1 on hv1, node2 on hv2, and so on.
//!
//! ```text
//!   PREFIX-hv1, on the fabric (172.30.0.51)       PREFIX-node1, the VM
//!   br-ex, ovn-controller, br-int --- vif ========= eth0 --- breth0 (the node's addresses, 172.30.0.11)
//!             iface-id vif-node1 ---^                        pods and ovn-k8s-mp0, each with a tag
//! ```
//! VMs have a logical switch `vms` of their own, as a cloud gives it to them, with a localnet port: their addresses are on the fabric.
//! In: a layout. Out: hypervisors and VMs that a cluster can be made of. It must not make what the master makes.

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::fabric::{self, ip_batch};
use crate::layout::Layout;
use crate::options::{Options, Uplink};
use crate::{cluster, ovn, underlay};

/// The VM's port in its hypervisor.
pub const VIF: &str = "vif";
/// The bridge in a VM.
pub const BRIDGE: &str = "breth0";
/// MTU of VMs: less than the fabric's by what the hypervisors' tunnels need.
const MTU: u16 = 1400;
/// Annotation of a Node.
const PARENT_PORT: &str = "ovenbird.io/parent-port";
/// The physical network that VMs are on, and its port on their switch.
const FABRIC: &str = "vms-fabric";
/// The hypervisors' bridge on the switch with VLANs (`--underlay`).
const VLANS: &str = "br-vlans";
/// A hypervisor's number, less its VM's: as if it were a node, for its addresses.
const FIRST: u16 = 40;

/// The hypervisor of a node.
pub fn hypervisor(node: &str) -> String {
    node.replace("node", "hv")
}

/// The port of a VM in the Northbound.
pub fn parent_port(node: &str) -> String {
    format!("vif-{node}")
}

/// Checks that a lab can have VMs.
///
/// # Errors
/// Names the option that it cannot have with them.
pub fn validate(options: &Options) -> Result<()> {
    if options.uplink == Uplink::Nic || options.bare || options.tls {
        bail!("--mode nested: give none of --uplink nic, --bare, --tls with it");
    }
    if options.nodes > FIRST {
        bail!("--mode nested --nodes {}: give 1 to {FIRST}", options.nodes);
    }
    Ok(())
}

/// Starts a hypervisor with the cable to its VM, and the VM's bridge.
///
/// # Errors
/// Names the daemon or command that failed.
pub fn start(layout: &Layout, node: &str, index: u16) -> Result<()> {
    start_hypervisor(layout, node, &hypervisor(node), FIRST + index)?;
    start_vm(layout, node, index)
}

/// Boots a VM: its switch and its bridge.
///
/// # Errors
/// Names the daemon or command that failed.
pub fn start_vm(layout: &Layout, node: &str, index: u16) -> Result<()> {
    ovn::start_ovs(layout, node)?;
    fabric::bare_wire(&layout.place(node))?;
    // A MAC that differs from eth0's (see fabric::bare_wire).
    let mac = format!("other_config:hwaddr=\"02:00:ac:1e:01:{index:02x}\"");
    let mtu = format!("mtu_request={MTU}");
    let bridge = ["--", "init", "--", "--may-exist", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE];
    let nic = ["datapath_type=netdev", &mac, "--", "--may-exist", "add-port", BRIDGE, "eth0"];
    let set = ["--", "set", "interface", BRIDGE, &mtu];
    ovn::vsctl(layout, node, &[&bridge[..], &nic[..], &set[..]].concat())?;
    address_vm(layout, node, index)
}

fn address_vm(layout: &Layout, node: &str, index: u16) -> Result<()> {
    ovn::await_bridge(layout, node, BRIDGE)?;
    fabric::address(layout, node, BRIDGE, &layout.options.node_addresses(index))
}

/// Gives a VM or a hypervisor its addresses, when its switch has made its bridge anew.
///
/// # Errors
/// When the switch does not make the bridge, or there is no such host.
pub fn address(layout: &Layout, host: &str) -> Result<()> {
    let node = host.replace("hv", "node");
    let index = layout.options.index_of(&node)?;
    if node == host {
        return address_vm(layout, host, index);
    }
    ovn::await_bridge(layout, host, "br-ex")?;
    fabric::address(layout, host, "br-ex", &layout.options.node_addresses(FIRST + index))
}

fn start_hypervisor(layout: &Layout, node: &str, host: &str, number: u16) -> Result<()> {
    let addresses = layout.options.node_addresses(number);
    ovn::start_bridge(layout, host, number)?;
    fabric::address(layout, host, "br-ex", &addresses)?;
    ovn::start_controller(layout, host)?;
    fabric::bare_wire_of(&layout.place(host), VIF)?;
    let id = format!("external_ids:iface-id={}", parent_port(node));
    let bridge = ["--", "--may-exist", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev"];
    let port = ["fail_mode=secure", "--", "--may-exist", "add-port", "br-int", VIF, "--", "set", "interface", VIF, &id];
    ovn::vsctl(layout, host, &[&bridge[..], &port[..]].concat())?;
    if !layout.options.has_vlans() {
        return Ok(());
    }
    fabric::bare_wire_of(&layout.place(host), underlay::NIC)?;
    let bridge = ["--", "--may-exist", "add-br", VLANS, "--", "set", "bridge", VLANS, "datapath_type=netdev"];
    ovn::vsctl(layout, host, &[&bridge[..], &["--", "--may-exist", "add-port", VLANS, underlay::NIC]].concat())
}

/// Lays the cable between a VM and its hypervisor; their namespaces must be there.
///
/// # Errors
/// What `ip` said.
pub fn connect(layout: &Layout, node: &str) -> Result<()> {
    fabric::prepare_host(&layout.place(node))?;
    let vm = layout.netns(node);
    let script = format!("link add {VIF} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {vm}\n");
    ip_batch(&layout.place(&hypervisor(node)), &script)
}

/// The same of a VM that boots: its hypervisor's switch has the port, and waits for the link.
///
/// # Errors
/// What `ip` said.
pub fn reconnect(layout: &Layout, node: &str) -> Result<()> {
    connect(layout, node)?;
    fabric::bare_wire_of(&layout.place(&hypervisor(node)), VIF)
}

/// Takes the cable away.
///
/// # Errors
/// What `ip` said.
pub fn disconnect(layout: &Layout, node: &str) -> Result<()> {
    layout.place(&hypervisor(node)).output(&["ip", "link", "delete", VIF]).map(drop)
}

/// On a hypervisor nobody of ours does what a node daemon does of a node (the README's "Open vSwitch 3.1.0 in user space"): without it, flushing
/// connections ends ovs-vswitchd there.
fn hide_zero_snat(layout: &Layout, host: &str) -> Result<()> {
    let place = layout.ovn_place(host);
    let db = format!("--db={}", layout.ovs(host));
    // ovn-controller makes the row, and vswitchd says in it what it can do.
    let vsctl = |args: &[&str]| place.output(&[&["ovs-vsctl", "--timeout=30", &db], args].concat());
    vsctl(&["wait-until", "open_vswitch", ".", "datapaths:netdev!=[]"])?;
    let row = vsctl(&["get", "open_vswitch", ".", "datapaths:netdev"])?;
    vsctl(&["wait-until", "datapath", row.trim(), "capabilities:ct_zero_snat=\"true\""])?;
    vsctl(&["set", "datapath", row.trim(), "capabilities:ct_zero_snat=\"false\""]).map(drop)
}

/// What whoever makes VMs does: their ports in the Northbound, and the Nodes' annotations that name these.
///
/// # Errors
/// When the Northbound or the API server refuses it.
pub async fn define(layout: &Layout) -> Result<()> {
    let nodes = layout.options.node_names();
    // Not before there is a Southbound, like everybody (see `ovn::start_central`).
    for (node, number) in nodes.iter().zip(FIRST + 1..) {
        ovn::set_chassis(layout, &hypervisor(node), number)?;
        // As whoever runs the hypervisors puts them on the VLANs.
        let vlans = if layout.options.has_vlans() { format!(",{}:{VLANS}", underlay::PROVIDER) } else { String::new() };
        let mapping = format!("external_ids:ovn-bridge-mappings=\"{FABRIC}:br-ex{vlans}\"");
        ovn::vsctl(layout, &hypervisor(node), &["set", "open_vswitch", ".", &mapping])?;
        hide_zero_snat(layout, &hypervisor(node))?;
    }
    let mut command = format!(
        "-- --may-exist ls-add vms -- --may-exist lsp-add vms {FABRIC} -- lsp-set-type {FABRIC} localnet \
         -- lsp-set-addresses {FABRIC} unknown -- lsp-set-options {FABRIC} network_name={FABRIC}"
    );
    for port in nodes.iter().map(|node| parent_port(node)) {
        command += &format!(" -- --may-exist lsp-add vms {port} -- lsp-set-addresses {port} unknown");
    }
    let db = format!("--db={}", layout.nb());
    let argv: Vec<&str> = ["ovn-nbctl", "--timeout=30", &db].into_iter().chain(command.split(' ')).collect();
    layout.ovn_place("central").output(&argv).context("making the VMs' ports")?;
    let client = cluster::connect(&layout.kubeconfig()).await?;
    for node in nodes {
        let annotations = json!({PARENT_PORT: parent_port(&node)});
        let metadata = json!({"name": node, "annotations": annotations});
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
        cluster::apply(&client, &object.to_string()).await?;
    }
    Ok(())
}
