//! `first-packet`: from sending the POST of a Service (its slice follows) to the first connection of a pod to it, on real OVN: the client
//! on one node, the endpoint on another. The floor is the same way without us: the same row, by a bare socket. Beside it stands what OVN
//! takes to attach a port. In a lab of two nodes without load.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use ovenbird_lab::{Family, Lab, Options, Place, testing};
use ovenbird_schema::northbound::load_balancer as lb;
use ovsdb::{Condition, Datum, Endpoint, Mutation, Mutator, Op, Uuid};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::installed::{Unattached, await_addresses, installed, milliseconds};
use crate::process::{load_average, usage_of};
use crate::raw::{Raw, transact};
use crate::{Context, Outcome, median};

const NAMESPACE: &str = "first";
/// Port of the endpoint.
const PORT: u16 = 8000;
/// Services in each round, of either side.
const SERVICES: usize = 4;
/// Ports whose attachment is timed.
const PORTS: usize = 10;
/// How often the client tries; each try has a port of its own, so that what became of one says nothing of the next.
const KNOCK: Duration = Duration::from_millis(2);
/// A try that got no answer for so long is given up.
const GIVE_UP: Duration = Duration::from_millis(400);
/// After this a Service counts as never served.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let options = Options { nodes: 2, family: Family::V4, ..Options::default() };
    let lab = testing::lab("first-packet", options).await?.context("the case first-packet needs root")?;
    let mut bench = Bench::new(&lab).await?;
    // The first way through the datapath is not measured.
    bench.ours(0).await?;
    bench.raw(0).await?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for i in 1..=context.rounds * SERVICES {
        ours.push(milliseconds(bench.ours(i).await?));
        floor.push(milliseconds(bench.raw(i).await?));
    }
    let usage = usage_of(lab.component("central/master")?.pid)?;
    let attached = attached(&lab, &bench.pods).await?;
    let rounded = |figure: f64| Value::from((figure * 100.0).round() / 100.0);
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "ms",
        goal: "none; stands beside ovn-installed",
        usage,
        transactions: 0,
        rows: (context.rounds * SERVICES) as u64,
        bytes: 0,
        more: BTreeMap::from([("ovn_installed_ms", rounded(attached)), ("load", load_average()?.into())]),
    })
}

/// A client and an endpoint, each a pod.
struct Bench {
    client: kube::Client,
    pods: Api<Pod>,
    place: Place,
    endpoint: Ipv4Addr,
    northbound: Raw,
    /// Holds the port open; the kernel accepts by itself.
    _listener: TcpListener,
}

impl Bench {
    async fn new(lab: &Lab) -> anyhow::Result<Bench> {
        lab.namespace(NAMESPACE).await?;
        let client = lab.client().await?;
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        for (name, node) in [("client", "node1"), ("endpoint", "node2")] {
            pods.create(&PostParams::default(), &pod(name, node)?).await.context("create a pod")?;
        }
        lab.await_running(NAMESPACE).await?;
        let status = pods.get("endpoint").await.context("read a pod")?.status;
        let endpoint = status.and_then(|status| status.pod_ip).context("the endpoint has no address")?;
        let place = |name: &str| Ok::<_, anyhow::Error>(lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone());
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = place("endpoint")?.run(|| TcpListener::bind(any).context("listen"))?;
        let Endpoint::Unix(socket) = Endpoint::parse(&lab.layout().nb())? else {
            anyhow::bail!("the Northbound has no unix socket")
        };
        Ok(Bench {
            client,
            pods,
            place: place("client")?,
            endpoint: endpoint.parse().context("the endpoint's address")?,
            northbound: Raw::connect(&socket)?,
            _listener: listener,
        })
    }

    /// Time from the POST of a Service to the first connection.
    async fn ours(&self, i: usize) -> anyhow::Result<Duration> {
        let (name, ip) = (format!("web-{i}"), Ipv4Addr::new(10, 96, 1, i as u8 + 1));
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "targetPort": PORT}]},
        }))?;
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [self.endpoint], "conditions": {"ready": true}, "nodeName": "node2"}],
        }))?;
        let services = Api::<Service>::namespaced(self.client.clone(), NAMESPACE);
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE);
        reach(&self.place, ip, async {
            services.create(&PostParams::default(), &service).await.context("create a Service")?;
            slices.create(&PostParams::default(), &slice).await.context("create a slice")?;
            Ok(())
        })
        .await
    }

    /// Time from sending such a load balancer to the database to the first connection.
    async fn raw(&mut self, i: usize) -> anyhow::Result<Duration> {
        let ip = Ipv4Addr::new(10, 96, 2, i as u8 + 1);
        let (backend, balancer) = (format!("{}:{PORT}", self.endpoint), Uuid::from_u128((0xf << 96) | i as u128));
        let row = vec![
            ("name", format!("raw-{i}").as_str().into()),
            ("protocol", "tcp".into()),
            (lb::TABLE.column(lb::VIPS).name, Datum::map([(format!("{ip}:80").into(), backend.into())])),
        ];
        let group =
            Condition::Column { column: "name", function: ovsdb::Function::Equal, value: "clusterLBGroup".into() };
        let message = transact([
            Op::Insert { table: "Load_Balancer", uuid: Some(balancer), row },
            Op::Mutate {
                table: "Load_Balancer_Group",
                conditions: vec![group],
                mutations: vec![Mutation::new("load_balancer", Mutator::Insert, Datum::set([balancer.into()]))],
            },
        ]);
        let northbound = &mut self.northbound;
        reach(&self.place, ip, async {
            northbound.send(&message)?;
            let reply = String::from_utf8_lossy(northbound.receive(1)?).into_owned();
            ensure!(reply.contains(r#""count":1"#) && !reply.contains(r#""details""#), "refused: {reply}");
            Ok(())
        })
        .await
    }
}

/// Time from the start of `make` to the first connection to an address, port 80.
async fn reach(
    place: &Place,
    ip: Ipv4Addr,
    make: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    let (place, (ready, knocking)) = (place.clone(), oneshot::channel());
    let client = tokio::task::spawn_blocking(move || place.run(|| connect((ip, 80).into(), ready)));
    knocking.await.context("the client does not start")?;
    let began = Instant::now();
    make.await?;
    let connected = client.await.context("the client")??;
    Ok(connected.saturating_duration_since(began))
}

/// Tries until a connection stands; when that was. Tells when it has begun.
fn connect(to: SocketAddr, ready: oneshot::Sender<()>) -> anyhow::Result<Instant> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    runtime.block_on(async {
        let (mut tries, mut tick, mut ready) = (FuturesUnordered::new(), tokio::time::interval(KNOCK), Some(ready));
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    tries.push(tokio::time::timeout(GIVE_UP, TcpStream::connect(to)));
                    // The receiver waits for it, or the case has failed.
                    ready.take().map(|ready| ready.send(()));
                }
                Some(outcome) = tries.next() => if let Ok(Ok(_)) = outcome { return Ok(Instant::now()) },
                () = &mut deadline => anyhow::bail!("no connection to {to} came about"),
            }
        }
    })
}

fn pod(name: &str, node: &str) -> anyhow::Result<Pod> {
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "none"}]});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).context("make a pod")
}

/// Milliseconds that OVN takes to attach a port of node1, where nobody attaches pods any more.
async fn attached(lab: &Lab, pods: &Api<Pod>) -> anyhow::Result<f64> {
    lab.stop("node1/kubelet")?;
    for i in 0..PORTS {
        pods.create(&PostParams::default(), &pod(&format!("m{i}"), "node1")?).await.context("create a pod")?;
    }
    await_addresses(pods).await?;
    lab.scene("central")?.checked(&["ovn-nbctl", "--wait=sb", "--timeout=120", "sync"])?;
    let all = pods.list(&ListParams::default()).await.context("list")?.into_iter();
    let new = all.filter(|pod| pod.name_any().starts_with('m'));
    let new: Vec<_> = new.map(|p| Unattached { name: p.name_any(), uid: p.uid().unwrap_or_default() }).collect();
    let ovs = Endpoint::parse(&lab.layout().ovs("node1"))?;
    installed(lab.scene("node1")?.place(), ovs, NAMESPACE, &new.iter().collect::<Vec<_>>()).await
}
