//! Real Kubernetes in the lab: etcd, API server, controllers and scheduler in `central`; containerd and kubelet on every node.
//!
//! ```text
//!   pki --> control (central) --> accounts (deploy/rbac.yaml, tokens) --> master, node daemons (as in any lab)
//!   init (pid 1 of a node's namespaces) --> runtime (containerd, images) --> kubelet --> cluster DNS
//! ```
//! The programs come from the cache that `make kube-build` fills. In: a layout. Out: running processes. It must not write outside
//! LAB_DIR, but for cgroups, which `cgroups::remove` takes away.

mod accounts;
pub mod cgroups;
mod control;
mod dns;
pub mod init;
mod node;
mod pki;
mod pods;

pub use accounts::{Account, create as create_accounts};
pub use control::{certify_node, start as start_control};
pub use dns::start_dns;
pub use node::{environment, import, start_kube_proxy, start_kubelet, start_runtime};
pub use pods::sandbox;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use ovenbird_kube::Cache;

use crate::layout::Layout;
use crate::process::Spec;

const API_PORT: u16 = 6443;

/// Where the API server listens on the fabric, HOST:PORT.
fn api_address(layout: &Layout) -> Result<String> {
    let address =
        layout.options.central_addresses().first().copied().context("the central namespace has no address")?;
    Ok(SocketAddr::new(address, API_PORT).to_string())
}

/// Folder of keys, certificates and kubeconfigs.
fn pki_dir(layout: &Layout) -> PathBuf {
    layout.home("kubernetes")
}

/// A program of the cache, as a process of `host`.
fn spec(layout: &Layout, host: &str, program: &str, args: Vec<String>) -> Result<Spec> {
    let bin = Cache::ready()?.bin();
    let mut env = layout.env(host);
    add_programs(&mut env, &bin);
    Ok(Spec {
        name: format!("{host}/{program}"),
        argv: std::iter::once(bin.join(program).display().to_string()).chain(args).collect(),
        env,
        place: layout.inside(host),
    })
}

/// Lets the cache's programs be found, and lets `crictl` find the runtime.
pub fn add_programs(env: &mut std::collections::BTreeMap<String, String>, bin: &std::path::Path) {
    let path = env.get("PATH").cloned().unwrap_or_default();
    env.insert("PATH".into(), format!("{}:{path}", bin.display()));
    env.insert("CONTAINER_RUNTIME_ENDPOINT".into(), "unix:///run/containerd/containerd.sock".into());
    env.insert("HOME".into(), "/".into());
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
