//! A pod is never connected before its policies apply: from the first instant of its network namespace on, it sends to others, and others send to
//! it as soon as its addresses are chosen. In a namespace that denies all, no packet arrives; in one without policies, packets do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::wait::await_condition;
use ovenbird_e2e::datapath::forget_flows;
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::kubelet::Store;
use ovenbird_lab::{Lab, Mode, Options, Place, testing, wait_for};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::document;

/// Where packets are counted.
const PORT: u16 = 9100;
/// Between two packets of one sender.
const PERIOD: Duration = Duration::from_millis(1);
/// Packets that are tried at the least after a pod runs.
const LEAST: u64 = 1000;
/// Pods in each namespace.
const PODS: usize = 4;
const ANNOTATION: &str = "k8s.ovn.org/pod-networks";

/// What arrived and what was sent.
#[derive(Debug, Default)]
struct Counts {
    /// What its packets say: those of a pod before may still be on their way.
    name: String,
    /// From the new pod, where it sends to.
    out: AtomicU64,
    /// In the new pod.
    inward: AtomicU64,
    /// Sent by the new pod, once it had a way.
    sent: AtomicU64,
    /// Tried by both sides.
    tried: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_packet_passes_before_the_policies_do() -> Result<()> {
    none_passes("e2e-policy-first", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_on_a_classic_network() -> Result<()> {
    none_passes("e2e-policy-fcl", Mode::Classic).await
}

async fn none_passes(lab: &str, mode: Mode) -> Result<()> {
    let options = Options { nodes: 2, mode, ..Options::default() };
    let Some(lab) = testing::lab(lab, options).await? else { return Ok(()) };
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "closed", "name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
    let namespaces = ["peers", "open", "closed"].map(pods::namespace).concat();
    lab.apply(&(namespaces + &pods::pod("peers", "one", "node1") + &pods::pod("peers", "two", "node2"))).await?;
    lab.apply(&document(&deny)).await?;
    lab.await_running("peers").await?;
    // How many packets it took where they may pass says how many are enough where they may not.
    let mut enough = 0;
    for (namespace, index) in
        ["open", "closed"].into_iter().flat_map(|namespace| (0..PODS).map(move |index| (namespace, index)))
    {
        let name = format!("{namespace}/p{index}");
        let counts = Counts { name: name.clone(), ..Counts::default() };
        let open = namespace == "open";
        let node = if index % 2 == 0 { "node1" } else { "node2" };
        let tried =
            one_pod(&lab, (namespace, &format!("p{index}"), node), &counts, (!open).then_some(2 * enough)).await?;
        println!("{name}: {counts:?}, {tried} of them when it ran");
        if open {
            enough = enough.max(tried).max(LEAST);
        }
        let [out, inward, sent] =
            [&counts.out, &counts.inward, &counts.sent].map(|count| count.load(Ordering::Relaxed));
        ensure!(sent > 0, "{name} has sent nothing");
        ensure!(open || out + inward == 0, "{name}: {out} packets came out, {inward} came in");
    }
    Ok(())
}

/// Makes a pod, and sends from and to it until it has run for a while.
async fn one_pod(lab: &Lab, pod: (&str, &str, &str), counts: &Counts, enough: Option<u64>) -> Result<u64> {
    let (namespace, name, node) = pod;
    let api = pods::api(lab, "peers").await?;
    let mut peers = Vec::new();
    for peer in ["one", "two"] {
        peers.push((lab.scene(&format!("peers/{peer}"))?.place().clone(), pods::ips(&api, peer).await?));
    }
    let addresses: Vec<_> = peers.iter().flat_map(|(_, ips)| ips.clone()).collect();
    let api = pods::api(lab, namespace).await?;
    let manifest = pods::pod(namespace, name, node);
    let (end, peers) = (&AtomicBool::new(false), &peers);
    thread::scope(|scope| {
        let (runtime, addresses) = (tokio::runtime::Handle::current(), &addresses);
        let mut workers = Vec::new();
        workers.push(scope.spawn(move || from_within(lab, namespace, name, addresses, counts, end)));
        for (place, _) in peers {
            workers.push(scope.spawn(move || place.run(|| count(counts, end))));
        }
        let outcome = tokio::task::block_in_place(|| {
            runtime.block_on(async {
                lab.apply(&manifest).await?;
                let own = chosen(&api, name).await?;
                workers.push(scope.spawn(move || peers[1].0.run(|| send(&own, None, counts, end))));
                lab.await_running(namespace).await
            })
        });
        let outcome = outcome.and_then(|()| afterwards(lab, counts, enough));
        end.store(true, Ordering::Relaxed);
        let joined = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a sender panicked"))?);
        joined.collect::<Result<Vec<()>>>()?;
        outcome
    })
}

/// Lets packets go on after the pod runs, for so many or until some arrive on both sides. Returns how many were tried.
fn afterwards(lab: &Lab, counts: &Counts, enough: Option<u64>) -> Result<u64> {
    // In user space a flow of the datapath may go on dropping as it did before the rules came (the lab's README).
    forget_flows(lab)?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let tried = read(&counts.tried);
    wait_for("packets after the start", LIMIT, || match enough {
        Some(enough) => read(&counts.tried) >= tried + enough,
        None => read(&counts.out) > 0 && read(&counts.inward) > 0,
    })?;
    Ok(read(&counts.tried) - tried)
}

/// The addresses that the master has chosen for a pod.
async fn chosen(api: &Api<Pod>, name: &str) -> Result<Vec<IpAddr>> {
    let annotated = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.metadata.annotations.iter().flatten().any(|(key, _)| key == ANNOTATION))
    };
    let pod =
        timeout(LIMIT, await_condition(api.clone(), name, annotated)).await.context("no addresses are chosen")??;
    let annotations = pod.and_then(|pod| pod.metadata.annotations).unwrap_or_default();
    let networks: Value =
        serde_json::from_str(annotations.get(ANNOTATION).map_or("", String::as_str)).context("reading addresses")?;
    let listed = networks["default"]["ip_addresses"].as_array().cloned().unwrap_or_default();
    let addresses = listed.iter().filter_map(|address| address.as_str()?.split('/').next()?.parse().ok());
    Ok(addresses.collect())
}

/// Waits for the pod's network namespace, and sends and counts there before there is an interface in it.
fn from_within(lab: &Lab, namespace: &str, name: &str, to: &[IpAddr], counts: &Counts, end: &AtomicBool) -> Result<()> {
    let started = Instant::now();
    while !end.load(Ordering::Relaxed) && started.elapsed() < LIMIT {
        let sandboxes = Store::of_lab(lab.layout().dir());
        let own = sandboxes.into_iter().find(|sandbox| sandbox.pod.namespace == namespace && sandbox.pod.name == name);
        if let Some(sandbox) = own.filter(|sandbox| sandbox.netns_path().exists()) {
            let place = Place::netns(sandbox.netns);
            // Named before it is mounted: then the next look finds it.
            if place.run(|| Ok(())).is_ok() {
                return place.run(|| {
                    let own = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("binding a counter")?;
                    send(to, Some(&own), counts, end)
                });
            }
        }
        thread::sleep(PERIOD);
    }
    ensure!(end.load(Ordering::Relaxed), "{namespace}/{name} has no network namespace");
    Ok(())
}

/// Sends to all addresses, from a socket in which arrivals are counted, too, or from one of its own.
fn send(to: &[IpAddr], own: Option<&UdpSocket>, counts: &Counts, end: &AtomicBool) -> Result<()> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut buffer = [0; 64];
    if let Some(own) = own {
        own.set_nonblocking(true).context("a socket that does not wait")?;
    }
    while !end.load(Ordering::Relaxed) {
        for address in to {
            // Anew each time: an address of the pod's own may have come since. Until there is a way, nothing is sent.
            let sent = UdpSocket::bind((any[usize::from(address.is_ipv6())], 0))
                .and_then(|socket| socket.send_to(counts.name.as_bytes(), SocketAddr::new(*address, PORT)));
            counts.sent.fetch_add(u64::from(own.is_some() && sent.is_ok()), Ordering::Relaxed);
            counts.tried.fetch_add(1, Ordering::Relaxed);
        }
        while own.is_some_and(|own| own.recv(&mut buffer).is_ok()) {
            counts.inward.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(PERIOD);
    }
    Ok(())
}

/// Counts what arrives of it in a place.
fn count(counts: &Counts, end: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("binding a counter")?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).context("setting a time limit")?;
    let mut buffer = [0; 64];
    while !end.load(Ordering::Relaxed) {
        let own = socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == counts.name.as_bytes());
        counts.out.fetch_add(u64::from(own), Ordering::Relaxed);
    }
    Ok(())
}
