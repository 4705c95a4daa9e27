//! JSON-RPC 1.0 as daemons of OVS speak it on unix sockets: one request at a time.
//!
//! Must not: know a method.

use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Deserializer, Value, json};

/// A connection.
pub struct Rpc {
    writer: UnixStream,
    answers: Box<dyn Iterator<Item = serde_json::Result<Value>>>,
}

impl Rpc {
    /// Connects; `None` while nobody listens.
    pub fn connect(socket: &Path) -> Option<Rpc> {
        let writer = UnixStream::connect(socket).ok()?;
        let reader = BufReader::new(writer.try_clone().unwrap());
        Some(Rpc { writer, answers: Box::new(Deserializer::from_reader(reader).into_iter()) })
    }

    /// Asks and waits for the answer; the error is the peer's.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        self.send(&json!({"id": 0, "method": method, "params": params}));
        loop {
            let mut message = self.answers.next().expect("the daemon lives").unwrap();
            if message["method"] == "echo" {
                self.send(&json!({"id": message["id"], "result": message["params"], "error": null}));
            } else if message["id"] == 0 {
                return if message["error"].is_null() {
                    Ok(message["result"].take())
                } else {
                    Err(message["error"].take())
                };
            }
        }
    }

    /// Tells the daemon to end; it may have ended by itself, which is as well.
    pub fn exit(&mut self) {
        let message = json!({"id": 0, "method": "exit", "params": []});
        let _ = self.writer.write_all(message.to_string().as_bytes());
    }

    fn send(&mut self, message: &Value) {
        self.writer.write_all(message.to_string().as_bytes()).unwrap();
    }
}
