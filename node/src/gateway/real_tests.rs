//! The gateway on real OVS and OVN: a host with br-ex, a gateway router (the test plays the master) and a host outside. Needs root.
//!
//! ```text
//!   outside 172.30.0.1, fd30::1 --- eth0 - br-ex 172.30.0.11, fd30::11 - patch - GR_n1 - join - r - n1 - pods
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ipnet::IpNet;
use ovenbird_api::HostPorts;
use tokio::sync::watch;

use super::cleanup;
use super::endpoints::Local;
use super::services::{Port, Protocol, Service, Services};
use super::task::Task;
use crate::cluster::NodeFact;
use crate::config::{Config, Settings};
use crate::net::netns;
use crate::real_ovn_tests::{Host, Node, Sandbox, TURN, ping};
use crate::underlay::Shared;

const MAC: &str = "02:00:ac:1e:00:0b";

/// A host with an external bridge as an operator prepares it, and the one outside.
struct World {
    outside: Sandbox,
    host: Host,
}

impl World {
    fn start() -> Option<World> {
        let host = Host::start()?;
        let outside = Sandbox::new(90);
        host.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        host.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.0));
        host.run("sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=1");
        host.run("ip link set eth0 arp off up");
        host.vsctl(&format!(
            "add-br br-ex -- set bridge br-ex datapath_type=netdev other_config:hwaddr=\"{MAC}\" -- add-port br-ex eth0"
        ));
        address(&host);
        for line in [
            "ethtool -K eth0 tx off",
            "ip link set eth0 up",
            "ip addr add 172.30.0.1/24 dev eth0",
            "ip addr add fd30::1/64 dev eth0 nodad",
        ] {
            assert!(outside.run(line), "{line}");
        }
        host.topology(2);
        gateway_rows(&host);
        Some(World { outside, host })
    }

    fn flows(&self) -> Vec<String> {
        let socket = self.host.path("br-ex.mgmt").display().to_string();
        let text = self.host.run(&format!("ovs-ofctl -O OpenFlow14 dump-flows unix:{socket}"));
        text.lines().filter(|line| line.contains("cookie=0xdeff105")).map(|line| line.trim().to_owned()).collect()
    }

    /// Kills ovs-vswitchd and starts it again.
    fn restart_vswitchd(&mut self) {
        self.host.restart("ovs-vswitchd");
        // Returns when vswitchd has done what the database says.
        self.host.vsctl("--timeout=30 set Open_vSwitch . external_ids:restarted=yes");
        address(&self.host);
    }

    /// Waits until the flows are as wanted.
    async fn await_flows(&self, test: impl Fn(&[String]) -> bool) {
        for _ in 0..600 {
            if test(&self.flows()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("flows of br-ex: {:#?}", self.flows());
    }
}

/// What the operator's set-up does with the bridge once it is there.
fn address(host: &Host) {
    for line in [
        "ip link set br-ex up",
        "ip addr replace 172.30.0.11/24 dev br-ex",
        "ip addr replace fd30::11/64 dev br-ex nodad",
        "ip route replace default via 172.30.0.1",
        "ip route replace default via fd30::1",
    ] {
        host.run(line);
    }
}

/// GR_n1 and its neighbours, as the master writes them.
fn gateway_rows(host: &Host) {
    host.nbctl("ls-add join -- lrp-add r rtoj-r 0a:58:64:40:00:01 100.64.0.1/16 fd98::1/64 -- lsp-add join jtor-r -- lsp-set-type jtor-r router -- lsp-set-addresses jtor-r router -- lsp-set-options jtor-r router-port=rtoj-r");
    host.nbctl("lr-add GR_n1 -- set logical_router GR_n1 options:chassis=n1-chassis options:lb_force_snat_ip=router_ip options:snat-ct-zone=0 options:always_learn_from_arp_request=false options:dynamic_neigh_routers=true");
    host.nbctl("lrp-add GR_n1 rtoj-GR_n1 0a:58:64:40:00:02 100.64.0.2/16 fd98::2/64 -- lsp-add join jtor-GR_n1 -- lsp-set-type jtor-GR_n1 router -- lsp-set-addresses jtor-GR_n1 router -- lsp-set-options jtor-GR_n1 router-port=rtoj-GR_n1");
    host.nbctl(&format!("ls-add ext_n1 -- lrp-add GR_n1 rtoe-GR_n1 {MAC} 172.30.0.11/24 fd30::11/64 -- lsp-add ext_n1 etor-GR_n1 -- lsp-set-type etor-GR_n1 router -- lsp-set-addresses etor-GR_n1 {MAC} -- lsp-set-options etor-GR_n1 router-port=rtoe-GR_n1 nat-addresses=router"));
    host.nbctl("lsp-add ext_n1 br-ex_n1 -- lsp-set-type br-ex_n1 localnet -- lsp-set-addresses br-ex_n1 unknown -- lsp-set-options br-ex_n1 network_name=physnet");
    for (route, nat) in [("0.0.0.0/0 172.30.0.1", "172.30.0.11 10.128.0.0/14"), ("::/0 fd30::1", "fd30::11 fd01::/48")]
    {
        host.nbctl(&format!("lr-route-add GR_n1 {route} rtoe-GR_n1 -- lr-nat-add GR_n1 snat {nat}"));
    }
    for (subnet, hop, mac, pods, router, join) in [
        (
            "169.254.169.0/29",
            "169.254.169.4",
            "0a:58:a9:fe:a9:04",
            "10.128.0.0/14",
            "100.64.0.1",
            "10.128.0.0/24 100.64.0.2",
        ),
        ("fd69::/125", "fd69::4", "0a:58:a9:fe:a9:04", "fd01::/48", "fd98::1", "fd01::/64 fd98::2"),
    ] {
        host.nbctl(&format!("lr-route-add GR_n1 {subnet} {hop} rtoe-GR_n1 -- lr-route-add GR_n1 {pods} {router} -- --policy=src-ip lr-route-add r {join}"));
        host.nbctl(&format!(
            "create static_mac_binding logical_port=rtoe-GR_n1 ip=\"{hop}\" mac=\"{mac}\" override_dynamic_mac=true"
        ));
    }
}

/// The daemon's gateway part, and the inputs that the test may change.
struct Daemon {
    services: watch::Sender<Option<Services>>,
    _node: watch::Sender<NodeFact>,
    _host_ports: watch::Sender<Vec<HostPorts>>,
    guarded: watch::Receiver<bool>,
    _local: watch::Sender<Option<Local>>,
    _service_cidrs: watch::Sender<Option<Vec<IpNet>>>,
    _shared: watch::Sender<Shared>,
    _routed: watch::Sender<Vec<IpNet>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn config(world: &World) -> Config {
    Config::new(Settings {
        node_name: Some("n1".into()),
        ovs_address: Some(world.host.unix("conf")),
        cluster_subnets: Some("10.128.0.0/14/24,fd01::/48/64".into()),
        k8s_service_cidrs: Some("10.96.0.0/16,fd96::/112".into()),
        answer_external_addresses: Some(true),
        ..Settings::default()
    })
    .unwrap()
}

impl Daemon {
    fn start(world: &World, node: &Node, services: Services) -> Daemon {
        let fact = NodeFact {
            subnets: vec!["10.128.0.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()],
            ..NodeFact::default()
        };
        let (node_tx, node_rx) = watch::channel(fact);
        let (services_tx, services_rx) = watch::channel(Some(services));
        let (host_ports_tx, host_ports_rx) = watch::channel(Vec::new());
        let (local_tx, local_rx) = watch::channel(Some(Local::new()));
        let (routed_tx, routed_rx) = watch::channel(Vec::new());
        let (cidrs_tx, cidrs_rx) = watch::channel(Some(config(world).service_cidrs));
        let (shared_tx, shared_rx) = watch::channel(Some(Default::default()));
        let (guarded_tx, guarded_rx) = watch::channel(false);
        let task = Task {
            config: config(world),
            mtu: 1400,
            net: node.net.clone(),
            vswitch: node.vswitch.clone(),
            node: node_rx,
            host_changes: node.net.changes().unwrap(),
            services: services_rx,
            local: local_rx,
            service_cidrs: cidrs_rx,
            routed: routed_rx,
            host_ports: host_ports_rx,
            shared: shared_rx,
            guarded: guarded_tx,
        };
        Daemon {
            services: services_tx,
            _local: local_tx,
            _service_cidrs: cidrs_tx,
            _shared: shared_tx,
            _routed: routed_tx,
            _node: node_tx,
            _host_ports: host_ports_tx,
            guarded: guarded_rx,
            task: tokio::spawn(task.run()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Table, match and actions of a flow as it is shown.
fn rule(flow: &str) -> (&str, &str) {
    (between(flow, "table=", ","), flow.split_once("n_bytes=").unwrap().1.split_once(' ').unwrap().1)
}

/// Seconds since a flow was written.
fn age(flow: &str) -> f64 {
    between(flow, "duration=", "s,").parse().unwrap()
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

/// Echoes what it gets, one connection after the other, and tells the clients' addresses.
async fn echo_server(at: Option<&Sandbox>, port: u16) -> std::sync::mpsc::Receiver<IpAddr> {
    let bind = move || TcpListener::bind(("::", port)).unwrap();
    let listener = match at {
        Some(sandbox) => netns::run(&sandbox.path(), move || Ok(bind())).await.unwrap(),
        None => bind(),
    };
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            if tx.send(peer.ip().to_canonical()).is_err() {
                return;
            }
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    rx
}

/// A stream that is open for as long as the test likes.
struct Stream(TcpStream);

impl Stream {
    async fn open(from: Option<&Sandbox>, to: &str) -> Result<Stream, String> {
        let to: SocketAddr = to.parse().unwrap();
        let open = move || {
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).map_err(|e| format!("{to}: {e}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            Ok(Stream(stream))
        };
        match from {
            Some(sandbox) => netns::run(&sandbox.path(), move || Ok(open())).await.unwrap(),
            None => tokio::task::spawn_blocking(open).await.unwrap(),
        }
    }

    /// A line there and back, longer than one segment.
    fn works(&mut self) -> std::io::Result<()> {
        let line = [7u8; 4000];
        self.0.write_all(&line)?;
        let mut back = [0u8; 4000];
        self.0.read_exact(&mut back)?;
        assert_eq!(back, line);
        Ok(())
    }
}

fn node_port(cluster_ip: &str, node_port: u16) -> Service {
    Service {
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: Some(node_port) }],
        cluster_ips: vec![cluster_ip.parse().unwrap()],
        ..Service::default()
    }
}

/// The host's own way to a Service, to a NodePort on its own address, and to an external address. `pods` tells what the pod has seen.
async fn the_host_reaches_services(world: &World, daemon: &Daemon, pods: &std::sync::mpsc::Receiver<IpAddr>) {
    world.host.nbctl("--wait=hv --timeout=30 lb-add svc 10.96.0.7:80 10.128.0.3:8080 tcp -- lb-add svc [fd96::7]:80 [fd01::3]:8080 tcp -- lr-lb-add GR_n1 svc");
    let mut service = node_port("10.96.0.7", 30080);
    service.cluster_ips.push("fd96::7".parse().unwrap());
    service.vips = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into();
    daemon.services.send_replace(Some([("default/web".to_owned(), service)].into()));
    world.await_flows(|flows| flows.iter().any(|f| f.contains("192.0.2.1"))).await;
    let targets =
        ["10.96.0.7:80", "[fd96::7]:80", "172.30.0.11:30080", "[fd30::11]:30080", "192.0.2.1:80", "[2001:db8::1]:80"];
    while pods.try_recv().is_ok() {}
    for target in targets {
        let mut stream = Stream::open(None, target).await.unwrap();
        stream.works().unwrap_or_else(|e| panic!("{target}: {e}"));
        let seen = pods.recv().unwrap().to_string();
        let join = if seen.contains(':') { "fd98::2" } else { "100.64.0.2" };
        assert_eq!(seen, join, "{target} is balanced by the gateway router");
    }
    // The outside asks on its link for external addresses, which no host has.
    world.host.nbctl("--wait=hv --timeout=30 lb-add ext 192.0.2.1:80 10.128.0.3:8080 tcp -- lb-add ext [2001:db8::1]:80 [fd01::3]:8080 tcp -- lr-lb-add GR_n1 ext");
    for (route, target) in
        [("ip route add 192.0.2.1 dev eth0", "192.0.2.1:80"), ("ip route add 2001:db8::1 dev eth0", "[2001:db8::1]:80")]
    {
        assert!(world.outside.run(route), "{route}");
        let mut stream = Stream::open(Some(&world.outside), target).await.unwrap();
        stream.works().unwrap_or_else(|e| panic!("{target}: {e}"));
        pods.recv().unwrap();
    }
    // A Service whose endpoint is the host itself, from a pod by way of the gateway router and from the host.
    let here = echo_server(None, 9090).await;
    world.host.nbctl("--wait=hv --timeout=30 lb-add own 10.96.0.9:80 169.254.169.2:9090 tcp -- lb-add own [fd96::9]:80 [fd69::2]:9090 tcp -- lr-lb-add GR_n1 own");
    for (target, ovn) in [("10.96.0.9:80", "169.254.169.1"), ("[fd96::9]:80", "fd69::1")] {
        let mut stream = Stream::open(None, target).await.unwrap();
        stream.works().unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!(here.recv().unwrap().to_string(), ovn, "{target}");
    }
}

#[tokio::test]
async fn host_and_gateway_router_share_the_wire() {
    let _turn = TURN.lock().await;
    let Some(mut world) = World::start() else { return };
    let node = Node::new(&world.host);
    node.restore(0..1).await;
    node.vswitch.until(|s| s.bridge).await.unwrap();
    // A stream from outside to the host, from before there is any flow.
    let _clients = echo_server(None, 2222).await;
    let mut session = Stream::open(Some(&world.outside), "172.30.0.11:2222").await.unwrap();
    session.works().unwrap();

    let mut daemon = Daemon::start(&world, &node, Services::new());
    daemon.guarded.wait_for(|guarded| *guarded).await.unwrap();
    assert!(!world.flows().is_empty(), "the cluster is told of the gateway when the bridge has flows");
    world.await_flows(|flows| flows.len() > 20).await;
    session.works().unwrap();
    let pod = Sandbox::new(0);
    node.add(0, &pod).await;
    let seen = echo_server(Some(&world.outside), 7777).await;
    for (target, own) in [("172.30.0.1:7777", "172.30.0.11"), ("[fd30::1]:7777", "fd30::11")] {
        let mut stream = Stream::open(Some(&pod), target).await.unwrap();
        stream.works().unwrap();
        assert_eq!(seen.recv().unwrap().to_string(), own, "the pod is seen by the node's address");
        let mut stream = Stream::open(None, target).await.unwrap();
        stream.works().unwrap();
        assert_eq!(seen.recv().unwrap().to_string(), own, "so is the host");
    }
    for target in ["172.30.0.11", "fd30::11"] {
        assert!(ping(&world.outside, target).await, "{target}");
    }

    // A NodePort: the gateway router balances it, the flows lead to it.
    let pods = echo_server(Some(&pod), 8080).await;
    world.host.nbctl("--wait=hv --timeout=30 lb-add np 172.30.0.11:30080 10.128.0.3:8080 tcp -- lr-lb-add GR_n1 np");
    daemon.services.send_replace(Some([("default/web".to_owned(), node_port("10.96.0.7", 30080))].into()));
    world.await_flows(|flows| flows.iter().any(|f| f.contains("tp_dst=30080"))).await;
    let mut through = Stream::open(Some(&world.outside), "172.30.0.11:30080").await.unwrap();
    through.works().unwrap();
    session.works().unwrap();

    the_host_reaches_services(&world, &daemon, &pods).await;

    // A daemon that starts anew finds everything as it should be.
    let (services, before) = (daemon.services.borrow().clone().unwrap(), world.flows());
    drop(daemon);
    let daemon = Daemon::start(&world, &node, services);
    daemon.services.send_modify(|s| drop(s.as_mut().unwrap().insert("a/a".into(), node_port("10.96.0.8", 30081))));
    world.await_flows(|flows| flows.iter().any(|f| f.contains("tp_dst=30081"))).await;
    let after = world.flows();
    assert_eq!(after.len(), before.len() + 2, "{before:#?}\n{after:#?}");
    for flow in &before {
        let same = after.iter().find(|f| rule(f) == rule(flow)).unwrap_or_else(|| panic!("{flow} is gone: {after:#?}"));
        assert!(age(same) >= age(flow), "{flow} was written anew: {same}");
    }
    session.works().unwrap();
    through.works().unwrap();

    // vswitchd forgets flows with its end.
    world.restart_vswitchd();
    world.await_flows(|flows| flows.len() == after.len()).await;
    assert!(ping(&world.outside, "172.30.0.11").await);
    Stream::open(Some(&pod), "172.30.0.1:7777").await.unwrap().works().unwrap();

    // Without the patch port the bridge is a plain switch again. ovn-controller deletes none soon after its start.
    world.host.end_last();
    world.host.vsctl("del-port br-ex patch-br-ex_n1-to-br-int");
    world.await_flows(|flows| flows.len() == 2).await;
    assert!(ping(&world.outside, "172.30.0.11").await);

    drop(daemon);
    drop(node);
    nothing_is_left(&world).await;
}

/// After the clean-up the host is as the operator made it.
async fn nothing_is_left(world: &World) {
    world.host.vsctl("set Open_vSwitch . external_ids:ovn-bridge-mappings=\"provider:br-p,physnet:br-ex\"");
    for _ in 0..2 {
        cleanup::run(&config(world)).await.unwrap();
        assert_eq!(world.flows(), Vec::<String>::new());
        assert_eq!(world.host.vsctl("get Open_vSwitch . external_ids:ovn-bridge-mappings"), "\"provider:br-p\"");
        assert!(!world.host.run("nft list tables").contains("ovenbird"));
        let left = ["ip addr", "ip route", "ip -6 route", "ip neigh"].map(|line| world.host.run(line)).concat();
        assert!(!["169.254.169", "fd69:", "proto 111"].iter().any(|ours| left.contains(ours)), "{left}");
    }
    assert!(ping(&world.outside, "172.30.0.11").await);
}
