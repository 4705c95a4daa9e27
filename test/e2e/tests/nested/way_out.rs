//! A VM's kernel is its pods' way out, and the way in by ports of Services: who answers, and whom the answerer sees.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::service::{service, slices};
use ovenbird_e2e::witness::{Protocol, Silence, ask, stand};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Place, wait_for};
use serde_json::json;

use super::NAMESPACE;

/// Port of those who answer.
const PORT: u16 = ovenbird_e2e::service::PORT;
/// After this, silence counts as silence.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Everybody who asks or answers.
struct World {
    outside: Place,
    hosts: [Place; 2],
    /// Their addresses on the fabric.
    addresses: [Vec<IpAddr>; 2],
    /// Pods a and b of the first, a of the second.
    pods: [(Place, Vec<IpAddr>); 3],
    /// With which the VMs speak for others.
    for_others: [Vec<IpAddr>; 2],
    /// Hosts' own, on their subnets.
    own: [Vec<IpAddr>; 2],
    outside_addresses: Vec<IpAddr>,
    beyond: Vec<IpAddr>,
}

/// See the file header.
pub async fn by_the_vm(lab: &Lab) -> Result<()> {
    let world = World::of(lab).await?;
    stand(&world.outside, "outside", &[&world.outside_addresses[..], &world.beyond].concat(), PORT)?;
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        stand(&world.pods[i].0, name, &world.pods[i].1, PORT)?;
    }
    for i in [0, 1] {
        stand(&world.hosts[i], ["host1", "host2"][i], &world.addresses[i], PORT)?;
    }
    out(&world)?;
    services(lab, &world).await
}

impl World {
    async fn of(lab: &Lab) -> Result<World> {
        let api = pods::api(lab, NAMESPACE).await?;
        let mut found = Vec::new();
        for name in ["a-node1", "b-node1", "a-node2"] {
            found.push((lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone(), pods::ips(&api, name).await?));
        }
        let options = &lab.layout().options;
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(lab.client().await?);
        let (mut hosts, mut for_others, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["node1", "node2"] {
            let node = nodes.get(name).await.context("reading a Node")?;
            let id =
                node.metadata.annotations.as_ref().and_then(|all| all.get("k8s.ovn.org/node-id")).context("no id")?;
            for_others
                .push(vec![format!("100.64.0.{id}").parse()?, format!("fd98::{:x}", id.parse::<u16>()?).parse()?]);
            let place = lab.scene(name)?;
            let text = place.checked(&["ip", "-o", "address", "show", "ovn-k8s-mp0", "scope", "global"])?;
            let address = |line: &str| line.split_whitespace().nth(3)?.split('/').next()?.parse::<IpAddr>().ok();
            own.push(text.lines().filter_map(address).collect::<Vec<_>>());
            hosts.push(place.place().clone());
        }
        let two = |all: Vec<Vec<IpAddr>>| <[Vec<IpAddr>; 2]>::try_from(all).ok().context("two nodes");
        Ok(World {
            outside: lab.scene("outside")?.place().clone(),
            hosts: hosts.try_into().ok().context("two hosts")?,
            addresses: [1, 2].map(|i| options.node_addresses(i)),
            pods: found.try_into().ok().context("three pods")?,
            for_others: two(for_others)?,
            own: two(own)?,
            outside_addresses: options.outside_addresses(),
            beyond: options.beyond_addresses(),
        })
    }
}

/// Pods leave with their VM's address, but to the VM itself with their own.
fn out(world: &World) -> Result<()> {
    for (pod, vm) in [(0, 0), (2, 1)] {
        let (place, own) = &world.pods[pod];
        for to in world.outside_addresses.iter().chain(&world.beyond) {
            place.run(|| Target::Ping(*to).check(LIMIT)).with_context(|| format!("pod {pod} pings {to}"))?;
            answers(place, (*to, PORT), &["outside"], &world.addresses[vm])?;
        }
        for to in &world.addresses[vm] {
            answers(place, (*to, PORT), &[["host1", "host2"][vm]], own)?;
        }
        for to in &world.addresses[1 - vm] {
            answers(place, (*to, PORT), &[["host1", "host2"][1 - vm]], &world.addresses[vm])?;
        }
    }
    Ok(())
}

/// Services of pods a and c, with either policy, and one of a host outside: from everywhere, by every door.
async fn services(lab: &Lab, world: &World) -> Result<()> {
    let ips = |n: u8| [format!("10.96.7.{n}"), format!("fd00:10:96::7{n}")].map(|ip| ip.parse::<IpAddr>());
    let ips = |n: u8| ips(n).into_iter().collect::<Result<Vec<_>, _>>();
    let node_ports = |tcp: u16, policy: &str| {
        let port = |name: &str, port: u16, node_port: u16, protocol: &str| json!({"name": name, "port": port, "targetPort": PORT, "nodePort": node_port, "protocol": protocol});
        let ports = [port("tcp", 80, tcp, "TCP"), port("udp", 53, tcp, "UDP")];
        json!({"type": "NodePort", "externalTrafficPolicy": policy, "ports": ports})
    };
    let of = |node: &'static str, all: &[IpAddr]| all.iter().map(|ip| (node, *ip)).collect::<Vec<_>>();
    let (a, c) = (of("node1", &world.pods[0].1), of("node2", &world.pods[2].1));
    let host = of("", &world.outside_addresses);
    let text = [
        service(NAMESPACE, "cluster", &ips(1)?, &json!({}), node_ports(31000, "Cluster")),
        slices(NAMESPACE, "cluster", &c),
        service(NAMESPACE, "local", &ips(2)?, &json!({}), node_ports(31001, "Local")),
        slices(NAMESPACE, "local", &a),
        service(NAMESPACE, "host", &ips(3)?, &json!({}), node_ports(31002, "Cluster")),
        slices(NAMESPACE, "host", &host),
    ];
    lab.apply(&text.concat()).await?;
    let by_ovn = ips(3)?[0];
    let last = world.addresses.iter().map(|own| (&world.outside, own[0], 31002));
    for (from, to, port) in last.chain([0, 2].map(|pod| (&world.pods[pod].0, by_ovn, 80))) {
        let asked = || ask(from, Protocol::Tcp, SocketAddr::new(to, port), PATIENCE).is_ok_and(|answer| answer.is_ok());
        wait_for("the last Service to be served", LIMIT, asked)?;
    }
    let (node1, node2) = (&world.addresses[0], &world.addresses[1]);
    for family in [0, 1] {
        // Clients outside: by the VM without an endpoint, with the VM's address for others; with policy Local with their own, or in vain.
        answers(&world.outside, (node1[family], 31000), &["c"], &world.for_others[0])?;
        answers(&world.outside, (node2[family], 31000), &["c"], &world.for_others[1])?;
        answers(&world.outside, (node1[family], 31001), &["a"], &world.outside_addresses)?;
        is_silent(&world.outside, (node2[family], 31001))?;
        answers(&world.outside, (node1[family], 31002), &["outside"], node1)?;
        // The host itself.
        for (host, own) in world.hosts.iter().zip(&world.own) {
            answers(host, (ips(1)?[family], 80), &["c"], own)?;
            answers(host, (ips(2)?[family], 80), &["a"], own)?;
        }
        answers(&world.hosts[0], (ips(3)?[family], 80), &["outside"], node1)?;
        answers(&world.hosts[0], (node1[family], 31000), &["c"], &world.own[0])?;
        answers(&world.hosts[0], (node1[family], 31002), &["outside"], node1)?;
        // Pods: by OVN, and by either VM's ports.
        for (place, own) in [&world.pods[0], &world.pods[1]] {
            answers(place, (ips(1)?[family], 80), &["c"], own)?;
            answers(place, (ips(3)?[family], 80), &["outside"], node1)?;
            answers(place, (node1[family], 31000), &["c"], &world.for_others[0])?;
            answers(place, (node1[family], 31001), &["a"], &world.for_others[0])?;
            answers(place, (node2[family], 31000), &["c"], &world.for_others[1])?;
            answers(place, (node1[family], 31002), &["outside"], node1)?;
        }
    }
    // What is no Service's does not go round between VM and OVN.
    ensure!(
        world.pods[0].0.run(|| Target::Ping("10.96.99.99".parse()?).check(PATIENCE)).is_err(),
        "somebody answers for an address that is no Service's"
    );
    lab.delete(&text.concat()).await?;
    Ok(())
}

/// The one asked by this door answers over TCP and UDP, and sees one of `seen`.
fn answers(from: &Place, (to, port): (IpAddr, u16), who: &[&str], seen: &[IpAddr]) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let port = if port == 80 && protocol == Protocol::Udp { 53 } else { port };
        let to = SocketAddr::new(to, port);
        let answer = ask(from, protocol, to, LIMIT)?;
        let fits = answer.as_ref().is_ok_and(|a| who.contains(&&*a.who) && seen.contains(&a.seen));
        ensure!(
            fits,
            "{:?} asks {protocol} {to}: {answer:?}, wanted one of {who:?} to see one of {seen:?}",
            from.netns
        );
    }
    Ok(())
}

fn is_silent(from: &Place, to: (IpAddr, u16)) -> Result<()> {
    let answer = ask(from, Protocol::Tcp, to.into(), PATIENCE)?;
    ensure!(answer == Err(Silence::Timeout), "asking {to:?}: {answer:?}, wanted silence");
    Ok(())
}
