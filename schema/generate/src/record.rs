//! Asks a server for a schema: the one place of the generator that talks to anybody.
//!
//! Inputs: a unix socket, a database's name. Output: the schema as the server reports it (RFC 7047 section 4.1.2), with
//! sorted keys, so that a second recording is the same text.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The schema of `database` as JSON text.
pub fn record(socket: &Path, database: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = json!({ "id": 0, "method": "get_schema", "params": [database] });
    stream.write_all(request.to_string().as_bytes()).context("sending get_schema")?;
    for message in serde_json::Deserializer::from_reader(&stream).into_iter::<Value>() {
        let mut message = message.context("reading the answer to get_schema")?;
        if message["id"] != request["id"] {
            continue;
        }
        if !message["error"].is_null() {
            bail!("the server refuses to tell the schema of {database}: {}", message["error"]);
        }
        let mut schema = message["result"].take();
        schema.sort_all_objects();
        return Ok(serde_json::to_string_pretty(&schema)? + "\n");
    }
    bail!("the server closed the connection without an answer to get_schema")
}
