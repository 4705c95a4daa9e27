//! Cluster DNS, and the way of the API server to pods, which it proxies to, and whose webhooks it calls.
//!
//! In: nodes that are Ready. Out: CoreDNS available, routes in the central namespace.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use ovenbird_kube::version::COREDNS;
use serde_json::Value;
use tokio::time::timeout;

use crate::layout::Layout;
use crate::options::Mode;
use crate::{cluster, underlay};

const DNS: &str = include_str!("dns.yaml");
const DNS_LIMIT: Duration = Duration::from_secs(60);

/// Starts cluster DNS and waits for it.
///
/// # Errors
/// Names the step that failed.
pub async fn start_dns(layout: &Layout) -> Result<()> {
    let client = cluster::connect(&layout.kubeconfig()).await?;
    lead_to_the_nodes(layout, &client).await?;
    let manifest = DNS.replace("IMAGE", COREDNS).replace("ADDRESS", &dns_address(layout)?);
    cluster::apply(&client, &manifest).await?;
    let deployments = Api::<Deployment>::namespaced(client, "kube-system");
    let available = |one: Option<&Deployment>| {
        one.and_then(|one| one.status.as_ref()).is_some_and(|status| status.available_replicas == Some(1))
    };
    let seen = timeout(DNS_LIMIT, await_condition(deployments, "coredns", available)).await;
    seen.with_context(|| format!("CoreDNS is not available after {DNS_LIMIT:?}"))?.context("watching CoreDNS")?;
    Ok(())
}

/// The address of cluster DNS: the tenth of the first Service network.
///
/// # Errors
/// When there is none.
pub fn dns_address(layout: &Layout) -> Result<String> {
    let network = layout.options.service_cidrs().split(',').next().context("no Service network")?;
    Ok(nth_address(network, 10)?.to_string())
}

/// Packets of the API server go by the node of their pod, those to the VLAN of all pods by any.
async fn lead_to_the_nodes(layout: &Layout, client: &Client) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("listing nodes")?;
    for (subnet, _) in underlay::subnets(layout).filter(|_| layout.options.mode == Mode::Underlay) {
        let hop = nodes.iter().find_map(|node| address_of(node, !subnet.contains(':')));
        lead(layout, subnet, &hop.with_context(|| format!("no node has an address for {subnet}"))?)?;
    }
    for node in nodes {
        let name = node.name_any();
        let text =
            node.annotations().get("k8s.ovn.org/node-subnets").with_context(|| format!("{name} has no subnets"))?;
        let subnets: Value = serde_json::from_str(text).with_context(|| format!("reading the subnets of {name}"))?;
        for subnet in subnets["default"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let hop = address_of(&node, !subnet.contains(':'));
            let hop = hop.with_context(|| format!("{name} has no address for {subnet}"))?;
            lead(layout, subnet, &hop)?;
        }
    }
    Ok(())
}

fn lead(layout: &Layout, subnet: &str, hop: &str) -> Result<()> {
    let route = ["ip", "route", "replace", subnet, "via", hop];
    layout.place("central").output(&route).with_context(|| format!("leading the API server to {subnet}")).map(drop)
}

/// The node's own address of a family.
fn address_of(node: &Node, v4: bool) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_deref()?;
    let mut internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.find(|one| one.address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == v4)).map(|one| one.address.clone())
}

/// An address of a network, counted from its base.
fn nth_address(network: &str, index: u8) -> Result<IpAddr> {
    let base = network.split('/').next().unwrap_or(network);
    Ok(match base.parse().with_context(|| format!("{network} is not a network"))? {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base) + u32::from(index)).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(index)).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_base() {
        assert_eq!(nth_address("10.96.0.0/16", 10).unwrap().to_string(), "10.96.0.10");
        assert_eq!(nth_address("fd00:10:96::/112", 10).unwrap().to_string(), "fd00:10:96::a");
        assert!(nth_address("x/16", 1).is_err());
    }
}
