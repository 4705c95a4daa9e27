//! A small world for a test: an API server, an ovsdb-server, masters in this process or in their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::WsClientBuilder;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use ovenbird_apiserver::{ApiServer, Options};
use ovenbird_master::config::Settings;
use ovenbird_master::{Config, run_with};
use ovenbird_reconcile::{Desired, Zone, is_ours};
use ovenbird_schema::northbound::{self, load_balancer as lb, logical_switch_port as lsp};
use ovenbird_topology::{
    Change, EndpointSliceFact, Engine, Fact, Interner, NamespaceFact, NodeFact, PodFact, ServiceFact,
};
use ovsdb::{Datum, Endpoint, Event, Handle, MonitorSpec, Op, Replica};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
/// After this a condition counts as never met.
const PATIENCE: Duration = Duration::from_secs(60);

/// True, and loud, when the test cannot run here.
pub fn skipped() -> bool {
    let missing = !Path::new(SCHEMA).exists() || Command::new("ovsdb-server").arg("--version").output().is_err();
    if missing {
        println!("SKIP: ovsdb-server and {SCHEMA} are needed (packages openvswitch-switch, ovn-common)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "a skip fails CI");
    }
    missing
}

/// A process that ends with the test.
pub struct Process(Child);

impl Process {
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).expect("signal");
    }

    /// SIGKILL, and wait.
    pub fn kill(mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A master in this process.
pub struct Master {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Master {
    /// As SIGTERM does.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("ends well");
    }
}

pub struct World {
    pub dir: tempfile::TempDir,
    api: Option<ApiServer>,
    pub address: SocketAddr,
    northbound: Option<Process>,
}

impl World {
    pub async fn new() -> World {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut world = World { dir, api: None, address: ([127, 0, 0, 1], 0).into(), northbound: None };
        world.make_database();
        world.start_northbound();
        world.start_api().await;
        world
    }

    /// An empty database, in place of the one there is.
    pub fn make_database(&self) {
        let database = self.dir.path().join("nb.db");
        std::fs::remove_file(&database).ok();
        let made = Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA).status().expect("ovsdb-tool");
        assert!(made.success());
    }

    pub fn start_northbound(&mut self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let child = Command::new("ovsdb-server")
            .args([format!("--remote=punix:{}", path("nb.sock")), format!("--unixctl={}", path("nb.ctl"))])
            .args(["-vconsole:off".to_owned(), format!("--log-file={}", path("nb.log")), path("nb.db")])
            .stderr(Stdio::null())
            .spawn();
        self.northbound = Some(Process(child.expect("ovsdb-server")));
    }

    pub fn kill_northbound(&mut self) {
        self.northbound.take().expect("running").kill();
    }

    pub async fn start_api(&mut self) {
        let data = Some(self.dir.path().join("api.log"));
        let server = ApiServer::start(Options { listen: self.address, data, ..Options::default() }).await;
        let server = server.expect("API server");
        self.address = server.address();
        self.api = Some(server);
    }

    pub async fn stop_api(&mut self) {
        self.api.take().expect("running").shutdown().await;
    }

    pub fn client(&self) -> kube::Client {
        // The address is one of ours, so it is a URI.
        let config = kube::Config::new(format!("http://{}", self.address).parse().expect("URI"));
        kube::Client::try_from(config).expect("client")
    }

    fn settings(&self, name: &str) -> Settings {
        Settings {
            cluster_subnets: Some("10.244.0.0/16/24,fd00:244::/48/64".into()),
            nb_address: Some(format!("unix:{}", self.dir.path().join("nb.sock").display())),
            metrics_bind_address: Some(String::new()),
            admin_socket: Some(self.socket(name)),
            lease_identity: Some(name.into()),
            ha_election_lease_duration: Some(3),
            ha_election_renew_deadline: Some(2),
            ..Settings::default()
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// A master in this process.
    pub fn master(&self, name: &str) -> Master {
        let config = Config::new(self.settings(name)).expect("valid");
        let stop = CancellationToken::new();
        let run = run_with(self.client(), config, stop.clone());
        Master { stop, task: tokio::spawn(async move { run.await.expect("runs") }) }
    }

    /// A master in a process of its own.
    pub fn process(&self, name: &str) -> Process {
        let file = self.dir.path().join(format!("{name}.yaml"));
        let settings = serde_json::to_string(&self.settings(name)).expect("JSON is YAML");
        std::fs::write(&file, settings).expect("write");
        let kubeconfig = self.dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.api.as_ref().expect("running").kubeconfig()).expect("write");
        let child = Command::new(env!("CARGO_BIN_EXE_ovenbird-master"))
            .arg("--config")
            .arg(file)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stderr(std::fs::File::create(self.dir.path().join(format!("{name}.log"))).expect("log"))
            .spawn();
        Process(child.expect("ovenbird-master"))
    }

    /// The status of a master; null while it does not answer.
    pub async fn status(&self, name: &str) -> Value {
        let Ok(stream) = tokio::net::UnixStream::connect(self.socket(name)).await else { return Value::Null };
        let Ok(client) = WsClientBuilder::new().build_with_stream("ws://localhost/", stream).await else {
            return Value::Null;
        };
        client.request("status", rpc_params![]).await.unwrap_or_default()
    }

    /// Waits until the status is as told.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let status = self.status(name).await;
                if holds(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(status) => status,
            Err(_) => panic!("{name} never {what}: {:#}", self.status(name).await),
        }
    }

    pub async fn add_node(&self, name: &str) {
        let node = json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["10.9.0.0/24"]}});
        let node: Node = serde_json::from_value(node).expect("a node");
        Api::all(self.client()).create(&PostParams::default(), &node).await.expect("create a node");
    }

    pub async fn add_pod(&self, name: &str, node: &str) {
        self.add_pod_with(name, json!({"nodeName": node})).await;
    }

    pub async fn add_pod_with(&self, name: &str, mut spec: Value) {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("create a pod");
    }

    /// A Service of one port with a slice of these endpoints.
    pub async fn add_service(&self, name: &str, ip: &str, endpoints: &[&str]) {
        let service = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "targetPort": 8080}]}});
        let service: Service = serde_json::from_value(service).expect("a Service");
        let services: Api<Service> = Api::namespaced(self.client(), "default");
        services.create(&PostParams::default(), &service).await.expect("create a Service");
        let labels = json!({"kubernetes.io/service-name": name});
        let slice = json!({"metadata": {"name": name, "namespace": "default", "labels": labels}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints_of(endpoints)});
        let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
        self.slices().create(&PostParams::default(), &slice).await.expect("create a slice");
    }

    pub async fn set_endpoints(&self, name: &str, endpoints: &[&str]) {
        let patch = Patch::Merge(json!({"endpoints": endpoints_of(endpoints)}));
        self.slices().patch(name, &PatchParams::default(), &patch).await.expect("patch a slice");
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client(), "default")
    }

    pub async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.expect("delete a pod");
    }

    pub async fn annotate_pod(&self, name: &str, text: Value) {
        let patch = json!({"metadata": {"annotations": {"k8s.ovn.org/pod-networks": text}}});
        self.pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotate");
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), "default")
    }

    /// A view of the database, for looking and for meddling.
    pub fn view(&self) -> View {
        let spec = MonitorSpec::everything(&northbound::DATABASE);
        let replica = Replica::new(&northbound::DATABASE, &spec);
        let mut config = ovsdb::Config::new(vec![Endpoint::Unix(self.dir.path().join("nb.sock"))]);
        config.backoff = (Duration::from_millis(50), Duration::from_millis(200));
        let (handle, events) = ovsdb::Client::spawn(config, &northbound::DATABASE, spec);
        View { handle, events, replica, client: self.client(), config: self.settings("view") }
    }
}

fn endpoints_of(addresses: &[&str]) -> Value {
    addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect()
}

/// See [`World::view`].
pub struct View {
    pub handle: Handle,
    events: UnboundedReceiver<Event>,
    pub replica: Replica,
    client: kube::Client,
    config: Settings,
}

impl View {
    /// Takes in what has come, waiting for something at most a moment.
    async fn refresh(&mut self) {
        let first = tokio::time::timeout(Duration::from_millis(50), self.events.recv()).await;
        let mut next = first.ok().flatten();
        while let Some(event) = next {
            match event {
                Event::Connected(server) => self.replica.set_server(&server),
                Event::Update(update) => self.replica.apply(&update, &mut Vec::new()).expect("understood"),
                _ => {}
            }
            next = self.events.try_recv().ok();
        }
    }

    /// Waits until the replica is as told.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Replica) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(&self.replica) {
            assert!(tokio::time::Instant::now() < deadline, "never {what}");
            self.refresh().await;
        }
    }

    /// Writes, and waits for the answer.
    pub async fn meddle(&mut self, ops: &[Op]) {
        let sent = self.handle.transact(ops);
        loop {
            match self.events.recv().await.expect("a client") {
                Event::Reply { id, result } if id == sent => {
                    let reply = result.expect("an answer");
                    return assert!(reply.is_committed(), "{:?}", reply.error());
                }
                Event::Update(update) => self.replica.apply(&update, &mut Vec::new()).expect("understood"),
                Event::Connected(server) => self.replica.set_server(&server),
                _ => {}
            }
        }
    }

    /// Waits until the database holds what a translation of all objects yields, all pods have addresses, and nothing else is ours.
    pub async fn agrees(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.refresh().await;
            match self.difference().await {
                None => return,
                Some(why) => assert!(tokio::time::Instant::now() < deadline, "never agreed: {why}"),
            }
        }
    }

    async fn difference(&self) -> Option<String> {
        let (expected, waiting) = match self.render().await {
            Ok(rendered) => rendered,
            Err(error) => return Some(error.to_string()),
        };
        if let Some(pod) = waiting {
            return Some(format!("{pod} has no address"));
        }
        let mut ours = BTreeMap::new();
        for table in northbound::DATABASE.tables {
            ours.extend(self.replica.rows(table).filter(|(u, _)| is_ours(u)).map(|(u, row)| (u, (table.name, row))));
        }
        for row in expected.rows() {
            let Some((_, actual)) = ours.remove(&row.uuid) else {
                return Some(format!("{} {} is missing", row.table.name, row.uuid));
            };
            for (column, wanted) in row.columns {
                let there = match (&wanted, actual.get(column)) {
                    (_, None) => wanted.is_empty(),
                    (Datum::Map(pairs), Some(Datum::Map(have))) => pairs.iter().all(|pair| have.contains(pair)),
                    (_, Some(have)) => *have == wanted,
                };
                if !there {
                    let name = row.table.column(column).name;
                    return Some(format!("{} {}: {name}: {wanted:?} wanted", row.table.name, row.uuid));
                }
            }
        }
        ours.into_iter().next().map(|(uuid, (table, row))| format!("{table} {uuid} is an orphan: {row:?}"))
    }

    /// All rows from scratch, and a pod that should have an address and has none.
    async fn render(&self) -> kube::Result<(Desired, Option<String>)> {
        let config = Config::new(self.config.clone()).expect("valid");
        let mut engine = Engine::new(config.cluster);
        let mut texts = Interner::default();
        let all = ListParams::default();
        let mut waiting = None;
        for node in Api::<Node>::all(self.client.clone()).list(&all).await? {
            engine.apply(Change::Upsert(Fact::Node(NodeFact::from_k8s(&node))));
        }
        for namespace in Api::<Namespace>::all(self.client.clone()).list(&all).await? {
            engine.apply(Change::Upsert(Fact::Namespace(NamespaceFact::from_k8s(&namespace, &mut texts))));
        }
        for pod in Api::<Pod>::all(self.client.clone()).list(&all).await? {
            let fact = PodFact::from_k8s(&pod, &mut texts);
            if fact.attached_to().is_some() && fact.network.is_none() {
                waiting = Some(fact.key.to_string());
            }
            engine.apply(Change::Upsert(Fact::Pod(fact)));
        }
        for service in Api::<Service>::all(self.client.clone()).list(&all).await? {
            engine.apply(Change::Upsert(Fact::Service(ServiceFact::from_k8s(&service, &mut texts))));
        }
        for slice in Api::<EndpointSlice>::all(self.client.clone()).list(&all).await? {
            engine.apply(Change::Upsert(Fact::EndpointSlice(EndpointSliceFact::from_k8s(&slice, &mut texts))));
        }
        let mut desired = Desired::new(Zone::default(), &northbound::DATABASE);
        for owner in engine.owners() {
            let output = engine.translate(&owner);
            desired.set(&owner, output);
        }
        Ok((desired, waiting))
    }

    /// `vips` of a load balancer.
    pub fn vips(replica: &Replica, name: &str) -> Option<String> {
        let row = replica.rows(&lb::TABLE).find(|(_, row)| lb::Ref(row).name() == name)?.1;
        Some(lb::Ref(row).vips().iter().map(|(address, backends)| format!("{address}={backends} ")).collect())
    }

    /// Names of the pods that have a port.
    pub fn ports(&self) -> Vec<String> {
        let pods = self.replica.rows(&lsp::TABLE).filter(|(_, row)| lsp::Ref(row).external_ids().get("pod").is_some());
        let mut names: Vec<String> = pods.map(|(_, row)| lsp::Ref(row).name().to_owned()).collect();
        names.sort_unstable();
        names
    }
}
