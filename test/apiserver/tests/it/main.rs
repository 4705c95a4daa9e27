//! The server against unmodified clients: kube-rs, raw HTTP and kubectl, each test with a server of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside test functions")]

mod apply;
mod custom;
mod hostile;
mod kubectl;
mod objects;
mod process;
mod watches;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use ovenbird_apiserver::{ApiServer, Options};
use serde_json::{Value, json};

/// A server that keeps its objects in memory.
async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(Options::default()).await.unwrap();
    let client = client(&server);
    (server, client)
}

fn client(server: &ApiServer) -> Client {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    // Tests look at refusals that the client would try again.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Any typed object from its JSON.
fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod with one container, labelled `app: NAME`.
fn pod(name: &str) -> Pod {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }))
}

/// Code and reason of a refusal.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

/// An empty POST outside the Kubernetes API.
async fn post(server: &ApiServer, path: &str) {
    let request = http::Request::post(path).body(Vec::new()).unwrap();
    client(server).request_text(request).await.unwrap();
}
