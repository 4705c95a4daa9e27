//! A physical network beside the fabric (`--underlay`): a switch with VLANs, on which every node has a second NIC.
//!
//! ```text
//!   PREFIX-underlay:   bridge `switch` --+-- node1   == trunk ==  eth1 in PREFIX-node1, bare: no addresses, down
//!   (an OVS of its own)                  +-- node2   == trunk ==  eth1 in PREFIX-node2
//!                                        +-- vlan100 -- access -- vlan100 in PREFIX-outside, without addresses, up
//!                                        +-- vlan200 -- access -- vlan200 in PREFIX-outside
//! ```
//! OVS, for the kernel's bridge need not know VLANs. In: a layout. Out: a switch that forwards. It must not know who uses which VLAN.

use anyhow::{Context, Result};

use crate::fabric::ip_batch;
use crate::layout::Layout;
use crate::ovn;

/// The namespace of the switch, and the home of its OVS.
pub const PLACE: &str = "underlay";
/// The VLANs that lead to the host outside.
pub const VLANS: [u16; 2] = [100, 200];
/// The nodes' NICs on it.
pub const NIC: &str = "eth1";
/// The definitions of what may be on it.
const CRDS: &str = include_str!("../../../deploy/crds.yaml");

/// Lays the cables and starts the switch; the namespaces must be there.
///
/// # Errors
/// Names the command that failed, or the daemon that does not come up.
pub fn start(layout: &Layout) -> Result<()> {
    let (place, outside) = (layout.place(PLACE), layout.netns("outside"));
    let nodes = layout.options.node_names();
    let trunks = nodes.iter().map(|node| (node.clone(), NIC.to_owned(), layout.netns(node)));
    let access = VLANS.map(|vlan| (format!("vlan{vlan}"), format!("vlan{vlan}"), outside.clone()));
    let mut script = String::new();
    for (here, there, netns) in trunks.chain(access) {
        script += &format!("link add {here} type veth peer name {there} netns {netns}\nlink set {here} arp off up\n");
    }
    ip_batch(&place, &script)?;
    for vlan in VLANS.map(|vlan| format!("vlan{vlan}")) {
        // As on the fabric: its packets pass userspace switches.
        layout.place("outside").output(&["ethtool", "-K", &vlan, "tx", "off"])?;
        ip_batch(&layout.place("outside"), &format!("link set {vlan} up\n"))?;
    }
    ovn::start_ovs(layout, PLACE)?;
    let mut commands = vec!["add-br switch -- set bridge switch datapath_type=netdev".to_owned()];
    commands.extend(nodes.iter().map(|node| format!("add-port switch {node}")));
    commands.extend(VLANS.map(|vlan| format!("add-port switch vlan{vlan} tag={vlan}")));
    let command = format!("-- {}", commands.join(" -- "));
    let words: Vec<&str> = command.split(' ').collect();
    ovn::vsctl(layout, PLACE, &words).context("configuring the switch with VLANs")
}

/// Makes the kinds of objects known to the lab's API server that say who is on it.
///
/// # Errors
/// When it refuses them.
pub async fn define(layout: &Layout) -> Result<()> {
    let client = crate::cluster::connect(&layout.kubeconfig()).await?;
    crate::cluster::apply(&client, CRDS).await.map(drop)
}
