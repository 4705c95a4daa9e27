//! The take-over on a real kernel and a real Open_vSwitch, in a network namespace of its own. Needs root.
//!
//! ```text
//!   outside 172.30.0.1, fd30::1 --- eth0 172.30.0.11, fd30::11  -->  outside --- eth0 - breth0 172.30.0.11, fd30::11
//! ```

use std::cell::Cell;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::apply::apply;
use super::choose::{Choice, choose};
use super::journal::{Journal, Phase, Purpose, Store, Uplink};
use super::kernel;
use super::plan::{to_bridge, to_nic};
use super::task::Task;
use crate::config::{Config, Settings};
use crate::net::netns;
use crate::real_ovn_tests::{Host, Sandbox, TURN, ping};

/// What the host's NIC has: two families, secondary addresses, several hops, a policy table, a rule, a neighbour.
const CONFIGURATION: &[&str] = &[
    "ip link set eth0 mtu 1400 up",
    "ip addr add 172.30.0.11/24 brd + dev eth0",
    "ip addr add 172.30.0.99/24 dev eth0",
    "ip addr add 198.51.100.9/32 dev eth0 label eth0:1",
    "ip addr add 10.7.0.1 peer 10.7.0.2/32 dev eth0",
    "ip addr add fd30::11/64 dev eth0",
    "ip addr add fd30::99/64 dev eth0 noprefixroute nodad",
    "ip route add default proto static metric 100 nexthop via 172.30.0.1 dev eth0 weight 1 nexthop via 172.30.0.2 dev eth0 weight 3",
    "ip route add default via 172.30.0.3 dev eth0 proto dhcp src 172.30.0.11 metric 200",
    "ip route append default via 172.30.0.4 dev eth0 metric 200",
    "ip route add 10.9.0.0/16 via 192.0.2.1 dev eth0 onlink mtu 1300",
    "ip route add 10.8.0.1 dev eth0 scope link src 172.30.0.99",
    "ip route add 10.10.0.0/16 via 10.8.0.1 dev eth0 proto 77",
    "ip route add default via 172.30.0.1 dev eth0 table 100",
    "ip route add default via fd30::1 dev eth0 metric 300",
    "ip route add 2001:db8:1::/48 nexthop via fd30::1 dev eth0 nexthop via fd30::2 dev eth0",
    "ip route add ::/0 via fd30::1 dev eth0 table 100",
    "ip neigh add 172.30.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent",
    "ip rule add pref 100 from 172.30.0.0/24 iif eth0 lookup 100",
    "ip -6 rule add pref 101 oif eth0 fwmark 0x10/0xff lookup 100",
];

struct World {
    outside: Sandbox,
    host: Host,
}

impl World {
    fn start(configuration: &[&str]) -> Option<World> {
        let host = Host::switch()?;
        let outside = Sandbox::new(91);
        host.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.0));
        host.run("ethtool -K eth0 tx off");
        configuration.iter().for_each(|line| drop(host.run(line)));
        for line in [
            "ethtool -K eth0 tx off",
            "ip link set eth0 up",
            "ip addr add 172.30.0.1/24 dev eth0",
            "ip addr add fd30::1/64 dev eth0 nodad",
        ] {
            assert!(outside.run(line), "{line}");
        }
        let world = World { outside, host };
        world.settle();
        Some(world)
    }

    /// Waits until no address looks for its duplicates any more.
    fn settle(&self) {
        while self.host.run("ip -6 addr").contains("tentative") {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn config(&self) -> Config {
        Config::new(Settings {
            ovs_address: Some(self.host.unix("conf")),
            gateway_interface: Some("eth0".into()),
            state_dir: Some(self.host.path("state")),
            takeover_timeout: Some(20),
            ..Settings::default()
        })
        .unwrap()
    }

    fn store(&self) -> Store {
        Store::new(&self.host.path("state"))
    }

    fn phase(&self) -> Option<Phase> {
        self.store().find("eth0").unwrap().map(|j| j.phase)
    }

    /// All that the kernel tells of the host, and the bridges.
    fn snapshot(&self) -> Vec<String> {
        let all = [
            "ip -j addr show dev eth0",
            "ip -j route show table all",
            "ip -j -6 route show table all",
            "ip -j rule",
            "ip -j -6 rule",
            "ip -j neigh show nud permanent",
            "nft list tables",
        ];
        self.settle();
        let mut told: Vec<_> = all.map(|line| self.host.run(line)).into();
        told.push(self.host.vsctl("list-br"));
        told
    }

    /// The same, and what another NIC has.
    fn both(&self) -> Vec<String> {
        self.settle();
        let of_eth1 = ["ip -j addr show dev eth1", "ip -j route show dev eth1"].map(|line| self.host.run(line));
        self.snapshot().into_iter().chain(of_eth1).collect()
    }

    async fn uplink(&self) -> Uplink {
        let host = kernel::read(&self.config().ovs, Duration::from_secs(20)).await.unwrap();
        match choose(&host, "eth0").unwrap() {
            Choice::TakeOver(uplink) => uplink,
            other => panic!("{other:?}"),
        }
    }

    /// Everything is on the bridge, and packets pass.
    async fn on_the_bridge(&self) {
        assert_eq!(self.phase(), Some(Phase::Taken));
        let nic = self.host.run("ip -br addr show dev eth0");
        assert!(!nic.contains("172.30.0") && !nic.contains("fd30:"), "{nic}");
        let moved = |line: &str| line.replace(" dev eth0", " dev breth0").replace("iif eth0", "iif breth0");
        for line in ["ip -4 addr show dev eth0", "ip route show dev eth0", "ip -6 route show dev eth0 table 100"] {
            assert!(!self.host.run(&moved(line)).is_empty(), "{line}");
        }
        for target in ["172.30.0.11", "fd30::11"] {
            assert!(ping(&self.outside, target).await, "{target}");
        }
    }
}

async fn yes() -> Result<(), String> {
    Ok(())
}

#[tokio::test]
async fn there_and_back() {
    let _turn = TURN.lock().await;
    let Some(world) = World::start(CONFIGURATION) else { return };
    let (config, stop) = (world.config(), CancellationToken::new());
    let task = Task::new(&config, Purpose::Gateway);
    let before = world.snapshot();
    let steps = task.show("eth0", false).await.unwrap();
    assert!(steps.contains("add-port breth0 eth0\n"), "{steps}");
    assert_eq!(world.snapshot(), before, "--dry-run changes nothing");

    let stream = Stream::start(&world).await;
    assert_eq!(task.start("eth0", yes, &stop).await.unwrap(), "breth0");
    println!("no answer for {:?} at most while eth0 was taken over", stream.gap());
    world.on_the_bridge().await;
    let link = world.host.run("ip -j link show dev breth0");
    assert!(link.contains("\"mtu\":1400"), "{link}");
    assert!(task.show("eth0", false).await.unwrap().starts_with("Nothing to do"));
    let (after, journal) = (world.snapshot(), std::fs::read(world.store().path("eth0").unwrap()).unwrap());
    // A daemon that starts anew, by the name of either, and a boot that finds everything there.
    for name in ["eth0", "breth0"] {
        assert_eq!(task.start(name, yes, &stop).await.unwrap(), "breth0");
        task.restore().await.unwrap();
    }
    assert_eq!((world.snapshot(), std::fs::read(world.store().path("eth0").unwrap()).unwrap()), (after, journal));
    assert!(task.start("eth1", yes, &stop).await.unwrap_err().to_string().contains("eth0 is taken over"));

    let stream = Stream::start(&world).await;
    task.give_all_back().await.unwrap();
    println!("no answer for {:?} at most while eth0 was given back", stream.gap());
    assert_eq!(world.snapshot(), before);
    assert_eq!(world.phase(), None);
    task.give_all_back().await.unwrap();
    assert!(task.show("eth0", true).await.unwrap().starts_with("Nothing to do"));
}

#[tokio::test]
async fn a_daemon_that_is_killed_at_any_step() {
    let _turn = TURN.lock().await;
    let Some(world) = World::start(CONFIGURATION) else { return };
    let (config, stop) = (world.config(), CancellationToken::new());
    let task = Task::new(&config, Purpose::Gateway);
    let read = || kernel::read(&config.ovs, Duration::from_secs(20));
    let before = world.snapshot();
    let uplink = world.uplink().await;
    let count = to_bridge(&read().await.unwrap(), &uplink).len();
    for killed_after in 0..=count {
        let journal = |phase| Journal { uplink: uplink.clone(), phase, failures: 0, purpose: Purpose::Gateway };
        world.store().write(&journal(Phase::Taking)).unwrap();
        let steps = to_bridge(&read().await.unwrap(), &uplink);
        apply(&config.ovs, &steps[..killed_after]).await.unwrap();
        if killed_after % 2 == 0 {
            task.restore().await.unwrap();
            assert_eq!(world.snapshot(), before, "killed after {killed_after} steps, and a boot");
            continue;
        }
        assert_eq!(task.start("eth0", yes, &stop).await.unwrap(), "breth0", "killed after {killed_after} steps");
        world.on_the_bridge().await;
        // And on the way back.
        world.store().write(&journal(Phase::Returning)).unwrap();
        let steps = to_nic(&read().await.unwrap(), &uplink);
        apply(&config.ovs, &steps[..killed_after.min(steps.len())]).await.unwrap();
        task.give_all_back().await.unwrap();
        assert_eq!(world.snapshot(), before, "killed after {killed_after} steps of the way back");
    }
    println!("{count} steps");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer() {
    let _turn = TURN.lock().await;
    let Some(world) = World::start(CONFIGURATION) else { return };
    let (config, stop) =
        (Config { takeover_timeout: Duration::from_secs(2), ..world.config() }, CancellationToken::new());
    let task = Task::new(&config, Purpose::Gateway);
    let before = world.snapshot();
    let asked = Cell::new(0);
    let once = || {
        asked.set(asked.get() + 1);
        let answer = if asked.get() == 1 { Ok(()) } else { Err("no route to host".to_owned()) };
        async { answer }
    };
    let error = format!("{:#}", task.start("eth0", once, &stop).await.unwrap_err());
    let want = "eth0 was taken over and moved back: the API server does not answer within 2s: no route to host; the next try is in 60 s";
    assert!(error.starts_with(want), "{error}");
    assert_eq!(world.snapshot(), before);
    assert!(matches!(world.phase(), Some(Phase::Failed { .. })));
    let error = task.start("eth0", yes, &stop).await.unwrap_err().to_string();
    assert!(error.starts_with("eth0 was not taken over: the API server does not answer within 2s"), "{error}");
    task.restore().await.unwrap();
    assert_eq!(world.snapshot(), before);
    // The operator has mended it.
    task.give_all_back().await.unwrap();
    assert_eq!(world.phase(), None);
    assert_eq!(task.start("eth0", yes, &stop).await.unwrap(), "breth0");
    world.on_the_bridge().await;
    task.give_all_back().await.unwrap();
    // A step that fails: vswitchd would not take the port.
    world.host.vsctl("--no-wait add-br br-other -- add-port br-other breth0 -- set interface breth0 type=internal");
    let error = format!("{:#}", task.start("eth0", yes, &stop).await.unwrap_err());
    assert!(error.contains("breth0"), "{error}");
    world.host.vsctl("del-br br-other");
    assert_eq!(world.snapshot(), before);
    // The daemon is stopped while it waits.
    stop.cancel();
    task.give_all_back().await.unwrap();
    task.start("eth0", std::future::pending, &stop).await.unwrap_err();
    assert_eq!((world.snapshot(), world.phase()), (before, None));
}

#[tokio::test]
async fn a_boot_brings_the_bridge_back() {
    let _turn = TURN.lock().await;
    let Some(mut world) = World::start(CONFIGURATION) else { return };
    let (config, stop) = (world.config(), CancellationToken::new());
    let task = Task::new(&config, Purpose::Gateway);
    task.restore().await.unwrap();
    let before = world.snapshot();
    task.start("eth0", yes, &stop).await.unwrap();
    let carried = async || {
        let host = kernel::read(&config.ovs, Duration::from_secs(20)).await.unwrap();
        let mut lines: Vec<_> = host.carried("breth0").map(ToString::to_string).collect();
        lines.sort_unstable();
        lines
    };
    world.settle();
    let taken = carried().await;
    for distribution in [&[][..], &CONFIGURATION[1..3], CONFIGURATION] {
        world.host.restart_after("ovs-vswitchd", |host| {
            for line in [
                "ip link del breth0",
                "ip link set eth0 promisc off",
                "nft delete table netdev ovenbird-uplink-eth0",
                "ip rule del pref 100",
                "ip -6 rule del pref 101",
            ] {
                host.run(line);
            }
        });
        distribution.iter().for_each(|line| drop(world.host.run(line)));
        task.restore().await.unwrap();
        world.settle();
        assert_eq!(carried().await, taken, "the distribution has set {distribution:?}");
        world.on_the_bridge().await;
        let journal = std::fs::metadata(world.store().path("eth0").unwrap()).unwrap().modified().unwrap();
        task.restore().await.unwrap();
        assert_eq!(std::fs::metadata(world.store().path("eth0").unwrap()).unwrap().modified().unwrap(), journal);
    }
    task.give_all_back().await.unwrap();
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn leases_keep_their_time_and_nexthop_objects_are_refused() {
    let _turn = TURN.lock().await;
    let Some(world) = World::start(&CONFIGURATION[..6]) else { return };
    let (config, stop) = (world.config(), CancellationToken::new());
    let task = Task::new(&config, Purpose::Gateway);
    world.host.run("ip addr add 172.30.0.50/24 dev eth0 valid_lft 3600 preferred_lft 1800");
    world.host.run("ip nexthop add id 7 via 172.30.0.9 dev eth0");
    world.host.run("ip route add 10.5.0.0/16 nhid 7");
    let (links, routes) = (world.host.run("ip link"), world.host.run("ip route"));
    let error = task.start("eth0", yes, &stop).await.unwrap_err().to_string();
    let want = "--gateway-interface eth0: the nexthop object 7 of \"route 10.5.0.0/16 via 172.30.0.9 dev eth0\" cannot be moved";
    assert!(error.starts_with(want), "{error}");
    assert_eq!((world.host.run("ip link"), world.host.run("ip route"), world.phase()), (links, routes, None));

    world.host.run("ip nexthop del id 7");
    assert_eq!(task.start("eth0", yes, &stop).await.unwrap(), "breth0");
    let lease = world.host.run("ip -o addr show dev breth0 to 172.30.0.50");
    let left = lease.rsplit_once("valid_lft ").unwrap().1.split_once("sec").unwrap().0.parse::<u32>().unwrap();
    assert!(lease.contains("dynamic") && (1..=3600).contains(&left), "{lease}");
    task.give_all_back().await.unwrap();
    assert!(world.host.run("ip -o addr show dev eth0 to 172.30.0.50").contains("dynamic"));
}

#[tokio::test]
async fn a_physical_network_beside_the_gateway_and_each_nic_by_itself() {
    let _turn = TURN.lock().await;
    let Some(mut world) = World::start(CONFIGURATION) else { return };
    world.host.run(&format!("ip link add eth1 type veth peer name eth1 netns {}", world.outside.0));
    for line in
        ["ip link set eth1 up", "ip addr add 172.31.0.11/24 dev eth1", "ip route add 10.20.0.0/16 via 172.31.0.1"]
    {
        world.host.run(line);
    }
    assert!(world.outside.run("ip link set eth1 up") && world.outside.run("ip addr add 172.31.0.1/24 dev eth1"));
    assert!(world.outside.run("ethtool -K eth1 tx off"));
    let (config, stop) = (world.config(), CancellationToken::new());
    let [gateway, network] = [Purpose::Gateway, Purpose::Network].map(|purpose| Task::new(&config, purpose));
    let before = world.both();
    assert_eq!(network.start("eth1", yes, &stop).await.unwrap(), "breth1");
    assert_eq!(
        gateway.start("eth0", yes, &stop).await.unwrap(),
        "breth0",
        "another NIC is a network's, not the gateway's"
    );
    for target in ["172.30.0.11", "fd30::11", "172.31.0.11"] {
        assert!(ping(&world.outside, target).await, "{target}");
    }
    assert_eq!(world.host.vsctl("list-br"), "breth0\nbreth1");
    let of = |task: &Task| task.journals().unwrap().into_iter().map(|j| j.uplink.nic).collect::<Vec<_>>();
    assert_eq!((of(&gateway), of(&network)), (vec!["eth0".to_owned()], vec!["eth1".to_owned()]));
    // One goes back, and the other stays as it is.
    network.give_back(network.journals().unwrap().remove(0)).await.unwrap();
    assert_eq!(world.host.vsctl("list-br"), "breth0");
    assert_eq!(world.host.run("nft list tables"), "table netdev ovenbird-uplink-eth0");
    assert!(ping(&world.outside, "172.30.0.11").await && ping(&world.outside, "172.31.0.11").await);
    // A failure is of one NIC, too.
    let brief = Config { takeover_timeout: Duration::from_secs(1), ..config.clone() };
    let asked = Cell::new(0);
    let once = || {
        asked.set(asked.get() + 1);
        let answer = if asked.get() == 1 { Ok(()) } else { Err("no route to host".to_owned()) };
        async { answer }
    };
    let error = format!("{:#}", Task::new(&brief, Purpose::Network).start("eth1", once, &stop).await.unwrap_err());
    assert!(error.starts_with("eth1 was taken over and moved back: the API server does not answer"), "{error}");
    let (why, left) = network.failed("eth1").unwrap().unwrap();
    assert!(why.contains("no route to host") && left <= Duration::from_secs(60), "{why}, {left:?}");
    assert_eq!(gateway.failed("eth0").unwrap(), None);
    network.give_back(network.journals().unwrap().remove(0)).await.unwrap();
    assert_eq!(network.start("eth1", yes, &stop).await.unwrap(), "breth1");
    // A boot brings both back, though one journal is broken; what is given back then is both.
    world.host.restart_after("ovs-vswitchd", |host| {
        for line in [
            "ip link del breth0",
            "ip link del breth1",
            "ip link set eth0 promisc off",
            "ip link set eth1 promisc off",
            "nft flush ruleset",
            "ip rule del pref 100",
            "ip -6 rule del pref 101",
        ] {
            host.run(line);
        }
    });
    std::fs::write(world.host.path("state").join("uplink-eth7.json"), "{").unwrap();
    let error = gateway.restore().await.unwrap_err().to_string();
    assert!(error.contains("uplink-eth7.json"), "{error}");
    for target in ["172.30.0.11", "172.31.0.11"] {
        assert!(ping(&world.outside, target).await, "{target} after a boot");
    }
    std::fs::remove_file(world.host.path("state").join("uplink-eth7.json")).unwrap();
    gateway.give_all_back().await.unwrap();
    assert_eq!(world.both(), before);
    assert!(gateway.show("eth0", true).await.unwrap().starts_with("Nothing to do"));
}

/// A datagram from outside every 10 ms, which the host answers.
struct Stream {
    end: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<Duration>,
}

impl Stream {
    async fn start(world: &World) -> Stream {
        let end = Arc::new(AtomicBool::new(false));
        let server = UdpSocket::bind("0.0.0.0:9").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let over = end.clone();
        std::thread::spawn(move || {
            let mut datagram = [0; 8];
            while !over.load(Ordering::Relaxed) {
                if let Ok((_, from)) = server.recv_from(&mut datagram) {
                    // What cannot be sent now is lost, and counted by who waits for it.
                    drop(server.send_to(&datagram, from));
                }
            }
        });
        let bind = || Ok(UdpSocket::bind("172.30.0.1:0").unwrap());
        let socket = netns::run(&world.outside.path(), bind).await.unwrap();
        socket.connect("172.30.0.11:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let over = end.clone();
        let (began, begun) = std::sync::mpsc::channel();
        let sender = std::thread::spawn(move || {
            let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let due = Instant::now() + Duration::from_millis(10);
                drop(socket.send(&[0; 8]));
                while Instant::now() < due {
                    if socket.recv(&mut [0; 8]).is_ok() {
                        gap = gap.max(last.elapsed());
                        last = Instant::now();
                        // Nobody listens after the first.
                        let _ = began.send(());
                    }
                }
            }
            gap.max(last.elapsed())
        });
        begun.recv().unwrap();
        Stream { end, sender }
    }

    /// The longest time without an answer.
    fn gap(self) -> Duration {
        self.end.store(true, Ordering::Relaxed);
        self.sender.join().unwrap()
    }
}
