//! The shim as a process, against a real server on a real socket with a made-up `Attach`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ovenbird_cni_server::{
    Add, Attach, Attached, Attachment, Check, CniError, Code, Del, Ip, Server, ServerConfig, Version, result,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CONF: &str = r#"{"cniVersion":"1.0.0","name":"ovenbird","type":"ovenbird-cni"}"#;

/// ADD answers with an address, and fails for the pod `nobody`.
struct Fake;

impl Attach for Fake {
    async fn add(&self, add: Add, _: Instant) -> Result<Attached, CniError> {
        if add.pod.name == "nobody" {
            return Err(CniError::new(Code::UnknownContainer, "pod default/nobody does not exist"));
        }
        let ip = Ip { address: "10.128.0.3/24".parse().unwrap(), gateway: None, interface: None };
        Ok(Attached { ips: vec![ip], ..Attached::default() })
    }
    async fn del(&self, _: Del, _: Instant) -> Result<(), CniError> {
        Ok(())
    }
    async fn check(&self, _: Check, _: Instant) -> Result<(), CniError> {
        Ok(())
    }
    fn find(&self, attachment: &Attachment) -> Option<Attached> {
        let ip = |text: &str| Ip { address: text.parse().unwrap(), gateway: None, interface: None };
        let ips = vec![ip("10.128.0.3/24"), ip("fd01::3/64")];
        (attachment.container_id == "c0ffee").then(|| Attached { ips, ..Attached::default() })
    }
    fn status(&self) -> Result<(), CniError> {
        Ok(())
    }
    async fn gc(&self, _: Vec<Attachment>, _: Instant) -> Result<(), CniError> {
        Ok(())
    }
}

/// A server in a folder of its own.
struct Served {
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/cni.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ServerConfig { socket: socket.clone(), deadline: Duration::from_secs(60) };
    let server = runtime.block_on(async { Server::bind(config) }).unwrap();
    runtime.spawn(server.serve(Arc::new(Fake), CancellationToken::new()));
    Served { _runtime: runtime, _dir: dir, socket }
}

fn shim(command: &str, pod: &str) -> Command {
    let mut shim = Command::new(env!("CARGO_BIN_EXE_ovenbird-cni"));
    shim.env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c0ffee")
        .env("CNI_NETNS", "/run/netns/x")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    shim
}

fn run(mut shim: Command, stdin: &[u8]) -> (String, i32) {
    let mut child = shim.spawn().unwrap();
    // The shim stops reading at its limit, and need not read at all.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let Output { stdout, status, .. } = child.wait_with_output().unwrap();
    (String::from_utf8(stdout).unwrap(), status.code().expect("no signal"))
}

fn run_at(socket: &Path, command: &str, pod: &str, stdin: &[u8]) -> (String, i32) {
    let mut shim = shim(command, pod);
    shim.env("OVENBIRD_CNI_SOCKET", socket);
    run(shim, stdin)
}

#[test]
fn results_and_errors_of_the_daemon_come_out_as_they_are() {
    let served = serve();
    let golden = r#"{"cniVersion":"1.0.0","interfaces":[],"ips":[{"address":"10.128.0.3/24"}],"routes":[],"dns":{}}"#;
    assert_eq!(run_at(&served.socket, "ADD", "web", CONF.as_bytes()), (golden.into(), 0));
    assert_eq!(run_at(&served.socket, "DEL", "web", CONF.as_bytes()), (String::new(), 0));
    let error = r#"{"cniVersion":"1.0.0","code":3,"msg":"pod default/nobody does not exist"}"#;
    assert_eq!(run_at(&served.socket, "ADD", "nobody", CONF.as_bytes()), (error.into(), 1));
}

#[test]
fn the_configuration_may_name_the_socket() {
    let served = serve();
    let conf = format!(r#"{{"cniVersion":"1.1.0","name":"n","socket":"{}"}}"#, served.socket.display());
    assert_eq!(run(shim("STATUS", "web"), conf.as_bytes()), (String::new(), 0));
}

/// The form of plugins before CNI: verbs as arguments, the verdict in the exit code.
#[test]
fn exec_plugins_of_old() {
    let served = serve();
    let exec = |args: &[&str]| {
        let mut shim = Command::new(env!("CARGO_BIN_EXE_ovenbird-cni"));
        shim.env_clear().env("OVENBIRD_CNI_SOCKET", &served.socket).args(args).stdin(Stdio::null());
        let Output { stdout, stderr, status } = shim.output().unwrap();
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), status.code().unwrap())
    };
    let fine = (String::new(), String::new(), 0);
    assert_eq!(exec(&["init"]), fine);
    assert_eq!(exec(&["setup", "default", "web", "c0ffee"]), fine);
    let (stdout, _, code) = exec(&["status", "default", "web", "c0ffee"]);
    let wanted = serde_json::json!({"kind": "PodNetworkStatus", "apiVersion": "v1beta1", "ip": "10.128.0.3"});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap(), wanted);
    assert_eq!(code, 0);
    assert_eq!(exec(&["teardown", "default", "web", "c0ffee"]), fine);
    let (stdout, stderr, code) = exec(&["status", "default", "web", "beef"]);
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("", "ovenbird-cni: beef is not attached\n", 1));
    let (_, stderr, code) = exec(&["setup", "default", "nobody", "c0ffee"]);
    assert_eq!((stderr.as_str(), code), ("ovenbird-cni: pod default/nobody does not exist\n", 1));
    let (_, stderr, code) = exec(&["setup", "default"]);
    assert!(
        stderr.contains("usage: ovenbird-cni init | setup|teardown|status NAMESPACE POD ID") && code == 2,
        "{stderr}"
    );
}

#[test]
fn many_at_once() {
    let served = serve();
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..40).map(|_| scope.spawn(|| run_at(&served.socket, "ADD", "web", CONF.as_bytes()))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap().1, 0);
        }
    });
}

#[test]
fn no_daemon_is_try_again_later_and_for_status_not_available() {
    let nowhere = Path::new("/nonexistent/cni.sock");
    for (command, code) in [("ADD", 11), ("DEL", 11), ("STATUS", 50)] {
        let (stdout, exit) = run_at(nowhere, command, "web", CONF.as_bytes());
        assert!(stdout.starts_with(&format!(r#"{{"cniVersion":"1.1.0","code":{code},"#)), "{stdout}");
        assert!(stdout.contains("/nonexistent/cni.sock"), "{stdout}");
        assert_eq!(exit, 1);
    }
}

#[test]
fn a_listener_that_talks_nonsense_is_try_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        for reply in ["", "HTTP/1.1 200 OK\r\n\r\n{\"result\":7}", "\u{0}\u{1}garbage"] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    for _ in 0..3 {
        let (stdout, exit) = run_at(&socket, "ADD", "web", CONF.as_bytes());
        assert!(stdout.contains(r#""code":11"#), "{stdout}");
        assert_eq!(exit, 1);
    }
    server.join().unwrap();
}

#[test]
fn bad_stdin_is_a_cni_error() {
    let served = serve();
    let oversized = vec![b' '; (1 << 20) + 1];
    for (what, stdin) in
        [("truncated", &CONF.as_bytes()[..30]), ("empty", b""), ("oversized", &oversized), ("not UTF-8", b"\xff\xfe{")]
    {
        let (stdout, exit) = run_at(&served.socket, "ADD", "web", stdin);
        assert!(stdout.contains(r#""code":6"#), "{what}: {stdout}");
        assert_eq!(exit, 1, "{what}");
    }
}

#[test]
fn a_configuration_that_cannot_name_the_socket_is_undecodable() {
    let (stdout, exit) = run(shim("ADD", "web"), &CONF.as_bytes()[..30]);
    assert!(stdout.starts_with(r#"{"cniVersion":"1.1.0","code":6,"#), "{stdout}");
    assert_eq!(exit, 1);
}

#[test]
fn what_the_shim_knows_is_what_the_daemon_knows() {
    assert_eq!(run(shim("VERSION", "web"), b""), (result::version_json(Version::NEWEST), 0));
    let default = format!("{:?}", ovenbird_api::path::CNI_SOCKET);
    assert!(include_str!("../src/main.rs").contains(&default), "DEFAULT_SOCKET is not {default}");
}
