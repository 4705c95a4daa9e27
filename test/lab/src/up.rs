//! Builds a lab: everything that can be at the same time is, and each step waits for the condition it needs.
//!
//! ```text
//!   namespaces, fabric -+- central: NB, SB, northd ---+- master(s)
//!                       +- API server, gate, Nodes ---+- scheduler
//!                       +- per node: OVS, br-ex, ovn-controller --- node daemon, kubelet
//! ```
//! In: options. Out: a running lab. It must not leave anything that `down` does not find.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api as KubeApi;
use kube::runtime::wait::await_condition;
use ovenbird_kube::Cache;
use tokio::time::{sleep, timeout};

use crate::layout::Layout;
use crate::options::{Api, Mode, Options};
use crate::progress::Progress;
use crate::{api_server, cluster, components, fabric, nested, ovn, real, underlay};

/// How long a node may take to be Ready, once everything is started.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether everything still runs.
const ALIVE_PERIOD: Duration = Duration::from_millis(200);

/// Builds the lab that the options describe.
///
/// # Errors
/// Names the step that failed. What was made until then stays for a look, until `down`.
pub async fn up(options: Options, progress: Progress) -> Result<Layout> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces: run it as root");
    }
    if options.dir.join("lab.json").exists() {
        bail!("a lab lives in {} already: `ovenbird-lab down` first, or give another --dir", options.dir.display());
    }
    if options.api == Api::Real {
        Cache::ready()?;
    }
    let bin_dir = options.bin_dir.clone().map_or_else(own_folder, Ok)?;
    let layout = Layout::new(options, free_port()?, bin_dir)?;
    layout.save()?;
    blocking(&layout, fabric::build).await?;
    progress.step(&format!("{} namespaces joined by a bridge", layout.namespaces().len()));
    if layout.options.has_vlans() {
        blocking(&layout, underlay::start).await?;
        progress.step("a switch with VLANs");
    }
    if layout.options.tls {
        blocking(&layout, make_certificates).await?;
        progress.step("certificates");
    }
    let api = async {
        blocking(&layout, api_server::start).await?;
        progress.step(match layout.options.api {
            Api::Real => "etcd, kube-apiserver, kube-controller-manager, kube-scheduler",
            _ => "API server, scheduler, lab kubelets",
        });
        anyhow::Ok(())
    };
    let with_ovn = layout.options.mode != Mode::Classic;
    let central = async {
        if !with_ovn {
            return anyhow::Ok(());
        }
        blocking(&layout, ovn::start_central).await?;
        progress.step("central: Northbound, Southbound, northd");
        anyhow::Ok(())
    };
    let nodes = async {
        let nodes = layout.options.node_names().into_iter().zip(1..);
        try_join_all(nodes.map(|(node, index)| start_node(&layout, node, index))).await?;
        progress.step(match (&layout.options.api, with_ovn) {
            (Api::Real, true) => "nodes: OVS, ovn-controller, containerd with its images",
            (Api::Real, false) => "nodes: OVS, containerd with its images",
            (_, true) => "nodes: OVS, ovn-controller",
            (_, false) => "nodes: OVS",
        });
        anyhow::Ok(())
    };
    tokio::try_join!(api, central, nodes)?;
    define(&layout).await?;
    if layout.options.api == Api::Real {
        real::create_accounts(&layout).await?;
        for (node, index) in layout.options.node_names().iter().zip(1..) {
            real::start_kubelet(&layout, node, index)?;
            real::start_kube_proxy(&layout, node)?;
        }
        progress.step("service accounts of deploy/, kubelets");
    }
    if layout.options.bare && with_ovn {
        blocking(&layout, set_chassis).await?;
    }
    if !layout.options.bare {
        start_daemons(&layout)?;
        progress.step("ovenbird-master, ovenbird-node");
    }
    await_nodes(&layout).await?;
    progress.step(if layout.options.bare { "nodes have registered" } else { "nodes are Ready" });
    if layout.options.mode == Mode::Underlay {
        underlay::ready(&layout).await?;
        progress.step("nodes are on the VLAN");
    }
    if layout.options.api == Api::Real && !layout.options.bare {
        real::start_dns(&layout).await?;
        progress.step("CoreDNS");
    }
    Ok(layout)
}

/// What there is before Ovenbird comes.
async fn define(layout: &Layout) -> Result<()> {
    if layout.options.has_vlans() {
        underlay::define(layout).await?;
    }
    match layout.options.mode {
        Mode::Underlay => underlay::put_pods_on(layout).await,
        Mode::Nested => nested::define(layout).await,
        Mode::Overlay | Mode::Classic => Ok(()),
    }
}

fn make_certificates(layout: &Layout) -> Result<()> {
    layout.pki().create(std::iter::once("central".to_owned()).chain(layout.options.node_names()))
}

fn set_chassis(layout: &Layout) -> Result<()> {
    let mut nodes = layout.options.node_names().into_iter().zip(1..);
    nodes.try_for_each(|(node, index)| ovn::set_chassis(layout, &node, index))
}

fn start_daemons(layout: &Layout) -> Result<()> {
    let processes = layout.processes();
    for index in 1..=layout.options.masters {
        processes.start(components::master(layout, index)?)?;
    }
    for (node, index) in layout.options.node_names().iter().zip(1..) {
        processes.start(components::node(layout, node, index)?)?;
    }
    Ok(())
}

/// Waits until every node has registered, and is Ready unless the lab is bare.
async fn await_nodes(layout: &Layout) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    for name in layout.options.node_names() {
        let wanted = |node: Option<&Node>| node.is_some_and(|node| layout.options.bare || is_ready(node));
        let condition = timeout(READY_LIMIT, await_condition(KubeApi::<Node>::all(client.clone()), &name, wanted));
        tokio::select! {
            outcome = condition => match outcome {
                Ok(seen) => drop(seen.with_context(|| format!("watching {name}"))?),
                Err(_) => {
                    let said = layout.processes().log_tail(&format!("{name}/ovenbird-node"));
                    bail!("{name} is not Ready after {READY_LIMIT:?}; its node daemon said last:\n{said}");
                }
            },
            ended = first_ended(layout) => bail!("{ended} has ended; it said last:\n{}", layout.processes().log_tail(&ended)),
        }
    }
    Ok(())
}

/// The name of the first process that has ended although nobody told it to.
async fn first_ended(layout: &Layout) -> String {
    loop {
        if let Some(record) = layout.processes().all().into_iter().find(|record| !record.id.alive()) {
            return record.spec.name;
        }
        sleep(ALIVE_PERIOD).await;
    }
}

/// Whether a node's Ready condition holds.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn start_node(layout: &Layout, node: String, index: u16) -> Result<()> {
    blocking(layout, move |layout| start_host(layout, &node, index)).await
}

/// Starts what a node's operating system starts: OVS, ovn-controller, and on a real node the runtime.
///
/// # Errors
/// Names what does not come up.
pub fn start_host(layout: &Layout, node: &str, index: u16) -> Result<()> {
    if layout.options.mode == Mode::Nested {
        nested::start(layout, node, index)?;
    } else {
        ovn::start_switch(layout, node, index)?;
        if layout.options.mode != Mode::Classic {
            ovn::start_controller(layout, node)?;
        }
    }
    if layout.options.api == Api::Real { real::start_runtime(layout, node) } else { Ok(()) }
}

/// Work that starts processes and waits for sockets, off the async threads.
async fn blocking(layout: &Layout, work: impl FnOnce(&Layout) -> Result<()> + Send + 'static) -> Result<()> {
    let layout = layout.clone();
    tokio::task::spawn_blocking(move || work(&layout)).await.context("a step of the build panicked")?
}

/// The folder of this program: its neighbours belong to the same build. A test's program lies one deeper, in `deps`.
fn own_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's folder")?;
    let folder = program.parent().context("this program has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// A port that is free on the root namespace's loopback now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("finding a free port")?;
    Ok(listener.local_addr().context("finding a free port")?.port())
}
