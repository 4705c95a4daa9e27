//! The parts of a nested node, run until the daemon is told to stop. Nothing of the data path is undone at the end.
//!
//! Must not: hold logic; a part that ends with an error ends the daemon, and whoever runs it starts it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use ovenbird_api::{Mac, annotation, node as text};
use ovenbird_cni_server::{Server, ServerConfig};
use ovenbird_daemon::access;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::trunk::Trunk;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::daemon::{announce, keep_pods, out_of_patience, serve_http, tell_node};
use crate::management::Management;
use crate::metrics::Metrics;
use crate::net::linux::Linux;
use crate::net::{HostNetwork, NetOps};
use crate::plug::{Parts, Plug};
use crate::pods::PodBook;
use crate::readiness::{Part, Readiness, Shown};
use crate::vswitch::Vswitch;
use crate::{chassis, cluster, service_cidrs};

/// Runs the daemon of a VM whose bridge is `bridge`.
///
/// # Errors
/// When the host cannot be a node as configured, or a part fails for good.
pub async fn run(config: Config, bridge: String, stop: CancellationToken) -> anyhow::Result<()> {
    let client = access::connect(config.kubeconfig.as_deref()).await?;
    let net = Arc::new(Linux::new().context("reaching the kernel's network")?);
    let host_changes = net.changes().context("watching the kernel's network")?;
    let host = net.host_network().await.context("reading the host's network")?;
    let mtu = pod_mtu(&config, &host)?;
    info!(node = config.node, mtu, bridge, "starting");

    let (readiness, metrics) = (Arc::new(Readiness::default()), Arc::new(Metrics::default()));
    let pods = Arc::new(PodBook::new(config.node.clone(), cluster::lookup(client.clone())));
    let vswitch = Vswitch::spawn(config.ovs.clone(), config.audit_interval);
    let node = cluster::watch_node(client.clone(), &config.node);
    cluster::watch_pods(client.clone(), &config.node, pods.clone());
    let trunk = Arc::new(Trunk::new(vswitch.clone(), &bridge));

    let plug = Arc::new(Plug::new(Parts {
        net: net.clone(),
        cable: trunk.clone(),
        pods: pods.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        tell: cluster::events(client.clone(), &config.node),
        mtu,
    }));
    let server = Server::bind(ServerConfig { socket: config.cni_socket.clone(), deadline: config.cni_timeout })?;
    readiness.set(Part::Socket, true);
    let declared = CancellationToken::new();
    // Which networks are routed beside the cluster's own is the hypervisor's affair.
    let (_none, routed) = watch::channel(Vec::new());
    let management = Management {
        config: config.clone(),
        mtu,
        net: net.clone(),
        vswitch: vswitch.clone(),
        node: node.clone(),
        host_changes: host_changes.clone(),
        service_cidrs: service_cidrs::watch_all(client.clone(), &config),
        routed,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        declared: declared.clone(),
    };
    let userspace = vswitch.state();
    let is_userspace = || userspace.borrow().bridges.get(&bridge).is_some_and(|bridge| bridge.userspace);
    let want = |host: &HostNetwork, node: &NodeFact| annotations(&config, host, node, is_userspace());
    let shown = Shown { metrics, readiness: readiness.clone(), vswitch: vswitch.clone() };
    let parts = async {
        tokio::try_join!(
            async { serve_http(&config, shown, stop.clone()).await.context("serving metrics") },
            async { trunk.run(&readiness).await.context("keeping the bridge") },
            async {
                trunk.until_stands().await;
                management.run().await.context("keeping the management port")
            },
            async {
                trunk.until_stands().await;
                let run = tell_node(&config.node, &net, client.clone(), node, host_changes, want);
                run.await.context("annotating the Node")
            },
            keep_pods(&net, &trunk, &plug, &pods, &readiness, &declared, &stop),
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

/// MTU of pods: the VM's own, for the hypervisor's tunnel has been taken off that already.
fn pod_mtu(config: &Config, host: &HostNetwork) -> anyhow::Result<u32> {
    Ok(chassis::mtu_less(config, chassis::encap_ip(config, host)?, host, 0)?)
}

fn annotations(
    config: &Config,
    host: &HostNetwork,
    node: &NodeFact,
    userspace: bool,
) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let own = chassis::management_addresses(&node.subnets).into_iter().map(|(own, _)| own.addr());
    let primary = chassis::primary(host, Some(chassis::encap_ip(config, host)?));
    let mut want = BTreeMap::from([
        (annotation::NODE_PRIMARY_IFADDR, text::format_primary_ifaddr(&primary)),
        (annotation::HOST_CIDRS, text::format_host_cidrs(&chassis::host_cidrs(host))),
        (annotation::POD_MTU, text::format_pod_mtu(pod_mtu(config, host)?)),
        (annotation::DATAPATH_TYPE, if userspace { "netdev" } else { "system" }.to_owned()),
    ]);
    want.extend(Mac::of_any(own).map(|mac| (annotation::NODE_MGMT_PORT_MACS, text::format_management_mac(mac))));
    Ok(want)
}
