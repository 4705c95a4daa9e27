//! Streams by every way through Services and gateways, over TCP and UDP and both families, while each daemon in turn is ended and started
//! again. Neither Ovenbird's daemons nor northd cost a packet.
//!
//! ovn-controller and ovs-vswitchd may: their gaps are printed. In user space the connections that ovs-vswitchd tracks end with it,
//! unlike those of a kernel. So after its restart only streams that nobody translates must go on, and new ones work by every way at
//! once. Others may go on or not: what comes back first from outside meets nobody's connection, and the host resets it; and see
//! "unanswered" in the lab's README.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::fault::{Done, FLOWS, Fault, LISTED};
use ovenbird_e2e::pulse::{Lap, Pulse, echo, go_on, laps};
use ovenbird_e2e::service::{service, slices};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{northbound, pods};
use ovenbird_lab::table::{Colour, Table};
use ovenbird_lab::{Lab, Options, Place, testing};
use serde_json::json;

const NAMESPACE: &str = "streams";
/// Port of the echoes, as of the endpoints that `slices` makes.
const PORT: u16 = ovenbird_e2e::service::PORT;
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Blocks between two faults.
const BLOCKS: u64 = 20;

/// Pace of streams.
const fn period(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Tcp => Duration::from_millis(40),
        Protocol::Udp => Duration::from_millis(10),
    }
}

const NODE_DAEMONS: &[&str] = &["node1/ovenbird-node", "node2/ovenbird-node"];
const CONTROLLERS: &[&str] = &["node1/ovn-controller", "node2/ovn-controller"];

/// Of these no stream may notice anything.
const UNNOTICED: [Fault; 5] = [
    Fault { name: "node daemons, SIGTERM", components: NODE_DAEMONS, kill: false, done: FLOWS },
    Fault { name: "node daemons, SIGKILL", components: NODE_DAEMONS, kill: true, done: FLOWS },
    Fault { name: "master, SIGTERM", components: &["central/master"], kill: false, done: LISTED },
    Fault { name: "master, SIGKILL", components: &["central/master"], kill: true, done: LISTED },
    Fault { name: "northd, SIGKILL", components: &["central/northd"], kill: true, done: Done::Southbound },
];
/// This one empties the switch before it fills it again: datagrams may be lost, streams must go on.
const CONTROLLER: Fault =
    Fault { name: "ovn-controllers, SIGKILL", components: CONTROLLERS, kill: true, done: Done::Nodes };
const SWITCHES: Fault = Fault {
    name: "ovs-vswitchds, SIGKILL",
    components: &["node1/vswitchd", "node2/vswitchd"],
    kill: true,
    done: Done::Nodes,
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_restarts() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-streams", options).await? else { return Ok(()) };
    let ways = ways(&lab).await?;
    let streams = ways.iter().map(Way::start).collect::<Result<Vec<_>>>()?;
    let pulses: Vec<_> = streams.iter().collect();
    let mut seen = Vec::new();
    for fault in UNNOTICED.iter().chain([&CONTROLLER]) {
        fault.strike(&lab, || go_on(&pulses, BLOCKS))?;
        seen.push((fault.name, laps(&pulses)));
        let outcome = seen.last().into_iter().flat_map(|(_, laps)| laps).zip(&ways);
        for (lap, way) in outcome.filter(|_| fault.name != CONTROLLER.name) {
            ensure!(
                lap.lost == 0,
                "{}: {} lost {} of {}\n{}",
                fault.name,
                way.title(),
                lap.lost,
                lap.sent,
                table(&ways, &seen)
            );
        }
    }
    let plain = ways.iter().zip(&pulses).filter(|(way, _)| !way.translated).map(|(_, pulse)| *pulse);
    let plain: Vec<_> = plain.collect();
    SWITCHES.strike(&lab, || {
        go_on(&plain, BLOCKS)?;
        ways.iter().try_for_each(|way| way.start().context("a new stream")?.stop())
    })?;
    seen.push((SWITCHES.name, laps(&pulses)));
    println!("{}", table(&ways, &seen));
    for (way, lap) in seen.iter().flat_map(|(_, laps)| ways.iter().zip(laps)) {
        lap.broken.iter().for_each(|why| println!("{} broke: {why}", way.title()));
    }
    for stream in streams {
        stream.stop()?;
    }
    northbound::equals_from_scratch(&lab)
}

/// The longest silence of each way under each fault, and how many blocks were lost.
fn table(ways: &[Way], seen: &[(&str, Vec<Lap>)]) -> Table {
    let heads = ["way", "protocol", "family"].into_iter().chain(seen.iter().map(|(fault, _)| *fault));
    let mut table = Table::new(heads);
    for (index, way) in ways.iter().enumerate() {
        let family = if way.to.is_ipv4() { "IPv4" } else { "IPv6" };
        let cells = [way.name.to_owned(), way.protocol.to_string(), family.into()];
        let cells = cells.map(|cell| (cell, Colour::Plain)).into_iter();
        table.row(cells.chain(seen.iter().map(|(_, laps)| cell(&laps[index]))));
    }
    table
}

fn cell(lap: &Lap) -> (String, Colour) {
    let silence = lap.silence.as_millis();
    match (&lap.broken, lap.lost) {
        (Some(_), _) => ("broken".into(), Colour::Bad),
        (None, 0) => (format!("{silence} ms"), Colour::Plain),
        (None, lost) => (format!("{silence} ms, {lost} of {} lost", lap.sent), Colour::Bad),
    }
}

/// One stream's way.
struct Way {
    name: &'static str,
    /// By a Service, or with another source address.
    translated: bool,
    protocol: Protocol,
    from: Place,
    to: SocketAddr,
}

impl Way {
    fn start(&self) -> Result<Pulse> {
        Pulse::start(self.title(), &self.from, self.protocol, self.to, period(self.protocol))
    }

    fn title(&self) -> String {
        format!("{} ({} {})", self.name, self.protocol, self.to)
    }
}

/// Makes an echo on each node and outside, Services for them, and all ways to them.
async fn ways(lab: &Lab) -> Result<Vec<Way>> {
    let pods = [("one", "node1"), ("two", "node2")];
    let manifest = pods.map(|(name, node)| pods::pod(NAMESPACE, name, node)).concat();
    lab.apply(&(pods::namespace(NAMESPACE) + &manifest)).await?;
    lab.await_running(NAMESPACE).await?;
    let api = pods::api(lab, NAMESPACE).await?;
    let place = |target: &str| Ok::<_, anyhow::Error>(lab.scene(target)?.place().clone());
    let (outside, host) = (place("outside")?, place("node1")?);
    let (options, mut addresses) = (&lab.layout().options, Vec::new());
    for (index, (name, node)) in pods.into_iter().enumerate() {
        let ips = pods::ips(&api, name).await?;
        echo(&place(&format!("{NAMESPACE}/{name}"))?, &ips, PORT)?;
        let endpoints: Vec<_> = ips.iter().map(|ip| (node, *ip)).collect();
        let ports = json!([port("tcp", Protocol::Tcp, index), port("udp", Protocol::Udp, index)]);
        let spec = json!({"type": "NodePort", "ports": ports});
        let manifest = service(NAMESPACE, name, &cluster_ips(index), &json!({}), spec);
        lab.apply(&(manifest + &slices(NAMESPACE, name, &endpoints))).await?;
        addresses.push(ips);
    }
    echo(&outside, &options.beyond_addresses(), PORT)?;
    let pod = place(&format!("{NAMESPACE}/one"))?;
    let node = options.node_addresses(1);
    let mut ways = Vec::new();
    for (protocol, family) in PROTOCOLS.into_iter().flat_map(|protocol| [(protocol, 0), (protocol, 1)]) {
        let mut way = |name, translated, from: &Place, ip: IpAddr, port| {
            ways.push(Way { name, translated, protocol, from: from.clone(), to: SocketAddr::new(ip, port) });
        };
        let (near, far) = (node_port(protocol, 0), node_port(protocol, 1));
        way("pod -> pod on another node", false, &pod, addresses[1][family], PORT);
        way("pod -> host outside", true, &pod, options.beyond_addresses()[family], PORT);
        way("outside -> NodePort, pod on that node", true, &outside, node[family], near);
        way("outside -> NodePort, pod on another node", true, &outside, node[family], far);
        way("host -> ClusterIP, pod on another node", true, &host, cluster_ips(1)[family], cluster_port(protocol));
        way("pod -> ClusterIP, pod on another node", true, &pod, cluster_ips(1)[family], cluster_port(protocol));
    }
    Ok(ways)
}

fn cluster_ips(index: usize) -> [IpAddr; 2] {
    let index = u8::try_from(index).unwrap_or_default();
    [IpAddr::from([10, 96, 2, index + 1]), IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x201 + u16::from(index)])]
}

const fn cluster_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

fn node_port(protocol: Protocol, index: usize) -> u16 {
    30000 + 100 * u16::try_from(index).unwrap_or_default() + cluster_port(protocol)
}

fn port(name: &str, protocol: Protocol, index: usize) -> serde_json::Value {
    json!({"name": name, "protocol": protocol.to_string(), "port": cluster_port(protocol), "targetPort": PORT,
        "nodePort": node_port(protocol, index)})
}
