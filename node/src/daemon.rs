//! Puts the parts together and runs them until the daemon is told to stop. Nothing of the data path is undone at the end.
//!
//! ```text
//! [cluster] --> PodBook, NodeFact --> [chassis] [management] [restore] --> Vswitch, kernel
//!                                     [plug] <-- CNI socket                    all ready --> CNI configuration file
//! ```
//!
//! Must not: hold logic; a part that ends with an error ends the daemon, and whoever runs it starts it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable};
use ovenbird_cni_server::{Server, ServerConfig};
use ovenbird_daemon::{access, http, rights};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cable::Cable;
use crate::classic::{self, NetworkMode};
use crate::cluster::{NodeFact, annotate};
use crate::config::Config;
use crate::gateway::endpoints::Told;
use crate::management::Management;
use crate::metrics::Metrics;
use crate::net::linux::Linux;
use crate::net::{HostNetwork, NetOps};
use crate::plug::{Parts, Plug};
use crate::pods::PodBook;
use crate::readiness::{Part, Readiness, Shown};
use crate::vswitch::{State, Vswitch};
use crate::{capability, chassis, cluster, cni_conf, gateway, nested, restore, service_cidrs, sweep, underlay, uplink};

/// Time that a stop gives to the CNI requests under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the daemon.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    match config.network.clone() {
        NetworkMode::Overlay => overlay(config, stop).await,
        NetworkMode::Classic(settings) => classic::daemon::run(config, settings, stop).await,
        NetworkMode::Nested(bridge) => nested::daemon::run(config, bridge, stop).await,
    }
}

async fn overlay(mut config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let client = connect(&mut config, &stop).await?;
    let net = Arc::new(Linux::new().context("reaching the kernel's network")?);
    let host_changes = net.changes().context("watching the kernel's network")?;
    let mtu = pod_mtu(&config, &net).await?;
    info!(node = config.node, mtu, "starting");

    let (readiness, metrics) = (Arc::new(Readiness::default()), Arc::new(Metrics::default()));
    let pods = Arc::new(PodBook::new(config.node.clone(), cluster::lookup(client.clone())));
    let vswitch = Vswitch::spawn(config.ovs.clone(), config.audit_interval);
    let node = follow(&client, &config, &pods, &vswitch, (config.encap.as_str(), "--encap-type"));

    let plug = Arc::new(Plug::new(Parts {
        net: net.clone(),
        cable: vswitch.clone(),
        pods: pods.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        tell: cluster::events(client.clone(), &config.node),
        mtu,
    }));
    let server = Server::bind(ServerConfig { socket: config.cni_socket.clone(), deadline: config.cni_timeout })?;
    readiness.set(Part::Socket, true);
    let declared = CancellationToken::new();
    let networks = underlay::Parts::new(&config, &client, &net, &vswitch, (&node, &host_changes), &declared);
    let all_declared = networks.task.all_declared.clone();
    let service_cidrs = service_cidrs::watch_all(client.clone(), &config);
    let management = Management {
        config: config.clone(),
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs.clone(),
        routed: networks.routed,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        declared,
    };
    let (services, Told { local, gone }) = gateway::watch(&client, &config);
    let endpoints = gateway::serve_endpoints(&config, services.clone(), local.clone(), gone);
    let gateway = gateway::task::Task {
        config: config.clone(),
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        services,
        local,
        service_cidrs,
        host_ports: pods.host_ports(),
    };
    let chassis =
        chassis::run(config.clone(), net.clone(), vswitch.clone(), client, (node, host_changes, networks.mapped));
    let shown = Shown { metrics, readiness: readiness.clone(), vswitch: vswitch.clone() };
    let parts = async {
        tokio::try_join!(
            async { serve_http(&config, shown, stop.clone()).await.context("serving metrics") },
            async { chassis.await.context("keeping the chassis") },
            async { management.run().await.context("keeping the management port") },
            async { networks.task.run().await.context("keeping physical networks") },
            async { gateway.run().await.context("keeping the gateway") },
            endpoints,
            keep_pods(&net, &vswitch, &plug, &pods, &readiness, &all_declared, &stop),
            follow_bridge(&vswitch, &readiness),
            announce(&config, &readiness),
        )
    };
    tokio::select! {
        ended = parts => ended.map(|_| ()),
        // After a stop the requests under way are answered first.
        served = server.serve(plug.clone(), stop.clone()) => served.context("serving CNI"),
        () = out_of_patience(&stop) => Ok(()),
    }
}

/// Follows the Node and its pods, and says of the Node whether Open vSwitch has the tunnels that a flag chose.
pub(crate) fn follow(
    client: &kube::Client,
    config: &Config,
    pods: &Arc<PodBook>,
    vswitch: &Vswitch,
    tunnel: (&'static str, &'static str),
) -> watch::Receiver<NodeFact> {
    let node = cluster::watch_node(client.clone(), &config.node);
    cluster::watch_pods(client.clone(), &config.node, pods.clone());
    capability::spawn(client, &config.node, tunnel, &node, vswitch);
    node
}

/// Takes over what an earlier daemon attached, then looks after what nobody detaches.
pub(crate) async fn keep_pods<C: Cable>(
    net: &Linux,
    cable: &C,
    plug: &Arc<Plug<Linux, C>>,
    pods: &PodBook,
    readiness: &Readiness,
    declared: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let restored = restore::run(net, cable, plug, pods, readiness, declared);
    restored.await.context("taking over existing ports")?;
    sweep::run(plug, pods, stop).await;
    Ok(())
}

/// MTU of pods: what the host's way to other nodes leaves.
async fn pod_mtu(config: &Config, net: &Linux) -> anyhow::Result<u32> {
    let host = net.host_network().await.context("reading the host's network")?;
    Ok(chassis::pod_mtu(config, chassis::encap_ip(config, &host)?, &host)?)
}

/// Access to the API server. Where `--gateway-interface` names a NIC, the external bridge is from here on the one that it is in.
async fn connect(config: &mut Config, stop: &CancellationToken) -> anyhow::Result<kube::Client> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    if config.gateway.named && config.gateway.mode.is_some() {
        let answers = || uplink::task::answers(client.clone());
        let bridge = uplink::Task::new(config).start(&config.gateway.bridge, answers, stop).await;
        config.gateway.bridge = bridge.context("taking over the uplink")?;
    }
    Ok(client)
}

/// Returns some time after a stop.
pub(crate) async fn out_of_patience(stop: &CancellationToken) {
    stop.cancelled().await;
    info!("answering the CNI requests under way; the data path stays as it is");
    tokio::time::sleep(PATIENCE).await;
    warn!("CNI requests are cut short; the runtime will repeat them");
}

pub(crate) async fn serve_http(config: &Config, shown: Shown, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(address) = config.metrics else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    Ok(http::serve(listener, shown, stop).await?)
}

async fn follow_bridge(vswitch: &Vswitch, readiness: &Readiness) -> anyhow::Result<()> {
    let mut state = vswitch.state();
    loop {
        let ready = |s: &State| s.synced && s.bridge;
        readiness.set(Part::Vswitch, ready(&state.borrow_and_update()));
        state.changed().await?;
    }
}

/// Writes the CNI configuration file once the node can serve.
pub(crate) async fn announce(config: &Config, readiness: &Readiness) -> anyhow::Result<()> {
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

/// Keeps the annotations of the Node as they should be.
pub(crate) async fn tell_node(
    name: &str,
    net: &Linux,
    client: kube::Client,
    mut node: watch::Receiver<NodeFact>,
    mut host_changes: watch::Receiver<u64>,
    want: impl Fn(&HostNetwork, &NodeFact) -> anyhow::Result<BTreeMap<&'static str, String>>,
) -> anyhow::Result<()> {
    loop {
        host_changes.borrow_and_update();
        let fact = node.borrow_and_update().clone();
        let host = net.host_network().await.map_err(anyhow::Error::from);
        match host.and_then(|host| want(&host, &fact)) {
            Ok(want) => {
                let write = || annotate(&client, name, &fact.annotations, &want);
                let retry = ExponentialBuilder::default().with_max_delay(Duration::from_secs(10)).without_max_times();
                let told = |e: &kube::Error, _| {
                    if !rights::was_told(e) {
                        warn!("writing annotations of the Node: {e}");
                    }
                };
                tokio::select! {
                    written = write.retry(retry).notify(told) => drop(written?),
                    changed = node.changed() => { changed?; continue; }
                    changed = host_changes.changed() => { changed?; continue; }
                }
            }
            Err(e) => warn!("the host's network: {e:#}"),
        }
        tokio::select! {
            changed = node.changed() => changed?,
            changed = host_changes.changed() => changed?,
        }
    }
}
