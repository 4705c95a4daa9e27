//! Every kind of client asks every kind of Service by every door, in both families and protocols: who answers, and whom the
//! answerer sees, is what `oracle` says. One row per combination, one lab for each gateway mode and for each network mode; none is left out but
//! those that `needs` says need what the network mode lacks.
//!
//! One question at a time: many at once failed as when ovs-vswitchd 3.1.0 ends in its userspace conntrack; the cause was not looked up.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ovenbird_api::mode::Feature;
use ovenbird_e2e::oracle::{Client, Door, Endpoint, Expected, Node, Policy, Seen, Service, expect};
use ovenbird_e2e::witness::{self, Answer, Protocol, Silence};
use ovenbird_e2e::{LIMIT, pods, side_by_side};
use ovenbird_lab::{Lab, Mode, Options, Place, testing};
use serde_json::{Value, json};

const NAMESPACE: &str = "connectivity";
const FIRST_NODE_PORT: u16 = 30000;
const NODES: [Node; 2] = [1, 2];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Questions after which every endpoint must have answered: with two of them, one stays silent by chance once in 2^40.
const QUESTIONS: usize = 40;
/// How often a row that does not hold is asked again, shortly after the start.
const ATTEMPTS: usize = 20;
/// How long silence lasts until it counts.
const SILENCE: Duration = Duration::from_millis(700);

/// Port of the endpoints, and of the Services: one for each protocol, as `kubectl apply` merges ports by number alone.
const fn port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 7000,
        Protocol::Udp => 7001,
    }
}

/// Port of Service number `index` on nodes.
fn node_port(index: usize, protocol: Protocol) -> Result<u16> {
    Ok(FIRST_NODE_PORT + 2 * u16::try_from(index)? + port(protocol) % 2)
}

/// One line of the table.
struct Row<'a> {
    service: &'a Service,
    client: Client,
    door: Door,
    v4: bool,
    protocol: Protocol,
    expected: Expected,
}

/// Where clients are, and their addresses.
struct World {
    lab: Lab,
    pods: Vec<(String, Place, Vec<IpAddr>)>,
}

fn services() -> Vec<Service> {
    use Endpoint::{Host, Pod};
    use Policy::{Cluster, Local};
    let service = |name, internal, external, endpoints: &[Endpoint]| Service {
        name,
        internal,
        external,
        endpoints: endpoints.to_vec(),
    };
    vec![
        service("web", Cluster, Cluster, &[Pod(1), Pod(2)]),
        service("near", Local, Cluster, &[Pod(1), Pod(2)]),
        service("near-one", Local, Cluster, &[Pod(1)]),
        service("edge", Cluster, Local, &[Pod(1), Pod(2)]),
        service("edge-one", Cluster, Local, &[Pod(1)]),
        service("one", Cluster, Cluster, &[Pod(1)]),
        service("on-host", Cluster, Cluster, &[Host(2)]),
        service("host-edge", Cluster, Local, &[Host(1), Host(2)]),
        service("near-hosts", Local, Cluster, &[Host(1), Host(2)]),
        service("nobody", Cluster, Cluster, &[]),
    ]
}

#[test]
fn every_client_by_every_door() -> Result<()> {
    let of = |mode| Options { nodes: 2, mode, ..Options::default() };
    let local = Options { node_args: vec!["--gateway-mode=local".into()], ..of(Mode::Overlay) };
    let labs = [
        ("e2e-conn", of(Mode::Overlay)),
        ("e2e-conn-local", local),
        ("e2e-conn-kbr", of(Mode::Classic)),
        ("e2e-conn-vlan", of(Mode::Underlay)),
        ("e2e-conn-vms", of(Mode::Nested)),
    ];
    side_by_side(labs.map(|(name, options)| (name, move || all_rows(name, options))))
}

async fn all_rows(name: &str, options: Options) -> Result<()> {
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let services = services();
    let world = World::build(lab, &services).await?;
    let lacks = world.lab.layout().options.mode.api().lacks();
    let (left_out, rows): (Vec<_>, Vec<_>) =
        rows(&services).into_iter().partition(|row| needs(row).is_some_and(|feature| lacks.contains(&feature)));
    let features: BTreeSet<String> = left_out.iter().filter_map(needs).map(|feature| feature.to_string()).collect();
    println!("{} rows left out, which need {features:?}", left_out.len());
    let started = Instant::now();
    ensure!(rows.len() >= 150, "only {} rows", rows.len());
    let (failures, again) = world.check(&services, &rows);
    println!("{} rows in {:.1?}, {again} questions asked again", rows.len(), started.elapsed());
    ensure!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    Ok(())
}

/// What a row needs that a network mode may lack.
fn needs(row: &Row<'_>) -> Option<Feature> {
    match row.door {
        Door::ClusterIp if row.service.internal == Policy::Local => Some(Feature::NearEndpoints),
        Door::ClusterIp => None,
        _ if row.service.external == Policy::Local && row.client == Client::Outside => Some(Feature::ExternalLocal),
        // An external address leads to a node as its own do.
        Door::NodePort(_) | Door::ExternalIp(_) => Some(Feature::NodePort),
    }
}

fn rows(services: &[Service]) -> Vec<Row<'_>> {
    let per_node = |n: Node| [Client::Pod(n), Client::Host(n), Client::Endpoint(n)];
    let clients = || NODES.into_iter().flat_map(per_node).chain([Client::Outside]);
    let doors = || NODES.into_iter().map(Door::NodePort).chain([Door::ClusterIp, Door::ExternalIp(1)]);
    let mut rows = Vec::new();
    for (service, door) in services.iter().flat_map(|service| doors().map(move |door| (service, door))) {
        for (client, v4) in clients().flat_map(|client| [(client, true), (client, false)]) {
            for protocol in PROTOCOLS {
                if let Some(expected) = expect(service, client, door) {
                    rows.push(Row { service, client, door, v4, protocol, expected });
                }
            }
        }
    }
    rows
}

impl World {
    async fn build(lab: Lab, services: &[Service]) -> Result<World> {
        let names = NODES.iter().flat_map(|n| [(format!("client{n}"), n), (format!("pod{n}"), n)]);
        let names: Vec<_> = names.collect();
        let manifests = names.iter().map(|(name, node)| pods::pod(NAMESPACE, name, &format!("node{node}")));
        lab.apply(&(pods::namespace(NAMESPACE) + &manifests.collect::<String>())).await?;
        lab.await_running(NAMESPACE).await?;
        let api = pods::api(&lab, NAMESPACE).await?;
        let mut found = Vec::new();
        for (name, _) in &names {
            let place = lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone();
            found.push((name.clone(), place, pods::ips(&api, name).await?));
        }
        let world = World { lab, pods: found };
        for endpoint in NODES.into_iter().flat_map(|n| [Endpoint::Pod(n), Endpoint::Host(n)]) {
            let (place, addresses) = world.endpoint(endpoint)?;
            for protocol in PROTOCOLS {
                witness::stand(&place, &endpoint.to_string(), &addresses, port(protocol))?;
            }
        }
        for (index, service) in services.iter().enumerate() {
            world.lab.apply(&world.manifest(index, service)?).await?;
        }
        for (v4, via) in [(true, 0), (false, 1)] {
            let gateway = world.lab.layout().options.node_addresses(1)[via].to_string();
            for index in 0..services.len() {
                let to = external_ip(index, v4).to_string();
                world.lab.exec_node("outside", &["ip", "route", "replace", &to, "via", &gateway])?;
            }
        }
        Ok(world)
    }

    fn manifest(&self, index: usize, service: &Service) -> Result<String> {
        let policy = |policy| if policy == Policy::Local { "Local" } else { "Cluster" };
        let name = |protocol: Protocol| protocol.to_string().to_lowercase();
        let mut ports = Vec::new();
        for protocol in PROTOCOLS {
            ports.push(json!({"name": name(protocol), "protocol": protocol.to_string(), "port": port(protocol),
                "targetPort": port(protocol), "nodePort": node_port(index, protocol)?}));
        }
        let cluster_ips = [true, false].map(|v4| cluster_ip(index, v4));
        let external_ips = [true, false].map(|v4| external_ip(index, v4));
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": service.name, "namespace": NAMESPACE},
            "spec": {"type": "NodePort", "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips,
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                "externalIPs": external_ips,
                "internalTrafficPolicy": policy(service.internal), "externalTrafficPolicy": policy(service.external),
                "ports": ports},
        })];
        for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let mut endpoints: Vec<Value> = Vec::new();
            for endpoint in &service.endpoints {
                let (_, addresses) = self.endpoint(*endpoint)?;
                let address = addresses.iter().find(|ip| ip.is_ipv4() == v4);
                endpoints.push(json!({"addresses": [address], "nodeName": format!("node{}", endpoint.node()),
                    "conditions": {"ready": true, "serving": true, "terminating": false}}));
            }
            let of_slice = |protocol: Protocol| json!({"name": name(protocol), "port": port(protocol), "protocol": protocol.to_string()});
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"name": format!("{}-{}", service.name, family.to_lowercase()), "namespace": NAMESPACE,
                    "labels": {"kubernetes.io/service-name": service.name}},
                "endpoints": endpoints, "ports": PROTOCOLS.map(of_slice),
            }));
        }
        Ok(objects.iter().map(|object| format!("---\n{object}\n")).collect())
    }

    fn pod(&self, name: &str) -> Result<(Place, Vec<IpAddr>)> {
        let found = self.pods.iter().find(|(pod, ..)| pod == name);
        found.map(|(_, place, ips)| (place.clone(), ips.clone())).ok_or_else(|| anyhow::anyhow!("no pod {name}"))
    }

    fn endpoint(&self, endpoint: Endpoint) -> Result<(Place, Vec<IpAddr>)> {
        match endpoint {
            Endpoint::Pod(node) => self.pod(&format!("pod{node}")),
            Endpoint::Host(node) => self.client(Client::Host(node)),
        }
    }

    fn client(&self, client: Client) -> Result<(Place, Vec<IpAddr>)> {
        let options = &self.lab.layout().options;
        match client {
            Client::Pod(node) => self.pod(&format!("client{node}")),
            Client::Endpoint(node) => self.pod(&format!("pod{node}")),
            Client::Host(node) => {
                let place = self.lab.scene(&format!("node{node}"))?.place().clone();
                Ok((place, options.node_addresses(u16::try_from(node)?)))
            }
            Client::Outside => Ok((self.lab.scene("outside")?.place().clone(), options.outside_addresses())),
        }
    }

    /// Checks all rows. Returns those that failed and how many had to be asked again before they held.
    fn check(&self, services: &[Service], rows: &[Row<'_>]) -> (Vec<String>, usize) {
        let (mut failures, mut again) = (Vec::new(), 0);
        // What was applied a moment ago may not be everywhere yet: all failures together wait this long, and no longer.
        let settled = Instant::now() + LIMIT / 2;
        for row in rows {
            let mut outcome = self.check_row(services, row);
            for _ in 0..ATTEMPTS {
                if outcome.is_ok() || Instant::now() > settled {
                    break;
                }
                again += 1;
                outcome = self.check_row(services, row);
            }
            failures.extend(outcome.err().map(|error| format!("{}: {error:#}", row.title())));
        }
        (failures, again)
    }

    fn check_row(&self, services: &[Service], row: &Row<'_>) -> Result<()> {
        let (place, own) = self.client(row.client)?;
        let index = services.iter().position(|s| s.name == row.service.name).unwrap_or_default();
        let to = match row.door {
            Door::ClusterIp => SocketAddr::new(cluster_ip(index, row.v4), port(row.protocol)),
            Door::ExternalIp(_) => SocketAddr::new(external_ip(index, row.v4), port(row.protocol)),
            Door::NodePort(node) => {
                let addresses = self.lab.layout().options.node_addresses(u16::try_from(node)?);
                SocketAddr::new(addresses[usize::from(!row.v4)], node_port(index, row.protocol)?)
            }
        };
        let ask = |limit| witness::ask(&place, row.protocol, to, limit);
        let (wanted, seen, all) = match &row.expected {
            Expected::All(wanted, seen) => (wanted, *seen, true),
            Expected::Some(wanted, seen) => (wanted, *seen, false),
            Expected::Refused => {
                let answer = ask(SILENCE)?;
                ensure!(answer == Err(Silence::Refused), "wanted a refusal, got {answer:?}");
                return Ok(());
            }
            Expected::Nobody => {
                let answer = ask(SILENCE)?;
                ensure!(answer.is_err(), "nobody should answer, got {answer:?}");
                return Ok(());
            }
        };
        let mut silent: BTreeSet<String> = wanted.iter().map(Endpoint::to_string).collect();
        let names = silent.clone();
        for _ in 0..QUESTIONS {
            let answer = ask(SILENCE)?.map_err(|silence| anyhow::anyhow!("{silence:?}, wanted one of {names:?}"))?;
            ensure!(names.contains(&answer.who), "{answer:?}, wanted one of {names:?}");
            ensure!(fits(&answer, seen, &own), "{answer:?}, wanted {seen:?} to be seen; the client has {own:?}");
            silent.remove(&answer.who);
            if silent.is_empty() || !all {
                return Ok(());
            }
        }
        anyhow::bail!("{silent:?} never answered")
    }
}

fn fits(answer: &Answer, seen: Seen, own: &[IpAddr]) -> bool {
    match seen {
        Seen::Client => own.contains(&answer.seen),
        Seen::SomebodyElse => !own.contains(&answer.seen),
        Seen::Anybody => true,
    }
}

impl Row<'_> {
    fn title(&self) -> String {
        let family = if self.v4 { "IPv4" } else { "IPv6" };
        let Row { service, client, door, protocol, .. } = self;
        format!("{client:?} -> {} by {door:?}, {family} {protocol}", service.name)
    }
}

/// Address number `index` of the Service network.
fn cluster_ip(index: usize, v4: bool) -> IpAddr {
    let index = u16::try_from(index).unwrap_or_default();
    if v4 {
        IpAddr::from([10, 96, 1, index as u8 + 1])
    } else {
        IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x100 + index])
    }
}

/// Address number `index` that belongs to nobody but a Service.
fn external_ip(index: usize, v4: bool) -> IpAddr {
    let index = u16::try_from(index).unwrap_or_default();
    if v4 {
        IpAddr::from([198, 51, 100, index as u8 + 1])
    } else {
        IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1 + index])
    }
}
