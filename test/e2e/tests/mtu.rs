//! Path MTU through gateways: whoever sends more than the way bears is told so by ICMP, through every translation, and learns it.
//!
//! Pods have less than the fabric's 1500 bytes, as tunnels take some. TCP asks for no more than its own link bears: so pods claim here by
//! `advmss` that they bear 1500, as any client believes whose packets are no TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::service::{PORT, service, slices};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, Options, Place, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "mtu";
/// Bytes of a transfer: many packets of any size.
const BYTES: usize = 500_000;
/// MTU of the fabric.
const FABRIC: u64 = 1500;
/// MTU of a link beyond the fabric, above the 1280 that IPv6 asks for.
const BEYOND: u64 = 1300;
const NODE_PORTS: [u16; 2] = [30081, 30082];

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_told_so() -> Result<()> {
    in_mode("e2e-mtu", "shared").await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_told_so_in_local_mode() -> Result<()> {
    in_mode("e2e-mtu-local", "local").await
}

async fn in_mode(name: &str, mode: &str) -> Result<()> {
    let options = Options { nodes: 2, node_args: vec![format!("--gateway-mode={mode}")], ..Options::default() };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let world = World::build(&lab).await?;
    let mut table = Table::new(["way", "family", "sender's MTU", "learned", "transfer"]);
    let outcome = world.all_ways(&mut table);
    println!("mode {mode}\n{table}");
    outcome
}

struct World<'a> {
    lab: &'a Lab,
    /// `one` on node 1, `two` on node 2.
    pods: Vec<(Place, Vec<IpAddr>)>,
    outside: Place,
    /// MTU of pods.
    mtu: u64,
}

impl World<'_> {
    async fn build(lab: &Lab) -> Result<World<'_>> {
        let named = [("one", "node1"), ("two", "node2")];
        let manifest = named.map(|(name, node)| pods::pod(NAMESPACE, name, node)).concat();
        lab.apply(&(pods::namespace(NAMESPACE) + &manifest)).await?;
        lab.await_running(NAMESPACE).await?;
        let api = pods::api(lab, NAMESPACE).await?;
        let mut found = Vec::new();
        for (index, (name, node)) in named.into_iter().enumerate() {
            let (place, ips) =
                (lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone(), pods::ips(&api, name).await?);
            sink(&place, &ips)?;
            let addresses = [format!("10.96.4.{index}").parse()?, format!("fd00:10:96::4:{index}").parse()?];
            let ports = json!([{"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP", "nodePort": NODE_PORTS[index]}]);
            let spec = json!({"type": "NodePort", "ports": ports});
            let endpoints: Vec<_> = ips.iter().map(|ip| (node, *ip)).collect();
            let manifest = service(NAMESPACE, name, &addresses, &json!({}), spec);
            lab.apply(&(manifest + &slices(NAMESPACE, name, &endpoints))).await?;
            found.push((place, ips));
        }
        let outside = lab.scene("outside")?.place().clone();
        sink(&outside, &lab.layout().options.beyond_addresses())?;
        let mtu = link_mtu(&found[0].0)?;
        Ok(World { lab, pods: found, outside, mtu })
    }

    fn all_ways(&self, table: &mut Table) -> Result<()> {
        let options = &self.lab.layout().options;
        let (pod, ips) = &self.pods[0];
        self.narrow_the_way_beyond()?;
        for to in options.beyond_addresses() {
            self.way(table, "pod -> host outside, behind a narrow link", pod, (to, PORT), (self.mtu, BEYOND))?;
        }
        self.claim_to_bear_more()?;
        let told = (FABRIC, self.mtu);
        for (to, port) in options.node_addresses(1).into_iter().zip([NODE_PORTS[0]; 2]) {
            self.way(table, "outside -> NodePort, pod on that node", &self.outside, (to, port), told)?;
        }
        for (to, port) in options.node_addresses(2).into_iter().zip([NODE_PORTS[0]; 2]) {
            self.way(table, "outside -> NodePort, pod on another node", &self.outside, (to, port), told)?;
        }
        let host = self.lab.scene("node1")?.place().clone();
        for (to, port) in options.node_addresses(2).into_iter().zip([NODE_PORTS[1]; 2]) {
            self.way(table, "host -> NodePort of another node", &host, (to, port), told)?;
        }
        for (to, node) in ips.iter().zip(options.node_addresses(1)) {
            self.lab.exec_node("outside", &["ip", "route", "replace", &to.to_string(), "via", &node.to_string()])?;
            self.way(table, "outside -> pod, by its own address", &self.outside, (*to, PORT), told)?;
        }
        Ok(())
    }

    /// Somebody uploads by a way, and has learned its MTU afterwards.
    fn way(
        &self,
        table: &mut Table,
        name: &str,
        from: &Place,
        (ip, port): (IpAddr, u16),
        (mtu, learned): (u64, u64),
    ) -> Result<()> {
        let what = || format!("{name}, {ip}");
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let before = route_mtu(from, ip).with_context(what)?;
        let took = upload(from, SocketAddr::new(ip, port)).with_context(what)?;
        let now = route_mtu(from, ip).with_context(what)?;
        let text = |mtu: Option<u64>| mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
        let cells = [name.into(), family.into(), mtu.to_string(), text(now), format!("{} ms", took.as_millis())];
        table.row(cells.map(|cell| (cell, Colour::Plain)));
        ensure!(before.is_none(), "{}: the way was narrow before: {before:?}", what());
        ensure!(now == Some(learned), "{}: learned {now:?}, wanted {learned}", what());
        Ok(())
    }

    /// The link from the fabric's router to the host outside bears less.
    fn narrow_the_way_beyond(&self) -> Result<()> {
        let options = &self.lab.layout().options;
        let narrow = BEYOND.to_string();
        for (beyond, via) in options.beyond_addresses().iter().zip(options.outside_addresses()) {
            let (to, via) = (beyond.to_string(), via.to_string());
            let argv = ["ip", "route", "replace", &to, "via", &via, "dev", "eth0", "mtu", &narrow];
            self.lab.exec_node("central", &argv)?;
        }
        Ok(())
    }

    /// Pods say to whomever they answer that they bear what the fabric does.
    fn claim_to_bear_more(&self) -> Result<()> {
        for (place, _) in &self.pods {
            for (family, headers) in [("-4", 40), ("-6", 60)] {
                let routes: Value = serde_json::from_str(&place.output(&["ip", "-j", family, "route"])?)?;
                let routes = routes.as_array().into_iter().flatten();
                for route in routes.filter(|route| route["gateway"].is_string()) {
                    let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
                    let (to, via, claim) = (text("dst"), text("gateway"), (FABRIC - headers).to_string());
                    let protocol = route["protocol"].as_str().unwrap_or("boot");
                    let argv = ["ip", family, "route", "replace", &to, "via", &via, "dev", "eth0"];
                    place.output(&[&argv[..], &["proto", protocol, "advmss", &claim]].concat())?;
                }
            }
        }
        Ok(())
    }
}

/// Takes what comes until its end, and says how many bytes that were, until this process ends.
fn sink(place: &Place, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses.iter().map(|ip| SocketAddr::new(*ip, PORT)) {
        let listener = place.run(|| TcpListener::bind(address).with_context(|| format!("listening on {address}")))?;
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = Vec::new();
                // A sender that gives up is told nothing.
                if stream.read_to_end(&mut bytes).is_ok() {
                    let _ = write!(stream, "{}", bytes.len());
                }
            }
        });
    }
    Ok(())
}

fn upload(from: &Place, to: SocketAddr) -> Result<Duration> {
    let started = Instant::now();
    let mut stream = None;
    // A Service may have been made a moment ago.
    wait_for(&format!("{to} to accept"), LIMIT, || {
        stream = from.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1))?)).ok();
        stream.is_some()
    })?;
    let mut stream = stream.context("no connection")?;
    stream.set_write_timeout(Some(LIMIT)).context("setting a time limit")?;
    stream.set_read_timeout(Some(LIMIT)).context("setting a time limit")?;
    stream.write_all(&vec![0; BYTES]).context("sending")?;
    stream.shutdown(Shutdown::Write).context("ending")?;
    let mut count = String::new();
    stream.read_to_string(&mut count).context("waiting for the count")?;
    ensure!(count == BYTES.to_string(), "{count} bytes of {BYTES} have come");
    Ok(started.elapsed())
}

fn link_mtu(place: &Place) -> Result<u64> {
    let link: Value = serde_json::from_str(&place.output(&["ip", "-j", "link", "show", "eth0"])?)?;
    link[0]["mtu"].as_u64().context("eth0 has no MTU")
}

/// What a place knows of the way to an address.
fn route_mtu(place: &Place, to: IpAddr) -> Result<Option<u64>> {
    let route: Value = serde_json::from_str(&place.output(&["ip", "-j", "route", "get", &to.to_string()])?)?;
    Ok(route[0]["metrics"][0]["mtu"].as_u64())
}
