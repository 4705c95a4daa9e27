//! A real API server without nodes or controllers: etcd and kube-apiserver of the cache, on this machine's loopback.
//!
//! Must not: hold an object that nobody has asked for, so that a figure is about those of the case.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use ovenbird_kube::Cache;
use serde_json::json;

use crate::cluster::Process;

const TOKEN: &str = "bench";
/// After this the API server counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// The two processes, ended when dropped, the API server first.
pub struct ControlPlane {
    client: kube::Client,
    kubeconfig: PathBuf,
    _apiserver: Process,
    _etcd: Process,
}

impl ControlPlane {
    /// Starts both in `dir`; returns when the API server is ready.
    pub async fn start(dir: &Path) -> anyhow::Result<ControlPlane> {
        let bin = Cache::ready().context("this case needs real Kubernetes")?.bin();
        fs::create_dir_all(dir).context("make a folder")?;
        let [client_port, peer_port, port] = free_ports()?;
        let etcd = Process::start(&mut etcd(&bin, dir, client_port, peer_port)?)?;
        let apiserver = Process::start(&mut apiserver(&bin, dir, client_port, port)?)?;
        let kubeconfig = dir.join("kubeconfig");
        fs::write(&kubeconfig, credentials(port).to_string()).context("write the kubeconfig")?;
        let config = Kubeconfig::read_from(&kubeconfig).context("read the kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config).context("make a client")?;
        let plane = ControlPlane { client, kubeconfig, _apiserver: apiserver, _etcd: etcd };
        let began = Instant::now();
        while plane.get("/readyz").await.is_err() {
            ensure!(began.elapsed() < PATIENCE, "kube-apiserver does not get ready; see {}", dir.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(plane)
    }

    /// A client.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Access of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The bytes of a bare GET, read to the end and thrown away.
    pub async fn get(&self, path: &str) -> anyhow::Result<usize> {
        let request = http::Request::get(path).body(Body::empty()).context("make a request")?;
        let answer = self.client.send(request).await.with_context(|| format!("GET {path}"))?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        let (mut body, mut total) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            total += frame.context("receive")?.data_ref().map_or(0, bytes::Bytes::len);
        }
        Ok(total)
    }
}

fn etcd(bin: &Path, dir: &Path, client: u16, peer: u16) -> anyhow::Result<Command> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(bin.join("etcd"));
    command.arg(format!("--data-dir={}", dir.join("etcd").display())).args(["--name=bench", "--unsafe-no-fsync"]);
    command.args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")]);
    command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
    command.arg(format!("--initial-cluster=bench={peer}")).stdout(Stdio::null()).stderr(log(dir, "etcd.log")?);
    Ok(command)
}

fn apiserver(bin: &Path, dir: &Path, etcd: u16, port: u16) -> anyhow::Result<Command> {
    let file = |name: &str| dir.join(name).display().to_string();
    let key = ["genrsa", "-out", &file("accounts.key"), "2048"];
    let made = Command::new("openssl").args(key).stderr(Stdio::null()).status().context("run openssl")?;
    ensure!(made.success(), "openssl cannot make a key");
    fs::write(file("tokens"), format!("{TOKEN},bench,bench,system:masters\n")).context("write the token")?;
    let mut command = Command::new(bin.join("kube-apiserver"));
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--token-auth-file={}", file("tokens")),
        "--authorization-mode=AlwaysAllow".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", file("accounts.key")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        // Nobody makes the accounts that it asks for.
        "--disable-admission-plugins=ServiceAccount".into(),
    ]);
    command.stdout(Stdio::null()).stderr(log(dir, "kube-apiserver.log")?);
    Ok(command)
}

fn log(dir: &Path, name: &str) -> anyhow::Result<fs::File> {
    fs::File::create(dir.join(name)).with_context(|| format!("make {name}"))
}

fn credentials(port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    })
}

/// Ports that are free now.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("find a free port");
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().context("find a free port")?.port();
    }
    Ok(ports)
}
