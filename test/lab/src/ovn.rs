//! OVS and OVN, as a distribution's service files would run them: one central set, and one set per node.
//!
//! ```text
//!   central: ovsdb-server NB (unix, tcp 6641), ovsdb-server SB (unix, tcp 6642), ovn-northd
//!   node:    ovsdb-server (conf.db), ovs-vswitchd, br-ex with eth0 inside, ovn-controller
//! ```
//! All bridges use the userspace datapath: the kernel needs no openvswitch module.
//! In: a layout. Out: running, reachable daemons. It must not write Northbound rows, nor chassis settings unless the lab is bare.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fabric;
use crate::layout::{Layout, NB_PORT, SB_PORT};
use crate::process::{Spec, wait_for};

const START_LIMIT: Duration = Duration::from_secs(30);
/// Daemons log to stderr, which the lab keeps per process.
const LOGGING: [&str; 3] = ["-vconsole:info", "-vsyslog:off", "--pidfile"];

/// Starts the Northbound and Southbound servers and northd.
///
/// # Errors
/// Names the daemon that does not come up.
pub fn start_central(layout: &Layout) -> Result<()> {
    for (database, schema, port) in [("nb", "OVN_Northbound", NB_PORT), ("sb", "OVN_Southbound", SB_PORT)] {
        let home = layout.home("central");
        let file = home.join(format!("ovn{database}.db"));
        create_database(layout, &file, &format!("/usr/share/ovn/ovn-{database}.ovsschema"))?;
        let argv = [
            "ovsdb-server".to_owned(),
            file.display().to_string(),
            format!("--remote=punix:{}", home.join(format!("ovn{database}_db.sock")).display()),
            format!("--remote=db:{schema},{}_Global,connections", database.to_uppercase()),
            format!("--remote=ptcp:{port}:[::]"),
            format!("--unixctl={}", home.join(format!("ovn{database}_db.ctl")).display()),
            format!("--pidfile={}", home.join(format!("ovn{database}_db.pid")).display()),
        ];
        start(
            layout,
            "central",
            &format!("central/{database}"),
            argv.into_iter().chain(LOGGING[..2].iter().map(ToString::to_string)),
        )?;
    }
    for database in ["nb", "sb"] {
        await_socket(
            layout,
            &format!("central/{database}"),
            &layout.home("central").join(format!("ovn{database}_db.sock")),
        )?;
    }
    let argv = ["ovn-northd".to_owned(), format!("--ovnnb-db={}", layout.nb()), format!("--ovnsb-db={}", layout.sb())];
    start(layout, "central", "central/northd", argv.into_iter().chain(LOGGING.map(Into::into)))
}

/// Starts a node's switch and makes `br-ex` with the uplink inside and the node's addresses on it.
///
/// # Errors
/// Names the daemon or command that failed.
pub fn start_switch(layout: &Layout, node: &str, index: u16) -> Result<()> {
    let home = layout.home(node);
    create_database(layout, &home.join("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")?;
    let socket = home.join("db.sock");
    let argv = [
        "ovsdb-server".to_owned(),
        home.join("conf.db").display().to_string(),
        format!("--remote=punix:{}", socket.display()),
        "--remote=db:Open_vSwitch,Open_vSwitch,manager_options".into(),
    ];
    start(layout, node, &format!("{node}/ovsdb"), argv.into_iter().chain(LOGGING.map(Into::into)))?;
    await_socket(layout, &format!("{node}/ovsdb"), &socket)?;
    let argv = ["ovs-vswitchd".to_owned(), "--disable-system".into(), layout.ovs(node)];
    start(layout, node, &format!("{node}/vswitchd"), argv.into_iter().chain(LOGGING.map(Into::into)))?;
    fabric::bare_wire(&layout.place(node))?;
    // A MAC that differs from eth0's (see fabric::bare_wire).
    let mac = format!("02:00:ac:1e:00:{:02x}", 10 + index);
    // Without --no-wait it returns when vswitchd has made the bridge.
    vsctl(
        layout,
        node,
        &[
            "--",
            "init",
            "--",
            "set",
            "open_vswitch",
            ".",
            &format!("external_ids:system-id={node}"),
            &format!("external_ids:hostname={node}"),
            "external_ids:ovn-bridge-datapath-type=netdev",
            "--",
            "add-br",
            "br-ex",
            "--",
            "set",
            "bridge",
            "br-ex",
            "datapath_type=netdev",
            &format!("other_config:hwaddr=\"{mac}\""),
            "--",
            "add-port",
            "br-ex",
            "eth0",
        ],
    )?;
    fabric::address_node(layout, node, &layout.options.node_addresses(index))
}

/// Starts ovn-controller. What it should do it reads from Open_vSwitch, as the node daemon writes it.
///
/// # Errors
/// When it cannot be started.
pub fn start_controller(layout: &Layout, node: &str) -> Result<()> {
    let argv = ["ovn-controller".to_owned(), layout.ovs(node)];
    start(layout, node, &format!("{node}/ovn-controller"), argv.into_iter().chain(LOGGING.map(Into::into)))
}

/// In a bare lab: the chassis settings that the node daemon would write.
///
/// # Errors
/// When ovs-vsctl fails.
pub fn set_chassis(layout: &Layout, node: &str, index: u16) -> Result<()> {
    let address = *layout.options.node_addresses(index).first().context("the node has no address")?;
    vsctl(
        layout,
        node,
        &[
            "set",
            "open_vswitch",
            ".",
            &format!("external_ids:ovn-remote=\"{}\"", layout.sb_over_fabric()?),
            &format!("external_ids:ovn-encap-type={}", layout.options.encap),
            &format!("external_ids:ovn-encap-ip=\"{address}\""),
        ],
    )
}

fn vsctl(layout: &Layout, node: &str, args: &[&str]) -> Result<()> {
    let remote = format!("--db={}", layout.ovs(node));
    let argv: Vec<_> = ["ovs-vsctl", "--timeout=30", &remote].iter().chain(args).copied().collect();
    layout.ovn_place(node).output(&argv).map(drop).with_context(|| format!("configuring the switch of {node}"))
}

fn create_database(layout: &Layout, file: &Path, schema: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let argv = ["ovsdb-tool", "create", &file.display().to_string(), schema];
    layout.ovn_place("central").output(&argv).map(drop)
}

fn start(layout: &Layout, host: &str, name: &str, argv: impl Iterator<Item = String>) -> Result<()> {
    let spec = Spec { name: name.into(), argv: argv.collect(), env: layout.env(host), place: layout.ovn_place(host) };
    layout.processes().start(spec).map(drop)
}

fn await_socket(layout: &Layout, name: &str, socket: &Path) -> Result<()> {
    wait_for(&format!("{name} to accept"), START_LIMIT, || UnixStream::connect(socket).is_ok())
        .with_context(|| layout.processes().log_tail(name))
}
