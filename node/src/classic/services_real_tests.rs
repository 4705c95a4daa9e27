//! Services by packets: a host with kbr0, pods on it, a pod of another node behind it, and a host outside. Needs root.
//!
//! ```text
//!   a .4  b .5  c .6 (client)      far 10.244.2.4
//!      \    |    /                /
//!       kbr0 10.244.1.1, fd00:244:0:1::1 -- host -- eth0 192.168.1.11 ---- outside 192.168.1.1
//! ```

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use ovenbird_nft::script;
use serde_json::{Value, json};

use super::*;
use crate::net::netns;
use crate::real_ovn_tests::Sandbox;

/// Within which whatever should happen happens.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    a: Sandbox,
    b: Sandbox,
    c: Sandbox,
    far: Sandbox,
    outside: Sandbox,
}

/// Runs a command in the namespace of this thread, which is the host's.
fn host(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn within(sandbox: &Sandbox, line: &str) {
    assert!(sandbox.run(line), "{line}");
}

impl World {
    async fn start() -> Option<World> {
        let tools = ["nft", "conntrack"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
        if !nix::unistd::geteuid().is_root() || !tools {
            assert!(std::env::var_os("CI").is_none(), "no root, nft or conntrack in CI");
            eprintln!("SKIP: needs root, nft and conntrack");
            return None;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        host("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        host("ip link set lo up; ip link add kbr0 type bridge; ip link set kbr0 up");
        host("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-iptables=1");
        host(
            "sysctl -qw net.bridge.bridge-nf-call-ip6tables=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.all.rp_filter=1",
        );
        host("ip addr add 10.244.1.1/24 dev kbr0; ip addr add fd00:244:0:1::1/64 dev kbr0 nodad");
        host("ip route add 10.244.0.0/16 dev kbr0 src 10.244.1.1");
        let (a, b, c, far) = (pod(170, 4).await, pod(171, 5).await, pod(172, 6).await, pod(173, 0).await);
        within(&far, "ip addr add 10.244.2.4/16 dev eth0");
        let outside = Sandbox::new(174);
        host(&format!("ip link add eth0 type veth peer name eth0 netns {}; ip link set eth0 up", outside.0));
        host("ip addr add 192.168.1.11/24 dev eth0; ip route add default via 192.168.1.1");
        host("ip addr add fd30::11/64 dev eth0; ip route add default via fd30::1");
        within(&outside, "ip addr add 192.168.1.1/24 dev eth0");
        within(&outside, "ip link set eth0 up");
        within(&outside, "ip route add 203.0.113.0/24 via 192.168.1.11");
        Some(World { a, b, c, far, outside })
    }
}

/// A pod on kbr0, whose port lets a packet out where it came in.
async fn pod(index: usize, last: u8) -> Sandbox {
    let sandbox = Sandbox::new(index);
    host(&format!("ip link add v{index} type veth peer name eth0 netns {}", sandbox.0));
    host(&format!("ip link set v{index} master kbr0 up"));
    let net = crate::net::linux::Linux::new().unwrap();
    net.reflect(&format!("v{index}")).await.unwrap();
    within(&sandbox, "sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
    within(&sandbox, "ip link set lo up");
    within(&sandbox, "ip link set eth0 up");
    if last > 0 {
        within(&sandbox, &format!("ip addr add 10.244.1.{last}/24 dev eth0"));
        within(&sandbox, &format!("ip addr add fd00:244:0:1::{last}/64 dev eth0 nodad"));
        within(&sandbox, "ip route add default via 10.244.1.1");
        within(&sandbox, "ip -6 route add default via fd00:244:0:1::1");
    }
    sandbox
}

/// Tells whoever calls, by TCP and UDP, its name and the caller's address.
async fn serve(sandbox: &Sandbox, name: &'static str) {
    let bind = || Ok((TcpListener::bind("[::]:8080").unwrap(), UdpSocket::bind("[::]:8080").unwrap()));
    let (tcp, udp) = netns::run(&sandbox.path(), bind).await.unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(format!("{name} {}", peer.ip().to_canonical()).as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer);
        }
    });
}

/// Runs in a sandbox, or on the host.
async fn at<T: Send + 'static>(from: Option<&Sandbox>, work: impl FnOnce() -> T + Send + 'static) -> T {
    match from {
        Some(sandbox) => netns::run(&sandbox.path(), move || Ok(work())).await.unwrap(),
        None => work(),
    }
}

async fn call(from: Option<&Sandbox>, to: &str) -> Result<String, ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let call = move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|e| e.kind())?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map_err(|e| e.kind())?;
        Ok(said)
    };
    at(from, call).await
}

/// Who answers, and how often.
async fn calls(from: Option<&Sandbox>, to: &str, times: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let answer = call(from, to).await.unwrap_or_else(|e| panic!("{to}: {e}"));
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

async fn names(from: Option<&Sandbox>, to: &str, times: usize) -> String {
    calls(from, to, times).await.into_keys().collect::<Vec<_>>().join(", ")
}

/// The keeper, and a second book of what it was told.
struct Kept {
    tx: mpsc::Sender<Told>,
    _settings: watch::Sender<Option<Settings>>,
    _weights: watch::Sender<Option<Weights>>,
    book: Services,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn settings() -> Settings {
    Settings {
        node: "n1".into(),
        pods: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:0:1::/64".parse().unwrap()],
        addresses: ["192.168.1.11", "10.244.1.1"].map(|ip| ip.parse().unwrap()).into(),
        node_ports: true,
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        cluster: vec!["10.244.0.0/16".parse().unwrap()],
        ..Settings::default()
    }
}

impl Kept {
    async fn start(objects: &[Value]) -> Kept {
        let (tx, told) = mpsc::channel(100);
        let (settings_tx, settings_rx) = watch::channel(Some(settings()));
        let readiness = Arc::new(Readiness::with(&[Part::Services]));
        let (weights_tx, weights) = watch::channel(Some(Weights::new()));
        let audit = Duration::from_secs(3600);
        let keeper = Keeper { told, settings: settings_rx, weights, audit, readiness: readiness.clone() };
        let task = tokio::spawn(keeper.run());
        let mut kept = Kept { tx, _settings: settings_tx, _weights: weights_tx, book: Services::new(settings()), task };
        for event in [Told::Service(Box::new(Event::Init)), Told::Slice(Box::new(Event::Init))] {
            kept.tx.send(event).await.unwrap();
        }
        for object in objects {
            kept.send(object, true).await;
        }
        for event in [Told::Service(Box::new(Event::InitDone)), Told::Slice(Box::new(Event::InitDone))] {
            kept.tx.send(event).await.unwrap();
        }
        tokio::time::timeout(PATIENCE, readiness.wait(Part::Services)).await.unwrap();
        kept.settled().await;
        kept
    }

    async fn send(&mut self, object: &Value, init: bool) {
        let interner = &mut Interner::default();
        let told = if object["addressType"].is_null() {
            let service: Service = serde_json::from_value(object.clone()).unwrap();
            self.book.set_service(ServiceFact::from_k8s(&service, interner));
            Told::Service(Box::new(if init { Event::InitApply(service) } else { Event::Apply(service) }))
        } else {
            let slice: EndpointSlice = serde_json::from_value(object.clone()).unwrap();
            self.book.set_slice(EndpointSliceFact::from_k8s(&slice, interner));
            Told::Slice(Box::new(if init { Event::InitApply(slice) } else { Event::Apply(slice) }))
        };
        self.tx.send(told).await.unwrap();
    }

    /// Waits until the kernel has what follows from what was told.
    async fn settled(&mut self) {
        let (begun, want) = (Instant::now(), self.book.table());
        while !script(&nft::stored(TABLE).await.unwrap(), &want).is_empty() {
            assert!(begun.elapsed() < PATIENCE && !self.task.is_finished(), "nftables: {}", host("nft list ruleset"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn change(&mut self, object: &Value) {
        self.send(object, false).await;
        self.settled().await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn service(name: &str, last: u8, more: &Value) -> Value {
    let node_port = 30080 + i32::from(last);
    let mut spec = json!({
        "clusterIPs": [format!("10.96.0.{last}"), format!("fd96::{last}")],
        "ports": [
            {"name": "t", "protocol": "TCP", "port": 80, "nodePort": node_port},
            {"name": "u", "protocol": "UDP", "port": 80, "nodePort": node_port},
        ],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{last}")}]}});
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": ingress})
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let v4 = !addresses.iter().any(|a| a.contains(':'));
    let of = |address: &&str| json!({"addresses": [address], "nodeName": if address.starts_with("10.244.2") { "n2" } else { "n1" }});
    let endpoints: Vec<_> = addresses.iter().map(of).collect();
    let kind = if v4 { "IPv4" } else { "IPv6" };
    json!({
        "metadata": {"name": format!("{service}-{}", kind.to_lowercase()), "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": kind, "endpoints": endpoints,
        "ports": [{"name": "t", "protocol": "TCP", "port": 8080}, {"name": "u", "protocol": "UDP", "port": 8080}],
    })
}

const ALL: [&str; 3] = ["10.244.1.4", "10.244.1.5", "10.244.2.4"];

#[tokio::test]
async fn services_by_packets() {
    let Some(world) = World::start().await else { return };
    for (sandbox, name) in [(&world.a, "a"), (&world.b, "b"), (&world.far, "far")] {
        serve(sandbox, name).await;
    }
    let session =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 3600}}});
    let local = json!({"externalTrafficPolicy": "Local"});
    let objects = [
        service("web", 1, &json!({})),
        slice("web", &ALL),
        slice("web", &["fd00:244:0:1::4", "fd00:244:0:1::5"]),
        service("local", 2, &local),
        slice("local", &["10.244.1.4", "10.244.2.4"]),
        service("there", 3, &local),
        slice("there", &["10.244.2.4"]),
        service("none", 4, &json!({})),
        service("session", 5, &session),
        slice("session", &ALL),
        service("self", 6, &json!({})),
        slice("self", &["10.244.1.4"]),
        service("ranges", 7, &json!({"loadBalancerSourceRanges": ["192.168.1.11/32", "10.244.1.6/32"]})),
        slice("ranges", &["10.244.1.4"]),
        service("near", 8, &json!({"internalTrafficPolicy": "Local"})),
        slice("near", &["10.244.1.5", "10.244.2.4"]),
    ];
    let mut kept = Kept::start(&objects).await;
    spread_and_addresses(&world).await;
    policies(&world).await;
    refusals(&world).await;
    let remembered = sessions(&world, &mut kept).await;
    forgotten_connections(&world, &mut kept).await;

    // A daemon that starts anew finds everything as it should be, and the kernel still knows the clients.
    let late = [service("late", 9, &json!({})), slice("late", &["10.244.1.4"])];
    let objects = [&objects[..], &late].concat();
    for object in &objects {
        kept.change(object).await;
    }
    let before = host("nft -a -s list table inet ovenbird-services");
    drop(kept);
    let kept = Kept::start(&objects).await;
    let after = host("nft -a -s list table inet ovenbird-services");
    let new = after.lines().find(|line| !before.contains(line));
    assert!(after == before, "written anew: {new:?}");
    assert_eq!(names(Some(&world.c), "10.96.0.5:80", 8).await, remembered);
    // What somebody else has done is undone by the next start.
    host("nft add element inet ovenbird-services cluster_ips_v4 { 10.96.77.77 }");
    host("nft insert rule inet ovenbird-services services drop");
    drop(kept);
    let _kept = Kept::start(&objects).await;
    assert_eq!(names(Some(&world.c), "10.96.0.5:80", 8).await, remembered);
}

/// Cluster addresses and NodePorts, of both families: all endpoints answer, and see pods as they are, others as the node.
async fn spread_and_addresses(world: &World) {
    let (c, outside) = (Some(&world.c), Some(&world.outside));
    let answers = calls(c, "10.96.0.1:80", 60).await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["a 10.244.1.6", "b 10.244.1.6", "far 10.244.1.6"]);
    assert!(answers.values().all(|n| (8..=35).contains(n)), "{answers:?}");
    assert_eq!(names(c, "[fd96::1]:80", 30).await, "a fd00:244:0:1::6, b fd00:244:0:1::6");
    // The answers of a far pod would take another way back to the node's other addresses.
    assert_eq!(names(None, "10.96.0.1:80", 40).await, "a 10.244.1.1, b 10.244.1.1, far 10.244.1.1");
    assert_eq!(names(None, "[fd96::1]:80", 30).await, "a fd00:244:0:1::1, b fd00:244:0:1::1");
    for target in ["192.168.1.11:30081", "203.0.113.1:80"] {
        assert_eq!(names(outside, target, 40).await, "a 10.244.1.1, b 10.244.1.1, far 10.244.1.1", "{target}");
        assert_eq!(names(c, target, 40).await, "a 10.244.1.6, b 10.244.1.6, far 10.244.1.6", "{target}");
        assert_eq!(names(None, target, 40).await, "a 10.244.1.1, b 10.244.1.1, far 10.244.1.1", "{target}");
    }
    assert_eq!(names(Some(&world.a), "10.96.0.6:80", 3).await, "a 10.244.1.1", "a pod calls itself");
    assert_eq!(names(Some(&world.a), "[fd96::1]:80", 30).await, "a fd00:244:0:1::1, b fd00:244:0:1::4");
    assert_eq!(names(Some(&world.a), "10.96.0.1:80", 40).await, "a 10.244.1.1, b 10.244.1.4, far 10.244.1.4");
}

/// Policies Local, and source ranges.
async fn policies(world: &World) {
    let (c, outside) = (Some(&world.c), Some(&world.outside));
    for target in ["203.0.113.2:80", "192.168.1.11:30082"] {
        assert_eq!(names(outside, target, 10).await, "a 192.168.1.1", "{target}: the client's address is kept");
        assert_eq!(names(c, target, 30).await, "a 10.244.1.6, far 10.244.1.6", "{target}: pods are no outside");
        assert_eq!(names(None, target, 30).await, "a 10.244.1.1, far 10.244.1.1", "{target}: nor is the node");
    }
    for target in ["203.0.113.3:80", "192.168.1.11:30083"] {
        assert_eq!(call(outside, target).await, Err(ErrorKind::TimedOut), "{target}: none is here");
    }
    assert_eq!(names(c, "10.96.0.8:80", 20).await, "b 10.244.1.6", "internalTrafficPolicy Local");
    assert_eq!(names(outside, "192.168.1.11:30088", 30).await, "b 10.244.1.1, far 10.244.1.1");
    assert_eq!(call(outside, "203.0.113.7:80").await, Err(ErrorKind::TimedOut), "out of range");
    assert_eq!(call(Some(&world.b), "203.0.113.7:80").await, Err(ErrorKind::TimedOut), "a pod out of range");
    assert_eq!(names(c, "203.0.113.7:80", 2).await, "a 10.244.1.6");
    assert_eq!(names(None, "203.0.113.7:80", 2).await, "a 10.244.1.1");
    assert_eq!(names(outside, "192.168.1.11:30087", 2).await, "a 10.244.1.1", "NodePorts have no ranges");
}

/// Who calls a Service without endpoints is told so.
async fn refusals(world: &World) {
    let (c, outside) = (Some(&world.c), Some(&world.outside));
    for (from, target) in [
        (c, "10.96.0.4:80"),
        (None, "10.96.0.4:80"),
        (c, "[fd96::4]:80"),
        (c, "203.0.113.4:80"),
        (outside, "203.0.113.4:80"),
        (outside, "192.168.1.11:30084"),
        (None, "192.168.1.11:30084"),
        (c, "10.96.0.1:81"),
    ] {
        assert_eq!(call(from, target).await, Err(ErrorKind::ConnectionRefused), "{target}");
    }
    let udp = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect("10.96.0.4:80").unwrap();
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 10]).map_err(|e| e.kind())
    };
    assert_eq!(at(c, udp).await, Err(ErrorKind::ConnectionRefused));
    assert_eq!(call(c, "10.96.99.99:80").await, Err(ErrorKind::TimedOut), "an address of Services that none has");
}

/// A client has one endpoint, on every way, for as long as that is there. Returns whom the client in `c` has at last.
async fn sessions(world: &World, kept: &mut Kept) -> String {
    let c = Some(&world.c);
    let first = names(c, "10.96.0.5:80", 12).await;
    assert!(!first.contains(','), "{first}");
    assert_eq!(names(c, "192.168.1.11:30085", 4).await, first);
    assert_eq!(names(c, "203.0.113.5:80", 4).await, first);
    let address = match first.split(' ').next().unwrap() {
        "a" => "10.244.1.4",
        "b" => "10.244.1.5",
        _ => "10.244.2.4",
    };
    let others: Vec<&str> = ALL.into_iter().filter(|other| *other != address).collect();
    kept.change(&slice("session", &others)).await;
    let second = names(c, "10.96.0.5:80", 12).await;
    assert!(!second.contains(',') && second != first, "{first}, then {second}");
    kept.change(&slice("session", &ALL)).await;
    assert_eq!(names(c, "10.96.0.5:80", 12).await, second);
    second
}

/// A client of UDP that goes on sending is led to another endpoint when its own has gone, and to the first when there was none.
async fn forgotten_connections(world: &World, kept: &mut Kept) {
    let socket = at(Some(&world.c), || UdpSocket::bind("0.0.0.0:0").unwrap()).await;
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = |to: &str| {
        let mut buffer = [0; 100];
        socket.send_to(b"x", to).unwrap();
        // Refusals of others come in by the same socket.
        let got = socket.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..got.0]).split(' ').next().unwrap().to_owned())
    };
    let until = async |to: &str, wanted: &[&str]| {
        let begun = Instant::now();
        loop {
            match ask(to) {
                Some(name) if wanted.contains(&name.as_str()) => return name,
                other => assert!(begun.elapsed() < PATIENCE, "{to}: {other:?} answers, not {wanted:?}"),
            }
            // The keeper works on this thread, too.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (cluster_ip, node_port) = ("10.96.0.1:80", "192.168.1.11:30081");
    for target in [cluster_ip, node_port] {
        kept.change(&slice("web", &ALL)).await;
        let first = until(target, &["a", "b", "far"]).await;
        assert_eq!(until(target, &["a", "b", "far"]).await, first);
        let left: Vec<&str> = [("a", ALL[0]), ("b", ALL[1]), ("far", ALL[2])]
            .into_iter()
            .filter_map(|(name, ip)| (name != first).then_some(ip))
            .collect();
        kept.change(&slice("web", &left)).await;
        let names = ["a", "b", "far"].into_iter().filter(|name| *name != first).collect::<Vec<_>>();
        until(target, &names).await;
    }
    // Sent to the node's own port until there is a Service.
    let late = "192.168.1.11:30089";
    for _ in 0..3 {
        ask(late);
    }
    kept.change(&service("late", 9, &json!({}))).await;
    kept.change(&slice("late", &["10.244.1.4"])).await;
    until(late, &["a"]).await;
}
