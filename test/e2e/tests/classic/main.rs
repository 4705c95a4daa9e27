//! The classic network, by packets: kbr0, obr0 and tunnels, without OVN.
//!
//! What is asserted: who reaches whom, what travels between nodes, how many flows there are and which change, that neither a daemon's
//! restart nor a node that comes or goes is felt by streams, that a tree of tunnels heals, and that bridges made by hand are taken over.

mod features;
mod policies;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::wait::await_condition;
use ovenbird_e2e::pulse::{Pulse, echo, go_on, laps};
use ovenbird_e2e::reach::{all_cells, by_tunnel_alone, two_on_each_node};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, pods, side_by_side};
use ovenbird_lab::{Family, Lab, Mode, Options, Status, testing, wait_for};
use tokio::time::timeout;

const NAMESPACE: &str = "classic";
/// Port of the streams' echo.
const ECHO: u16 = 7200;
/// Between two blocks of a stream.
const PERIOD: Duration = Duration::from_millis(10);

fn options(nodes: u16, family: Family, args: &[&str]) -> Options {
    let node_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Options { nodes, family, mode: Mode::Classic, node_args, ..Options::default() }
}

/// Four nodes with a full mesh of unicast flows: everything reaches everything by GRE alone; then nodes go, come back, change their address,
/// and daemons are killed, under streams that must go on.
#[tokio::test(flavor = "multi_thread")]
async fn flows_of_four_nodes() -> Result<()> {
    let Some(mut lab) = testing::lab("e2e-cl-flow", options(4, Family::Dual, &[])).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    by_tunnel_alone(&lab, NAMESPACE, "ip protocol 47").await?;
    for node in lab.layout().options.node_names() {
        let flows = flows(&lab, &node)?;
        // IP and ARP of IPv4, IPv6: 2 + 2 (N - 1) and 1 + (N - 1).
        ensure!(flows.len() == 8 + 4, "{node} has {}: {flows:#?}", flows.len());
    }
    let streams = streams(&lab, "node1", "node2").await?;
    let streams: Vec<&Pulse> = streams.iter().collect();
    a_subnet_of_nobody_drops(&lab)?;
    nobody_speaks_for_another(&lab)?;
    a_daemon_restarts(&lab, &streams)?;
    a_node_goes_and_comes(&lab, &streams).await?;
    a_capability_is_missing(&lab, "node3").await?;
    bridges_made_by_hand(&lab, "node3").await?;
    a_node_changes_its_address(&mut lab, &streams).await?;
    ensure_they_went_on("all of it", &streams)
}

/// Other tunnels and other ways to join the two bridges; a key.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_attachments() -> Result<()> {
    for (tunnel, attach, wire) in [("vxlan", "veth", "udp 4789"), ("geneve", "local", "udp 6081")] {
        let args = [
            format!("--classic-tunnel={tunnel}"),
            format!("--classic-attach={attach}"),
            "--classic-key=77".to_owned(),
            "--classic-bridge=cbr0".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let options = options(2, Family::V4, &args);
        let Some(lab) = testing::lab(&format!("e2e-cl-{tunnel}"), options).await? else { return Ok(()) };
        lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
        by_tunnel_alone(&lab, NAMESPACE, wire).await.with_context(|| format!("{tunnel}, {attach}"))?;
        let ports = lab.exec_node("node1", &["bridge", "link"])?;
        ensure!(ports.contains("master cbr0"), "{ports}");
        ensure!(flows(&lab, "node1")?.len() == 4, "{:?}", flows(&lab, "node1")?);
    }
    Ok(())
}

/// A full mesh of learning switches: as many tunnels are blocked as close a loop, the first node is the root, a broadcast comes once, and
/// when a tunnel of the tree is lost, frames go round by the third node.
#[test]
fn a_tree_of_three_nodes() -> Result<()> {
    side_by_side(["stp", "rstp"].map(|variant| (variant, move || tree(variant))))
}

async fn tree(variant: &'static str) -> Result<()> {
    let args = [&format!("--classic-variant={variant}"), "--classic-forward-delay=4"];
    let options = options(3, Family::V4, &args.map(AsRef::as_ref));
    let Some(lab) = testing::lab(&format!("e2e-cl-{variant}"), options).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    wait_for("the tree", LIMIT, || blocked(&lab).is_ok_and(|blocked| blocked.len() == 1))
        .with_context(|| format!("{variant}: {:?}", blocked(&lab)))?;
    by_tunnel_alone(&lab, NAMESPACE, "ip protocol 47").await.context(variant)?;
    // The first node is the root: none of its tunnels is blocked.
    ensure!(!blocked(&lab)?.iter().any(|at| at.starts_with("node1 ")), "{:?}", blocked(&lab)?);
    let before = broadcasts(&lab)?;
    let node2 = lab.scene(&format!("{NAMESPACE}/a-node2"))?;
    // Nobody has this address: one question, to everybody.
    node2.checked(&["sysctl", "-qw", "net.ipv4.neigh.eth0.mcast_solicit=1"])?;
    node2.checked(&["bash", "-c", "echo > /dev/udp/10.244.1.250/9"])?;
    let counts = || -> Result<Vec<u64>> {
        Ok(broadcasts(&lab)?.iter().zip(&before).map(|(after, before)| after - before).collect())
    };
    wait_for("a broadcast to come", LIMIT, || counts().is_ok_and(|seen| seen.iter().all(|count| *count > 0)))?;
    let seen = counts()?;
    ensure!(seen == [1, 1, 1], "{variant}: a broadcast was seen {seen:?} times at the nodes");
    a_tunnel_is_cut(&lab).await.with_context(|| variant.to_owned())?;
    Ok(())
}

/// From OVN's network to the classic one and back: nothing of the former is left, and pods that are made anew reach each other in seconds.
#[tokio::test(flavor = "multi_thread")]
async fn modes_are_switched() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(mut lab) = testing::lab("e2e-switch", options).await? else { return Ok(()) };
    let fresh = |mode| Options { nodes: 2, mode, ..Options::default() };
    let Some(plain) = testing::lab("e2e-plain", Options { bare: true, ..fresh(Mode::Classic) }).await? else {
        return Ok(());
    };
    let Some(classic) = testing::lab("e2e-fresh", fresh(Mode::Classic)).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    lab.await_running(NAMESPACE).await?;
    let mut former = NAMESPACE.to_owned();
    let modes = [(Mode::Classic, Some(&classic)), (Mode::Overlay, None), (Mode::Classic, Some(&classic))];
    for (round, (mode, fresh)) in modes.into_iter().enumerate() {
        let before = inventory(&lab)?;
        lab.take_off_network()?;
        same(&inventory(&lab)?, &inventory(&plain)?)
            .with_context(|| format!("before {mode}; there was {before:#?}"))?;
        // Of other names: a runtime may still try to take the former pods' sandboxes away.
        pods::delete_all(&pods::api(&lab, &former).await?).await?;
        lab.put_on_network(mode)?;
        let began = Instant::now();
        if let Some(fresh) = fresh {
            let mut seen = Ok(());
            wait_for("the node to be as if new", LIMIT, || {
                seen = inventory(&lab).and_then(|now| same(&now, &inventory(fresh)?));
                seen.is_ok()
            })
            .or(seen)?;
        }
        former = format!("{NAMESPACE}-{round}");
        lab.apply(&two_on_each_node(&lab, &former)).await?;
        lab.await_running(&former).await?;
        all_cells(&lab, &Status::of(&lab).await?, &former).with_context(|| mode.to_string())?;
        println!("{mode}: every pod reaches every pod {:?} after the daemons were started", began.elapsed());
        ensure!(began.elapsed() < Duration::from_secs(10), "{mode}: after {:?}", began.elapsed());
    }
    Ok(())
}

/// What node 1 has: links, addresses, routes, neighbours, bridges with their ports, flows of br-ex, tables of nftables. MACs that the kernel
/// invents are left out.
fn inventory(lab: &Lab) -> Result<BTreeSet<String>> {
    let db = lab.layout().ovs("node1");
    let external = format!("unix:{}", lab.layout().dir().join("node1/br-ex.mgmt").display());
    let script = format!(
        "ip -br link | awk '{{print \"link\", $1}}' | sed 's/@.*//'; ip -br -4 address | awk '{{print \"address\", $1, $3, $4}}'; ip route show | sed \
         's/^/route /'; ip -6 route show | grep -v fe80 | sed 's/^/route /'; ip neighbour show nud permanent | sed 's/^/neighbour /'; nft list \
         tables; for b in $(ovs-vsctl --db={db} list-br); do for p in $(ovs-vsctl --db={db} list-ports $b); do echo port $b $p; done; done; \
         ovs-vsctl --db={db} --bare --columns=external_ids list open_vswitch; ovs-ofctl --no-stats dump-flows {external} | grep actions"
    );
    Ok(lab.exec_node("node1", &["sh", "-c", &script])?.lines().map(|line| line.trim().to_owned()).collect())
}

fn same(now: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<()> {
    let (more, less): (Vec<_>, Vec<_>) = (now.difference(wanted).collect(), wanted.difference(now).collect());
    ensure!(more.is_empty() && less.is_empty(), "too much: {more:#?}\ntoo little: {less:#?}");
    Ok(())
}

/// Flows of obr0, without their counters.
fn flows(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let socket = format!("unix:{}", lab.layout().dir().join(node).join("obr0.mgmt").display());
    let text = lab.exec_node(node, &["ovs-ofctl", "--no-stats", "dump-flows", &socket])?;
    let lines = text.lines().map(str::trim).filter(|line| line.contains("actions="));
    Ok(lines.map(str::to_owned).collect())
}

/// Age of the youngest flow of obr0, in seconds.
fn youngest(lab: &Lab, node: &str) -> Result<f64> {
    let socket = format!("unix:{}", lab.layout().dir().join(node).join("obr0.mgmt").display());
    let text = lab.exec_node(node, &["ovs-ofctl", "dump-flows", &socket])?;
    let ages = text.split("duration=").skip(1).filter_map(|rest| rest.split('s').next()?.parse::<f64>().ok());
    ages.min_by(f64::total_cmp).context("no flow")
}

async fn streams(lab: &Lab, from: &str, to: &str) -> Result<Vec<Pulse>> {
    let api = pods::api(lab, NAMESPACE).await?;
    let addresses = pods::ips(&api, &format!("a-{to}")).await?;
    echo(lab.scene(&format!("{NAMESPACE}/a-{to}"))?.place(), &addresses, ECHO)?;
    let place = lab.scene(&format!("{NAMESPACE}/a-{from}"))?;
    let pairs = addresses.iter().flat_map(|ip| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, *ip)));
    pairs
        .map(|(protocol, ip)| {
            let name = format!("{protocol:?} {from} to {ip}");
            Pulse::start(name, place.place(), protocol, SocketAddr::new(ip, ECHO), PERIOD)
        })
        .collect()
}

fn ensure_they_went_on(what: &str, streams: &[&Pulse]) -> Result<()> {
    go_on(streams, 20)?;
    for (stream, lap) in streams.iter().zip(laps(streams)) {
        println!("{what}: {}: {} sent, {} lost, longest silence {:?}", stream.name(), lap.sent, lap.lost, lap.silence);
        ensure!(lap.broken.is_none(), "{what}: {} broke: {lap:?}", stream.name());
        // On a busy machine OVS in user space loses single datagrams by itself.
        ensure!(lap.silence < Duration::from_secs(1), "{what}: {}: {lap:?}", stream.name());
    }
    Ok(())
}

fn a_subnet_of_nobody_drops(lab: &Lab) -> Result<()> {
    let dropped = |node: &str| -> Result<bool> {
        let probe = lab.layout().bin_dir.join("ovenbird-lab").display().to_string();
        let scene = lab.scene(&format!("{NAMESPACE}/a-{node}"))?;
        Ok(!scene.output(&[&probe, "probe", "ping:10.244.250.3"])?.status.success())
    };
    ensure!(dropped("node1")?, "somebody answers for a subnet that no node has");
    Ok(())
}

/// A pod that takes another address is silent by it.
fn nobody_speaks_for_another(lab: &Lab) -> Result<()> {
    let scene = lab.scene(&format!("{NAMESPACE}/a-node1"))?;
    let route = scene.checked(&["ip", "-4", "route", "show", "default"])?;
    let gateway = route.split_whitespace().nth(2).context("no default route")?.to_owned();
    let by = |source: &str| {
        format!("ip route replace default via {gateway} dev eth0 src {source}; ip route del 10.244.0.0/16 || true")
    };
    let own = scene.checked(&["ip", "-o", "-4", "address", "show", "eth0"])?;
    let own = own.split_whitespace().nth(3).and_then(|net| net.split('/').next()).context("no address")?.to_owned();
    let target = lab.scene(&format!("{NAMESPACE}/b-node2"))?;
    let rules = "nft add table inet heard; nft 'add chain inet heard in { type filter hook input priority 0; }'; nft add rule inet heard in ip \
        saddr 10.244.3.77 counter; nft add rule inet heard in ip saddr SELF udp dport 9 counter";
    target.checked(&["sh", "-ec", &rules.replace("SELF", &own)])?;
    let to = target.checked(&["ip", "-o", "-4", "address", "show", "eth0"])?;
    let to = to.split_whitespace().nth(3).and_then(|net| net.split('/').next()).context("no address")?.to_owned();
    let say = format!("for i in 1 2 3 4 5; do echo > /dev/udp/{to}/9; done");
    scene.checked(&["sh", "-ec", &format!("ip address add 10.244.3.77/32 dev eth0; {}", by("10.244.3.77"))])?;
    scene.checked(&["bash", "-c", &say])?;
    scene.checked(&["sh", "-ec", &format!("{}; ip address del 10.244.3.77/32 dev eth0", by(&own))])?;
    scene.checked(&["bash", "-c", &say])?;
    let heard = || -> Result<Vec<String>> {
        let text = target.checked(&["nft", "list", "table", "inet", "heard"])?;
        Ok(text.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next().map(str::to_owned)).collect())
    };
    // What was said by the own address went the same way, and later.
    wait_for("what a pod says by its own address", LIMIT, || {
        heard().is_ok_and(|counts| counts.last().is_some_and(|n| n == "5"))
    })?;
    ensure!(heard()? == ["0", "5"], "heard by the other's address, and by its own: {:?}", heard()?);
    Ok(())
}

/// A daemon that is killed, and another that takes its place: what forwards is not touched.
fn a_daemon_restarts(lab: &Lab, streams: &[&Pulse]) -> Result<()> {
    let before = flows(lab, "node1")?;
    let kernel = || {
        lab.exec_node("node1", &["sh", "-c", "ip address show kbr0; ip route show; ip -6 neighbour show nud permanent"])
    };
    let (kernel_before, age) = (kernel()?, youngest(lab, "node1")?);
    lab.kill("node1/ovenbird-node")?;
    go_on(streams, 50)?;
    lab.start("node1/ovenbird-node")?;
    let log = lab.layout().dir().join("logs/node1.ovenbird-node.log");
    wait_for("the daemon to have compared its flows", LIMIT, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.rsplit("starting").next().is_some_and(|now| now.contains("flows of obr0 are as they should be"))
    })?;
    ensure!(flows(lab, "node1")? == before, "the flows have changed");
    ensure!(youngest(lab, "node1")? > age, "a flow was written anew");
    let metrics = lab.exec_node("node1", &["curl", "-s", "http://127.0.0.1:9410/metrics"])?;
    let written = metrics.lines().find(|line| line.starts_with("ovenbird_node_rows_total "));
    ensure!(written.is_some_and(|line| line.ends_with(" 0")), "a second run wrote rows: {written:?}");
    ensure!(kernel()? == kernel_before, "{kernel_before}\nhas become\n{}", kernel()?);
    ensure_they_went_on("a daemon restarts", streams)
}

/// Others lose exactly the flows of a node that is gone, and get them back.
async fn a_node_goes_and_comes(lab: &Lab, streams: &[&Pulse]) -> Result<()> {
    let before = flows(lab, "node1")?;
    for component in ["node4/kubelet", "node4/ovenbird-node"] {
        lab.stop(component)?;
    }
    lab.delete("{apiVersion: v1, kind: Node, metadata: {name: node4}}").await?;
    wait_for("flows of a node that is gone to go", LIMIT, || flows(lab, "node1").is_ok_and(|now| now.len() == 9))?;
    let now = flows(lab, "node1")?;
    let lost: Vec<&String> = before.difference(&now).collect();
    ensure!(now.is_subset(&before) && lost.iter().all(|flow| flow.contains("0xac1e000e")), "{lost:?}");
    ensure_they_went_on("a node goes", streams)?;
    for component in ["node4/kubelet", "node4/ovenbird-node"] {
        lab.start(component)?;
    }
    wait_for("flows of a node that has come", LIMIT, || flows(lab, "node1").is_ok_and(|now| now.len() == 12))?;
    ensure_they_went_on("a node comes", streams)
}

/// An Open vSwitch that makes no GRE tunnels: the Node says so, and what to do.
async fn a_capability_is_missing(lab: &Lab, node: &str) -> Result<()> {
    let nodes = Api::<Node>::all(lab.client().await?);
    let unavailable = |wanted: &'static str| {
        move |node: Option<&Node>| {
            let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref()).into_iter().flatten();
            let mut ours = conditions.filter(|c| c.type_ == "NetworkUnavailable");
            ours.any(|c| {
                c.status == wanted
                    && (wanted == "False" || c.message.as_deref().unwrap_or_default().contains("no gre tunnels"))
            })
        }
    };
    let set = |types: &str| {
        let db = format!("--db={}", lab.layout().ovs(node));
        lab.exec_node(
            node,
            &["ovs-vsctl", "--no-wait", &db, "set", "Open_vSwitch", ".", &format!("iface_types={types}")],
        )
    };
    // It would say at once what it really can.
    lab.pause(&format!("{node}/vswitchd"))?;
    for (types, wanted) in [("geneve,internal,vxlan", "True"), ("geneve,gre,internal,vxlan", "False")] {
        set(types)?;
        let seen = timeout(LIMIT, await_condition(nodes.clone(), node, unavailable(wanted))).await;
        seen.with_context(|| format!("NetworkUnavailable of {node} does not become {wanted}"))??;
    }
    lab.resume(&format!("{node}/vswitchd"))?;
    Ok(())
}

/// The bridges are taken down, and set up as the guide has them, before the daemon starts.
async fn bridges_made_by_hand(lab: &Lab, node: &str) -> Result<()> {
    lab.stop(&format!("{node}/ovenbird-node"))?;
    let db = lab.layout().ovs(node);
    let vsctl = format!("ovs-vsctl --db={db}");
    let script = format!(
        "{vsctl} del-br obr0 && ip link del kbr0 && ip link add kbr0 type bridge && ip link set kbr0 up && {vsctl} add-br obr0 -- set \
         bridge obr0 datapath_type=netdev -- add-port obr0 gre7 -- set interface gre7 type=gre options:remote_ip=flow -- add-port obr0 tun0 \
         -- set interface tun0 type=internal"
    );
    lab.exec_node(node, &["sh", "-ec", &script])?;
    lab.start(&format!("{node}/ovenbird-node"))?;
    let mut seen = Ok(());
    wait_for("bridges made by hand to be taken over", LIMIT, || {
        seen = reaches(lab, node);
        seen.is_ok()
    })
    .or(seen)?;
    let ports = lab.exec_node(node, &["ovs-vsctl", &format!("--db={db}"), "list-ports", "obr0"])?;
    ensure!(ports.lines().collect::<Vec<_>>() == ["gre7", "tun0"], "{ports}");
    Ok(())
}

/// A pod of the node reaches one of node2.
fn reaches(lab: &Lab, node: &str) -> Result<()> {
    let target = lab.scene(&format!("{NAMESPACE}/b-node2"))?;
    let text = target.checked(&["ip", "-o", "-4", "address", "show", "eth0"])?;
    let ip = text.split_whitespace().nth(3).and_then(|net| net.split('/').next()).context("no address")?.to_owned();
    let probe = lab.layout().bin_dir.join("ovenbird-lab").display().to_string();
    let scene = lab.scene(&format!("{NAMESPACE}/a-{node}"))?;
    scene.checked(&[&probe, "probe", &format!("ping:{ip}")]).map(drop)
}

/// A node boots with another address.
async fn a_node_changes_its_address(lab: &mut Lab, streams: &[&Pulse]) -> Result<()> {
    lab.power_off("node4")?;
    lab.readdress("node4", 44)?;
    lab.power_on("node4")?;
    // 172.30.0.44, as dump-flows has it.
    wait_for("flows to the new address", LIMIT, || {
        let there = |flows: BTreeSet<String>| flows.iter().filter(|flow| flow.contains("0xac1e002c")).count() == 3;
        flows(lab, "node1").is_ok_and(there)
    })?;
    ensure!(flows(lab, "node1")?.len() == 12, "{:?}", flows(lab, "node1")?);
    ensure_they_went_on("a node changes its address", streams)
}

/// Tunnels that are blocked, as `NODE PORT`.
fn blocked(lab: &Lab) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for node in lab.layout().options.node_names() {
        let db = format!("--db={}", lab.layout().ovs(&node));
        let text = lab.exec_node(
            &node,
            &["ovs-vsctl", &db, "--format=csv", "--no-headings", "--columns=name,status,rstp_status", "list", "port"],
        )?;
        for line in text.lines().filter(|line| line.starts_with("gre-")) {
            let done = [
                "stp_state=forwarding",
                "stp_state=blocking",
                "rstp_port_state=Forwarding",
                "rstp_port_state=Discarding",
            ];
            ensure!(done.iter().any(|state| line.contains(state)), "{node}: {line}");
            if line.contains("stp_state=blocking") || line.contains("Alternate") {
                all.push(format!("{node} {line}"));
            }
        }
    }
    Ok(all)
}

/// ARP questions for an address that nobody has, as each kbr0 has counted them.
fn broadcasts(lab: &Lab) -> Result<Vec<u64>> {
    let count = |node: String| -> Result<u64> {
        let rule = "nft list table arp ovenbird-test 2>/dev/null || nft -f - <<E\ntable arp ovenbird-test {\n chain in { type filter hook input \
            priority 0; iifname \"kbr0\" arp daddr ip 10.244.1.250 counter; }\n}\nE";
        let text = lab.exec_node(&node, &["sh", "-c", &format!("{rule}\nnft list table arp ovenbird-test")])?;
        let packets = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|n| n.parse().ok()).with_context(|| format!("{node}: {text}"))
    };
    lab.layout().options.node_names().into_iter().map(count).collect()
}

/// The tunnel between the root and node2, which is in the tree, is cut: they reach each other by node3.
async fn a_tunnel_is_cut(lab: &Lab) -> Result<()> {
    for (node, from) in [("node1", "172.30.0.12"), ("node2", "172.30.0.11")] {
        let rule = format!("add rule netdev cut in ip saddr {from} ip protocol gre drop");
        let chain = "add chain netdev cut in { type filter hook ingress device eth0 priority 0; }";
        lab.exec_node(node, &["sh", "-ec", &format!("nft add table netdev cut; nft '{chain}'; nft '{rule}'")])?;
    }
    let mut seen = Ok(());
    wait_for("frames to go round", LIMIT, || {
        seen = reaches(lab, "node1");
        seen.is_ok()
    })
    .or(seen)
}
