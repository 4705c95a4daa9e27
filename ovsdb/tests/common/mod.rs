//! Helpers of the tests: a real ovsdb-server in a temporary folder, and descriptions of some OVN_Northbound tables.
//!
//! A server is started detached, which returns once it listens, and ended by its pid when dropped.

#![allow(dead_code, reason = "each test binary uses its own part of the helpers")]
#![allow(clippy::expect_used, reason = "a test that cannot set up fails by panicking")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ovsdb::{
    AtomKind, BaseType, ClientError, ColumnDesc, ColumnId, ColumnType, DatabaseDesc, Endpoint, Event, Handle, Replica,
    RowChange, TableDesc, TxnReply, Uuid,
};
use tokio::sync::mpsc::UnboundedReceiver;

pub const NB_SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";

const STRING: BaseType = BaseType::plain(AtomKind::String);
const REF: BaseType =
    BaseType { kind: AtomKind::Uuid, ref_table: Some("Logical_Switch_Port"), strong: true, enumeration: &[] };

pub const fn column(name: &'static str, key: BaseType, value: Option<BaseType>, min: u8, max: u32) -> ColumnDesc {
    ColumnDesc { name, ty: ColumnType { key, value, min, max }, mutable: true, versions: &[] }
}

const fn table(name: &'static str, index: u16, is_root: bool, columns: &'static [ColumnDesc]) -> TableDesc {
    TableDesc { name, index, is_root, is_singleton: false, columns, indexes: &[], versions: &[] }
}

pub mod ls {
    use super::*;
    pub const EXTERNAL_IDS: ColumnId = ColumnId(0);
    pub const NAME: ColumnId = ColumnId(1);
    pub const PORTS: ColumnId = ColumnId(3);
    pub static TABLE: TableDesc = table(
        "Logical_Switch",
        0,
        true,
        &[
            column("external_ids", STRING, Some(STRING), 0, u32::MAX),
            column("name", STRING, None, 1, 1),
            column("no_such_column", STRING, None, 0, 1),
            column("ports", REF, None, 0, u32::MAX),
        ],
    );
}

pub mod lsp {
    use super::*;
    pub const ADDRESSES: ColumnId = ColumnId(0);
    pub const ENABLED: ColumnId = ColumnId(1);
    pub const EXTERNAL_IDS: ColumnId = ColumnId(2);
    pub const NAME: ColumnId = ColumnId(3);
    pub const OPTIONS: ColumnId = ColumnId(4);
    pub const TAG: ColumnId = ColumnId(6);
    pub static TABLE: TableDesc = table(
        "Logical_Switch_Port",
        1,
        false,
        &[
            column("addresses", STRING, None, 0, u32::MAX),
            column("enabled", BaseType::plain(AtomKind::Boolean), None, 0, 1),
            column("external_ids", STRING, Some(STRING), 0, u32::MAX),
            column("name", STRING, None, 1, 1),
            column("options", STRING, Some(STRING), 0, u32::MAX),
            column("port_security", STRING, None, 0, u32::MAX),
            column("tag", BaseType::plain(AtomKind::Integer), None, 0, 1),
            column("type", STRING, None, 1, 1),
            column("up", BaseType::plain(AtomKind::Boolean), None, 0, 1),
        ],
    );
}

pub mod nothing {
    use super::*;
    pub static TABLE: TableDesc = table("No_Such_Table", 2, true, &[column("name", STRING, None, 1, 1)]);
}

/// A part of OVN_Northbound, and things that it lacks.
pub static NB: DatabaseDesc =
    DatabaseDesc { name: "OVN_Northbound", tables: &[&ls::TABLE, &lsp::TABLE, &nothing::TABLE] };

/// A running ovsdb-server.
pub struct Server {
    dir: PathBuf,
    name: String,
    remotes: Vec<String>,
    options: Vec<String>,
    /// Kept here, because the folder with the pid file may go before the server does.
    pid: Cell<Option<u32>>,
}

impl Server {
    /// A standalone server of the Northbound schema in `dir`, on a unix socket and on `remotes`.
    pub fn standalone(dir: &Path, remotes: &[&str], options: &[&str]) -> Server {
        let server = Server::new(dir, "nb", remotes, options);
        run("ovsdb-tool", &["create", &server.file("db"), NB_SCHEMA]);
        server.start();
        server
    }

    /// A member of a Raft cluster on `127.0.0.1:raft_port`; the first one creates it.
    pub fn member(dir: &Path, name: &str, raft_port: u16, first: Option<u16>) -> Server {
        let server = Server::new(dir, name, &[], &[]);
        let here = format!("tcp:127.0.0.1:{raft_port}");
        let made = match first {
            None => run("ovsdb-tool", &["create-cluster", &server.file("db"), NB_SCHEMA, &here]),
            Some(port) => {
                let there = format!("tcp:127.0.0.1:{port}");
                run("ovsdb-tool", &["join-cluster", &server.file("db"), "OVN_Northbound", &here, &there])
            }
        };
        assert_eq!(made, "");
        server.start();
        server
    }

    fn new(dir: &Path, name: &str, remotes: &[&str], options: &[&str]) -> Server {
        let own = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
        Server {
            dir: dir.to_owned(),
            name: name.to_owned(),
            remotes: own(remotes),
            options: own(options),
            pid: Cell::new(None),
        }
    }

    /// Starts it (again), and returns when it listens.
    pub fn start(&self) {
        let mut args = vec![
            "--detach".to_owned(),
            "--no-chdir".to_owned(),
            format!("--pidfile={}", self.file("pid")),
            format!("--unixctl={}", self.file("ctl")),
            format!("--log-file={}", self.file("log")),
            "-vconsole:off".to_owned(),
            format!("--remote=punix:{}", self.file("sock")),
        ];
        args.extend(self.remotes.iter().map(|r| format!("--remote={r}")));
        args.extend(self.options.iter().cloned());
        args.push(self.file("db"));
        run("ovsdb-server", &args.iter().map(String::as_str).collect::<Vec<_>>());
        let pid = std::fs::read_to_string(self.file("pid")).expect("a pid file");
        self.pid.set(Some(pid.trim().parse().expect("a pid")));
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.file("sock").into())
    }

    /// Kills it without a warning, and returns when it is gone.
    pub fn kill(&self) {
        if let Some(pid) = self.pid.take() {
            signal("KILL", pid);
            // A zombie that init has not yet fetched has no command line.
            wait(|| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.is_empty()) || !exists(pid));
            std::fs::remove_file(self.file("pid")).ok();
        }
    }

    /// Sends a signal by name, e.g. `STOP`.
    pub fn signal(&self, name: &str) {
        signal(name, self.pid.get().expect("running"));
    }

    /// Runs an `ovs-appctl` command.
    pub fn appctl(&self, args: &[&str]) -> String {
        let target = self.file("ctl");
        let mut all = vec!["-t", &target];
        all.extend(args);
        run("ovs-appctl", &all)
    }

    fn file(&self, suffix: &str) -> String {
        self.dir.join(format!("{}.{suffix}", self.name)).display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn signal(name: &str, pid: u32) {
    // The process may be gone already, which is as well.
    drop(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).output());
}

/// Waits for a condition of another process.
pub fn wait(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "a condition has not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program to its end; its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}

/// An owner as a test needs it: a replica that follows the events.
pub struct Owner {
    pub handle: Handle,
    pub events: UnboundedReceiver<Event>,
    pub replica: Replica,
    /// What the last update changed.
    pub changes: Vec<RowChange>,
    /// Whether the last update was a whole dump.
    pub was_reset: bool,
}

impl Owner {
    pub fn spawn(config: ovsdb::Config, database: &'static DatabaseDesc, spec: ovsdb::MonitorSpec) -> Owner {
        let replica = Replica::new(database, &spec);
        let (handle, events) = ovsdb::Client::spawn(config, database, spec);
        Owner { handle, events, replica, changes: Vec::new(), was_reset: false }
    }

    /// The next event, after applying it.
    pub async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        let event = event.expect("an event within a minute").expect("a living client");
        match &event {
            Event::Connected(server) => self.replica.set_server(server),
            Event::Update(update) => {
                self.changes.clear();
                self.was_reset = update.is_reset();
                self.replica.apply(update, &mut self.changes).expect("decodes");
            }
            _ => {}
        }
        event
    }

    /// Events up to the first that `wanted` turns into something.
    pub async fn until<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    /// Waits for a connection and the update that follows; the endpoint.
    pub async fn connected(&mut self) -> String {
        let endpoint = self.until(|e| if let Event::Connected(s) = e { Some(s.endpoint) } else { None }).await;
        assert!(matches!(self.next().await, Event::Update(_)), "the event after Connected is an Update");
        endpoint
    }

    /// Waits for the end of a connection; the whole chain of reasons.
    pub async fn disconnected(&mut self) -> String {
        let error = self.until(|e| if let Event::Disconnected(e) = e { Some(e) } else { None }).await;
        chain(&error)
    }

    /// Runs a transaction to its end.
    pub async fn transact(&mut self, ops: &[ovsdb::Op]) -> Result<TxnReply, ClientError> {
        let sent = self.handle.transact(ops);
        self.until(|e| match e {
            Event::Reply { id, result } if id == sent => Some(result),
            _ => None,
        })
        .await
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A UUID by number.
pub fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}
