//! The server in one process: deadline, cancellation, modes of the files.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::attach::{Add, Attached, Attachment, Check, Del};

/// Says what happens to each request; one for the pod `stuck` never ends.
struct Probe(mpsc::UnboundedSender<&'static str>, Mutex<Vec<(&'static str, u32)>>);

/// Tells of its end, however it ends.
struct OnDrop(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

impl Attach for Probe {
    async fn add(&self, _: Add, _: Instant) -> Result<Attached, CniError> {
        let _end = OnDrop(self.0.clone(), "add dropped");
        let _ = self.0.send("add");
        std::future::pending().await
    }
    async fn del(&self, _: Del, _: Instant) -> Result<(), CniError> {
        let _ = self.0.send("del");
        tokio::task::yield_now().await;
        let _ = self.0.send("del done");
        Ok(())
    }
    async fn check(&self, _: Check, _: Instant) -> Result<(), CniError> {
        Ok(())
    }
    fn find(&self, _: &Attachment) -> Option<Attached> {
        None
    }
    fn status(&self) -> Result<(), CniError> {
        Err(CniError::new(Code::NotAvailable, "not yet"))
    }
    async fn gc(&self, _: Vec<Attachment>, _: Instant) -> Result<(), CniError> {
        Ok(())
    }
    fn observe(&self, command: &'static str, _: Duration, code: u32) {
        self.1.lock().unwrap().push((command, code));
    }
}

fn probe() -> (Arc<Probe>, mpsc::UnboundedReceiver<&'static str>) {
    let (tx, rx) = mpsc::unbounded_channel();
    (Arc::new(Probe(tx, Mutex::default())), rx)
}

fn call(command: &str) -> String {
    json!({
        "env": {"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/x",
            "CNI_ARGS": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b"},
        "stdin": r#"{"cniVersion":"1.1.0","name":"n"}"#,
    })
    .to_string()
}

async fn post(socket: &Path, command: &str) -> UnixStream {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"cni","params":{}}}"#, call(command));
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_attach_that_never_ends_is_cut_off() {
    let (attach, _rx) = probe();
    let reply = answer(attach.clone(), call("ADD").as_bytes(), Duration::ZERO).await;
    assert_eq!(reply.code, 1);
    assert!(reply.stdout.starts_with(r#"{"cniVersion":"1.1.0","code":11,"#), "{}", reply.stdout);
    assert_eq!(*attach.1.lock().unwrap(), [("ADD", 11)]);
}

#[tokio::test]
async fn add_ends_with_its_caller_and_del_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/cni.sock");
    let server = Server::bind(ServerConfig { socket: socket.clone(), deadline: Duration::from_secs(60) }).unwrap();
    let (attach, mut rx) = probe();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(attach, stop.clone()));

    let add = post(&socket, "ADD").await;
    assert_eq!(rx.recv().await, Some("add"));
    drop(add);
    assert_eq!(rx.recv().await, Some("add dropped"));

    let del = post(&socket, "DEL").await;
    assert_eq!(rx.recv().await, Some("del"));
    drop(del);
    assert_eq!(rx.recv().await, Some("del done"));

    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_is_for_root_only_and_a_stale_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("deep/run/cni.sock");
    let config = ServerConfig { socket: socket.clone(), deadline: Duration::from_secs(1) };
    drop(Server::bind(config.clone()).unwrap());
    let server = Server::bind(config).unwrap();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));

    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(probe().0, stop.clone()));
    let mut stream = post(&socket, "STATUS").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"}}") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "closed early");
    }
    let text = String::from_utf8(seen).unwrap();
    assert!(text.contains(r#"\"code\":50"#), "{text}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error_that_names_it() {
    let config = ServerConfig { socket: "/proc/nowhere/cni.sock".into(), deadline: Duration::from_secs(1) };
    let error = Server::bind(config).err().unwrap();
    assert_eq!(error.to_string(), "making the folder /proc/nowhere of the CNI socket, for root only");
}
