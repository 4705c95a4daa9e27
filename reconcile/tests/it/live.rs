//! A real ovsdb-server behind the tests' [`Database`], spoken to by a blocking connection of a few lines.
//!
//! Each server has its own temporary folder and is ended by its own handle. Must not: test the client (`ovsdb` does).

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ovenbird_schema::northbound::DATABASE;
use ovsdb::{DbError, Op, OpResult, ServerInfo, TxnReply};
use serde_json::{Value, json};

use crate::world::Database;

type Messages = serde_json::StreamDeserializer<'static, serde_json::de::IoRead<BufReader<UnixStream>>, Value>;

/// A server and one connection to it.
pub struct Live {
    child: Child,
    _dir: tempfile::TempDir,
    stream: UnixStream,
    messages: Messages,
    schema: String,
    tables: BTreeMap<String, Value>,
    updates: Vec<String>,
    next_id: u64,
}

/// Places of the servers to test: `/`, and other versions where they are unpacked.
pub fn roots() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/")];
    for root in ["/opt/ovn/25.03", "/opt/ovn/26.03"] {
        if Path::new(root).join("usr/sbin/ovsdb-server").exists() && Path::new(root).join("tmp").exists() {
            roots.push(root.into());
        } else {
            println!("SKIP: no ovsdb-server in {root}; the one of the system is tested");
        }
    }
    roots
}

impl Live {
    /// A standalone OVN_Northbound of the installation in `root`.
    pub fn start(root: &Path) -> Live {
        let dir = tempfile::tempdir_in(root.join("tmp")).unwrap();
        let inside = Path::new("/").join(dir.path().strip_prefix(root).unwrap());
        let schema = "/usr/share/ovn/ovn-nb.ovsschema";
        let file = root.join(schema.trim_start_matches('/'));
        let made = Command::new("ovsdb-tool").arg("create").arg(dir.path().join("nb.db")).arg(file).status();
        assert!(made.unwrap().success(), "ovsdb-tool create");
        let name = |suffix: &str| inside.join(suffix).display().to_string();
        let child = Command::new("chroot")
            .arg(root)
            .args(["/usr/sbin/ovsdb-server", "-vconsole:off", &format!("--remote=punix:{}", name("sock"))])
            .args([format!("--unixctl={}", name("ctl")), name("nb.db")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stream = connect(&dir.path().join("sock"));
        let reader = BufReader::new(stream.try_clone().unwrap());
        let messages = serde_json::Deserializer::from_reader(reader).into_iter();
        let mut live = Live {
            child,
            _dir: dir,
            stream,
            messages,
            schema: String::new(),
            tables: BTreeMap::new(),
            updates: Vec::new(),
            next_id: 0,
        };
        let schema = live.request("get_schema", &json!([DATABASE.name]));
        live.schema = schema.to_string();
        let known = DATABASE.tables.iter().filter(|t| schema["tables"].get(t.name).is_some());
        live.tables = known.map(|t| (t.name.to_owned(), json!([{}]))).collect();
        live.request("monitor_cond", &json!([DATABASE.name, "writer", live.tables]));
        live
    }

    fn request(&mut self, method: &str, params: &Value) -> Value {
        self.next_id += 1;
        let request = json!({"id": self.next_id, "method": method, "params": params});
        self.stream.write_all(request.to_string().as_bytes()).unwrap();
        loop {
            let mut message = self.messages.next().unwrap().unwrap();
            if message["method"] == "update2" && message["params"][0] == "writer" {
                self.updates.push(message["params"][1].to_string());
            } else if message["id"] == json!(self.next_id) {
                assert!(message["error"].is_null(), "{message}");
                return message["result"].take();
            }
        }
    }
}

impl Database for Live {
    fn transact(&mut self, ops: &[Op]) -> (TxnReply, Vec<String>) {
        let mut params = vec![json!(DATABASE.name)];
        for op in ops {
            let mut text = Vec::new();
            op.write_json(&mut text);
            params.push(serde_json::from_slice(&text).unwrap());
        }
        let result = self.request("transact", &Value::Array(params));
        let mut results: Vec<OpResult> = result.as_array().unwrap().iter().map(op_result).collect();
        let commit_error = results.split_off(ops.len()).pop().and_then(|r| match r {
            OpResult::Error(error) => Some(error),
            _ => None,
        });
        (TxnReply { ops: results, commit_error }, std::mem::take(&mut self.updates))
    }

    fn contents(&mut self) -> String {
        let tables = json!(self.tables);
        let contents = self.request("monitor_cond", &json!([DATABASE.name, "look", tables]));
        self.request("monitor_cancel", &json!(["look"]));
        contents.to_string().replace("\"initial\":", "\"insert\":")
    }

    fn server(&self) -> Option<ServerInfo> {
        Some(ServerInfo::from_schema(&self.schema, &DATABASE).unwrap())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Connects as soon as the server listens.
fn connect(path: &Path) -> UnixStream {
    let began = std::time::Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        assert!(began.elapsed().as_secs() < 60, "no listener on {}", path.display());
        std::thread::yield_now();
    }
}

fn op_result(result: &Value) -> OpResult {
    if result.is_null() {
        return OpResult::Skipped;
    }
    match result["error"].as_str() {
        Some(error) => {
            OpResult::Error(DbError { error: error.into(), details: result["details"].as_str().map(str::to_owned) })
        }
        None => result["count"].as_u64().map_or(OpResult::Done, OpResult::Count),
    }
}
