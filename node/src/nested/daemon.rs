//! The parts of a nested node.
//!
//! Must not: hold logic.

use std::sync::Arc;

use anyhow::Context as _;
use ovenbird_api::name::MANAGEMENT_INTERFACE;
use ovenbird_api::{Mac, annotation, node as text};
use ovenbird_classic::services::Weights;
use ovenbird_daemon::access;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::trunk::Trunk;
use super::way_out;
use crate::annotations::{self, Annotations};
use crate::base::Base;
use crate::classic::{host_ports, services};
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::management::Management;
use crate::net::{HostNetwork, NetOps};
use crate::readiness::Part;
use crate::{chassis, service_cidrs};

/// Runs the daemon of a VM whose bridge is `bridge`.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, bridge: String, stop: CancellationToken) -> anyhow::Result<()> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    let base = Base::new(config, client, &[Part::ManagementPort, Part::Services], stop)?;
    let Base { config, client, net, host_changes, vswitch, node, readiness, .. } = &base;
    let host = net.host_network().await.context("reading the host's network")?;
    let mtu = pod_mtu(config, &host)?;
    info!(node = config.node, mtu, bridge, "starting");

    let trunk = Arc::new(Trunk::new(vswitch.clone(), &bridge));
    let declared = CancellationToken::new();
    // Which networks are routed beside the cluster's own is the hypervisor's affair.
    let (none, routed) = watch::channel(Vec::new());
    let service_cidrs = service_cidrs::watch_all(client.clone(), config);
    let management = Management {
        config: config.clone(),
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs.clone(),
        routed,
        readiness: readiness.clone(),
        metrics: base.metrics.clone(),
        declared: declared.clone(),
    };
    // Weights are known where all pods are watched; here endpoints are chosen for few.
    let (even, weights) = watch::channel(Some(Weights::new()));
    let (link, audit) = (MANAGEMENT_INTERFACE.to_owned(), config.audit_interval);
    let host_ports = host_ports::Task { net: net.clone(), pods: base.pods.clone(), link, audit };
    let services = services::Task {
        config: config.clone(),
        client: client.clone(),
        net: net.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs,
        weights,
        behind: |config, node| way_out::behind(config, node).map(Some),
        readiness: readiness.clone(),
    };
    let (config, client, net, readiness) = (config.clone(), client.clone(), net.clone(), readiness.clone());
    let (node, host_changes, state) = (node.clone(), host_changes.clone(), vswitch.state());
    let cable = trunk.clone();
    let parts = async move {
        let (_none, _even) = (none, even);
        let is_userspace = || state.borrow().bridges.get(&bridge).is_some_and(|bridge| bridge.userspace);
        let want = |host: &HostNetwork, node: &NodeFact| annotations(&config, host, node, is_userspace());
        tokio::try_join!(
            async { trunk.run(&readiness).await.context("keeping the bridge") },
            async {
                trunk.until_stands().await;
                management.run().await.context("keeping the management port")
            },
            async { way_out::run(config.clone(), node.clone()).await.context("keeping the way out") },
            async { services.run().await.context("keeping Services") },
            async { host_ports.run().await.context("keeping ports of the node") },
            async {
                trunk.until_stands().await;
                let told = annotations::keep(&config.node, &*net, &client, node.clone(), host_changes, want);
                told.await.context("annotating the Node")
            },
        )
        .map(|_| ())
    };
    base.run(cable, mtu, declared, parts).await
}

/// MTU of pods: the VM's own, for the hypervisor's tunnel has been taken off that already.
fn pod_mtu(config: &Config, host: &HostNetwork) -> anyhow::Result<u32> {
    Ok(chassis::mtu_less(config, chassis::encap_ip(config, host)?, host, 0)?)
}

fn annotations(config: &Config, host: &HostNetwork, node: &NodeFact, userspace: bool) -> anyhow::Result<Annotations> {
    let own = chassis::management_addresses(&node.subnets).into_iter().map(|(own, _)| own.addr());
    let primary = chassis::primary(host, Some(chassis::encap_ip(config, host)?));
    let mut want = Annotations::from([
        (annotation::NODE_PRIMARY_IFADDR, text::format_primary_ifaddr(&primary)),
        (annotation::HOST_CIDRS, text::format_host_cidrs(&chassis::host_cidrs(host))),
        (annotation::POD_MTU, text::format_pod_mtu(pod_mtu(config, host)?)),
        (annotation::DATAPATH_TYPE, if userspace { "netdev" } else { "system" }.to_owned()),
    ]);
    want.extend(Mac::of_any(own).map(|mac| (annotation::NODE_MGMT_PORT_MACS, text::format_management_mac(mac))));
    Ok(want)
}
