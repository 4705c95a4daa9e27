//! OVS and OVN, as a distribution's service files would run them: one central set, and one set per node.
//!
//! ```text
//!   central: ovsdb-servers of NB and SB (see `databases`), ovn-northd
//!   node:    ovsdb-server (conf.db), ovs-vswitchd, br-ex with eth0 inside (unless that is left to Ovenbird), ovn-controller
//! ```
//! All bridges use the userspace datapath: the kernel needs no openvswitch module.
//! In: a layout. Out: running, reachable daemons. It must not write Northbound rows, nor chassis settings unless the lab is bare.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::databases::{self, Database};
use crate::layout::Layout;
use crate::options::{Mode, Uplink};
use crate::process::{Spec, wait_for};
use crate::{components, fabric, nested, pki};

/// How long a daemon may take to serve.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// Daemons log to stderr, which the lab keeps per process.
const LOGGING: [&str; 2] = ["-vconsole:info", "-vsyslog:off"];

/// Starts the Northbound and Southbound servers and northd, and waits until chassis may come.
///
/// # Errors
/// Names the daemon that does not come up.
pub fn start_central(layout: &Layout) -> Result<()> {
    databases::start(layout)?;
    let argv = [
        "ovn-northd".to_owned(),
        format!("--ovnnb-db={}", layout.nb()),
        format!("--ovnsb-db={}", layout.sb()),
        "--pidfile".into(),
    ];
    start(layout, "central", "central/northd", argv)?;
    // ovn-controller 23.03 crashes on a Southbound without this row, and a cluster may be without it for a second.
    let (sb, place) = (format!("--db={}", layout.sb()), layout.ovn_place("central"));
    wait_for("northd to write SB_Global", START_LIMIT, || {
        place.output(&["ovn-sbctl", "--timeout=5", &sb, "get", "sb_global", ".", "nb_cfg"]).is_ok()
    })
    .with_context(|| layout.processes().log_tail("central/northd"))
}

/// Starts an OVS with a database of its own, which stays what it was.
///
/// # Errors
/// Names the daemon that does not come up.
pub fn start_ovs(layout: &Layout, host: &str) -> Result<()> {
    let home = layout.home(host);
    let (file, schema) = (home.join("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema");
    std::fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    let create = !file.exists();
    let file = file.display().to_string();
    if create {
        layout.ovn_place(host).output(&["ovsdb-tool", "create", &file, schema])?;
    }
    let socket = home.join("db.sock");
    let argv = [
        "ovsdb-server".to_owned(),
        file,
        format!("--remote=punix:{}", socket.display()),
        "--remote=db:Open_vSwitch,Open_vSwitch,manager_options".into(),
        "--pidfile".into(),
    ];
    start(layout, host, &format!("{host}/ovsdb"), argv)?;
    await_socket(layout, &format!("{host}/ovsdb"), &socket)?;
    let argv = ["ovs-vswitchd".to_owned(), "--disable-system".into(), layout.ovs(host), "--pidfile".into()];
    start(layout, host, &format!("{host}/vswitchd"), argv)
}

/// Starts a node's switch and makes `br-ex` with the uplink inside and the node's addresses on it. What the switch's database held
/// before a power loss, it holds.
///
/// # Errors
/// Names the daemon or command that failed.
pub fn start_switch(layout: &Layout, node: &str, index: u16) -> Result<()> {
    start_bridge(layout, node, index)?;
    address(layout, node)
}

/// The same of any host, without addresses.
///
/// # Errors
/// Names the daemon or command that failed.
pub fn start_bridge(layout: &Layout, node: &str, index: u16) -> Result<()> {
    start_ovs(layout, node)?;
    let ids = [format!("external_ids:system-id={node}"), format!("external_ids:hostname={node}")];
    let netdev = "external_ids:ovn-bridge-datapath-type=netdev";
    let init = ["--", "init", "--", "set", "open_vswitch", ".", &ids[0], &ids[1], netdev];
    if layout.options.uplink == Uplink::Nic {
        vsctl(layout, node, &init)?;
        // As the operating system does at each boot.
        return fabric::plug_in_node(layout, node, &layout.options.node_addresses(index));
    }
    fabric::bare_wire(&layout.place(node))?;
    // A MAC that differs from eth0's (see fabric::bare_wire).
    let mac = format!("other_config:hwaddr=\"02:00:ac:1e:00:{:02x}\"", 10 + index);
    let bridge = ["--", "--may-exist", "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev", &mac];
    let port = ["--", "--may-exist", "add-port", "br-ex", "eth0"];
    // Without --no-wait it returns when vswitchd has made the bridge.
    vsctl(layout, node, &[&init[..], &bridge[..], &port[..]].concat())
}

/// Waits for `br-ex` and gives it the node's addresses. Where the node daemon has taken the NIC over, it does as the unit of `deploy/`.
///
/// # Errors
/// When vswitchd does not make the bridge.
pub fn address(layout: &Layout, node: &str) -> Result<()> {
    if layout.options.uplink == Uplink::Nic {
        return components::restore_uplink(layout, node);
    }
    if layout.options.mode == Mode::Nested {
        return nested::address(layout, node);
    }
    await_bridge(layout, node, "br-ex")?;
    fabric::address(layout, node, "br-ex", &layout.options.node_addresses(layout.options.index_of(node)?))
}

/// Waits for a bridge that the database has: it asks for nothing new after a boot, so that nothing was waited for.
///
/// # Errors
/// When vswitchd does not make it.
pub fn await_bridge(layout: &Layout, host: &str, bridge: &str) -> Result<()> {
    let place = layout.place(host);
    wait_for(&format!("vswitchd to make {bridge}"), START_LIMIT, || {
        place.output(&["ip", "link", "show", bridge]).is_ok()
    })
    .with_context(|| layout.processes().log_tail(&format!("{host}/vswitchd")))
}

/// Starts ovn-controller. What it should do it reads from Open_vSwitch, as the node daemon writes it.
///
/// # Errors
/// When it cannot be started.
pub fn start_controller(layout: &Layout, node: &str) -> Result<()> {
    let argv = ["ovn-controller".to_owned(), layout.ovs(node), "--pidfile".into()];
    let tls = layout.tls(node).iter().flat_map(pki::flags).collect::<Vec<_>>();
    start(layout, node, &format!("{node}/ovn-controller"), argv.into_iter().chain(tls))
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
            &format!("external_ids:ovn-remote=\"{}\"", layout.over_fabric(Database::Southbound)?),
            &format!("external_ids:ovn-encap-type={}", layout.options.encap),
            &format!("external_ids:ovn-encap-ip=\"{address}\""),
        ],
    )
}

/// Changes a host's switch, and waits until its vswitchd has done so.
///
/// # Errors
/// What ovs-vsctl said.
pub fn vsctl(layout: &Layout, node: &str, args: &[&str]) -> Result<()> {
    let remote = format!("--db={}", layout.ovs(node));
    let argv: Vec<_> = ["ovs-vsctl", "--timeout=30", &remote].iter().chain(args).copied().collect();
    layout.ovn_place(node).output(&argv).map(drop).with_context(|| format!("configuring the switch of {node}"))
}

/// Starts one of OVS's or OVN's daemons on a host.
///
/// # Errors
/// When it runs already or cannot be started.
pub fn start(layout: &Layout, host: &str, name: &str, argv: impl IntoIterator<Item = String>) -> Result<()> {
    let argv = argv.into_iter().chain(LOGGING.map(Into::into)).collect();
    let spec = Spec { name: name.into(), argv, env: layout.env(host), place: layout.ovn_place(host) };
    layout.processes().start(spec).map(drop)
}

/// Waits until a daemon accepts on its socket.
///
/// # Errors
/// The last lines of its log, when it never does.
pub fn await_socket(layout: &Layout, name: &str, socket: &Path) -> Result<()> {
    wait_for(&format!("{name} to accept"), START_LIMIT, || UnixStream::connect(socket).is_ok())
        .with_context(|| layout.processes().log_tail(name))
}
