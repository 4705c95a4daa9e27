//! Pods on a VLAN whose addresses a real DHCP server gives: dnsmasq on the host outside. Leases are got, renewed (by isolated pods, too, and after the
//! node's daemon was killed), lost and got again, and given back.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, DeleteParams};
use ovenbird_api::Lease;
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::service::{Answer, PORT, ask, respond, service, slices};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, pods, side_by_side};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Mode, Options, Place, testing, underlay, wait_for};
use serde_json::{Value, json};

/// The host outside: server, and router of the VLAN.
const OUTSIDE: &str = "192.168.100.250";
/// Nobody's.
const FALSE: &str = "192.168.100.40";
/// OVN's router on the VLAN.
const OVN: &str = "192.168.100.1";
/// What the server gives, and what it gives after a change of mind.
const RANGE: [&str; 2] = ["192.168.100.50", "192.168.100.99"];
const OTHER_RANGE: [&str; 2] = ["192.168.100.150", "192.168.100.199"];
/// Seconds until a lease is renewed, the least that dnsmasq takes, and until any server is asked.
const T1: u32 = 3;
const T2: u32 = 60;
const NAMESPACE: &str = "v100";
const CLUSTER_IP: [u8; 4] = [10, 96, 9, 2];

/// dnsmasq, on a VLAN.
struct Server {
    home: PathBuf,
    place: Place,
    process: Option<Child>,
}

impl Server {
    fn new(lab: &Lab) -> Result<Server> {
        let place = lab.scene("outside")?.place().clone();
        place.output(&["ip", "address", "add", &format!("{OUTSIDE}/24"), "dev", "vlan100"])?;
        place.output(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
        let home = lab.layout().dir().join("dhcp");
        fs::create_dir_all(&home).context("making the server's directory")?;
        Ok(Server { home, place, process: None })
    }

    /// Starts with what it has written down, or knowing nothing.
    fn start(&mut self, [first, last]: [&str; 2]) -> Result<()> {
        let file = |name: &str| self.home.join(name).display().to_string();
        let arguments = [
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--port=0".to_owned(),
            "--user=root".to_owned(),
            "--interface=vlan100".to_owned(),
            "--bind-interfaces".to_owned(),
            "--dhcp-authoritative".to_owned(),
            "--no-ping".to_owned(),
            "--log-dhcp".to_owned(),
            format!("--dhcp-range={first},{last},255.255.255.0,120"),
            format!("--dhcp-option=3,{OUTSIDE}"),
            "--dhcp-option=26,1400".to_owned(),
            format!("--dhcp-option=58,{T1}"),
            format!("--dhcp-option=59,{T2}"),
            format!("--dhcp-leasefile={}", file("leases")),
            format!("--log-facility={}", file("log")),
            "--pid-file".to_owned(),
        ];
        let mut command = Command::new("dnsmasq");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(self.place.spawn(&mut command)?);
        wait_for("dnsmasq to serve", LIMIT, || self.log().contains("DHCP, IP range"))
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().context("ending dnsmasq")?;
            process.wait().context("waiting for dnsmasq")?;
        }
        Ok(())
    }

    /// Forgets all that it gave.
    fn forget(&self) -> Result<()> {
        fs::remove_file(self.home.join("leases")).context("removing the leases")?;
        fs::write(self.home.join("log"), "").context("emptying the log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Address and host name of each lease.
    fn leases(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.home.join("leases")).unwrap_or_default();
        let one = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            Some(((*words.get(2)?).to_owned(), (*words.get(3)?).to_owned()))
        };
        text.lines().filter_map(one).collect()
    }

    /// How often an address was granted.
    fn grants(&self, ip: IpAddr) -> usize {
        let (what, ip) = ("DHCPACK(vlan100) ", format!(" {ip} "));
        self.log().lines().filter(|line| line.contains(what) && line.replace(what, " ").contains(&ip)).count()
    }

    /// Waits until leases are renewed twice more.
    fn renews(&self, what: &str, ips: &[IpAddr]) -> Result<()> {
        let before: Vec<(&IpAddr, usize)> = ips.iter().map(|ip| (ip, self.grants(*ip))).collect();
        for (ip, before) in before {
            wait_for(&format!("{ip} to be renewed {what}"), LIMIT, || self.grants(*ip) > before + 1)
                .with_context(|| self.log())?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A pod that answers.
struct Pod {
    name: &'static str,
    place: Place,
    ip: IpAddr,
}

/// On nodes, and in VMs, where the Network has no address of OVN's router.
#[test]
fn a_dhcp_server_gives_the_addresses() -> Result<()> {
    let labs = [("e2e-dhcp", Mode::Overlay), ("e2e-dhcp-vms", Mode::Nested)];
    side_by_side(labs.map(|(name, mode)| (name, move || leases(name, mode))))
}

async fn leases(name: &'static str, mode: Mode) -> Result<()> {
    // ADD without a server is to fail before the test loses patience.
    let node_args = vec!["--cni-timeout=20".to_owned()];
    let options = Options { nodes: 2, mode, underlay: true, node_args, ..Options::default() };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let mut server = Server::new(&lab)?;
    lab.apply(&(underlay::provider() + &network(mode))).await?;
    underlay::ready(lab.layout()).await?;

    nobody_answers(&lab, &mut server).await?;
    let pods = [pod_of(&lab, "a1").await?, pod_of(&lab, "a2").await?];
    let ips = pods.each_ref().map(|pod| pod.ip);
    leases_are_the_servers(&lab, &server, &pods).await?;
    reach_each_other(&lab, &server.place, &pods)?;
    nobody_else_is_passed_for(&server.place, &pods)?;
    if mode != Mode::Nested {
        a_service(&lab, &pods).await?;
    }
    isolated(&lab, &server, &pods).await?;

    // A daemon that dies, and the next one.
    lab.kill("node1/ovenbird-node")?;
    server.renews("by the other node, while one has no daemon", &ips[1..])?;
    lab.start("node1/ovenbird-node")?;
    server.renews("after the daemon has come again", &ips)?;
    reach_each_other(&lab, &server.place, &pods)?;

    lost_and_found(&lab, &mut server, &pods).await?;
    given_back(&lab, &server, &pods).await
}

/// Without a server ADD says so; with one the pod comes up.
async fn nobody_answers(lab: &Lab, server: &mut Server) -> Result<()> {
    lab.namespace(NAMESPACE).await?;
    lab.apply(&pod_with_grace("a1", "node1")).await?;
    told(lab, "NoLease", &["Network v100", "DHCP server"]).await?;
    server.start(RANGE)?;
    lab.apply(&pod_with_grace("a2", "node2")).await?;
    lab.await_running(NAMESPACE).await
}

async fn leases_are_the_servers(lab: &Lab, server: &Server, pods: &[Pod]) -> Result<()> {
    let range = RANGE.map(|ip| ip.parse::<IpAddr>());
    for pod in pods {
        let Pod { name, ip, place, .. } = pod;
        ensure!(matches!(&range, [Ok(first), Ok(last)] if first <= ip && ip <= last), "{name} has {ip}");
        let known = || server.leases().contains(&(ip.to_string(), (*name).to_owned()));
        wait_for(&format!("the server to know {name} at {ip}"), LIMIT, known).with_context(|| server.log())?;
        let lease = lease_of(lab, name).await?.context("no annotation")?;
        ensure!(IpAddr::V4(lease.address.addr()) == *ip && lease.expires.is_some(), "{name}: {lease:?}");
        let link = place.output(&["ip", "-o", "link", "show", "eth0"])?;
        ensure!(link.contains(" mtu 1400 "), "the MTU that the server gives, not {link}");
        let routes = place.output(&["ip", "route"])?;
        ensure!(routes.contains(&format!("default via {OUTSIDE}")), "the router that the server gives: {routes}");
        let routed = lab.layout().options.mode != Mode::Nested;
        ensure!(routes.contains(&format!("via {OVN}")) == routed, "the cluster's networks by OVN's router: {routes}");
    }
    Ok(())
}

fn reach_each_other(lab: &Lab, outside: &Place, pods: &[Pod]) -> Result<()> {
    let host: IpAddr = OUTSIDE.parse()?;
    eventually(lab, "the VLAN to connect its hosts", || {
        for (from, to) in pods.iter().zip(pods.iter().rev()) {
            pings(&from.place, to.ip)?;
            pings(&from.place, host)?;
            pings(outside, from.ip)?;
            let answer = ask(&from.place, Protocol::Tcp, SocketAddr::new(to.ip, PORT))?;
            ensure!(matches!(&answer, Answer::From { source, .. } if *source == from.ip), "{answer:?}");
        }
        Ok(())
    })
}

/// What a pod sends by an address that the server has not given it, nobody hears or believes; nor what it says as a server would.
fn nobody_else_is_passed_for(outside: &Place, pods: &[Pod]) -> Result<()> {
    let ([a1, a2], port) = ([&pods[0], &pods[1]], 7000);
    let to_outside = SocketAddr::new(OUTSIDE.parse()?, port);
    ensure!(hears(outside, to_outside, &a1.place, SocketAddr::new(a1.ip, port))?, "the host outside does not hear a1");
    a1.place.output(&["ip", "address", "add", FALSE, "dev", "eth0"])?;
    let false_one = hears(outside, to_outside, &a1.place, SocketAddr::new(FALSE.parse()?, port))?;
    a1.place.output(&["ip", "address", "del", FALSE, "dev", "eth0"])?;
    ensure!(!false_one, "the host outside has heard a false address");
    let known = outside.output(&["ip", "neigh", "show", FALSE])?;
    ensure!(!known.contains("lladdr"), "the host outside believes it: {known}");

    let to_client = SocketAddr::new(a2.ip, 68);
    ensure!(hears(&a2.place, to_client, &a1.place, SocketAddr::new(a1.ip, port))?, "a2 does not hear a1");
    ensure!(!hears(&a2.place, to_client, &a1.place, SocketAddr::new(a1.ip, 67))?, "a2 hears a1 as a DHCP server");
    Ok(())
}

/// Whether one of three datagrams arrives. Others do, too: the server's answers to a renewal.
fn hears(to: &Place, at: SocketAddr, from: &Place, source: SocketAddr) -> Result<bool> {
    let ear = to.run(|| UdpSocket::bind(at).with_context(|| format!("listening at {at}")))?;
    ear.set_read_timeout(Some(Duration::from_millis(500))).context("setting a time limit")?;
    let mouth = from.run(|| UdpSocket::bind(source).with_context(|| format!("speaking from {source}")))?;
    for _ in 0..3 {
        mouth.send_to(b"hello", at).with_context(|| format!("from {source} to {at}"))?;
        while let Ok((_, heard)) = ear.recv_from(&mut [0; 16]) {
            if heard == source {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn a_service(lab: &Lab, pods: &[Pod]) -> Result<()> {
    let to = SocketAddr::from((CLUSTER_IP, 80));
    let endpoints = [("node1", pods[0].ip), ("node2", pods[1].ip)];
    lab.apply(&(service(NAMESPACE, "web", &[to.ip()], &json!({}), json!({})) + &slices(NAMESPACE, "web", &endpoints)))
        .await?;
    for pod in pods {
        let mut who = BTreeSet::new();
        eventually(lab, &format!("both endpoints to answer {}", pod.name), || {
            if let Answer::From { name, .. } = ask(&pod.place, Protocol::Tcp, to)? {
                who.insert(name);
            }
            ensure!(who.len() == 2, "only {who:?} answered {}", pod.name);
            Ok(())
        })?;
    }
    Ok(())
}

/// A policy that lets nothing in or out stops no renewal.
async fn isolated(lab: &Lab, server: &Server, pods: &[Pod]) -> Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": "alone"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    let policy = format!("---\n{policy}\n");
    lab.apply(&policy).await?;
    let to = SocketAddr::new(pods[1].ip, PORT);
    for (who, from) in [("a1", &pods[0].place), ("the host outside", &server.place)] {
        wait_for(&format!("{who} to be cut off from a2"), LIMIT, || {
            matches!(ask(from, Protocol::Tcp, to), Ok(Answer::Silence))
        })?;
    }
    server.renews("by isolated pods", &[pods[0].ip, pods[1].ip])?;
    ensure!(pings(&pods[0].place, OUTSIDE.parse()?).is_err(), "a1 is not isolated");
    lab.delete(&policy).await.map(drop)
}

/// A server that gives other addresses ends the leases, and they are had again from one that knows them.
async fn lost_and_found(lab: &Lab, server: &mut Server, pods: &[Pod]) -> Result<()> {
    server.stop()?;
    server.forget()?;
    server.start(OTHER_RANGE)?;
    let has = |pod: &Pod| {
        pod.place
            .output(&["ip", "-o", "-4", "addr", "show", "eth0"])
            .map(|text| text.contains(&format!(" {}/", pod.ip)))
    };
    for pod in pods {
        wait_for(&format!("{} to lose its address", pod.name), LIMIT, || matches!(has(pod), Ok(false)))
            .with_context(|| server.log())?;
        told(lab, "LeaseLost", &[&format!("pod v100/{}", pod.name), "Network v100", &pod.ip.to_string()]).await?;
    }
    written(lab, "a1", None).await?;
    server.stop()?;
    server.forget()?;
    server.start(RANGE)?;
    for pod in pods {
        wait_for(&format!("{} to have its address again", pod.name), LIMIT * 2, || matches!(has(pod), Ok(true)))
            .with_context(|| server.log())?;
        written(lab, pod.name, Some(pod.ip)).await?;
    }
    reach_each_other(lab, &server.place, pods)
}

/// What a pod had is the server's again when it is gone.
async fn given_back(lab: &Lab, server: &Server, pods: &[Pod]) -> Result<()> {
    let api = pods::api(lab, NAMESPACE).await?;
    // The file may be read while it is written: it is looked for what it has.
    let knows = |name: &str| server.leases().iter().any(|(_, own)| own == name);
    wait_for("the server to know both", LIMIT, || knows("a1") && knows("a2"))?;
    api.delete("a2", &DeleteParams::default()).await.context("deleting a pod")?;
    pods::await_gone(&api, "a2").await?;
    let one_is_gone = || {
        let all = server.leases();
        all.len() == 1 && all[0].1 == "a1"
    };
    wait_for("the lease to end", LIMIT, one_is_gone).with_context(|| server.log())?;
    ensure!(server.log().contains("DHCPRELEASE(vlan100)"), "{}", server.log());
    server.renews("beside one that is gone", &[pods[0].ip])
}

/// A pod that goes when its node has taken its network down, and not before: with its port nothing could be told to the server.
fn pod_with_grace(name: &str, node: &str) -> String {
    pods::pod(NAMESPACE, name, node)
        .replace(r#""terminationGracePeriodSeconds":0"#, r#""terminationGracePeriodSeconds":1"#)
}

fn network(mode: Mode) -> String {
    let gateway = if mode == Mode::Nested { json!({}) } else { json!({"ovn": [OVN]}) };
    let spec = json!({
        "providerNetwork": underlay::PROVIDER, "vlan": 100, "addresses": "DHCP", "subnets": ["192.168.100.0/24"],
        "gateway": gateway, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
    });
    let object = json!({
        "apiVersion": "ovenbird.io/v1alpha1", "kind": "Network", "metadata": {"name": "v100"}, "spec": spec,
    });
    format!("---\n{object}\n")
}

async fn pod_of(lab: &Lab, name: &'static str) -> Result<Pod> {
    let place = lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone();
    let ip = pods::ips(&pods::api(lab, NAMESPACE).await?, name).await?[0];
    respond(&place, name)?;
    Ok(Pod { name, place, ip })
}

async fn lease_of(lab: &Lab, name: &str) -> Result<Option<Lease>> {
    let pod = pods::api(lab, NAMESPACE).await?.get(name).await.context("reading a pod")?;
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let text: Option<&String> = annotations.get(ovenbird_api::annotation::LEASE);
    text.map(|text| Lease::parse(text).context("reading the lease")).transpose()
}

/// Waits until a pod's annotation has an address, or is not there.
async fn written(lab: &Lab, name: &str, want: Option<IpAddr>) -> Result<()> {
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        let lease = lease_of(lab, name).await?;
        if lease.as_ref().map(|lease| IpAddr::V4(lease.address.addr())) == want {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "{name} has {lease:?}, not {want:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for an Event on a pod that says all this.
async fn told(lab: &Lab, reason: &str, words: &[&str]) -> Result<()> {
    let all: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(lab.client().await?, NAMESPACE);
    let end = tokio::time::Instant::now() + LIMIT;
    loop {
        let events = all.list(&Default::default()).await.context("listing Events")?.items;
        let seen: Vec<Value> = events.iter().map(|e| json!([e.reason, e.note])).collect();
        let fits = |event: &Value| {
            event[0] == reason && words.iter().all(|word| event[1].as_str().is_some_and(|note| note.contains(word)))
        };
        if seen.iter().any(fits) {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            bail!("no Event {reason} with {words:?}: {seen:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn pings(from: &Place, to: IpAddr) -> Result<()> {
    from.run(|| Target::Ping(to).check(Duration::from_secs(2))).with_context(|| format!("no answer of {to}")).map(drop)
}
