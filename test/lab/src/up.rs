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

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;

use crate::layout::Layout;
use crate::options::Options;
use crate::progress::Progress;
use crate::{fabric, ovn};

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
    let bin_dir = options.bin_dir.clone().map_or_else(own_folder, Ok)?;
    let layout = Layout::new(options, free_port()?, bin_dir)?;
    layout.save()?;
    blocking(&layout, fabric::build).await?;
    progress.step(&format!("{} namespaces joined by a bridge", layout.namespaces().len()));
    let central = async {
        blocking(&layout, ovn::start_central).await?;
        progress.step("central: Northbound, Southbound, northd");
        Ok(())
    };
    let nodes = try_join_all(
        layout.options.node_names().into_iter().zip(1..).map(|(node, index)| start_node(&layout, node, index)),
    );
    tokio::try_join!(central, nodes)?;
    progress.step("nodes: OVS, ovn-controller");
    Ok(layout)
}

async fn start_node(layout: &Layout, node: String, index: u16) -> Result<()> {
    blocking(layout, move |layout| {
        ovn::start_switch(layout, &node, index)?;
        if layout.options.bare {
            ovn::set_chassis(layout, &node, index)?;
        }
        ovn::start_controller(layout, &node)
    })
    .await
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
