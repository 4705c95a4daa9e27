//! The node's part on real OVS and OVN: one chassis with the user-space datapath in a network namespace of its own, sandboxes beside
//! it. The tests play the master: they write the Northbound rows and the pods' annotations. They need root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use ovenbird_cni_server::{Add, Attach, Attached, Attachment, Check, Del, PodRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::net::linux::Linux;
use crate::net::{NetOps, netns};
use crate::plug::{Parts, Plug};
use crate::pods::{Pod, PodBook};
use crate::readiness::{Part, Readiness};
use crate::restore;
use crate::rows::{Chassis, PodPort};
use crate::vswitch::Vswitch;

/// One at a time: each starts six daemons.
pub(crate) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// OVS and OVN of one node. The thread that makes it moves into the node's network namespace.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    /// Each with its command line.
    daemons: Vec<(String, Child)>,
}

impl Host {
    pub(crate) fn start() -> Option<Host> {
        let mut host = Host::switch()?;
        for (db, schema) in [("nb", "/usr/share/ovn/ovn-nb.ovsschema"), ("sb", "/usr/share/ovn/ovn-sb.ovsschema")] {
            host.database(db, schema);
        }
        host.nbctl("init");
        let (nb, sb, ovs) = (host.unix("nb"), host.unix("sb"), host.unix("conf"));
        host.daemon(&format!("ovn-northd --ovnnb-db={nb} --ovnsb-db={sb}"));
        host.daemon(&format!("ovn-controller {ovs}"));
        Some(host)
    }

    /// OVS alone.
    pub(crate) fn switch() -> Option<Host> {
        if !nix::unistd::geteuid().is_root() || Command::new("ovn-controller").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "no root, or no OVN, in CI");
            eprintln!("SKIP: needs root and OVN");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut host = Host { dir: tempfile::tempdir().unwrap(), daemons: Vec::new() };
        host.run("ip link set lo up");
        host.database("conf", "/usr/share/openvswitch/vswitch.ovsschema");
        host.vsctl("--no-wait init -- set Open_vSwitch . external_ids:ovn-bridge-datapath-type=netdev");
        host.daemon(&format!("ovs-vswitchd --disable-system {}", host.unix("conf")));
        Some(host)
    }

    fn database(&mut self, db: &str, schema: &str) {
        self.run(&format!("ovsdb-tool create {db}.db {schema}"));
        self.daemon(&format!("ovsdb-server {db}.db --remote=punix:{db}.sock --unixctl={db}.ctl"));
        while std::os::unix::net::UnixStream::connect(self.path(&format!("{db}.sock"))).is_err() {
            std::thread::yield_now();
        }
    }

    /// Kills a daemon and starts it again.
    pub(crate) fn restart(&mut self, program: &str) {
        self.restart_after(program, |_| ());
    }

    /// Kills a daemon, and starts it again after something else was done.
    pub(crate) fn restart_after(&mut self, program: &str, and_then: impl FnOnce(&Host)) {
        let at = self.daemons.iter().position(|(line, _)| line.starts_with(program)).unwrap();
        let line = self.daemons[at].0.clone();
        self.daemons[at].1.kill().unwrap();
        self.daemons[at].1.wait().unwrap();
        and_then(self);
        let child = self.command(&line).stderr(Stdio::null()).spawn().unwrap();
        self.daemons[at].1 = child;
    }

    /// Ends the daemon that was started last.
    pub(crate) fn end_last(&mut self) {
        let (_, mut daemon) = self.daemons.pop().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn unix(&self, db: &str) -> String {
        format!("unix:{}", self.path(&format!("{db}.sock")).display())
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(self.dir.path());
        for variable in ["OVS_RUNDIR", "OVN_RUNDIR", "OVS_DBDIR", "OVN_DBDIR", "OVS_LOGDIR", "OVN_LOGDIR"] {
            command.env(variable, self.dir.path());
        }
        command
    }

    fn daemon(&mut self, line: &str) {
        let child = self.command(line).stderr(Stdio::null()).spawn().unwrap();
        self.daemons.push((line.to_owned(), child));
    }

    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn vsctl(&self, args: &str) -> String {
        self.run(&format!("ovs-vsctl --db={} {args}", self.unix("conf")))
    }

    pub(crate) fn nbctl(&self, args: &str) -> String {
        self.run(&format!("ovn-nbctl --db={} {args}", self.unix("nb")))
    }

    /// What the kernel and OVS hold of pods: host links (without their indexes), ports, interfaces, queues.
    fn inventory(&self) -> [String; 4] {
        let links = self.run("ip -br link");
        let mut names: Vec<_> = links.lines().filter_map(|l| l.split([' ', '@']).next()).collect();
        names.sort_unstable();
        let list = |table: &str| {
            let text = self.vsctl(&format!("--bare --columns=_uuid list {table}"));
            let mut rows: Vec<_> = text.split_whitespace().collect();
            rows.sort_unstable();
            rows.join(" ")
        };
        [names.join(" "), list("Port"), list("Interface"), list("QoS")]
    }

    /// A switch with a router at 10.128.0.1 and ports for `count` pods.
    pub(crate) fn topology(&self, count: usize) {
        self.nbctl("lr-add r -- lrp-add r rtos 0a:58:0a:80:00:01 10.128.0.1/24 fd01::1/64 -- ls-add n1");
        self.nbctl("lsp-add n1 stor -- lsp-set-type stor router -- lsp-set-addresses stor router -- lsp-set-options stor router-port=rtos");
        for i in 0..count {
            let (lsp, mac, [v4, v6]) = (format!("default_p{i}"), mac(i), addresses(i));
            let mut command = self.command(&format!("ovn-nbctl --db={} lsp-add n1 {lsp} -- lsp-set-options {lsp} requested-chassis=n1 iface-id-ver=u{i} -- lsp-set-addresses {lsp}", self.unix("nb")));
            assert!(command.arg(format!("{mac} {v4} {v6}")).status().unwrap().success());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (_, child) in self.daemons.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A sandbox: a network namespace, removed with this value.
pub(crate) struct Sandbox(pub(crate) String);

impl Sandbox {
    pub(crate) fn new(index: usize) -> Sandbox {
        let name = format!("ovnb-r{index}-{}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Sandbox(name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.0).into()
    }

    pub(crate) fn run(&self, line: &str) -> bool {
        let command = Command::new("ip").args(["netns", "exec", &self.0]).args(line.split(' ')).output().unwrap();
        command.status.success()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn mac(i: usize) -> String {
    format!("0a:58:0a:80:00:{:02x}", i + 3)
}

fn addresses(i: usize) -> [String; 2] {
    [format!("10.128.0.{}", i + 3), format!("fd01::{:x}", i + 3)]
}

fn pod(i: usize) -> Pod {
    let [v4, v6] = addresses(i);
    let network = format!(
        r#"{{"default":{{"ip_addresses":["{v4}/24","{v6}/64"],"mac_address":"{}","gateway_ips":["10.128.0.1","fd01::1"]}}}}"#,
        mac(i)
    );
    Pod { uid: format!("u{i}"), node: "n1".into(), network: Some(network), ..Pod::default() }
}

fn attachment(i: usize) -> Attachment {
    Attachment { container_id: format!("c{i}"), ifname: "eth0".into() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// The daemon's parts that attach pods.
pub(crate) struct Node {
    pub(crate) net: Arc<Linux>,
    pub(crate) vswitch: Vswitch,
    plug: Arc<Plug<Linux>>,
    pods: Arc<PodBook>,
    readiness: Arc<Readiness>,
}

impl Node {
    pub(crate) fn new(host: &Host) -> Node {
        let vswitch =
            Vswitch::spawn(vec![ovsdb::Endpoint::parse(&host.unix("conf")).unwrap()], Duration::from_secs(300));
        let chassis = Chassis {
            system_id: "n1-chassis".into(),
            node: "n1".into(),
            sb_address: host.unix("sb"),
            encap_type: "geneve",
            encap_ip: "127.0.0.1".parse().unwrap(),
            bridge_mappings: None,
            external_bridge: Some("br-ex".into()),
            providers: None,
            entered: Default::default(),
            monitor_all: true,
            userspace: true,
        };
        vswitch.set_chassis(chassis);
        let pods = Arc::new(PodBook::new("n1", Box::new(|_, _| Box::pin(std::future::ready(Ok(None))))));
        let readiness = Arc::new(Readiness::with(&[Part::ManagementPort]));
        let net = Arc::new(Linux::new().unwrap());
        let plug = Arc::new(Plug::new(Parts {
            net: net.clone(),
            cable: vswitch.clone().into(),
            pods: pods.clone(),
            readiness: readiness.clone(),
            metrics: Arc::default(),
            tell: Arc::new(|_, _, _, _| {}),
            report: Box::new(|_, _, _| Box::pin(std::future::ready(()))),
            leases: Arc::new(crate::dhcp::Leases::new(
                net.clone(),
                Arc::new(|_, _, _, _| {}),
                Box::new(|_, _, _, _| Box::pin(std::future::ready(Ok(())))),
            )),
            entered: Arc::default(),
            mtu: 1400,
        }));
        Node { net, vswitch, plug, pods, readiness }
    }

    /// Takes over what an earlier one left, with these pods in the API.
    pub(crate) async fn restore(&self, pods: impl Iterator<Item = usize>) {
        self.pods.begin();
        pods.for_each(|i| self.pods.listed(format!("default/p{i}"), pod(i)));
        self.pods.complete();
        let declared = CancellationToken::new();
        declared.cancel();
        restore::run(&*self.net, &self.plug, &self.pods, &self.readiness, &declared).await.unwrap();
    }

    pub(crate) async fn add(&self, i: usize, sandbox: &Sandbox) -> Attached {
        let pod = PodRef { namespace: "default".into(), name: format!("p{i}"), uid: Some(format!("u{i}")) };
        self.plug.add(Add { attachment: attachment(i), netns: sandbox.path(), pod }, soon()).await.unwrap()
    }

    async fn del(&self, i: usize) {
        self.plug.del(Del { attachment: attachment(i), netns: None }, soon()).await.unwrap();
    }
}

/// One ICMP echo from inside a sandbox, asked again while the first packets find their way.
pub(crate) async fn ping(from: &Sandbox, target: &str) -> bool {
    let target: std::net::IpAddr = target.parse().unwrap();
    netns::run(&from.path(), move || Ok((0..5).any(|_| echo(target)))).await.unwrap()
}

fn echo(target: std::net::IpAddr) -> bool {
    use socket2::{Domain, Protocol, Socket, Type};
    let v4 = target.is_ipv4();
    let (domain, protocol) = if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(&std::net::SocketAddr::new(target, 0).into()).unwrap();
    // Type 8, id 0, sequence 0: the IPv4 checksum is its complement; the kernel fills in that of IPv6.
    let request: [u8; 8] = if v4 { [8, 0, 0xf7, 0xff, 0, 0, 0, 0] } else { [128, 0, 0, 0, 0, 0, 0, 0] };
    if socket.send(&request).is_err() {
        return false;
    }
    let mut packet = [0u8; 256];
    // Other ICMP, such as neighbour discovery, comes this way too. IPv4 packets come with their header.
    (0..8).any(|_| {
        std::io::Read::read(&mut &socket, &mut packet).is_ok() && if v4 { packet[20] == 0 } else { packet[0] == 129 }
    })
}

/// Sends a text from one sandbox to another over TCP, twice across the checksum trap.
async fn tcp(from: &Sandbox, to: &Sandbox, address: &str) {
    let listener = netns::run(&to.path(), || Ok(std::net::TcpListener::bind("[::]:8080").unwrap())).await.unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
    });
    let target = if address.contains(':') { format!("[{address}]:8080") } else { format!("{address}:8080") };
    let answer = netns::run(&from.path(), move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(target).unwrap();
        stream.write_all(b"over the wire").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Ok(text)
    })
    .await;
    assert_eq!(answer.unwrap(), "over the wire");
    echo.join().unwrap();
}

#[tokio::test]
async fn pods_reach_each_other_and_their_router() {
    let _turn = TURN.lock().await;
    let Some(host) = Host::start() else { return };
    host.topology(2);
    let node = Node::new(&host);
    node.restore(0..2).await;
    node.vswitch.until(|s| s.bridge).await.unwrap();
    // The bridge's row is there; its link too once it has a port number.
    host.vsctl("--timeout=30 wait-until Interface br-int ofport>0");
    let before = host.inventory();
    let sandboxes = [Sandbox::new(0), Sandbox::new(1)];
    let attached = node.add(0, &sandboxes[0]).await;
    node.add(1, &sandboxes[1]).await;
    for (target, text) in
        [("10.128.0.1", "router"), ("10.128.0.4", "pod"), ("fd01::1", "router, IPv6"), ("fd01::4", "pod, IPv6")]
    {
        assert!(ping(&sandboxes[0], target).await, "{text}");
    }
    tcp(&sandboxes[0], &sandboxes[1], "10.128.0.4").await;
    tcp(&sandboxes[1], &sandboxes[0], "fd01::3").await;

    let check = Check { attachment: attachment(0), netns: sandboxes[0].path(), previous: attached.clone() };
    node.plug.check(check.clone(), soon()).await.unwrap();
    assert_eq!(node.add(0, &sandboxes[0]).await, attached, "ADD again");
    assert!(sandboxes[0].run("ip addr del 10.128.0.3/24 dev eth0"));
    let error = node.plug.check(check, soon()).await.unwrap_err();
    assert_eq!(error.to_string(), "eth0 lacks address 10.128.0.3/24");

    node.plug.gc(vec![attachment(0)], soon()).await.unwrap();
    node.del(0).await;
    assert_eq!(host.inventory(), before);
}

#[tokio::test]
async fn a_hundred_pods_come_and_go_at_once() {
    let _turn = TURN.lock().await;
    let Some(host) = Host::start() else { return };
    host.topology(100);
    let node = Node::new(&host);
    node.restore(0..100).await;
    node.vswitch.until(|s| s.bridge).await.unwrap();
    // The bridge's row is there; its link too once it has a port number.
    host.vsctl("--timeout=30 wait-until Interface br-int ofport>0");
    let before = host.inventory();
    let sandboxes: Vec<Sandbox> = (0..100).map(Sandbox::new).collect();
    futures::future::join_all(sandboxes.iter().enumerate().map(|(i, sandbox)| node.add(i, sandbox))).await;
    assert!(ping(&sandboxes[3], "10.128.0.90").await);
    futures::future::join_all((0..100).map(|i| node.del(i))).await;
    assert_eq!(host.inventory(), before);
}

#[tokio::test]
async fn a_restart_keeps_what_lives_and_drops_what_is_gone() {
    let _turn = TURN.lock().await;
    let Some(host) = Host::start() else { return };
    host.topology(3);
    let sandboxes: Vec<Sandbox> = (0..3).map(Sandbox::new).collect();
    let before = {
        let node = Node::new(&host);
        node.restore(0..3).await;
        for (i, sandbox) in sandboxes.iter().enumerate() {
            node.add(i, sandbox).await;
        }
        let name = PodPort::host_name(&attachment(0));
        host.vsctl(&format!("get Interface {name} _uuid ofport external_ids:ovn-installed"))
    };
    // While no daemon runs, one sandbox vanishes, and one pod is deleted.
    let mut sandboxes = sandboxes.into_iter();
    let (kept, vanished, _orphan) = (sandboxes.next().unwrap(), sandboxes.next().unwrap(), sandboxes.next().unwrap());
    drop(vanished);

    let node = Node::new(&host);
    node.restore([0, 1].into_iter()).await;
    for i in [1, 2] {
        node.vswitch.wait(&PodPort::owner_of(&attachment(i)), |row| row.is_none().then_some(())).await.unwrap();
    }
    let name = PodPort::host_name(&attachment(0));
    let after = host.vsctl(&format!("get Interface {name} _uuid ofport external_ids:ovn-installed"));
    assert_eq!(after, before, "the port that lives was not touched");
    assert!(ping(&kept, "10.128.0.1").await);
    let transactions = node.vswitch.state().borrow().transactions;
    assert!(transactions <= 2, "{transactions} transactions to drop two ports");
    assert_eq!(node.plug.attachments().len(), 1);
    assert!(node.net.host_link(&PodPort::host_name(&attachment(2))).await.unwrap().is_none());
    assert!(!node.readiness.missing().contains(&Part::Restored));
}
