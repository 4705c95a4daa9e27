//! The parts of a node of the classic network.
//!
//! Must not: hold logic.

use std::sync::Arc;

use anyhow::Context as _;
use ovenbird_api::{annotation, node as text};
use ovenbird_classic::Settings;
use ovenbird_daemon::access;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ports::Ports;
use super::task::{Task, ports_folder};
use super::weights::Weighing;
use super::{host_ports, nodes, policy, services};
use crate::annotations::{self, Annotations};
use crate::base::{Base, follow_vswitch};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::net::linux::Linux;
use crate::net::{HostNetwork, NetOps};
use crate::readiness::Part;
use crate::{capability, chassis, service_cidrs};

/// Runs the daemon.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    let own = if settings.services { &[Part::Fabric, Part::Services][..] } else { &[Part::Fabric] };
    let base = Base::new(config, client, own, stop)?;
    let Base { config, client, net, host_changes, vswitch, node, pods, readiness, .. } = &base;
    let mtu = pod_mtu(config, &settings, net).await?;
    info!(node = config.node, mtu, ?settings, "starting");
    capability::spawn(client, &config.node, (settings.tunnel.as_str(), "--classic-tunnel"), node, vswitch);

    let folder = ports_folder(config);
    let (covered, covers) = watch::channel(policy::Covered::default());
    let (weights, weighed) = watch::channel(None);
    let weights = Weighing::new(weights);
    let policies = policy::Task { config: config.clone(), client: client.clone(), covered, weights };
    let (link, audit) = (settings.bridge.clone(), config.audit_interval);
    let host_ports = host_ports::Task { net: net.clone(), pods: pods.clone(), link, audit };
    let ports = Ports::new(net.clone(), vswitch.clone(), &settings.bridge, folder.clone(), covers)
        .with_context(|| format!("making {}", folder.display()))?;
    let ports = Arc::new(ports);
    let declared = CancellationToken::new();
    let services = settings.services.then(|| services::Task {
        config: config.clone(),
        client: client.clone(),
        net: net.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs::watch_all(client.clone(), config),
        behind: |_, _| Some(None),
        weights: weighed,
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
    let (config, client, net) = (config.clone(), client.clone(), net.clone());
    let (node, host_changes) = (node.clone(), host_changes.clone());
    let (vswitch, readiness) = (vswitch.clone(), readiness.clone());
    let parts = async move {
        let want = |host: &HostNetwork, _: &NodeFact| annotations(&config, host, mtu);
        let told = annotations::keep(&config.node, &*net, &client, node, host_changes, want);
        tokio::try_join!(
            async { task.run().await.context("keeping bridges and tunnels") },
            async { policies.run().await.context("keeping policies") },
            serve_services(services),
            async { host_ports.run().await.context("keeping ports of the node") },
            async { told.await.context("annotating the Node") },
            follow_vswitch(&vswitch, &readiness, |state| state.synced),
        )
        .map(|_| ())
    };
    base.run(ports, mtu, declared, parts).await
}

/// Serves Services, unless somebody else does.
async fn serve_services(services: Option<services::Task<Linux>>) -> anyhow::Result<()> {
    match services {
        Some(services) => services.run().await.context("keeping Services"),
        None => std::future::pending().await,
    }
}

/// MTU of pods: what the host's way to other nodes leaves.
async fn pod_mtu(config: &Config, settings: &Settings, net: &Linux) -> anyhow::Result<u32> {
    let host = net.host_network().await.context("reading the host's network")?;
    let endpoint = chassis::encap_ip(config, &host)?;
    Ok(chassis::mtu_less(config, endpoint, &host, settings.tunnel.overhead(endpoint))?)
}

fn annotations(config: &Config, host: &HostNetwork, mtu: u32) -> anyhow::Result<Annotations> {
    let endpoint = chassis::encap_ip(config, host)?;
    Ok(Annotations::from([
        (annotation::NODE_ENCAP_IPS, text::format_encap_ips(&[endpoint])),
        (annotation::NODE_PRIMARY_IFADDR, text::format_primary_ifaddr(&chassis::primary(host, Some(endpoint)))),
        (annotation::HOST_CIDRS, text::format_host_cidrs(&chassis::host_cidrs(host))),
        (annotation::POD_MTU, text::format_pod_mtu(mtu)),
    ]))
}
