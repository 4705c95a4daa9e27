//! A server that says what a test tells it to say.

#![allow(clippy::expect_used, reason = "a test that cannot set up fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use ovsdb::{Config, Endpoint};

/// A listening fake.
pub struct Fake {
    listener: UnixListener,
    pub endpoint: Endpoint,
}

/// One connection to a fake.
pub struct Peer {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Fake {
    pub fn new(dir: &std::path::Path, name: &str) -> Fake {
        let path = dir.join(name);
        Fake { listener: UnixListener::bind(&path).expect("bind"), endpoint: Endpoint::Unix(path) }
    }

    /// The client's next connection.
    pub async fn accept(&mut self) -> Peer {
        let accepted = tokio::time::timeout(Duration::from_secs(60), self.listener.accept()).await;
        Peer { stream: accepted.expect("a connection within a minute").expect("accept").0, buffer: Vec::new() }
    }

    /// A connection that has come as far as the monitor's reply, with these contents.
    pub async fn accept_with(&mut self, contents: Value) -> Peer {
        let mut peer = self.accept().await;
        peer.introduce(standalone()).await;
        let monitor = peer.expect("monitor_cond_since").await;
        peer.reply(&monitor, json!([false, NIL, contents])).await;
        peer
    }
}

pub const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// The schema of a fake: part of the Northbound, with columns that nobody described.
pub fn schema() -> Value {
    let text_map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
    let texts = json!({"type": {"key": "string", "min": 0, "max": "unlimited"}});
    let flag = json!({"type": {"key": "boolean", "min": 0, "max": 1}});
    json!({"name": "OVN_Northbound", "version": "7.0.0", "tables": {
        "Logical_Switch": {"columns": {
            "name": {"type": "string"}, "external_ids": text_map, "unheard_of": {"type": "real"},
            "ports": {"type": {"key": {"type": "uuid", "refTable": "Logical_Switch_Port"}, "min": 0, "max": "unlimited"}}}},
        "Logical_Switch_Port": {"columns": {
            "name": {"type": "string"}, "addresses": texts, "external_ids": text_map, "enabled": flag,
            "tag": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 4095}, "min": 0, "max": 1}}}},
        "Unheard_Of": {"columns": {"name": {"type": "string"}}}}})
}

/// `_Server` of a standalone server.
pub fn standalone() -> Value {
    json!({"model": "standalone", "connected": true, "leader": true, "name": "OVN_Northbound"})
}

/// `_Server` of a cluster's member.
pub fn clustered(leader: bool, connected: bool, cluster: u128, index: i64) -> Value {
    json!({"model": "clustered", "connected": connected, "leader": leader, "name": "OVN_Northbound", "index": index,
        "cid": ["uuid", ovsdb::Uuid::from_u128(cluster)]})
}

/// Quick to give up and to come back.
pub fn config(fakes: &[&Fake]) -> Config {
    let mut config = Config::new(fakes.iter().map(|f| f.endpoint.clone()).collect());
    config.backoff = (Duration::from_millis(1), Duration::from_millis(10));
    config
}

impl Peer {
    /// Answers get_schema and the monitor of `_Server`.
    pub async fn introduce(&mut self, server: Value) {
        let asked = self.expect("get_schema").await;
        self.reply(&asked, schema()).await;
        let asked = self.expect("monitor_cond").await;
        assert_eq!(asked["params"][0], "_Server");
        self.reply(&asked, json!({"Database": {NIL: {"initial": server}}})).await;
    }

    /// The next message.
    pub async fn receive(&mut self) -> Value {
        tokio::time::timeout(Duration::from_secs(60), self.receive_late()).await.expect("a message within a minute")
    }

    async fn receive_late(&mut self) -> Value {
        loop {
            let mut messages = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            if let Some(Ok(message)) = messages.next() {
                let used = messages.byte_offset();
                self.buffer.drain(..used);
                return message;
            }
            assert!(
                self.stream.read_buf(&mut self.buffer).await.expect("read") > 0,
                "the client closed the connection"
            );
        }
    }

    /// The next message, which must be this request.
    pub async fn expect(&mut self, method: &str) -> Value {
        let message = self.receive().await;
        assert_eq!(message["method"], method, "{message}");
        message
    }

    pub async fn reply(&mut self, request: &Value, result: Value) {
        self.send(&json!({"id": request["id"], "result": result, "error": null})).await;
    }

    pub async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(&json!({"id": request["id"], "result": null, "error": error})).await;
    }

    pub async fn send(&mut self, message: &Value) {
        self.raw(message.to_string().as_bytes()).await;
    }

    /// Sends bytes; that the client hangs up meanwhile is fine.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    /// Waits until the client hangs up.
    pub async fn closed(mut self) {
        let end = async { while self.stream.read_buf(&mut self.buffer).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(Duration::from_secs(60), end).await.expect("the client hangs up within a minute");
    }
}
