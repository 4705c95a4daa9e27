//! `ovenbird-cni`: what a container runtime executes as the CNI plugin. It has no logic.
//!
//! ```text
//! CNI_* environment, stdin --> one HTTP/1.1 POST with one JSON-RPC 2.0 request --> unix socket of ovenbird-node
//! stdout, exit status      <-- {"result":{"stdout":"...","code":0}}
//! ```
//!
//! It starts once per ADD and DEL, so it is small and blocking, without an async runtime. What is wrong
//! with a request is for the daemon to say. Only when there is no daemon to ask does it speak for itself, with a CNI
//! error on stdout (code 11, try again later; 50 for STATUS), and VERSION is answered here because it needs nobody.
//!
//! The socket is `$OVENBIRD_CNI_SOCKET`, else the key `socket` of the network configuration, else [`DEFAULT_SOCKET`].
//!
//! With arguments it speaks the form that plugins had before CNI (`exec`).
//!
//! `make shim` builds it static, so that it runs on any host, and without unwind tables (`no-unwind.ld`). It has 1,056 KB, of
//! which 985 KB are std and the C library: a static `hello, world` has as much.
//!
//! Must not: touch the network, keep state, panic, or wait longer than [`PATIENCE`].

mod exec;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

/// Where the daemon listens unless told otherwise; the same default as its flag `--cni-socket`; a test holds them together.
const DEFAULT_SOCKET: &str = "/run/ovenbird/cni.sock";
/// Longest configuration read from stdin; one with a previous result has a few kilobytes.
const MAX_STDIN: u64 = 1 << 20;
/// Longest answer read from the daemon.
const MAX_REPLY: u64 = 4 << 20;
/// Wait for the daemon's answer: its own deadline of two minutes, and some.
const PATIENCE: Duration = Duration::from_secs(150);
/// What VERSION answers; a test holds it against the daemon's list.
const VERSION_REPLY: &str = r#"{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}"#;

/// A CNI error: code of the specification, message.
type Failure = (u32, String);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if !args.is_empty() {
        return exec::run(&args);
    }
    let (stdout, code) = match run() {
        Ok(answer) => answer,
        Err((code, msg)) => (json!({"cniVersion": "1.1.0", "code": code, "msg": msg}).to_string(), 1),
    };
    // A runtime that closed stdout does not read an error either.
    drop(std::io::stdout().write_all(stdout.as_bytes()));
    ExitCode::from(code)
}

fn run() -> Result<(String, u8), Failure> {
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        return Ok((VERSION_REPLY.into(), 0));
    }
    let stdin = read_stdin()?;
    let unavailable = if command == "STATUS" { 50 } else { 11 };
    ask(&socket_path(&stdin)?, &request(&environment(), &stdin), unavailable)
}

/// The daemon's answer: text and exit status. `unavailable` is the code of the failure when there is none.
fn ask(socket: &str, request: &str, unavailable: u32) -> Result<(String, u8), Failure> {
    let reply = call(socket, request).map_err(|e| {
        (unavailable, format!("ovenbird-node does not answer on {socket} ({e}): is it running on this node?"))
    })?;
    answer(&reply).ok_or_else(|| (unavailable, format!("ovenbird-node on {socket} sent no CNI answer: {reply:.200}")))
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_STDIN + 1).read_to_end(&mut bytes).map_err(|e| (5, format!("reading stdin: {e}")))?;
    if bytes.len() as u64 > MAX_STDIN {
        return Err((6, format!("the network configuration on stdin is larger than {MAX_STDIN} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| (6, format!("the network configuration on stdin is not UTF-8: {e}")))
}

fn socket_path(stdin: &str) -> Result<String, Failure> {
    if let Ok(path) = std::env::var("OVENBIRD_CNI_SOCKET") {
        return Ok(path);
    }
    let config: Value = serde_json::from_str(stdin)
        .map_err(|e| (6, format!("the network configuration on stdin does not decode: {e}")))?;
    Ok(config.get("socket").and_then(Value::as_str).unwrap_or(DEFAULT_SOCKET).to_owned())
}

/// Every `CNI_*` variable as it came.
fn environment() -> serde_json::Map<String, Value> {
    std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .filter(|(k, _)| k.starts_with("CNI_"))
        .map(|(k, v)| (k, v.into()))
        .collect()
}

/// The JSON-RPC request.
fn request(env: &serde_json::Map<String, Value>, stdin: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "cni", "params": {"env": env, "stdin": stdin}}).to_string()
}

/// One HTTP/1.1 exchange; returns the body.
fn call(socket: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let message = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(message.as_bytes())?;
    let mut reply = String::new();
    stream.take(MAX_REPLY).read_to_string(&mut reply)?;
    // `Connection: close` and a body of known length: the body is all that follows the empty line.
    Ok(reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(reply))
}

/// Text for stdout and exit status out of the JSON-RPC reply.
fn answer(reply: &str) -> Option<(String, u8)> {
    let reply: Value = serde_json::from_str(reply).ok()?;
    let result = reply.get("result")?;
    let code = result.get("code")?.as_u64()?;
    Some((result.get("stdout")?.as_str()?.to_owned(), u8::try_from(code).unwrap_or(1)))
}
