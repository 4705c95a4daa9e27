//! A cluster without nodes for the master's cases: the embedded API server in a process of its own, filled with S1 (100 nodes,
//! 5,000 pods of about 2.3 KB), an ovsdb-server, and `ovenbird-master` as a process that is looked at from outside.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::PostParams;
use ovenbird_schema::northbound::{DATABASE, logical_switch_port as lsp};
use ovsdb::{Client, Config, Event, Handle, MonitorSpec, Replica, TableSpec};
use serde_json::{Value, json};

use crate::process::usage_of;
use crate::server::Server;
use crate::{Context, Usage};

/// Nodes of S1.
pub const NODES: usize = 100;
/// Pods of S1.
pub const PODS: usize = 5_000;
/// How often a master is asked whether it has come to rest, where the time it takes is not the figure.
pub const SELDOM: Duration = Duration::from_millis(200);
/// And where it is.
pub const OFTEN: Duration = Duration::from_millis(5);
/// After this a process counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process, ended when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> anyhow::Result<Process> {
        let program = command.get_program().display().to_string();
        command.spawn().map(Process).with_context(|| format!("start {program}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The API server.
#[derive(Debug)]
pub struct ApiServer {
    address: String,
    kubeconfig: PathBuf,
    data: PathBuf,
    _process: Process,
}

impl ApiServer {
    /// Starts one in the folder `dir`, with the objects of `from` if given.
    pub fn start(dir: &Path, from: Option<&ApiServer>) -> anyhow::Result<ApiServer> {
        std::fs::create_dir_all(dir).context("make a folder")?;
        let file = |name: &str| dir.join(name);
        if let Some(from) = from {
            std::fs::copy(&from.data, file("api.log")).context("copy the objects")?;
        }
        let child = Command::new(binary("ovenbird-apiserver")?)
            .arg("--data")
            .arg(file("api.log"))
            .arg("--kubeconfig")
            .arg(file("kubeconfig"))
            .arg("--address-file")
            .arg(file("address"))
            .stdout(Stdio::null())
            .spawn()
            .context("start ovenbird-apiserver")?;
        let process = Process(child);
        let began = Instant::now();
        let address = loop {
            match std::fs::read_to_string(file("address")) {
                Ok(address) if !address.is_empty() => break address,
                _ => ensure!(began.elapsed() < PATIENCE, "ovenbird-apiserver does not start"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok(ApiServer { address, kubeconfig: file("kubeconfig"), data: file("api.log"), _process: process })
    }

    /// A client.
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        let config = kube::Config::new(format!("http://{}", self.address).parse().context("address")?);
        kube::Client::try_from(config).context("make a client")
    }

    /// Creates the nodes of S1 and `pods` pods, annotated or not.
    pub async fn fill(&self, pods: std::ops::Range<usize>, annotated: bool) -> anyhow::Result<()> {
        let client = self.client()?;
        if pods.start == 0 {
            self.create_nodes(annotated).await?;
            let namespaces = Api::<Namespace>::all(client.clone());
            for i in 0..NAMESPACES {
                let namespace = serde_json::from_value(json!({"metadata": {"name": format!("team-{i}")}}));
                let namespace = namespace.context("make a namespace")?;
                namespaces.create(&PostParams::default(), &namespace).await.context("create a namespace")?;
            }
        }
        futures::stream::iter(pods)
            .map(|i| {
                let client = client.clone();
                async move { create_pod(&client, i, annotated).await }
            })
            .buffer_unordered(16)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// Creates the nodes of S1, annotated or not.
    pub async fn create_nodes(&self, annotated: bool) -> anyhow::Result<()> {
        let nodes = Api::<Node>::all(self.client()?);
        for i in 0..NODES {
            let node: Node = serde_json::from_value(node(i, annotated)).context("make a node")?;
            nodes.create(&PostParams::default(), &node).await.context("create a node")?;
        }
        Ok(())
    }

    /// The bytes of a bare GET, read to the end and thrown away.
    pub fn get(&self, path: &str) -> anyhow::Result<usize> {
        let mut stream = TcpStream::connect(&self.address).context("connect to the API server")?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").context("send")?;
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer).context("receive")? {
                0 => return Ok(total),
                read => total += read,
            }
        }
    }
}

/// Namespaces that the pods are in.
pub const NAMESPACES: usize = 20;

/// Creates the pod with number `i`.
pub async fn create_pod(client: &kube::Client, i: usize, annotated: bool) -> anyhow::Result<()> {
    let pod: Pod = serde_json::from_value(pod(i, NODES, annotated)).context("make a pod")?;
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace_of(i));
    pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
    Ok(())
}

/// Namespace of the pod with number `i`.
pub fn namespace_of(i: usize) -> String {
    format!("team-{}", i % NAMESPACES)
}

/// Name of the pod with number `i`.
pub fn pod_name(i: usize) -> String {
    format!("web-{}-{i:06x}", i % 97)
}

fn subnet(node: usize) -> String {
    format!("10.{}.{}", 128 + (node * 2) / 256, (node * 2) % 256)
}

/// The node with number `i`.
pub fn node(i: usize, annotated: bool) -> Value {
    let mut annotations = json!({});
    if annotated {
        annotations["k8s.ovn.org/node-subnets"] = format!("{{\"default\":[\"{}.0/23\"]}}", subnet(i)).into();
        annotations["k8s.ovn.org/node-id"] = (i + 2).to_string().into();
    }
    json!({"metadata": {"name": format!("node-{i}"), "annotations": annotations}, "spec": {}})
}

/// The pod with number `i`, as a Deployment's: about 2.3 KB with managedFields. The first `nodes` nodes have as many each.
pub fn pod(i: usize, nodes: usize, annotated: bool) -> Value {
    let (node, on_node) = (i % nodes, i / nodes + 3);
    let name = pod_name(i);
    let mut annotations =
        json!({"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z", "checksum/config": "x".repeat(64)});
    if annotated {
        let (net, host) = (subnet(node), on_node % 256);
        // The second half of a /23 lies in the next octet.
        let third: usize = net.rsplit('.').next().and_then(|t| t.parse().ok()).unwrap_or(0);
        let prefix = net.rsplit_once('.').map_or("", |(p, _)| p);
        let address = format!("{prefix}.{}.{host}", third + on_node / 256);
        let mac: Vec<u8> = address.split('.').filter_map(|part| part.parse().ok()).collect();
        let mac = format!("0a:58:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3]);
        annotations["k8s.ovn.org/pod-networks"] =
            json!({"default": {"ip_addresses": [format!("{address}/23")], "mac_address": mac,
            "gateway_ips": [format!("{net}.1")], "routes": [{"dest": "10.128.0.0/14", "nextHop": format!("{net}.1")}],
            "ip_address": format!("{address}/23"), "gateway_ip": format!("{net}.1"), "role": "primary"}})
            .to_string()
            .into();
    }
    let env: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value-{n}-of-the-service")}))
        .collect();
    let fields: serde_json::Map<String, Value> =
        (0..24).map(|n| (format!("f:field{n}"), json!({"f:sub": {}}))).collect();
    json!({
        "metadata": {
            "name": name, "namespace": namespace_of(i), "annotations": annotations,
            "labels": {"app": format!("web-{}", i % 97), "tier": "front", "pod-template-hash": "5d4f8c7b9"},
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{}", i % 97), "uid": "7b0d0a0e-0000-4000-8000-000000000000", "controller": true}],
        },
        "spec": {
            "nodeName": format!("node-{node}"), "serviceAccountName": "default", "schedulerName": "default-scheduler",
            "containers": [{"name": "web", "image": "registry.example/web:1.2.3", "env": env,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
            "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {"phase": "Running"},
    })
}

/// A running `ovenbird-master`.
#[derive(Debug)]
pub struct Master {
    process: Process,
    socket: PathBuf,
    /// When its process was started.
    pub began: Instant,
}

impl Master {
    /// Starts one. Its files go into `dir`.
    pub fn start(dir: &Path, api: &ApiServer, northbound: &Server) -> anyhow::Result<Master> {
        Master::start_with(dir, &api.kubeconfig, northbound, &[])
    }

    /// Starts one with another API server, and flags of its own.
    pub fn start_with(dir: &Path, kubeconfig: &Path, northbound: &Server, flags: &[&str]) -> anyhow::Result<Master> {
        let socket = dir.join("master.sock");
        let mut command = Command::new(binary("ovenbird-master")?);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg(format!("--nb-address=unix:{}", northbound.socket().display()))
            .arg("--admin-socket")
            .arg(&socket)
            .args(["--metrics-bind-address=", "--loglevel=warn", "--lease-identity=bench"])
            .args(flags);
        let began = Instant::now();
        let child = command.spawn().context("start ovenbird-master")?;
        Ok(Master { process: Process(child), socket, began })
    }

    /// Waits until it has nothing left to do, asking every `poll`: each answer costs the master about as much as it holds, so ask
    /// seldom where that disturbs. Returns its status and the seconds since the start.
    pub fn settle(&self, poll: Duration) -> anyhow::Result<(Value, f64)> {
        loop {
            if let Ok(status) = self.status()
                && status["northbound"]["settled"] == true
                && status["watches"].as_array().is_some_and(|w| w.iter().all(|w| w["complete"] == true))
            {
                return Ok((status, self.began.elapsed().as_secs_f64()));
            }
            ensure!(self.began.elapsed() < PATIENCE, "ovenbird-master does not come to rest");
            std::thread::sleep(poll);
        }
    }

    /// Its status, over the admin socket.
    pub fn status(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket).context("connect to the admin socket")?;
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[]}"#;
        let head =
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
        write!(stream, "{head} {}\r\n\r\n{body}", body.len()).context("ask")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("read the answer")?;
        let (_, body) = text.split_once("\r\n\r\n").context("read the answer")?;
        let mut answer: Value = serde_json::from_str(body).context("read the answer")?;
        Ok(answer["result"].take())
    }

    /// What it has used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let usage = usage_of(self.process.0.id() as i32)?;
        Ok(Usage { wall_seconds: self.began.elapsed().as_secs_f64(), ..usage })
    }

    /// Ends it as SIGTERM does.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.process.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).context("stop ovenbird-master")?;
        self.process.0.wait().context("wait for ovenbird-master")?;
        Ok(())
    }
}

/// Counts ports as they appear in the database.
#[derive(Debug)]
pub struct Ports {
    events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    replica: Replica,
    changes: Vec<ovsdb::RowChange>,
    _handle: Handle,
}

impl Ports {
    /// Watches the names of ports of `northbound`; returns when the first contents are there.
    pub async fn watch(northbound: &Server) -> anyhow::Result<Ports> {
        let name = TableSpec::columns(&lsp::TABLE, [lsp::NAME]);
        let spec = MonitorSpec::new().with(name);
        let replica = Replica::new(&DATABASE, &spec);
        let (handle, events) = Client::spawn(Config::new(vec![northbound.endpoint()]), &DATABASE, spec);
        let mut ports = Ports { events, replica, changes: Vec::new(), _handle: handle };
        while ports.next().await?.is_none() {}
        Ok(ports)
    }

    /// Waits for the next event; names of the ports that came with it, `None` when it was no update.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<String>>> {
        match self.events.recv().await.context("the client ended")? {
            Event::Connected(info) => self.replica.set_server(&info),
            Event::Update(update) => {
                self.changes.clear();
                self.replica.apply(&update, &mut self.changes)?;
                let inserted = self.changes.iter().filter(|c| matches!(c.kind, ovsdb::ChangeKind::Inserted));
                let rows = inserted.filter_map(|c| self.replica.row(&lsp::TABLE, &c.uuid));
                return Ok(Some(rows.map(|row| lsp::Ref(row).name().to_owned()).collect()));
            }
            Event::Disconnected(error) => bail!("lost the database: {error}"),
            _ => {}
        }
        Ok(None)
    }

    /// Waits until there are `count` ports.
    pub async fn reach(&mut self, count: usize) -> anyhow::Result<()> {
        let waiting = async {
            while self.replica.len(&lsp::TABLE) < count {
                self.next().await?;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the ports never came")?
    }
}

/// Ports of a cluster with so many pods: two of each node, one of the join switch.
pub fn ports_of(pods: usize) -> usize {
    pods + 2 * NODES + 1
}

/// A binary that `make bench` has built beside this one.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name(name);
    ensure!(path.exists(), "{} is missing; run cargo build --release --workspace --bins", path.display());
    Ok(path)
}

/// What a master with an empty database of its own, in the folder `name`, uses once it is at rest. A process for each measurement: what an
/// older one was on the way does not count.
pub fn at_rest(context: &Context, name: &str, api: &ApiServer) -> anyhow::Result<Usage> {
    let dir = context.dir.join(name);
    std::fs::create_dir_all(&dir).context("make a folder")?;
    let server = Server::start(&dir)?;
    let master = Master::start(&dir, api, &server)?;
    master.settle(SELDOM)?;
    let usage = master.usage()?;
    master.stop()?;
    Ok(usage)
}
