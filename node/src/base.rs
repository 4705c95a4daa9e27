//! What every node runs, whatever its network mode: the way to API server, kernel and Open_vSwitch, the CNI server, the book of pods.
//!
//! ```text
//! Base::new --> what the mode's own parts follow      Base::run(cable, parts) --> until one part ends, or the daemon is told to stop
//! ```
//!
//! A part that ends with an error ends the daemon, and whoever runs it starts it again. Nothing of the data path is undone at the end. Must not:
//! know a mode.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use ovenbird_cni_server::{Server, ServerConfig};
use ovenbird_daemon::http;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cable::Cable;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::dhcp::Leases;
use crate::metrics::Metrics;
use crate::net::linux::Linux;
use crate::plug::{Entered, Parts, Plug};
use crate::pods::PodBook;
use crate::readiness::{Part, Readiness, Shown};
use crate::underlay::objects;
use crate::vswitch::{State, Vswitch};
use crate::{cluster, cni_conf, restore, sweep};

/// Time that a stop gives to the CNI requests under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the file header.
pub struct Base {
    /// Settings.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// The kernel.
    pub net: Arc<Linux>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Open_vSwitch.
    pub vswitch: Vswitch,
    /// This Node.
    pub node: watch::Receiver<NodeFact>,
    /// The node's pods.
    pub pods: Arc<PodBook>,
    /// What must be there before ADD.
    pub readiness: Arc<Readiness>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Networks that have pods here.
    pub entered: Arc<watch::Sender<Entered>>,
    /// Ends the daemon.
    pub stop: CancellationToken,
}

impl Base {
    /// Starts the watches of Node and pods, and the session with Open_vSwitch. A node that is ready has `parts` beside what every node has.
    ///
    /// # Errors
    /// When the kernel's network cannot be reached.
    pub fn new(config: Config, client: Client, parts: &[Part], stop: CancellationToken) -> anyhow::Result<Base> {
        let net = Arc::new(Linux::new().context("reaching the kernel's network")?);
        let host_changes = net.changes().context("watching the kernel's network")?;
        let pods = Arc::new(PodBook::new(config.node.clone(), cluster::lookup(client.clone())));
        let vswitch = Vswitch::spawn(config.ovs.clone(), config.audit_interval);
        let node = cluster::watch_node(client.clone(), &config.node);
        cluster::watch_pods(client.clone(), &config.node, pods.clone());
        let (readiness, metrics) = (Arc::new(Readiness::with(parts)), Arc::new(Metrics::default()));
        let entered = Arc::default();
        Ok(Base { config, client, net, host_changes, vswitch, node, pods, readiness, metrics, entered, stop })
    }

    /// Serves until the daemon is told to stop. Pods' ports of this `mtu` are plugged into `cable`; nothing is removed before `declared` is
    /// cancelled. `parts` are the mode's own.
    ///
    /// # Errors
    /// Of the first part that fails for good.
    pub async fn run<C: Cable>(
        self,
        cable: Arc<C>,
        mtu: u32,
        declared: CancellationToken,
        parts: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let Base { config, client, net, vswitch, pods, readiness, metrics, entered, stop, .. } = self;
        let tell = cluster::events(client.clone(), &config.node);
        let write = cluster::leases(client.clone(), pods.clone());
        let plug = Arc::new(Plug::new(Parts {
            leases: Arc::new(Leases::new(net.clone(), tell.clone(), write)),
            net: net.clone(),
            cable,
            pods: pods.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            tell,
            report: objects::reports(client.clone(), &config.node),
            entered,
            mtu,
        }));
        let server = Server::bind(ServerConfig { socket: config.cni_socket.clone(), deadline: config.cni_timeout })?;
        readiness.set(Part::Socket, true);
        let shown = Shown { metrics, readiness: readiness.clone(), vswitch };
        let all = async {
            tokio::try_join!(
                async { serve_http(&config, shown, stop.clone()).await.context("serving metrics") },
                async {
                    let restored = restore::run(&*net, &plug, &pods, &readiness, &declared);
                    restored.await.context("taking over existing ports")?;
                    sweep::run(&plug, &pods, &stop).await;
                    Ok(())
                },
                announce(&config, &readiness),
                parts,
            )
        };
        tokio::select! {
            ended = all => ended.map(|_| ()),
            // After a stop the requests under way are answered first.
            served = server.serve(plug.clone(), stop.clone()) => served.context("serving CNI"),
            () = out_of_patience(&stop) => Ok(()),
        }
    }
}

/// Says whether Open_vSwitch is there as the mode needs it.
///
/// # Errors
/// When the session has ended for good.
pub async fn follow_vswitch(
    vswitch: &Vswitch,
    readiness: &Readiness,
    ready: impl Fn(&State) -> bool,
) -> anyhow::Result<()> {
    let mut state = vswitch.state();
    loop {
        readiness.set(Part::Vswitch, ready(&state.borrow_and_update()));
        state.changed().await?;
    }
}

/// Returns some time after a stop.
async fn out_of_patience(stop: &CancellationToken) {
    stop.cancelled().await;
    info!("answering the CNI requests under way; the data path stays as it is");
    tokio::time::sleep(PATIENCE).await;
    warn!("CNI requests are cut short; the runtime will repeat them");
}

async fn serve_http(config: &Config, shown: Shown, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(address) = config.metrics else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    Ok(http::serve(listener, shown, stop).await?)
}

/// Writes the CNI configuration file once the node can serve.
async fn announce(config: &Config, readiness: &Readiness) -> anyhow::Result<()> {
    readiness.wait_all().await;
    let file = &config.cni_conf;
    if cni_conf::write(file, &cni_conf::text(&config.cni_socket))
        .with_context(|| format!("writing {}", file.display()))?
    {
        info!("{} written", file.display());
    }
    info!("ready");
    Ok(())
}
