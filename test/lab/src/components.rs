//! The command line of each Ovenbird program in the lab.
//!
//! In: a layout. Out: specifications of processes. It must not start them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ovsdb::TlsFiles;

use crate::databases::Database;
use crate::layout::Layout;
use crate::options::{Api, Uplink};
use crate::place::Place;
use crate::process::Spec;
use crate::real::Account;

/// Where the gate finds the API server: an address in the root namespace.
pub fn embedded_api_address(layout: &Layout) -> String {
    format!("127.0.0.1:{}", layout.api_port)
}

/// The embedded API server, on the root namespace's loopback; its state survives its restart.
pub fn apiserver(layout: &Layout) -> Spec {
    let args = [
        "--listen".to_owned(),
        embedded_api_address(layout),
        "--data".into(),
        layout.home("apiserver.data").display().to_string(),
    ];
    Spec { place: Place::default(), ..spec(layout, "central", "apiserver", "ovenbird-apiserver", args) }
}

/// The gate: lends the API server's address to every namespace of the lab (and to the root one unless it is there already).
pub fn gate(layout: &Layout, upstream: &str) -> Spec {
    let mut args =
        vec!["gate".to_owned(), "--port".into(), layout.api_port.to_string(), "--to".into(), upstream.into()];
    args.extend(layout.namespaces().into_iter().flat_map(|name| ["--netns".to_owned(), name]));
    if layout.options.api != Api::Embedded {
        args.push("--root".into());
    }
    if layout.options.api == Api::Real {
        args.extend(["--via".into(), layout.netns("central")]);
    }
    Spec { place: Place::default(), ..spec(layout, "central", "gate", "ovenbird-lab", args) }
}

/// The scheduler: only beside the embedded API server, a real cluster has its own.
pub fn scheduler(layout: &Layout) -> Spec {
    spec(layout, "central", "scheduler", "ovenbird-lab", ["scheduler".to_owned()])
}

/// Master number `index`, from 1: `central/master` is the first, `central/master2` the second.
///
/// # Errors
/// When the central namespace has no address.
pub fn master(layout: &Layout, index: u16) -> Result<Spec> {
    let name = master_name(index);
    let tls = layout.tls("central");
    // Where TLS is, it is used: the sockets are there for northd and for people.
    let nb = if tls.is_some() { layout.over_fabric(Database::Northbound)? } else { layout.nb() };
    let mut args = vec![
        "--kubeconfig".to_owned(),
        kubeconfig(layout, Account::Master),
        "--network-mode".into(),
        layout.options.mode.network_modes()[0].into(),
        "--nb-address".into(),
        nb,
        "--cluster-subnets".into(),
        layout.options.cluster_subnets(),
        "--k8s-service-cidrs".into(),
        layout.options.service_cidrs().into(),
        "--admin-socket".into(),
        master_socket(layout, index).display().to_string(),
        "--metrics-bind-address".into(),
        format!("127.0.0.1:{}", 9409 + index - 1),
        "--lease-identity".into(),
        format!("master{index}"),
    ];
    if let Some(TlsFiles { private_key, certificate, ca_certificate }) = tls {
        let files = [("privkey", private_key), ("cert", certificate), ("cacert", ca_certificate)];
        args.extend(files.iter().flat_map(|(what, file)| [format!("--nb-client-{what}"), file.display().to_string()]));
    }
    if layout.options.api == Api::Real {
        args.extend(["--lease-namespace".into(), "ovenbird".into()]);
    }
    args.extend(layout.options.master_args.iter().cloned());
    Ok(spec(layout, "central", &name, "ovenbird-master", args))
}

/// Time that a daemon has to end.
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// The process name of master number `index`.
pub fn master_name(index: u16) -> String {
    if index == 1 { "central/master".into() } else { format!("central/master{index}") }
}

/// Where `ovenbird status` asks a master.
pub fn master_socket(layout: &Layout, index: u16) -> PathBuf {
    layout.home("central").join(format!("master{index}.sock"))
}

/// The credentials of a daemon: on a real cluster its own service account's, which may do what `deploy/` says and nothing else.
fn kubeconfig(layout: &Layout, account: Account) -> String {
    let path = if layout.options.api == Api::Real { account.kubeconfig(layout) } else { layout.kubeconfig() };
    path.display().to_string()
}

/// Where the CNI configuration of a node appears.
pub fn cni_conf_dir(layout: &Layout, node: &str) -> PathBuf {
    if layout.options.api == Api::Real { "/etc/cni/net.d".into() } else { layout.home(node).join("cni/net.d") }
}

/// Where the CNI shim asks a node's daemon.
pub fn cni_socket(layout: &Layout, node: &str) -> PathBuf {
    layout.home(node).join("cni/ovenbird.sock")
}

/// The node daemon.
///
/// # Errors
/// When the node has no address.
pub fn node(layout: &Layout, node: &str, index: u16) -> Result<Spec> {
    let address = *layout.options.node_addresses(index).first().context("the node has no address")?;
    let args = [
        "--node-name".to_owned(),
        node.into(),
        "--kubeconfig".into(),
        kubeconfig(layout, Account::Node),
        "--network-mode".into(),
        layout.options.mode.network_modes()[1].into(),
        "--ovs-address".into(),
        layout.ovs(node),
        "--sb-address".into(),
        layout.over_fabric(Database::Southbound)?,
        "--encap-type".into(),
        layout.options.encap.to_string(),
        "--encap-ip".into(),
        address.to_string(),
        "--cluster-subnets".into(),
        layout.options.cluster_subnets(),
        "--k8s-service-cidrs".into(),
        layout.options.service_cidrs().into(),
        "--cni-socket".into(),
        cni_socket(layout, node).display().to_string(),
        "--cni-conf-dir".into(),
        cni_conf_dir(layout, node).display().to_string(),
        "--state-dir".into(),
        state_dir(layout, node),
    ];
    let nic = ["--gateway-interface".to_owned(), "eth0".into()];
    let nic = nic.into_iter().filter(|_| layout.options.uplink == Uplink::Nic);
    let args = args.into_iter().chain(nic).chain(layout.options.node_args.iter().cloned());
    let args = args.chain(layout.options.kube_proxy.then(|| "--classic-services=false".to_owned()));
    Ok(spec(layout, node, &format!("{node}/ovenbird-node"), "ovenbird-node", args))
}

fn state_dir(layout: &Layout, node: &str) -> String {
    layout.home(node).join("state").display().to_string()
}

/// Runs what `deploy/ovenbird-uplink.service` runs at a boot, to its end.
///
/// # Errors
/// What the node daemon says.
pub fn restore_uplink(layout: &Layout, node: &str) -> Result<()> {
    let program = layout.bin_dir.join("ovenbird-node").display().to_string();
    let (state, ovs) = (state_dir(layout, node), layout.ovs(node));
    let argv = [program.as_str(), "--restore-uplink", "--state-dir", &state, "--ovs-address", &ovs];
    layout.inside(node).output(&argv).map(drop)
}

/// The lab kubelet.
pub fn kubelet(layout: &Layout, node: &str) -> Spec {
    spec(layout, node, &format!("{node}/kubelet"), "ovenbird-lab", ["kubelet".to_owned(), "--node".into(), node.into()])
}

fn spec(layout: &Layout, host: &str, name: &str, program: &str, args: impl IntoIterator<Item = String>) -> Spec {
    let program = layout.bin_dir.join(program).display().to_string();
    Spec {
        name: name.into(),
        argv: std::iter::once(program).chain(args).collect(),
        env: layout.env(host),
        place: layout.inside(host),
    }
}
