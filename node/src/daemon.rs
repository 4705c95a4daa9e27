//! Runs the daemon in its network mode; here the parts of a node of OVN's network.
//!
//! ```text
//! [cluster] --> PodBook, NodeFact --> [chassis] [management] [underlay] [gateway] --> Vswitch, kernel
//!                                     [base]: [plug] <-- CNI socket, [restore]         all ready --> CNI configuration file
//! ```
//!
//! Must not: hold logic.

use anyhow::Context as _;
use ovenbird_daemon::access;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::base::{Base, follow_vswitch};
use crate::config::Config;
use crate::gateway::endpoints::Told;
use crate::management::Management;
use crate::mode::NetworkMode;
use crate::net::NetOps;
use crate::net::linux::Linux;
use crate::readiness::Part;
use crate::uplink::Purpose;
use crate::{capability, chassis, classic, gateway, nested, service_cidrs, underlay, uplink};

/// Runs the daemon.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    match config.network.clone() {
        NetworkMode::Overlay => overlay(config, stop).await,
        NetworkMode::Classic(settings) => classic::daemon::run(config, settings, stop).await,
        NetworkMode::Nested(nested) => nested::daemon::run(config, nested.bridge, stop).await,
    }
}

async fn overlay(mut config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let client = connect(&mut config, &stop).await?;
    let base = Base::new(config, client, &[Part::ManagementPort], stop.clone())?;
    let Base { config, client, net, host_changes, vswitch, node, readiness, .. } = &base;
    let mtu = pod_mtu(config, net).await?;
    info!(node = config.node, mtu, "starting");
    capability::spawn(client, &config.node, (config.encap.as_str(), "--encap-type"), node, vswitch);

    let declared = CancellationToken::new();
    let moving = stop.child_token();
    let networks = underlay::Parts::new(config, client, net, vswitch, (node, host_changes), (&declared, &moving));
    let turn = networks.task.moves.turn();
    let all_declared = networks.task.all_declared.clone();
    let service_cidrs = service_cidrs::watch_all(client.clone(), config);
    let management = Management {
        config: config.clone(),
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs.clone(),
        routed: networks.routed.clone(),
        readiness: readiness.clone(),
        metrics: base.metrics.clone(),
        declared,
    };
    let guarded = watch::Sender::new(false);
    let (services, Told { local, stale }) = gateway::watch(client, config);
    let endpoints = gateway::serve_endpoints(config.clone(), services.clone(), local.clone(), stale);
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
        routed: networks.routed,
        host_ports: base.pods.host_ports(),
        shared: networks.shared,
        guarded: guarded.clone(),
    };
    let told = chassis::Told {
        node: node.clone(),
        host_changes: host_changes.clone(),
        providers: networks.mapped,
        entered: base.entered.subscribe(),
        guarded: guarded.subscribe(),
    };
    let chassis = chassis::run(config.clone(), net.clone(), vswitch.clone(), client.clone(), told);
    let (vswitch, readiness) = (vswitch.clone(), readiness.clone());
    let cable = vswitch.clone().into();
    let parts = async move {
        tokio::try_join!(
            async { chassis.await.context("keeping the chassis") },
            async { management.run().await.context("keeping the management port") },
            async { networks.task.run().await.context("keeping physical networks") },
            async { gateway.run().await.context("keeping the gateway") },
            endpoints,
            follow_vswitch(&vswitch, &readiness, |state| state.synced && state.bridge),
        )
        .map(|_| ())
    };
    let ended = base.run(cable, mtu, all_declared, parts).await;
    // A NIC that is on its way arrives, on either side.
    moving.cancel();
    drop(turn.lock().await);
    ended
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
        let answers = || uplink::ask::answers(client.clone());
        let bridge = uplink::Task::new(config, Purpose::Gateway).start(&config.gateway.bridge, answers, stop).await;
        config.gateway.bridge = bridge.context("taking over the uplink")?;
    }
    Ok(client)
}
