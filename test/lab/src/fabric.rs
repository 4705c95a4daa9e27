//! The machine room: namespaces, and the bridge that joins them.
//!
//! ```text
//!   PREFIX-fabric:   bridge `fabric`  --+-- central --> eth0 in PREFIX-central (172.30.0.1, fd30::1)
//!                                       +-- node1   --> eth0 in PREFIX-node1, a port of br-ex (172.30.0.11, fd30::11)
//!                                       +-- outside --> eth0 in PREFIX-outside (172.30.0.5, fd30::5; behind central 203.0.113.5,
//!                                       |               2001:db8::5): a host that knows nothing of the cluster
//!                                       +-- ...
//! ```
//! Nothing is made in, or changed about, the machine's root namespace.
//! In: a layout. Out: namespaces with links. It must not know OVS or OVN.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::nested;
use crate::options::{Mode, fabric_prefix};
use crate::place::{Place, create_netns};

/// Makes all namespaces, the fabric bridge and a cable from it to each.
///
/// # Errors
/// Names the namespace or the `ip` command that failed.
pub fn build(layout: &Layout) -> Result<()> {
    for name in layout.namespaces() {
        create_netns(&name)?;
    }
    let fabric = layout.place("fabric");
    set_sysctls(&fabric, &[("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")])?;
    ip_batch(&fabric, "link add fabric type bridge mcast_snooping 0\nlink set fabric up\n")?;
    let others = ["central", "outside"].map(str::to_owned);
    let nodes = layout.options.node_names();
    if layout.options.mode == Mode::Nested {
        let hosts = nodes.iter().map(|node| nested::hypervisor(node));
        others.into_iter().chain(hosts).try_for_each(|name| connect(layout, &name))?;
        nodes.iter().try_for_each(|node| nested::connect(layout, node))?;
    } else {
        others.into_iter().chain(nodes).try_for_each(|name| connect(layout, &name))?;
    }
    let options = &layout.options;
    let mut to_beyond = String::new();
    let mut out = String::new();
    for ((beyond, outside), central) in
        options.beyond_addresses().iter().zip(options.outside_addresses()).zip(options.central_addresses())
    {
        writeln!(to_beyond, "route replace {beyond} via {outside} dev eth0")?;
        writeln!(out, "address replace {beyond} dev lo\nroute replace default via {central} dev eth0")?;
    }
    plug_in(&layout.place("central"), &options.central_addresses(), &to_beyond)?;
    plug_in(&layout.place("outside"), &options.outside_addresses(), &out)
}

/// Brings up a host's end of its cable, which serves its own stack.
fn plug_in(host: &Place, addresses: &[IpAddr], and_then: &str) -> Result<()> {
    // Its TCP leaves through userspace switches, which pass on packets as they are: checksums must be complete.
    host.output(&["ethtool", "-K", "eth0", "tx", "off"])?;
    ip_batch(host, &format!("link set eth0 up\n{}{and_then}", add_addresses("eth0", addresses)))
}

/// Lays a host's cable to the fabric; its namespace must be there.
///
/// # Errors
/// Names the `ip` command that failed.
pub fn connect(layout: &Layout, name: &str) -> Result<()> {
    prepare_host(&layout.place(name))?;
    let netns = layout.netns(name);
    let script = format!("link add {name} type veth peer name eth0 netns {netns}\nlink set {name} master fabric up\n");
    ip_batch(&layout.place("fabric"), &script)
}

/// Pulls a host's cable.
///
/// # Errors
/// What `ip` said.
pub fn disconnect(layout: &Layout, name: &str) -> Result<()> {
    layout.place("fabric").output(&["ip", "link", "delete", name]).map(drop)
}

/// Gives a host its addresses on a bridge, which OVS has just made, and a default route to the central namespace.
///
/// # Errors
/// Names the `ip` command that failed.
pub fn address(layout: &Layout, host: &str, bridge: &str, addresses: &[IpAddr]) -> Result<()> {
    let addresses = add_addresses(bridge, addresses);
    ip_batch(&layout.place(host), &format!("link set {bridge} up\n{addresses}{}", default_routes(layout, bridge)))
}

/// Gives a node its addresses on its NIC and a default route to the central namespace.
///
/// # Errors
/// Names the command that failed.
pub fn plug_in_node(layout: &Layout, node: &str, addresses: &[IpAddr]) -> Result<()> {
    plug_in(&layout.place(node), addresses, &default_routes(layout, "eth0"))
}

fn default_routes(layout: &Layout, device: &str) -> String {
    let line = |gateway: IpAddr| format!("route replace default via {gateway} dev {device}\n");
    layout.options.central_addresses().into_iter().map(line).collect()
}

/// Turns a node's end of its cable into a bare wire: OVS alone serves it. Were the host's stack to serve it too, every
/// request would be answered twice.
///
/// # Errors
/// Names the step that failed.
pub fn bare_wire(node: &Place) -> Result<()> {
    bare_wire_of(node, "eth0")
}

/// The same of another link.
///
/// # Errors
/// Names the step that failed.
pub fn bare_wire_of(host: &Place, link: &str) -> Result<()> {
    set_sysctls(host, &[(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")])?;
    ip_batch(host, &format!("link set {link} arp off\nlink set {link} up\n"))
}

/// What any Kubernetes host has: forwarding. And IPv6 addresses that work at once, without duplicate detection.
///
/// # Errors
/// When a setting cannot be written.
pub fn prepare_host(place: &Place) -> Result<()> {
    set_sysctls(
        place,
        &[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ],
    )
}

fn add_addresses(device: &str, addresses: &[IpAddr]) -> String {
    let line = |address: &IpAddr| format!("address replace {address}/{} dev {device}\n", fabric_prefix(address));
    addresses.iter().map(line).collect()
}

fn set_sysctls(place: &Place, values: &[(&str, &str)]) -> Result<()> {
    place.run(|| {
        values.iter().try_for_each(|(name, value)| {
            fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("setting {name}={value}"))
        })
    })
}

/// Runs many `ip` commands in one process.
///
/// # Errors
/// What `ip` said, with the number of the line.
pub fn ip_batch(place: &Place, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = place.spawn(&mut command)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).context("feeding ip -batch")?;
    }
    let output = child.wait_with_output().context("waiting for ip -batch")?;
    if !output.status.success() {
        bail!("ip -batch in {:?}: {}\n{script}", place.netns, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
