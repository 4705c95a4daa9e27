//! Services, by hand-made slices: pods and nodes reach the endpoints that they should, in every family, over TCP and UDP; and nothing but
//! those. In the overlay, on a VLAN and in VMs.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use ovenbird_api::mode::Feature;
use ovenbird_e2e::service::{Answer, ask, respond, service, slices};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::{Family, Lab, Mode, Options, Place, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "services";
/// Questions after which chance is no excuse: with two endpoints, all go to one of them once in 2^40 times.
const MANY: usize = 41;

#[tokio::test(flavor = "multi_thread")]
async fn services_reach_their_endpoints() -> Result<()> {
    reach("e2e-services", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_reach_their_endpoints_on_a_vlan() -> Result<()> {
    reach("e2e-services-vlan", Mode::Underlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_reach_their_endpoints_in_vms() -> Result<()> {
    reach("e2e-services-vms", Mode::Nested).await
}

async fn reach(name: &str, mode: Mode) -> Result<()> {
    let options = Options { nodes: 2, family: Family::Dual, mode, ..Options::default() };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let world = World::new(&lab).await?;
    world.who_answers_late_is_heard().await.context("UDP that nobody answers at first")?;
    world.everybody_reaches_all().await.context("everybody reaches all endpoints")?;
    world.endpoints_come_and_go().await.context("endpoints come and go")?;
    // On a hypervisor it would be OVN that forgets their connections (`options:ct_flush`), which 23.03 does not know.
    if mode != Mode::Nested {
        world.busy_clients_follow().await.context("UDP clients that never pause")?;
    }
    world.without_endpoints_is_refused().await.context("no endpoint")?;
    world.a_pod_reaches_itself().await.context("hairpin")?;
    if !mode.api().lacks().contains(&Feature::NearEndpoints) {
        world.local_means_this_node().await.context("internalTrafficPolicy Local")?;
    }
    world.clients_stay().await.context("session affinity")?;
    world.what_ovn_cannot_is_told().await.context("scheduler")?;
    world.networks_come_and_go().await.context("ServiceCIDR")?;
    // Whoever runs the hypervisors has rows there, too.
    if mode == Mode::Nested { Ok(()) } else { northbound::equals_from_scratch(&lab) }
}

struct World<'a> {
    lab: &'a Lab,
    /// `one` on node1, `two` on node2: endpoints, and clients.
    pods: [(&'static str, &'static str, Vec<IpAddr>); 2],
}

impl World<'_> {
    async fn new(lab: &Lab) -> Result<World<'_>> {
        let named = [("one", "node1"), ("two", "node2")];
        let manifest = named.map(|(name, node)| pods::pod(NAMESPACE, name, node)).concat();
        lab.apply(&(pods::namespace(NAMESPACE) + &manifest)).await?;
        lab.await_running(NAMESPACE).await?;
        let api = pods::api(lab, NAMESPACE).await?;
        let mut world = World { lab, pods: named.map(|(name, node)| (name, node, Vec::new())) };
        for (name, _, ips) in &mut world.pods {
            *ips = pods::ips(&api, name).await?;
            ensure!(ips.len() == 2, "{name} has {ips:?}");
        }
        Ok(world)
    }

    /// Clients that were never answered, and go on from the same port, are answered when the endpoint begins to. Then everybody does.
    async fn who_answers_late_is_heard(&self) -> Result<()> {
        let ips = self.serve("late", 18, &["two"], json!({}), json!({})).await?;
        let clients = self.busy_clients(&["one", "two", "node1", "node2"], &ips)?;
        // OVN has connections soon, and nobody answers.
        for _ in 0..100 {
            ensure!(clients.iter().all(|(_, socket)| !ask_busy(socket).starts_with("two")), "nobody should answer");
        }
        for name in ["one", "two"] {
            respond(&self.place(name)?, name)?;
        }
        let answered = || clients.iter().filter(|(_, socket)| ask_busy(socket).starts_with("two")).count();
        wait_for("answers", LIMIT, || answered() == clients.len())
            .with_context(|| format!("{} of {}", answered(), clients.len()))
    }

    /// A socket for each client and address, with a name for people.
    fn busy_clients(&self, from: &[&str], ips: &[IpAddr]) -> Result<Vec<(String, UdpSocket)>> {
        let all = from.iter().flat_map(|from| ips.iter().map(move |ip| (from, SocketAddr::new(*ip, 53))));
        all.map(|(from, to)| Ok((format!("{from} at {to}"), self.place(from)?.run(|| busy_socket(to))?))).collect()
    }

    /// Where a pod or a node asks from.
    fn place(&self, name: &str) -> Result<Place> {
        let target = if name.starts_with("node") { name.to_owned() } else { format!("{NAMESPACE}/{name}") };
        Ok(self.lab.scene(&target)?.place().clone())
    }

    /// Makes a Service whose endpoints are these pods. Returns its addresses.
    async fn serve(
        &self,
        name: &str,
        index: u8,
        endpoints: &[&str],
        annotations: Value,
        spec: Value,
    ) -> Result<Vec<IpAddr>> {
        let ips = vec![format!("10.96.0.{index}").parse()?, format!("fd00:10:96::{index}").parse()?];
        self.serve_at(name, &ips, endpoints, annotations, spec).await?;
        Ok(ips)
    }

    async fn serve_at(
        &self,
        name: &str,
        ips: &[IpAddr],
        endpoints: &[&str],
        annotations: Value,
        spec: Value,
    ) -> Result<()> {
        self.lab.apply(&(service(NAMESPACE, name, ips, &annotations, spec) + &self.slices(name, endpoints))).await?;
        Ok(())
    }

    fn slices(&self, service: &str, endpoints: &[&str]) -> String {
        let chosen = self.pods.iter().filter(|(name, ..)| endpoints.contains(name));
        let endpoints: Vec<_> = chosen.flat_map(|(_, node, ips)| ips.iter().map(|ip| (*node, *ip))).collect();
        slices(NAMESPACE, service, &endpoints)
    }

    /// Waits until those who answer are exactly `wanted`, in each family and over each transport.
    fn meets(&self, from: &str, ips: &[IpAddr], wanted: &[&str]) -> Result<()> {
        let place = self.place(from)?;
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        for to in ips
            .iter()
            .flat_map(|ip| [(Protocol::Tcp, SocketAddr::new(*ip, 80)), (Protocol::Udp, SocketAddr::new(*ip, 53))])
        {
            let mut last = Ok(BTreeSet::new());
            wait_for(&format!("{wanted:?} to answer {from} at {to:?}"), LIMIT, || {
                last = answers(&place, to);
                last.as_ref().is_ok_and(|seen| *seen == wanted)
            })
            .with_context(|| format!("last: {last:?}"))?;
        }
        Ok(())
    }

    async fn everybody_reaches_all(&self) -> Result<()> {
        let ips = self.serve("web", 10, &["one", "two"], json!({}), json!({})).await?;
        for from in ["one", "two", "node1", "node2"] {
            self.meets(from, &ips, &["one", "two"])?;
        }
        // One row for each protocol, whatever the number of nodes, families and endpoints.
        let dump = northbound::dump(self.lab)?;
        let rows = northbound::names(&dump, "Load_Balancer");
        let wanted = ["TCP", "UDP"].map(|protocol| format!("Service_{NAMESPACE}/web_{protocol}_cluster"));
        ensure!(rows.iter().filter(|name| name.contains("/web_")).eq(wanted.iter()), "{rows:?}");
        Ok(())
    }

    async fn endpoints_come_and_go(&self) -> Result<()> {
        let ips = self.serve("turns", 11, &["one"], json!({}), json!({})).await?;
        for endpoints in [&["one"][..], &["one", "two"], &["two"]] {
            self.lab.apply(&self.slices("turns", endpoints)).await?;
            for from in ["one", "node2"] {
                self.meets(from, &ips, endpoints)?;
            }
        }
        Ok(())
    }

    /// A client that sends every few milliseconds from one port keeps its connection in conntrack, but not an endpoint that is gone.
    async fn busy_clients_follow(&self) -> Result<()> {
        let ips = ["10.96.0.17".parse()?, "fd00:10:96::17".parse()?];
        let sockets = self.busy_clients(&["one", "two", "node1"], &ips)?;
        // They begin before there is a Service: what they send goes to the address itself, and is remembered so.
        for _ in 0..50 {
            sockets.iter().for_each(|(_, socket)| drop(ask_busy(socket)));
        }
        self.serve("busy", 17, &["two"], json!({}), json!({})).await?;
        for endpoint in ["two", "refused", "two", "one", "refused", "one", "two"] {
            self.lab.apply(&self.slices("busy", &[endpoint])).await?;
            let started = Instant::now();
            let mut waiting: BTreeSet<usize> = (0..sockets.len()).collect();
            while !waiting.is_empty() {
                for (n, (client, socket)) in sockets.iter().enumerate() {
                    // All go on sending while one waits.
                    if ask_busy(socket).starts_with(endpoint) {
                        waiting.remove(&n);
                    } else {
                        ensure!(started.elapsed() < LIMIT, "{client} does not reach {endpoint}");
                    }
                }
            }
            println!("{} busy clients have found {endpoint} after {:.1?}", sockets.len(), started.elapsed());
        }
        Ok(())
    }

    async fn without_endpoints_is_refused(&self) -> Result<()> {
        let ips = self.serve("empty", 12, &[], json!({}), json!({})).await?;
        for from in ["one", "two", "node1"] {
            self.meets(from, &ips, &["refused"])?;
        }
        Ok(())
    }

    async fn a_pod_reaches_itself(&self) -> Result<()> {
        let ips = self.serve("self", 13, &["one"], json!({}), json!({})).await?;
        self.meets("one", &ips, &["one"])?;
        for (ip, source) in ips.iter().zip(["169.254.169.5", "fd69::5"]) {
            let answer = ask(&self.place("one")?, Protocol::Tcp, SocketAddr::new(*ip, 80))?;
            ensure!(answer == Answer::From { name: "one".into(), source: source.parse()? }, "{answer:?}");
        }
        // Another pod is seen by its own address.
        for (ip, own) in ips.iter().zip(&self.pods[1].2) {
            let answer = ask(&self.place("two")?, Protocol::Udp, SocketAddr::new(*ip, 53))?;
            ensure!(answer == Answer::From { name: "one".into(), source: *own }, "{answer:?}");
        }
        Ok(())
    }

    async fn local_means_this_node(&self) -> Result<()> {
        let local = json!({"internalTrafficPolicy": "Local"});
        let ips = self.serve("local", 14, &["one", "two"], json!({}), local).await?;
        self.meets("one", &ips, &["one"])?;
        self.meets("two", &ips, &["two"])?;
        self.lab.apply(&self.slices("local", &["one"])).await?;
        self.meets("one", &ips, &["one"])?;
        self.meets("two", &ips[..1], &["silence"])?;
        self.lab.apply(&self.slices("local", &[])).await?;
        self.meets("two", &ips, &["refused"])
    }

    async fn clients_stay(&self) -> Result<()> {
        let ips = self.serve("sticky", 15, &["one", "two"], json!({}), json!({"sessionAffinity": "ClientIP"})).await?;
        for from in ["one", "two"] {
            let place = self.place(from)?;
            for to in ips.iter().map(|ip| (Protocol::Tcp, SocketAddr::new(*ip, 80))) {
                let mut last = Ok(BTreeSet::new());
                wait_for("an answer", LIMIT, || {
                    last = answers(&place, to);
                    last.as_ref().is_ok_and(|seen| !seen.contains("silence") && !seen.contains("refused"))
                })
                .with_context(|| format!("last: {last:?}"))?;
                let seen = answers(&place, to)?;
                ensure!(seen.len() == 1, "{from} at {to:?} meets {seen:?}");
            }
        }
        Ok(())
    }

    async fn what_ovn_cannot_is_told(&self) -> Result<()> {
        let ips = self.serve("least", 16, &["one", "two"], json!({"ovenbird.io/scheduler": "lc"}), json!({})).await?;
        self.meets("one", &ips, &["one", "two"])?;
        self.told("SchedulerRefused", "least").await
    }

    /// Networks of Services that are added while the cluster runs serve hosts as well as pods, and leave nothing.
    async fn networks_come_and_go(&self) -> Result<()> {
        let cidr = |name: &str, cidrs: [&str; 2]| {
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
                   "spec": {"cidrs": cidrs}})
            .to_string()
        };
        let more = cidr("more", ["10.97.0.0/24", "fd00:10:97::/112"]);
        self.lab.apply(&more).await?;
        let ips = ["10.97.0.9".parse()?, "fd00:10:97::9".parse()?];
        self.serve_at("elsewhere", &ips, &["one", "two"], json!({}), json!({})).await?;
        for from in ["one", "node1", "node2"] {
            self.meets(from, &ips, &["one", "two"])?;
        }
        self.lab.apply(&cidr("wrong", ["10.244.9.0/24", "fd00:10:98::/112"])).await?;
        self.told("NetworksOverlap", "wrong").await?;
        self.lab.delete(&more).await?;
        let routes = || {
            let of = |family| self.lab.exec_node("node1", &["ip", family, "route", "show"]);
            Ok::<_, anyhow::Error>(of("-4")? + &of("-6")?)
        };
        let gone = || routes().is_ok_and(|text| !text.contains("10.97.0.0/24") && !text.contains("fd00:10:97::/112"));
        wait_for("the routes to go", LIMIT, gone).with_context(|| routes().unwrap_or_default())
    }

    /// Waits for an Event of this reason about an object of this name.
    async fn told(&self, reason: &str, name: &str) -> Result<()> {
        let events = Api::<Event>::all(self.lab.client().await?);
        let told = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name)
        };
        let deadline = tokio::time::Instant::now() + LIMIT;
        while !events.list(&ListParams::default()).await?.iter().any(told) {
            if tokio::time::Instant::now() > deadline {
                bail!("no Event {reason} about {name}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// A socket that asks one address from one port and waits little.
fn busy_socket(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).context("binding a socket")?;
    socket.set_read_timeout(Some(Duration::from_millis(2))).context("setting a time limit")?;
    socket.connect(to).with_context(|| format!("connecting to {to}"))?;
    Ok(socket)
}

/// What a busy client hears next.
fn ask_busy(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let heard = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
    match heard {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => "refused".into(),
        Err(_) => String::new(),
    }
}

/// Who answers many questions; the first that nobody answers ends it.
fn answers(place: &Place, (protocol, to): (Protocol, SocketAddr)) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for _ in 0..MANY {
        let answer = ask(place, protocol, to)?;
        names.insert(answer.name().to_owned());
        if answer == Answer::Silence {
            break;
        }
    }
    Ok(names)
}
