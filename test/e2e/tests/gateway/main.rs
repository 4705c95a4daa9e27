//! Pods reach hosts outside the cluster, over ping, TCP and UDP in both families: with their node's address, or their own where
//! the operator wants it; and hosts outside that have routes reach pods, others by ports of nodes.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::witness::{self, Protocol};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Options, Place, testing};

mod host_ports;
mod vlan;

const NAMESPACE: &str = "gateway";
const PORT: u16 = 7000;

/// Pods go there with their own addresses.
const EXCLUDED: &str = "--non-masquerade-cidrs=203.0.113.0/24,2001:db8::/32";

/// A pod, its place and its addresses.
struct Pod {
    node: String,
    place: Place,
    addresses: Vec<IpAddr>,
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_leave_with_their_nodes_address() -> Result<()> {
    let Some(lab) = lab("e2e-gw-shared", &[], &[]).await? else { return Ok(()) };
    let pods = one_pod_on_each_node(&lab).await?;
    leave_with_their_nodes_address(&lab, &pods)?;
    for pod in &pods {
        let addresses = node_addresses(&lab, &pod.node)?;
        witness::stand(lab.scene(&pod.node)?.place(), &pod.node, &addresses, PORT)?;
    }
    // A pod's own node sees the pod itself, another its node.
    for (pod, other) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        let own = node_addresses(&lab, &pod.node)?;
        for address in &own {
            asks(pod, &pod.node, SocketAddr::new(*address, PORT), &pod.addresses)?;
        }
        for address in node_addresses(&lab, &other.node)? {
            asks(pod, &other.node, SocketAddr::new(address, PORT), &own)?;
        }
    }
    host_ports::are_served(&lab).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_their_address_where_the_operator_excludes_it() -> Result<()> {
    keep_their_address("e2e-gw-own", &[]).await
}

/// There it is the host that masquerades, or does not.
#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_their_address_in_local_mode_too() -> Result<()> {
    keep_their_address("e2e-gw-lown", &["--gateway-mode=local", EXCLUDED]).await
}

async fn keep_their_address(name: &str, node_args: &[&str]) -> Result<()> {
    let Some(lab) = lab(name, &[EXCLUDED], node_args).await? else { return Ok(()) };
    let pods = one_pod_on_each_node(&lab).await?;
    everywhere_outside(&lab)?;
    route_to_pods(&lab, &pods)?;
    let options = &lab.layout().options;
    for pod in &pods {
        for to in options.beyond_addresses() {
            reaches(pod, "outside", to, &pod.addresses)?;
        }
        for to in options.outside_addresses() {
            reaches(pod, "outside", to, &node_addresses(&lab, &pod.node)?)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_leave_through_the_host_in_local_mode() -> Result<()> {
    let Some(lab) = lab("e2e-gw-local", &[], &["--gateway-mode=local"]).await? else { return Ok(()) };
    let pods = one_pod_on_each_node(&lab).await?;
    leave_with_their_nodes_address(&lab, &pods)?;
    host_ports::are_served(&lab).await
}

fn leave_with_their_nodes_address(lab: &Lab, pods: &[Pod]) -> Result<()> {
    let outside = everywhere_outside(lab)?;
    for pod in pods {
        let own = node_addresses(lab, &pod.node)?;
        for to in &outside {
            reaches(pod, "outside", *to, &own)?;
        }
    }
    Ok(())
}

async fn lab(name: &str, master_args: &[&str], node_args: &[&str]) -> Result<Option<Lab>> {
    let [master_args, node_args] = [master_args, node_args].map(|args| args.iter().map(|arg| (*arg).into()).collect());
    testing::lab(name, Options { nodes: 2, master_args, node_args, ..Options::default() }).await
}

async fn one_pod_on_each_node(lab: &Lab) -> Result<Vec<Pod>> {
    let nodes = lab.layout().options.node_names();
    let manifest = nodes.iter().map(|node| pods::pod(NAMESPACE, &format!("on-{node}"), node));
    lab.apply(&(pods::namespace(NAMESPACE) + &manifest.collect::<String>())).await?;
    lab.await_running(NAMESPACE).await?;
    let api = pods::api(lab, NAMESPACE).await?;
    let mut found = Vec::new();
    for node in nodes {
        let name = format!("on-{node}");
        let place = lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone();
        found.push(Pod { place, addresses: pods::ips(&api, &name).await?, node });
    }
    Ok(found)
}

/// The host outside answers on all of its addresses, which are returned.
fn everywhere_outside(lab: &Lab) -> Result<Vec<IpAddr>> {
    let options = &lab.layout().options;
    let all = [options.outside_addresses(), options.beyond_addresses()].concat();
    witness::stand(lab.scene("outside")?.place(), "outside", &all, PORT)?;
    Ok(all)
}

fn node_addresses(lab: &Lab, node: &str) -> Result<Vec<IpAddr>> {
    let options = &lab.layout().options;
    Ok(options.node_addresses(options.index_of(node)?))
}

/// The host outside learns which node has which pod.
fn route_to_pods(lab: &Lab, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        for (address, node) in pod.addresses.iter().zip(node_addresses(lab, &pod.node)?) {
            lab.exec_node("outside", &["ip", "route", "replace", &address.to_string(), "via", &node.to_string()])?;
        }
    }
    Ok(())
}

/// The pod reaches an address by ping, TCP and UDP; who answers sees one of `seen`.
fn reaches(pod: &Pod, who: &str, to: IpAddr, seen: &[IpAddr]) -> Result<()> {
    pod.place.run(|| Target::Ping(to).check(LIMIT)).with_context(|| format!("pod on {} pings {to}", pod.node))?;
    asks(pod, who, SocketAddr::new(to, PORT), seen)
}

fn asks(pod: &Pod, who: &str, to: SocketAddr, seen: &[IpAddr]) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let answer = witness::ask(&pod.place, protocol, to, LIMIT)?;
        let fits = answer.as_ref().is_ok_and(|a| a.who == who && seen.contains(&a.seen));
        ensure!(fits, "pod on {} asks {protocol} {to}: {answer:?}, wanted {who} to see one of {seen:?}", pod.node);
    }
    Ok(())
}
