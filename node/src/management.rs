//! The management port `ovn-k8s-mp0`: the host's own interface on its node switch, with routes to pods and services.
//!
//! ```text
//! node-subnets --> rows of the port --> OVS makes the interface --> MAC, MTU, addresses, routes --> ovn-installed --> ready
//!                                           ^------- again on each change of subnets, interface or kernel state
//! ```
//!
//! Must not: touch another interface.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::annotation::PARENT_PORT;
use ovenbird_api::{Mac, name};
use ovenbird_reconcile::Owner;
use ovenbird_schema::vswitch::interface;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chassis::management_addresses;
use crate::cluster::NodeFact;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::net::{HostLink, NetError, NetOps, Route, causes};
use crate::readiness::{Part, Readiness};
use crate::rows;
use crate::vswitch::{State, Vswitch};

/// Metric of the routes to Services, which a node without a gateway has.
const LAST_RESORT: u32 = 2000;
/// Pause after a failure of the kernel.
const RETRY: Duration = Duration::from_secs(1);

/// What the task works with.
pub struct Management<N> {
    /// Settings: name of the node, networks to be routed.
    pub config: Config,
    /// MTU of the port.
    pub mtu: u32,
    /// The kernel.
    pub net: Arc<N>,
    /// Open_vSwitch.
    pub vswitch: Vswitch,
    /// The Node.
    pub node: watch::Receiver<NodeFact>,
    /// News of the kernel.
    pub host_changes: watch::Receiver<u64>,
    /// Networks of Services, once they are known.
    pub service_cidrs: watch::Receiver<Option<Vec<IpNet>>>,
    /// Subnets of Networks to which OVN routes.
    pub routed: watch::Receiver<Vec<IpNet>>,
    /// Told when the port serves.
    pub readiness: Arc<Readiness>,
    /// Counts what had to be healed.
    pub metrics: Arc<Metrics>,
    /// Cancelled once the port's rows are wanted.
    pub declared: CancellationToken,
}

/// The interface as it should be; `None` when no subnet has room for it.
/// `networks` are those of Services, and those of Networks that OVN routes.
pub fn host_link(
    config: &Config,
    mtu: u32,
    subnets: &[IpNet],
    networks: (&[IpNet], &[IpNet]),
    userspace: bool,
) -> Option<HostLink> {
    let addresses = management_addresses(subnets);
    let mac = Mac::of_any(addresses.iter().map(|(own, _)| own.addr()))?;
    let mut routes: Vec<Route> = Vec::new();
    for (own, router) in &addresses {
        let same_family = |dst: &&IpNet| dst.addr().is_ipv4() == router.is_ipv4();
        let route = |dst: &IpNet| Route { src: Some(own.addr()), ..Route::to(dst.trunc(), Some(*router)) };
        routes.extend(config.cluster_subnets.iter().filter(same_family).map(route));
        // The gateway's routes win while it has them.
        let last = |dst| Route { metric: Some(LAST_RESORT), ..route(dst) };
        // What the host reaches by itself, such as a VLAN that it is on, it does not reach through OVN.
        let (service_cidrs, routed) = networks;
        routes.extend(service_cidrs.iter().chain(routed).filter(same_family).map(last));
    }
    Some(HostLink {
        name: name::MANAGEMENT_INTERFACE.into(),
        mac,
        mtu,
        addresses: addresses.into_iter().map(|(own, _)| own).collect(),
        routes,
        checksum_in_software: userspace,
    })
}

impl<N: NetOps> Management<N> {
    /// Keeps the port as it should be, until the daemon stops.
    ///
    /// # Errors
    /// When one of the daemon's other parts has ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        // The interface that was looked after last, and whether it has been in order since.
        let mut seen: Option<i64> = None;
        loop {
            let fact = self.node.wait_for(|fact| !fact.subnets.is_empty()).await?.clone();
            let (subnets, parent) = (fact.subnets, fact.annotations.get(PARENT_PORT).map(String::as_str));
            self.readiness.set(Part::Subnets, true);
            let nested_in = self.config.network.nested_in().map(str::to_owned);
            let there = |s: &State| nested_in.as_ref().map_or(s.bridge, |name| s.bridges.contains_key(name));
            let state = self.vswitch.until(|s| s.synced && there(s)).await?;
            let of_bridge = nested_in.as_ref().and_then(|name| state.bridges.get(name)).map(|bridge| bridge.userspace);
            let userspace = of_bridge.unwrap_or(state.userspace);
            let service_cidrs = self.service_cidrs.wait_for(Option::is_some).await?.clone().unwrap_or_default();
            let routed = self.routed.borrow_and_update().clone();
            let networks = (&*service_cidrs, &*routed);
            let Some(want) = host_link(&self.config, self.mtu, &subnets, networks, userspace) else {
                warn!("annotation k8s.ovn.org/node-subnets: no subnet has room for the management port");
                self.node.changed().await?;
                continue;
            };
            let (owner, output) = rows::management(&self.config.node, want.mac, want.mtu, nested_in.as_deref(), parent);
            self.vswitch.set(owner.clone(), output);
            self.declared.cancel();
            self.host_changes.borrow_and_update();
            let index = self.vswitch.wait(&owner, device).await?;
            match self.net.apply_host_link(&want).await {
                Ok(true) => {
                    info!("{} is set up", want.name);
                    if seen == Some(index) {
                        self.metrics.management_healed.inc();
                    }
                    seen = Some(index);
                    // What was changed is news, too: look once more.
                    continue;
                }
                Ok(false) => seen = Some(index),
                // The kernel tells when it has come.
                Err(NetError::NoLink(_)) => seen = None,
                Err(e) => {
                    warn!("setting up {}: {e}: {}", want.name, causes(&e));
                    // Nobody announces that the kernel would do it now.
                    seen = None;
                    drop(tokio::time::timeout(RETRY, self.until_news(&owner, index)).await);
                    continue;
                }
            }
            self.until_news(&owner, index).await?;
        }
    }

    /// Waits until something may have to be done; meanwhile tells whether ovn-controller has bound the port.
    async fn until_news(&mut self, owner: &Owner, index: i64) -> anyhow::Result<()> {
        // In a VM nobody tells whether the hypervisor has bound it.
        let nested = self.config.network.nested_in().is_some();
        let serves = move |row: Option<interface::Ref<'_>>| if nested { device(row).is_some() } else { installed(row) };
        let bound = async {
            self.vswitch.wait(owner, move |row| serves(row).then_some(())).await?;
            self.readiness.set(Part::ManagementPort, true);
            self.vswitch.wait(owner, move |row| (!serves(row)).then_some(())).await?;
            self.readiness.set(Part::ManagementPort, false);
            anyhow::Ok(())
        };
        tokio::select! {
            done = bound => done?,
            changed = self.node.changed() => changed?,
            changed = self.host_changes.changed() => changed?,
            changed = self.service_cidrs.changed() => changed?,
            changed = self.routed.changed() => changed?,
            // vswitchd was restarted, or made the interface anew.
            another = self.vswitch.wait(owner, move |row| (device(row) != Some(index)).then_some(())) => another?,
        }
        Ok(())
    }
}

/// Index of the interface that vswitchd has made for the row.
fn device(row: Option<interface::Ref<'_>>) -> Option<i64> {
    let row = row?;
    row.ofport().filter(|port| *port > 0)?;
    row.ifindex()
}

fn installed(row: Option<interface::Ref<'_>>) -> bool {
    row.is_some_and(|r| r.external_ids().get("ovn-installed") == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn routes_of_each_family_go_through_its_router() {
        let config = Config::new(Settings {
            node_name: Some("n1".into()),
            cluster_subnets: Some("10.128.0.0/14/23,fd00:10:128::/48/64".into()),
            ..Settings::default()
        })
        .unwrap();
        let subnets = ["10.128.2.0/23".parse().unwrap(), "fd00:10:128:1::/64".parse().unwrap()];
        let service_cidrs = ["10.96.0.0/16".parse().unwrap()];
        let link = host_link(&config, 1400, &subnets, (&service_cidrs, &[]), true).unwrap();
        let addresses: Vec<_> = link.addresses.iter().map(IpNet::to_string).collect();
        assert_eq!(addresses, ["10.128.2.2/23", "fd00:10:128:1::2/64"]);
        assert_eq!(link.mac.to_string(), "0a:58:0a:80:02:02");
        let routes: Vec<_> =
            link.routes.iter().map(|r| format!("{} via {} src {}", r.dst, r.via.unwrap(), r.src.unwrap())).collect();
        assert_eq!(
            routes,
            [
                "10.128.0.0/14 via 10.128.2.1 src 10.128.2.2",
                "10.96.0.0/16 via 10.128.2.1 src 10.128.2.2",
                "fd00:10:128::/48 via fd00:10:128:1::1 src fd00:10:128:1::2",
            ]
        );
        assert_eq!(host_link(&config, 1400, &[], (&service_cidrs, &[]), true), None);
    }
}
