//! VLANs on the NIC by which nodes reach everything else: beside the gateway on its bridge, and on a NIC that is taken over for them alone.
//! The node's own connections go on, and once the physical network is gone everything is as before.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject};
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::pulse::{Pulse, echo, laps};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Options, Place, Uplink, testing, underlay, wait_for};
use serde_json::json;

/// The host outside on VLAN 100.
const OUTSIDE: &str = "192.168.100.250";
/// Where nodes answer streams.
const ECHO_PORT: u16 = 7001;

#[tokio::test(flavor = "multi_thread")]
async fn vlans_share_the_gateways_nic() -> Result<()> {
    let options = Options { nodes: 2, underlay: true, uplink: Uplink::Nic, ..Options::default() };
    let Some(lab) = testing::lab("e2e-fabric", options).await? else { return Ok(()) };
    let outside = onto_the_fabric(&lab)?;
    let overlay = pods_of(&lab, "overlay", &["o1", "o2"]).await?;
    let before = flows(&lab)?;
    let streams = streams(&lab)?;
    lab.apply(&physical()).await?;
    for node in lab.layout().options.node_names() {
        said(&lab, &node, |status| status["ready"] == true && status["bridge"] == "breth0").await?;
    }
    let tagged = pods_of(&lab, "v100", &["a1", "a2"]).await?;
    on_the_vlan(&lab, &outside, &tagged)?;
    // What the host and its gateway do goes on.
    for pod in &overlay {
        for to in lab.layout().options.outside_addresses() {
            pings(&pod.0, to).context("from the overlay out of the cluster")?;
        }
    }
    let after = flows(&lab)?;
    ensure!(before.iter().all(|flow| after.contains(flow)), "flows of the gateway have gone: {before:#?} {after:#?}");
    let new: Vec<_> = after.iter().filter(|flow| !before.contains(flow)).collect();
    ensure!(new.len() == 1 && new[0].contains("dl_vlan=100"), "flows beside the gateway's: {new:?}");
    unbroken(&streams)?;
    // A Network of the host's own VLAN has no room there, and the others go on.
    lab.apply(&network("untagged", None, "192.168.7.0/24")).await?;
    said(&lab, "node1", |status| {
        let message = status["message"].as_str().unwrap_or_default();
        status["ready"] == true && status["reason"] == "VlanIsTheHosts" && message.contains("Network untagged")
    })
    .await?;
    on_the_vlan(&lab, &outside, &tagged)?;

    for namespace in ["v100", "overlay"] {
        pods::delete_all(&pods::api(&lab, namespace).await?).await?;
    }
    lab.delete(&(network("untagged", None, "192.168.7.0/24") + &physical())).await?;
    wait_for("the gateway's bridge to be as before", LIMIT, || {
        let mapped = mappings(&lab).is_ok_and(|text| text.contains("fabric"));
        !mapped && flows(&lab).is_ok_and(|flows| !flows.iter().any(|flow| flow.contains("dl_vlan")))
    })?;
    ensure!(bridge_of(&lab, "eth0")? == "breth0", "the gateway keeps its NIC");
    unbroken(&streams)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_nic_is_taken_over_for_a_physical_network() -> Result<()> {
    let node_args = vec!["--gateway-mode=none".to_owned()];
    let options = Options { nodes: 2, underlay: true, uplink: Uplink::Nic, node_args, ..Options::default() };
    let Some(lab) = testing::lab("e2e-fabric-only", options).await? else { return Ok(()) };
    let outside = onto_the_fabric(&lab)?;
    ensure!(addresses_on(&lab)? == "eth0", "nothing is taken over without a gateway");
    let streams = streams(&lab)?;
    lab.apply(&physical()).await?;
    for node in lab.layout().options.node_names() {
        said(&lab, &node, |status| status["ready"] == true && status["bridge"] == "breth0").await?;
    }
    ensure!(addresses_on(&lab)? == "breth0" && bridge_of(&lab, "eth0")? == "breth0", "taken over");
    let tagged = pods_of(&lab, "v100", &["a1", "a2"]).await?;
    on_the_vlan(&lab, &outside, &tagged)?;
    unbroken(&streams)?;
    // A daemon that starts again finds everything as it should be, and so does a node that was off.
    lab.kill("node1/ovenbird-node")?;
    lab.start("node1/ovenbird-node")?;
    said(&lab, "node1", |status| status["ready"] == true).await?;
    on_the_vlan(&lab, &outside, &tagged)?;
    unbroken(&streams)?;

    pods::delete_all(&pods::api(&lab, "v100").await?).await?;
    lab.power_off("node2")?;
    lab.power_on("node2")?;
    let again = pods_of(&lab, "v100", &["b1", "b2"]).await?;
    on_the_vlan(&lab, &outside, &again)?;
    pods::delete_all(&pods::api(&lab, "v100").await?).await?;
    lab.delete(&physical()).await?;
    wait_for("eth0 to be given back", LIMIT, || addresses_on(&lab).is_ok_and(|device| device == "eth0"))?;
    wait_for("its bridge to go", LIMIT, || bridge_of(&lab, "eth0").is_ok_and(|bridge| bridge.is_empty()))?;
    ensure!(!mappings(&lab)?.contains("fabric"), "mappings: {}", mappings(&lab)?);
    wait_for("nothing of the take-over to be left", LIMIT, || {
        let home = lab.layout().home("node1").display().to_string();
        let left = |line: &str| lab.exec_node("node1", &["sh", "-c", &format!("cd {home} && {line}")]);
        ["nft list tables netdev", "ls state"].iter().all(|line| left(line).is_ok_and(|text| text.trim().is_empty()))
    })?;
    // Those to node2 ended with its power.
    unbroken(&streams[..streams.len() / 2])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_host_outside_has_is_not_given() -> Result<()> {
    let options = Options { nodes: 1, underlay: true, ..Options::default() };
    let Some(lab) = testing::lab("e2e-fabric-probe", options).await? else { return Ok(()) };
    let outside = lab.scene("outside")?.place().clone();
    outside.output(&["sysctl", "-qw", "net.ipv6.conf.vlan100.disable_ipv6=0"])?;
    for (vlan, address, flag) in [
        (100, "192.168.100.1/24", "noprefixroute"),
        // It answers from the first moment.
        (100, "fd00:100::2/64", "nodad"),
        (100, "192.168.100.250/24", "noprefixroute"),
        (200, "192.168.200.1/24", "noprefixroute"),
    ] {
        outside.output(&["ip", "address", "add", address, "dev", &format!("vlan{vlan}"), flag])?;
    }
    outside.output(&["ip", "route", "add", "192.168.100.0/24", "dev", "vlan100"])?;
    let (provider, dual) = (json!({"nodes": [{"interface": underlay::NIC}]}), ["192.168.100.0/24", "fd00:100::/64"]);
    let networks = object("ProviderNetwork", "fabric", &provider)
        + &network_with("v100", Some(100), &dual, None)
        + &network_with("v200", Some(200), &["192.168.200.0/24"], Some(false));
    lab.apply(&networks).await?;
    said(&lab, "node1", |status| status["ready"] == true).await?;

    // Of IPv4 the first pod is offered what the host has, of IPv6 the second.
    let mut found = Vec::new();
    for name in ["p1", "p2"] {
        let (place, _) = pods_of(&lab, "v100", &[name]).await?.remove(0);
        found.push(pods::ips(&pods::api(&lab, "v100").await?, name).await?);
        let host: IpAddr = OUTSIDE.parse()?;
        eventually(&lab, "the host outside to answer", || pings(&place, host))?;
    }
    println!("pods beside the host's 192.168.100.1 and fd00:100::2: {found:?}");
    let others: [IpAddr; 2] = ["192.168.100.1".parse()?, "fd00:100::2".parse()?];
    let all: Vec<IpAddr> = found.concat();
    ensure!(all.len() == 4 && !others.iter().any(|ip| all.contains(ip)), "addresses: {found:?}");
    let link = outside.output(&["ip", "-o", "link", "show", "dev", "vlan100"])?;
    let mac = link.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next()).context("a MAC")?.to_owned();
    let status = api(&lab, "Network", "networks").await?.get("v100").await?.data["status"].clone();
    for ip in others {
        let holder = &status["inUse"][ip.to_string()];
        ensure!(holder["mac"] == mac.as_str() && holder["node"] == "node1", "{ip}: {status}, and the host has {mac}");
    }
    let told = events(&lab, "v100").await?;
    ensure!(told.iter().any(|note| note.contains("192.168.100.1 ") && note.contains(&mac)), "Events: {told:?}");
    // Where nobody is to ask, nobody is asked.
    let unasked = pods_of(&lab, "v200", &["q1"]).await?;
    ensure!(unasked[0].1.to_string() == "192.168.200.1", "{} without probing", unasked[0].1);
    Ok(())
}

/// Notes of the Events of a namespace's pods.
async fn events(lab: &Lab, namespace: &str) -> Result<Vec<String>> {
    let all: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(lab.client().await?, namespace);
    let all = all.list(&Default::default()).await.context("listing Events")?;
    Ok(all.items.into_iter().filter_map(|event| event.note).collect())
}

/// Plugs the switch with VLANs into the fabric: what nodes send tagged by their only NIC arrives there. The host outside gets an address.
fn onto_the_fabric(lab: &Lab) -> Result<Place> {
    let (switch, fabric) = (lab.scene(underlay::PLACE)?, lab.layout().netns("fabric"));
    let cable = ["ip", "link", "add", "fabric", "type", "veth", "peer", "name", "vlans", "netns", &fabric];
    switch.checked(&cable)?;
    switch.checked(&["ip", "link", "set", "fabric", "arp", "off", "up"])?;
    Place::netns(fabric).output(&["ip", "link", "set", "vlans", "master", "fabric", "up"])?;
    let db = format!("--db={}", lab.layout().ovs(underlay::PLACE));
    let nodes = lab.layout().options.node_names();
    let away = nodes.iter().flat_map(|node| ["--", "del-port", "switch", node]);
    let words = ["ovs-vsctl", &db, "add-port", "switch", "fabric"].into_iter().chain(away);
    switch.checked(&words.collect::<Vec<_>>())?;
    let outside = lab.scene("outside")?.place().clone();
    outside.output(&["ip", "address", "add", &format!("{OUTSIDE}/24"), "dev", "vlan100"])?;
    Ok(outside)
}

fn network(name: &str, vlan: Option<u16>, subnet: &str) -> String {
    network_with(name, vlan, &[subnet], None)
}

fn network_with(name: &str, vlan: Option<u16>, subnets: &[&str], probe: Option<bool>) -> String {
    let spec = json!({
        "providerNetwork": "fabric", "vlan": vlan, "subnets": subnets, "probeAddresses": probe,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    });
    object("Network", name, &spec)
}

fn physical() -> String {
    let provider = object("ProviderNetwork", "fabric", &json!({"nodes": [{"interface": "eth0"}]}));
    provider + &network("v100", Some(100), "192.168.100.0/24")
}

fn object(kind: &str, name: &str, spec: &serde_json::Value) -> String {
    let object = json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    format!("---\n{object}\n")
}

async fn api(lab: &Lab, kind: &str, plural: &str) -> Result<Api<DynamicObject>> {
    let resource = ApiResource {
        api_version: "ovenbird.io/v1alpha1".into(),
        group: "ovenbird.io".into(),
        version: "v1alpha1".into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    Ok(Api::all_with(lab.client().await?, &resource))
}

/// Waits until a node has said this of the ProviderNetwork.
async fn said(lab: &Lab, node: &str, fits: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    let api = api(lab, "ProviderNetwork", "providernetworks").await?;
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        let status =
            api.get("fabric").await.context("reading the ProviderNetwork")?.data["status"]["nodes"][node].clone();
        if fits(&status) {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "{node} says {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Pods of a namespace, one on each node: places and addresses.
async fn pods_of(lab: &Lab, namespace: &str, names: &[&str]) -> Result<Vec<(Place, IpAddr)>> {
    let nodes = lab.layout().options.node_names();
    lab.namespace(namespace).await?;
    lab.apply(&names.iter().zip(&nodes).map(|(name, node)| pods::pod(namespace, name, node)).collect::<String>())
        .await?;
    lab.await_running(namespace).await?;
    let api = pods::api(lab, namespace).await?;
    let mut found = Vec::new();
    for name in names {
        let place = lab.scene(&format!("{namespace}/{name}"))?.place().clone();
        found.push((place, pods::ips(&api, name).await?[0]));
    }
    Ok(found)
}

/// Pods of two nodes and the host outside reach each other.
fn on_the_vlan(lab: &Lab, outside: &Place, pods: &[(Place, IpAddr)]) -> Result<()> {
    let host: IpAddr = OUTSIDE.parse()?;
    eventually(lab, "the VLAN to connect its hosts", || {
        for (from, (_, to)) in pods.iter().zip(pods.iter().rev()) {
            ensure!(to.to_string().starts_with("192.168.100."), "{to} is no address of the VLAN");
            pings(&from.0, *to)?;
            pings(&from.0, host)?;
            pings(outside, *to)?;
        }
        Ok(())
    })
}

fn pings(from: &Place, to: IpAddr) -> Result<()> {
    from.run(|| Target::Ping(to).check(Duration::from_secs(5))).with_context(|| format!("no answer of {to}")).map(drop)
}

/// Streams to both nodes by their only NIC, over TCP and UDP, as the way to an API server would be.
fn streams(lab: &Lab) -> Result<Vec<Pulse>> {
    let central = lab.scene("central")?.place().clone();
    let mut all = Vec::new();
    for (node, index) in lab.layout().options.node_names().into_iter().zip(1..) {
        let addresses = lab.layout().options.node_addresses(index);
        echo(lab.scene(&node)?.place(), &addresses, ECHO_PORT)?;
        for (ip, protocol) in addresses.into_iter().flat_map(|ip| [(ip, Protocol::Tcp), (ip, Protocol::Udp)]) {
            let (name, to) = (format!("{protocol} to {node} at {ip}"), SocketAddr::new(ip, ECHO_PORT));
            all.push(Pulse::start(name, &central, protocol, to, Duration::from_millis(10))?);
        }
    }
    Ok(all)
}

fn unbroken(streams: &[Pulse]) -> Result<()> {
    let all: Vec<&Pulse> = streams.iter().collect();
    ovenbird_e2e::pulse::go_on(&all, 1)?;
    for (stream, lap) in streams.iter().zip(laps(&all)) {
        println!("{}: silent for {:?} at most, {} of {} lost", stream.name(), lap.silence, lap.lost, lap.sent);
        ensure!(lap.broken.is_none(), "{} broke: {:?}", stream.name(), lap.broken);
    }
    Ok(())
}

/// Matches and actions of the flows of node1's external bridge, without what is counted.
fn flows(lab: &Lab) -> Result<Vec<String>> {
    let socket = format!("unix:{}", lab.layout().home("node1").join("breth0.mgmt").display());
    let text = lab.exec_node("node1", &["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", &socket])?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| line.contains("actions=")).collect())
}

fn vsctl(lab: &Lab, args: &[&str]) -> Result<String> {
    let db = format!("--db={}", lab.layout().ovs("node1"));
    let words: Vec<&str> = ["ovs-vsctl", &db].into_iter().chain(args.iter().copied()).collect();
    Ok(lab.exec_node("node1", &words)?.trim().to_owned())
}

fn mappings(lab: &Lab) -> Result<String> {
    vsctl(lab, &["--if-exists", "get", "Open_vSwitch", ".", "external_ids:ovn-bridge-mappings"])
}

/// The bridge in which a port of node1 is; empty for none.
fn bridge_of(lab: &Lab, port: &str) -> Result<String> {
    let bridges = vsctl(lab, &["list-br"])?;
    for bridge in bridges.lines() {
        if vsctl(lab, &["list-ports", bridge])?.lines().any(|name| name == port) {
            return Ok(bridge.to_owned());
        }
    }
    Ok(String::new())
}

/// The interface that has node1's addresses.
fn addresses_on(lab: &Lab) -> Result<String> {
    let mut devices = Vec::new();
    for address in lab.layout().options.node_addresses(1) {
        let text = lab.exec_node("node1", &["ip", "-o", "addr", "show", "to", &address.to_string()])?;
        devices.extend(text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned));
    }
    devices.dedup();
    Ok(devices.join(","))
}
