//! Pods on VLANs of a physical network: tagged on the wire and not tunnelled, apart from each other, one with hosts of the VLAN; with
//! Services and policies; and beside the overlay, with routing between both.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::service::{Answer, PORT, ask, respond, service, slices};
use ovenbird_e2e::wire::Capture;
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Options, Place, testing, underlay, wait_for};
use serde_json::{Value, json};

/// The router of VLAN 100 and of VLAN 200, outside.
const OUTSIDE: [&str; 2] = ["192.168.100.250", "192.168.200.250"];
/// Address of the Service.
const CLUSTER_IP: [u8; 4] = [10, 96, 9, 1];
/// Ping is given up after.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A pod, its place and its addresses.
struct Pod {
    name: &'static str,
    place: Place,
    addresses: Vec<IpAddr>,
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_on_vlans() -> Result<()> {
    let options = Options { nodes: 3, underlay: true, ..Options::default() };
    let Some(lab) = testing::lab("e2e-underlay", options).await? else { return Ok(()) };
    let outside = outside(&lab)?;
    lab.apply(
        &(underlay::provider()
            + &network(100, &["192.168.100.0/24", "fd00:100::/64"], &json!({"physical": [OUTSIDE[0]]}))),
    )
    .await?;
    lab.apply(&network(200, &["192.168.200.0/24"], &json!({"physical": [OUTSIDE[1]]}))).await?;
    underlay::ready(lab.layout()).await?;

    let a = pods_of(&lab, "v100", &["a1", "a2", "a3"]).await?;
    let b = pods_of(&lab, "v200", &["b1", "b2", "b3"]).await?;
    ensure!(
        a.iter().all(|pod| pod.addresses.len() == 2 && pod.addresses[0].to_string().starts_with("192.168.100.")),
        "addresses of VLAN 100"
    );
    ensure!(
        b.iter().all(|pod| pod.addresses.len() == 1 && pod.addresses[0].to_string().starts_with("192.168.200.")),
        "addresses of VLAN 200"
    );
    let mtu = a[0].place.output(&["ip", "-o", "link", "show", "eth0"])?;
    ensure!(mtu.contains(" mtu 1500 "), "pods have the MTU of the fabric, not {mtu}");

    on_the_wire(&lab, &a, &b)?;
    outside_and_inside(&outside, &a, &b)?;
    apart(&lab, &a, &b)?;
    routed_by_ovn(&lab, a, b).await
}

/// What two pods of a VLAN say to each other has its tag on both trunks, and nothing of it is in a tunnel.
fn on_the_wire(lab: &Lab, a: &[Pod], b: &[Pod]) -> Result<()> {
    for (pods, vlan) in [(a, 100), (b, 200)] {
        // Neighbours and connections are known to the switches, so that what follows is counted alone.
        eventually(lab, "pods of a VLAN to answer", || both_ways(pods))?;
        let place = lab.scene(underlay::PLACE)?;
        place.checked(&["nft", &counters(vlan)])?;
        let capture = Capture::start(lab)?;
        both_ways(pods)?;
        let kinds = capture.stop()?;
        ensure!(!kinds.iter().any(|kind| kind.starts_with("udp 6081")), "tunnelled: {kinds:?}");
        let seen = counts(&place.checked(&["nft", "-j", "list", "table", "netdev", "wire"])?)?;
        place.checked(&["nft", "delete", "table", "netdev", "wire"])?;
        println!("VLAN {vlan}: frames by trunk and tag {seen:?}; between nodes on the fabric {kinds:?}");
        for node in ["node1", "node2"] {
            let of = |tag: &str| seen.iter().find(|(n, t, _)| *n == node && t == tag).map_or(0, |(_, _, count)| *count);
            ensure!(of("own") > 0, "{node} sends nothing on VLAN {vlan}: {seen:?}");
            ensure!(of("astray") == 0 && of("untagged") == 0, "{node} sends elsewhere: {seen:?}");
        }
    }
    Ok(())
}

fn both_ways(pods: &[Pod]) -> Result<()> {
    for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        for ip in &to.addresses {
            pings(&from.place, *ip).with_context(|| format!("{} to {}", from.name, to.name))?;
            answers(&from.place, to, *ip, PORT, &from.addresses)?;
        }
    }
    Ok(())
}

/// A host on the VLAN, which is its gateway, too, and the pods reach each other.
fn outside_and_inside(outside: &Place, a: &[Pod], b: &[Pod]) -> Result<()> {
    for (pods, address) in [(a, OUTSIDE[0]), (b, OUTSIDE[1])] {
        let address: IpAddr = address.parse()?;
        for pod in pods {
            pings(&pod.place, address).with_context(|| format!("{} to the host outside", pod.name))?;
            pings(outside, pod.addresses[0])?;
            answers(outside, pod, pod.addresses[0], PORT, &[address])?;
        }
    }
    Ok(())
}

/// Neither by their own addresses, nor when they pretend to be on the same subnet.
fn apart(lab: &Lab, a: &[Pod], b: &[Pod]) -> Result<()> {
    let (from, to) = (&a[0], &b[1]);
    silent(&from.place, to.addresses[0])?;
    // The frame itself does not come over, whatever the address: on the wire these are two networks.
    from.place.output(&["ip", "route", "add", "192.168.200.0/24", "dev", "eth0"])?;
    silent(&from.place, to.addresses[0])?;
    from.place.output(&["ip", "route", "del", "192.168.200.0/24", "dev", "eth0"])?;
    let place = lab.scene(&format!("v100/{}", from.name))?;
    drop(place.checked(&["ip", "neigh", "flush", "all"]));
    Ok(())
}

/// With addresses of OVN's router: to and from the overlay, out of the cluster, Services, policies; and still apart.
async fn routed_by_ovn(lab: &Lab, a: Vec<Pod>, b: Vec<Pod>) -> Result<()> {
    drop((a, b));
    for namespace in ["v100", "v200"] {
        pods::delete_all(&pods::api(lab, namespace).await?).await?;
    }
    lab.apply(&network(100, &["192.168.100.0/24", "fd00:100::/64"], &json!({"ovn": ["192.168.100.1", "fd00:100::1"]})))
        .await?;
    lab.apply(&network(200, &["192.168.200.0/24"], &json!({"physical": [OUTSIDE[1]], "ovn": ["192.168.200.1"]})))
        .await?;
    underlay::ready(lab.layout()).await?;
    let a = pods_of(lab, "v100", &["a1", "a2", "a3"]).await?;
    let b = pods_of(lab, "v200", &["b1", "b2", "b3"]).await?;
    let o = pods_of(lab, "overlay", &["o1", "o2", "o3"]).await?;
    eventually(lab, "pods of a VLAN that OVN routes to answer", || both_ways(&a))?;
    for (vlan, overlay) in [(&a[0], &o[0]), (&a[0], &o[1]), (&a[1], &o[0]), (&a[1], &o[1]), (&b[0], &o[1])] {
        for (ip, own) in vlan.addresses.iter().flat_map(|own| overlay.addresses.iter().map(move |ip| (ip, own))) {
            if ip.is_ipv4() != own.is_ipv4() {
                continue;
            }
            eventually(lab, &format!("{} and {} to answer each other", vlan.name, overlay.name), || {
                pings(&vlan.place, *ip)?;
                answers(&vlan.place, overlay, *ip, PORT, &vlan.addresses)?;
                pings(&overlay.place, *own)?;
                answers(&overlay.place, vlan, *own, PORT, &overlay.addresses)
            })?;
        }
    }
    // Out of the cluster, with the address of a node; and from the node to its pods, as probes go.
    pings(&a[0].place, lab.layout().options.outside_addresses()[0]).context("out of the cluster")?;
    for (node, pod) in [("node1", &a[0]), ("node2", &a[1])] {
        pings(lab.scene(node)?.place(), pod.addresses[0]).with_context(|| format!("{node} to its pod"))?;
    }
    silent(&a[0].place, b[1].addresses[0])?;
    silent(&b[0].place, a[1].addresses[0])?;
    a_service(lab, &a, &o).await?;
    a_policy(lab, &a, &o).await?;
    another_node_takes_over(lab, &a, &o)
}

/// The router's port moves when its node dies.
fn another_node_takes_over(lab: &Lab, a: &[Pod], o: &[Pod]) -> Result<()> {
    let of_port = ["ovn-nbctl", "lrp-get-gateway-chassis", "rtos-NET_v100"];
    let text = lab.exec_node("central", &of_port)?;
    let first = text.lines().next().unwrap_or_default();
    let nodes = lab.layout().options.node_names();
    let active = nodes.iter().position(|node| first.contains(node)).context("no node has the router's port")?;
    lab.power_off(&nodes[active])?;
    let [from, to] = [(active + 1) % 3, (active + 2) % 3];
    wait_for("another node to have the router's port", LIMIT, || {
        let to = SocketAddr::new(a[to].addresses[0], PORT);
        matches!(ask(&o[from].place, Protocol::Tcp, to), Ok(Answer::From { .. }))
    })
}

async fn a_service(lab: &Lab, a: &[Pod], o: &[Pod]) -> Result<()> {
    let to = SocketAddr::from((CLUSTER_IP, 80));
    let endpoints = [("node1", a[0].addresses[0]), ("node2", a[1].addresses[0])];
    lab.apply(&(service("v100", "web", &[to.ip()], &json!({}), json!({})) + &slices("v100", "web", &endpoints)))
        .await?;
    let host = lab.scene("node2")?.place().clone();
    for (name, from) in
        [("a1", &a[0].place), ("a2", &a[1].place), ("o1", &o[0].place), ("o2", &o[1].place), ("node2", &host)]
    {
        let mut who = BTreeSet::new();
        eventually(lab, &format!("both endpoints to answer {name}"), || {
            if let Answer::From { name, .. } = ask(from, Protocol::Tcp, to)? {
                who.insert(name);
            }
            ensure!(who.len() == 2, "only {who:?} answered {name}");
            Ok(())
        })?;
    }
    Ok(())
}

async fn a_policy(lab: &Lab, a: &[Pod], o: &[Pod]) -> Result<()> {
    lab.apply(&policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"]}))).await?;
    let closed = |from: &Pod, to: &Pod| {
        wait_for(&format!("{} to be cut off from {}", from.name, to.name), LIMIT, || {
            matches!(ask(&from.place, Protocol::Tcp, SocketAddr::new(to.addresses[0], PORT)), Ok(Answer::Silence))
        })
    };
    closed(&a[0], &a[1])?;
    closed(&o[0], &a[1])?;
    pings(lab.scene("node2")?.place(), a[1].addresses[0]).context("a node to its own pod, in spite of the policy")?;
    let from = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "overlay"}}}]);
    let spec =
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": [{"port": PORT}]}]});
    lab.apply(&policy(&spec)).await?;
    wait_for("the policy to let the overlay in", LIMIT, || {
        matches!(ask(&o[0].place, Protocol::Tcp, SocketAddr::new(a[1].addresses[0], PORT)), Ok(Answer::From { .. }))
    })?;
    closed(&a[0], &a[1])
}

fn policy(spec: &Value) -> String {
    let meta = json!({"namespace": "v100", "name": "who"});
    format!(
        "---\n{}\n",
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    )
}

/// A Network for the namespace of its name, and that namespace.
fn network(vlan: u16, subnets: &[&str], gateway: &Value) -> String {
    let name = format!("v{vlan}");
    let spec = json!({
        "providerNetwork": underlay::PROVIDER, "vlan": vlan, "subnets": subnets, "gateway": gateway,
        "excludeIPs": [format!("192.168.{vlan}.2-192.168.{vlan}.9")],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    });
    let object =
        json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": "Network", "metadata": {"name": name}, "spec": spec});
    format!("---\n{object}\n")
}

/// Pods of a namespace, one on each node, that answer.
async fn pods_of(lab: &Lab, namespace: &str, names: &[&'static str]) -> Result<Vec<Pod>> {
    let nodes = lab.layout().options.node_names();
    let pods = names.iter().zip(&nodes).map(|(name, node)| pods::pod(namespace, name, node)).collect::<String>();
    lab.namespace(namespace).await?;
    lab.apply(&pods).await?;
    lab.await_running(namespace).await?;
    let api = pods::api(lab, namespace).await?;
    let mut found = Vec::new();
    for name in names {
        let place = lab.scene(&format!("{namespace}/{name}"))?.place().clone();
        respond(&place, name)?;
        found.push(Pod { name, addresses: pods::ips(&api, name).await?, place });
    }
    Ok(found)
}

/// The host outside, on both VLANs; it passes nothing on from one to the other, and knows the way to the overlay.
fn outside(lab: &Lab) -> Result<Place> {
    let place = lab.scene("outside")?.place().clone();
    for (vlan, address) in underlay::VLANS.iter().zip(OUTSIDE) {
        place.output(&["ip", "address", "add", &format!("{address}/24"), "dev", &format!("vlan{vlan}")])?;
    }
    place.output(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
    Ok(place)
}

fn pings(from: &Place, to: IpAddr) -> Result<()> {
    from.run(|| Target::Ping(to).check(LIMIT)).with_context(|| format!("no answer of {to}")).map(drop)
}

fn silent(from: &Place, to: IpAddr) -> Result<()> {
    let answer = from.run(|| Target::Ping(to).check(PATIENCE));
    ensure!(answer.is_err(), "{to} answers");
    Ok(())
}

/// The pod answers at an address, and sees one of `seen`.
fn answers(from: &Place, to: &Pod, ip: IpAddr, port: u16, seen: &[IpAddr]) -> Result<()> {
    let answer = ask(from, Protocol::Tcp, SocketAddr::new(ip, port))?;
    let fits = matches!(&answer, Answer::From { name, source } if name == to.name && seen.contains(source));
    ensure!(fits, "{ip}: {answer:?}, wanted {} to see one of {seen:?}", to.name);
    Ok(())
}

/// Counts what nodes send on their trunks: on a VLAN, and what has its addresses but not its tag.
fn counters(vlan: u16) -> String {
    let own = format!("ip saddr 192.168.{vlan}.0/24");
    let rules = format!(
        "vlan id {vlan} counter comment \"own\"; vlan id != {vlan} {own} counter comment \"astray\"; \
         ether type != vlan {own} counter comment \"untagged\""
    );
    let chain =
        |node: &str| format!("chain {node} {{ type filter hook ingress device \"{node}\" priority 0; {rules}; }}");
    format!("table netdev wire {{ {}; {}; }}", chain("node1"), chain("node2"))
}

/// Node, tag, frames.
fn counts(list: &str) -> Result<Vec<(String, String, u64)>> {
    let list: Value = serde_json::from_str(list).context("reading counters")?;
    let rules = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["rule"]);
    let of = |rule: &Value| {
        let counter = rule["expr"].as_array()?.iter().find_map(|part| part["counter"]["packets"].as_u64())?;
        Some((rule["chain"].as_str()?.to_owned(), rule["comment"].as_str()?.to_owned(), counter))
    };
    Ok(rules.filter_map(of).collect())
}
