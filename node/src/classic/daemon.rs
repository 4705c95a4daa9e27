//! The parts of a node of the classic network, run until the daemon is told to stop. Nothing of the data path is undone at the end.
//!
//! Must not: hold logic; a part that ends with an error ends the daemon, and whoever runs it starts it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use ovenbird_api::{annotation, node as text};
use ovenbird_classic::Settings;
use ovenbird_cni_server::{Server, ServerConfig};
use ovenbird_daemon::access;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ports::Ports;
use super::task::{Task, ports_folder};
use super::{nodes, policy, services};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::daemon::{announce, follow, keep_pods, out_of_patience, serve_http, tell_node};
use crate::metrics::Metrics;
use crate::net::linux::Linux;
use crate::net::{HostNetwork, NetOps};
use crate::plug::{Parts, Plug};
use crate::pods::PodBook;
use crate::readiness::{Part, Readiness, Shown};
use crate::vswitch::Vswitch;
use crate::{chassis, cluster, service_cidrs};

/// Runs the daemon.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    let net = Arc::new(Linux::new().context("reaching the kernel's network")?);
    let host_changes = net.changes().context("watching the kernel's network")?;
    let mtu = pod_mtu(&config, &settings, &net).await?;
    info!(node = config.node, mtu, ?settings, "starting");

    let (readiness, metrics) = (Arc::new(readiness(&settings)), Arc::new(Metrics::default()));
    let pods = Arc::new(PodBook::new(config.node.clone(), cluster::lookup(client.clone())));
    let vswitch = Vswitch::spawn(config.ovs.clone(), config.audit_interval);
    let node = follow(&client, &config, &pods, &vswitch, (settings.tunnel.as_str(), "--classic-tunnel"));
    let folder = ports_folder(&config);
    let (covered, covers) = watch::channel(policy::Covered::default());
    let policies = policy::Task { config: config.clone(), client: client.clone(), covered };
    let ports = Ports::new(net.clone(), vswitch.clone(), &settings.bridge, folder.clone(), covers)
        .with_context(|| format!("making {}", folder.display()))?;
    let ports = Arc::new(ports);

    let plug = Arc::new(Plug::new(Parts {
        net: net.clone(),
        cable: ports.clone(),
        pods: pods.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        tell: cluster::events(client.clone(), &config.node),
        mtu,
    }));
    let server = Server::bind(ServerConfig { socket: config.cni_socket.clone(), deadline: config.cni_timeout })?;
    readiness.set(Part::Socket, true);
    let declared = CancellationToken::new();
    let services = settings.services.then(|| services::Task {
        config: config.clone(),
        client: client.clone(),
        net: net.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs::watch_all(client.clone(), &config),
        readiness: readiness.clone(),
    });
    let task = Task {
        config: config.clone(),
        settings,
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        members: nodes::watch_members(client.clone()),
        host_changes: host_changes.clone(),
        ports: ports.clone(),
        readiness: readiness.clone(),
        declared: declared.clone(),
    };
    let want = |host: &HostNetwork, _: &NodeFact| annotations(&config, host, mtu);
    let shown = Shown { metrics, readiness: readiness.clone(), vswitch: vswitch.clone() };
    let parts = async {
        tokio::try_join!(
            async { serve_http(&config, shown, stop.clone()).await.context("serving metrics") },
            async { task.run().await.context("keeping bridges and tunnels") },
            async { policies.run().await.context("keeping policies") },
            serve_services(services),
            async {
                let run = tell_node(&config.node, &net, client.clone(), node, host_changes, want);
                run.await.context("annotating the Node")
            },
            keep_pods(&net, &ports, &plug, &pods, &readiness, &declared, &stop),
            follow_vswitch(&vswitch, &readiness),
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

fn readiness(settings: &Settings) -> Readiness {
    let fabric = Readiness::with(Part::Fabric);
    if settings.services { fabric.and(Part::Services) } else { fabric }
}

/// Serves Services, unless somebody else does.
async fn serve_services(services: Option<services::Task<Linux>>) -> anyhow::Result<()> {
    match services {
        Some(services) => services.run().await.context("keeping Services"),
        None => std::future::pending().await,
    }
}

async fn follow_vswitch(vswitch: &Vswitch, readiness: &Readiness) -> anyhow::Result<()> {
    let mut state = vswitch.state();
    loop {
        readiness.set(Part::Vswitch, state.borrow_and_update().synced);
        state.changed().await?;
    }
}

/// MTU of pods: what the host's way to other nodes leaves.
async fn pod_mtu(config: &Config, settings: &Settings, net: &Linux) -> anyhow::Result<u32> {
    let host = net.host_network().await.context("reading the host's network")?;
    let endpoint = chassis::encap_ip(config, &host)?;
    Ok(chassis::mtu_less(config, endpoint, &host, settings.tunnel.overhead(endpoint))?)
}

fn annotations(config: &Config, host: &HostNetwork, mtu: u32) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let endpoint = chassis::encap_ip(config, host)?;
    Ok(BTreeMap::from([
        (annotation::NODE_ENCAP_IPS, text::format_encap_ips(&[endpoint])),
        (annotation::NODE_PRIMARY_IFADDR, text::format_primary_ifaddr(&chassis::primary(host, Some(endpoint)))),
        (annotation::HOST_CIDRS, text::format_host_cidrs(&chassis::host_cidrs(host))),
        (annotation::POD_MTU, text::format_pod_mtu(mtu)),
    ]))
}
