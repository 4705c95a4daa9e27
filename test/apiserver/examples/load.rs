//! How fast the server is, measured from outside it: `ovenbird-apiserver &`, then
//! `cargo run --release -p ovenbird-apiserver --example load -- ADDRESS:PORT`.
//!
//! Creates 5,000 pods of about 3.7 KB, lists them, and merge-patches an annotation of each with 16 requests in flight,
//! first alone and then with a watch of all pods open. Prints seconds and rates; asserts nothing.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PODS: usize = 5_000;
const IN_FLIGHT: usize = 16;
const PATH: &str = "/api/v1/namespaces/default/pods";

struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn send(&mut self, method: Method, path: &str, media: &str, body: String) -> Result<hyper::body::Incoming> {
        let request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", media);
        let response = self.0.send_request(request.body(Full::from(body))?).await?;
        ensure!(response.status().is_success(), "{path}: {}", response.status());
        Ok(response.into_body())
    }

    async fn call(&mut self, method: Method, path: &str, media: &str, body: String) -> Result<usize> {
        Ok(self.send(method, path, media, body).await?.collect().await?.to_bytes().len())
    }
}

/// One request per pod, spread over the connections.
async fn each_pod(
    address: &str,
    method: Method,
    media: &'static str,
    body: fn(usize) -> (String, String),
) -> Result<f64> {
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for first in 0..IN_FLIGHT {
        let (mut connection, method) = (Connection::open(address).await?, method.clone());
        tasks.spawn(async move {
            for n in (first..PODS).step_by(IN_FLIGHT) {
                let (path, body) = body(n);
                connection.call(method.clone(), &path, media, body).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn pod(n: usize) -> (String, String) {
    let pod = json!({
        "metadata": {"name": format!("pod-{n:05}"), "labels": {"app": "load"}, "annotations": {"filler": "x".repeat(3_300)}},
        "spec": {"nodeName": format!("node-{:03}", n % 100), "containers": [{"name": "c", "image": "busybox"}]},
    });
    (PATH.to_owned(), pod.to_string())
}

fn annotation(n: usize) -> (String, String) {
    let networks = json!({"default": {"ip_addresses": [format!("10.128.{}.{}/24", n / 250, n % 250)]}}).to_string();
    let patch = json!({"metadata": {"annotations": {"k8s.ovn.org/pod-networks": networks, "at": format!("{:?}", Instant::now())}}});
    (format!("{PATH}/pod-{n:05}"), patch.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: load ADDRESS:PORT")?;
    let seconds = each_pod(&address, Method::POST, "application/json", pod).await?;
    println!("create: {PODS} pods in {seconds:.2} s, {:.0}/s", PODS as f64 / seconds);
    let mut connection = Connection::open(&address).await?;
    for _ in 0..3 {
        let start = Instant::now();
        let bytes = connection.call(Method::GET, "/api/v1/pods", "", String::new()).await?;
        println!("list: {:.1} MB in {:.1} ms", bytes as f64 / 1e6, start.elapsed().as_secs_f64() * 1e3);
    }
    let merge = "application/merge-patch+json";
    let seconds = each_pod(&address, Method::PATCH, merge, annotation).await?;
    println!("patch, {IN_FLIGHT} in flight: {:.0}/s", PODS as f64 / seconds);
    let mut watch = connection.send(Method::GET, "/api/v1/pods?watch=1&resourceVersion=1", "", String::new()).await?;
    let watching = tokio::spawn(async move {
        let mut events = 0;
        while let Some(Ok(frame)) = watch.frame().await {
            events += frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
            if events >= 3 * PODS {
                break;
            }
        }
        events
    });
    let seconds = each_pod(&address, Method::PATCH, merge, annotation).await?;
    println!("patch, {IN_FLIGHT} in flight, one watch: {:.0}/s", PODS as f64 / seconds);
    println!("the watch saw {} events", watching.await?);
    Ok(())
}
