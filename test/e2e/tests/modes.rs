//! Each network mode lists what it does not support (`ovenbird_api::mode`), and that is exactly what does not work there: one small experiment for
//! each feature, as a user would make it, by packets and commands.
//!
//! What should work is waited for; what should not is looked at once the rest works, so that slowness is not taken for a lack.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ovenbird_api::mode::Feature;
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::service::{Answer, PORT, ask, respond, service, slices};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{pods, pour};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Mode, Options, Place, testing, underlay};
use serde_json::{Value, json};

const NAMESPACE: &str = "modes";
/// The namespace whose pods are on a VLAN.
const ON_VLAN: &str = "vlan";
/// A host on it, and its gateway.
const GATEWAY: &str = "192.168.200.250";
/// Port of the node that leads to a pod.
const HOST_PORT: u16 = 9300;
/// Ports of nodes of the Services with externalTrafficPolicy Cluster and Local.
const NODE_PORTS: [u16; 2] = [30400, 30401];
/// Bits a second that a limited pod gets, and bytes that are sent to it.
const LIMITED: (u64, usize) = (8_000_000, 2_500_000);
/// Questions, and how many of them the heavier of two endpoints answers at least: of a weight of 4 it is 120, of 1 it is 75; both bounds are
/// more than three standard deviations away.
const SHARE: (usize, usize) = (150, 98);
/// Questions that all go to the same of two endpoints by chance once in a million.
const MANY: usize = 20;
/// Ping is given up after.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn overlay() -> Result<()> {
    lacks_what_it_lists("e2e-mode-overlay", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn classic() -> Result<()> {
    lacks_what_it_lists("e2e-mode-classic", Mode::Classic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn underlay() -> Result<()> {
    lacks_what_it_lists("e2e-mode-vlan", Mode::Underlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nested() -> Result<()> {
    lacks_what_it_lists("e2e-mode-vms", Mode::Nested).await
}

async fn lacks_what_it_lists(name: &str, mode: Mode) -> Result<()> {
    let options = Options { nodes: 2, mode, underlay: true, ..Options::default() };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let listed: BTreeSet<Feature> = mode.api().lacks().iter().copied().collect();
    let world = World::build(&lab, !listed.contains(&Feature::Networks)).await?;
    let (mut lacking, mut why) = (BTreeSet::new(), Vec::new());
    let (there, not_there): (Vec<_>, Vec<_>) = Feature::ALL.into_iter().partition(|feature| !listed.contains(feature));
    for feature in there {
        if let Err(error) = eventually(&lab, &feature.to_string(), || world.try_out(feature)) {
            lacking.insert(feature);
            why.push(format!("{feature}: {error:#}"));
        }
    }
    for feature in not_there {
        if let Err(error) = world.try_out(feature) {
            println!("{mode} has no {feature}: {error:#}");
            lacking.insert(feature);
        }
    }
    let names = |all: &BTreeSet<Feature>| all.iter().map(Feature::to_string).collect::<Vec<_>>().join(", ");
    ensure!(
        lacking == listed,
        "{mode} lists {:?}, and lacks {:?}\n{}",
        names(&listed),
        names(&lacking),
        why.join("\n")
    );
    println!("{mode} lacks nothing but: {:?}", names(&listed));
    Ok(())
}

/// Endpoints `one`, of weight 4 and with a port of its node, and `two` on another node; `client`, and `slow`, which is limited.
struct World<'a> {
    lab: &'a Lab,
    client: Place,
    slow: (Place, Vec<IpAddr>),
    outside: Place,
}

impl World<'_> {
    async fn build(lab: &Lab, networks: bool) -> Result<World<'_>> {
        let limit = json!({"kubernetes.io/ingress-bandwidth": LIMITED.0.to_string()});
        let host_port = json!([{"containerPort": PORT, "hostPort": HOST_PORT}]);
        let manifest = [
            pod("one", "node1", &json!({"ovenbird.io/weight": "4"}), &host_port),
            pod("two", "node2", &json!({}), &json!([])),
            pod("client", "node1", &json!({}), &json!([])),
            pod("slow", "node2", &limit, &json!([])),
        ];
        lab.apply(&(pods::namespace(NAMESPACE) + &manifest.concat())).await?;
        lab.await_running(NAMESPACE).await?;
        pods_on_a_vlan(lab, networks).await.context("pods on a VLAN")?;
        let [one, two, slow] = [
            running(lab, NAMESPACE, "one").await?,
            running(lab, NAMESPACE, "two").await?,
            running(lab, NAMESPACE, "slow").await?,
        ];
        let outside = lab.scene("outside")?.place().clone();
        for (place, name) in [(&one.0, "one"), (&two.0, "two"), (&outside, "outside")] {
            respond(place, name)?;
        }
        let endpoints: Vec<(&str, IpAddr)> = [("node1", &one.1), ("node2", &two.1)]
            .iter()
            .flat_map(|(node, ips)| ips.iter().map(move |ip| (*node, *ip)))
            .collect();
        let node_port = |number: u16, policy: &str| {
            let ports = json!([{"name": "tcp", "port": 80, "targetPort": PORT, "nodePort": number, "protocol": "TCP"}]);
            json!({"type": "NodePort", "externalTrafficPolicy": policy, "ports": ports})
        };
        let services = [
            ("lot", json!({"ovenbird.io/scheduler": "wrr"}), json!({})),
            ("near", json!({}), json!({"internalTrafficPolicy": "Local"})),
            ("ports", json!({}), node_port(NODE_PORTS[0], "Cluster")),
            ("edge", json!({}), node_port(NODE_PORTS[1], "Local")),
        ];
        for (index, (name, annotations, spec)) in services.into_iter().enumerate() {
            let ips = cluster_ips(index)?;
            lab.apply(&(service(NAMESPACE, name, &ips, &annotations, spec) + &slices(NAMESPACE, name, &endpoints)))
                .await?;
        }
        let client = lab.scene(&format!("{NAMESPACE}/client"))?.place().clone();
        Ok(World { lab, client, slow, outside })
    }

    /// Whether a feature has the effect that its users want, in both families.
    fn try_out(&self, feature: Feature) -> Result<()> {
        let options = &self.lab.layout().options;
        let (node, far) = (options.node_addresses(1), options.outside_addresses());
        match feature {
            Feature::HostPort => self.each(&self.outside, &node, HOST_PORT, |answer| answer.name() == "one"),
            Feature::NodePort => {
                self.each(&self.outside, &node, NODE_PORTS[0], |answer| ["one", "two"].contains(&answer.name()))
            }
            Feature::ExternalLocal => self.each(
                &self.outside,
                &node,
                NODE_PORTS[1],
                |answer| matches!(answer, Answer::From { name, source } if name == "one" && far.contains(source)),
            ),
            Feature::WayOut => {
                self.each(&self.client, &options.beyond_addresses(), PORT, |answer| answer.name() == "outside")
            }
            Feature::NearEndpoints => (0..MANY)
                .try_for_each(|_| self.each(&self.client, &cluster_ips(1)?, 80, |answer| answer.name() == "one")),
            Feature::WeightedScheduler => cluster_ips(0)?.into_iter().try_for_each(|ip| self.share(ip)),
            Feature::Bandwidth => self.slow.1.iter().try_for_each(|ip| self.limit(*ip)),
            Feature::CheckLive => self.check(),
            Feature::Networks => self.vlan(),
        }
    }

    /// Asks addresses of both families.
    fn each(&self, from: &Place, to: &[IpAddr], port: u16, fits: impl Fn(&Answer) -> bool) -> Result<()> {
        for ip in to {
            let to = SocketAddr::new(*ip, port);
            let answer = ask(from, Protocol::Tcp, to)?;
            ensure!(fits(&answer), "{to}: {answer:?}");
        }
        Ok(())
    }

    fn share(&self, ip: IpAddr) -> Result<()> {
        let (all, least) = SHARE;
        let answers = (0..all).map(|_| ask(&self.client, Protocol::Tcp, SocketAddr::new(ip, 80)));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let heavy = answers.iter().filter(|answer| answer.name() == "one").count();
        let light = answers.iter().filter(|answer| answer.name() == "two").count();
        ensure!(
            heavy >= least && heavy + light == all,
            "of {all} questions {heavy} went to the heavy pod, {light} to the other"
        );
        Ok(())
    }

    /// By the clock, which knows no upper end: what comes in a second, and the burst, are the least of what is there at once.
    fn limit(&self, ip: IpAddr) -> Result<()> {
        let (bits, bytes) = LIMITED;
        let rate = bits / 8;
        let at_once = rate + rate / 10 + (2 << 16);
        let least = (bytes as f64 - at_once as f64) / rate as f64;
        let took = pour::pour(&self.client, &self.slow.0, ip, bytes)?;
        ensure!(took.as_secs_f64() >= least, "{bytes} bytes took {took:.2?}, with a limit it is at least {least:.2} s");
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let socket = self.lab.layout().home("central").join("master1.sock").display().to_string();
        let question = format!(
            "ovenbird check policy {NAMESPACE}/one --from {NAMESPACE}/client --port {PORT} --live --socket {socket}"
        );
        let said = self.lab.scene("central")?.checked(&question.split(' ').collect::<Vec<_>>())?;
        ensure!(said.contains("ovn-trace") && !said.contains("DIFFER"), "{said}");
        Ok(())
    }

    /// The pods have addresses of the VLAN, and answer there.
    fn vlan(&self) -> Result<()> {
        let mut ends = Vec::new();
        for name in ["a", "b"] {
            let scene = self.lab.scene(&format!("{ON_VLAN}/{name}"))?;
            let text = scene.checked(&["ip", "-4", "-o", "address", "show", "dev", "eth0"])?;
            let address = text.split_whitespace().find_map(|word| word.split_once('/')?.0.parse::<IpAddr>().ok());
            ends.push((scene.place().clone(), address.with_context(|| format!("no address: {text}"))?));
        }
        for ((from, _), (_, to)) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            ensure!(to.to_string().starts_with("192.168.200."), "{to} is not of the VLAN");
            from.run(|| Target::Ping(*to).check(PATIENCE)).with_context(|| format!("no answer of {to}"))?;
        }
        Ok(())
    }
}

/// A Network on VLAN 200, and two pods of its namespace. `wait` until it is in effect, where it will be.
async fn pods_on_a_vlan(lab: &Lab, wait: bool) -> Result<()> {
    let outside = lab.scene("outside")?;
    outside.checked(&[
        "ip",
        "address",
        "add",
        &format!("{GATEWAY}/24"),
        "dev",
        &format!("vlan{}", underlay::VLANS[1]),
    ])?;
    let spec = json!({
        "providerNetwork": underlay::PROVIDER, "vlan": underlay::VLANS[1], "subnets": ["192.168.200.0/24"], "mtu": 1400,
        "gateway": {"physical": [GATEWAY]},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ON_VLAN}},
    });
    let network =
        json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": "Network", "metadata": {"name": "v200"}, "spec": spec});
    lab.apply(&underlay::provider()).await?;
    lab.apply(&network.to_string()).await?;
    if wait {
        underlay::ready(lab.layout()).await?;
    }
    let manifest = pods::namespace(ON_VLAN) + &pods::pod(ON_VLAN, "a", "node1") + &pods::pod(ON_VLAN, "b", "node2");
    lab.apply(&manifest).await.map(drop)
}

/// Place and addresses of a pod that runs.
async fn running(lab: &Lab, namespace: &str, name: &str) -> Result<(Place, Vec<IpAddr>)> {
    let ips = pods::ips(&pods::api(lab, namespace).await?, name).await?;
    Ok((lab.scene(&format!("{namespace}/{name}"))?.place().clone(), ips))
}

fn cluster_ips(index: usize) -> Result<Vec<IpAddr>> {
    Ok(vec![format!("10.96.6.{}", index + 1).parse()?, format!("fd00:10:96::6{}", index + 1).parse()?])
}

fn pod(name: &str, node: &str, annotations: &Value, ports: &Value) -> String {
    let container = json!({"name": "c", "image": "none", "command": ["sleep", "infinity"], "ports": ports});
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": name, "namespace": NAMESPACE, "annotations": annotations});
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}
