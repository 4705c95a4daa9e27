//! A Northbound, a Southbound, northd and ovn-trace, in a folder of their own.
//!
//! Rows go in whole: what was there before is gone. `OVENBIRD_TEST_OVN` names a tree to take OVN from, as for labs; that needs root. Must not:
//! know policies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ovenbird_lab::Place;
use ovenbird_lab::place::RootTree;
use ovenbird_reconcile::WholeRow;
use ovenbird_verdict::rows::Way;
use ovenbird_verdict::{Packet, Protocol};
use serde_json::{Value, json};

use crate::rpc::Rpc;

/// Look-ups in connection tracking that a tracer answers before it forgets its flags, and how many a packet may take: two on each switch.
const LOOK_UPS: usize = 4_000;
const LOOK_UPS_OF_PACKET: usize = 4;
/// How long northd may take, in milliseconds.
const PATIENCE: u32 = 60_000;

/// See the file header. The daemons end with this value.
pub struct Ovn {
    northbound: Rpc,
    /// For the first packet of a connection, and for answers. None before the first rows.
    tracers: Option<[Tracer; 2]>,
    /// What the server has in tables and columns.
    schema: Value,
    /// How often rows were replaced; column `nb_cfg`.
    count: u64,
    daemons: Vec<Child>,
    home: Home,
}

/// The folder, and where OVN's programs come from.
struct Home {
    place: Place,
    dir: tempfile::TempDir,
}

/// A daemon ovn-trace that finds every connection in one state. It reads the rows once, when it starts, and takes the flags then, one for each
/// look-up that it will make: its command `trace` takes none, whatever the manual says.
struct Tracer {
    rpc: Rpc,
    /// Look-ups for which there are flags.
    left: usize,
}

impl Ovn {
    /// Starts all; `None` where OVN is not installed.
    pub fn start() -> Option<Ovn> {
        let home = Home::new();
        let tools = ["ovsdb-server", "ovn-northd", "ovn-trace"];
        let found = |tool: &&str| home.runs(&[tool, "--version"]);
        if !tools.iter().all(found) {
            assert!(std::env::var_os("CI").is_none(), "OVN is needed in CI");
            println!("SKIP: ovsdb-server, ovn-northd and ovn-trace are needed (packages ovn-central, ovn-common)");
            return None;
        }
        let mut daemons = Vec::new();
        for (db, schema) in [("nb", "/usr/share/ovn/ovn-nb.ovsschema"), ("sb", "/usr/share/ovn/ovn-sb.ovsschema")] {
            assert!(home.runs(&["ovsdb-tool", "create", &format!("{db}.db"), schema]));
            let (socket, control) = (format!("--remote=punix:{db}.sock"), format!("--unixctl={db}.ctl"));
            daemons.push(home.spawn(&["ovsdb-server", &format!("{db}.db"), &socket, &control]));
        }
        let mut northbound = connect(&home.dir.path().join("nb.sock"));
        connect(&home.dir.path().join("sb.sock"));
        let [nb, sb] = ["nb", "sb"].map(|db| format!("--ovn{db}-db=unix:{}/{db}.sock", home.dir.path().display()));
        daemons.push(home.spawn(&["ovn-northd", &nb, &sb, "--unixctl=northd.ctl"]));
        let schema = northbound.call("get_schema", &json!(["OVN_Northbound"])).unwrap();
        let mut ovn = Ovn { northbound, tracers: None, schema, count: 0, daemons, home };
        ovn.transact(vec![json!({"op": "insert", "table": "NB_Global", "row": {}})]);
        Some(ovn)
    }

    /// Whether the server's ACLs have tiers.
    pub fn has_acl_tiers(&self) -> bool {
        self.schema["tables"]["ACL"]["columns"].get("tier").is_some()
    }

    /// Makes the Northbound hold these rows and no others, and waits until ovn-trace has what northd made of them.
    pub fn hold(&mut self, rows: &[WholeRow]) {
        self.count += 1;
        // A UUID cannot go and come in one transaction.
        let tables = self.schema["tables"].as_object().unwrap().keys();
        let cleared = tables.filter(|table| *table != "NB_Global");
        let deletes: Vec<Value> = cleared.map(|table| json!({"op": "delete", "table": table, "where": []})).collect();
        self.transact(deletes);
        let known = rows.iter().filter(|row| self.schema["tables"].get(row.table.name).is_some());
        let mut inserts: Vec<Value> = known.map(|row| self.insert(row)).collect();
        inserts.push(json!({"op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": self.count}}));
        self.transact(inserts);
        // northd says so once the Southbound has it all.
        self.transact(vec![json!({"op": "wait", "timeout": PATIENCE, "table": "NB_Global", "where": [],
            "columns": ["sb_cfg"], "until": "==", "rows": [{"sb_cfg": self.count}]})]);
        self.tracers = Some(["new", "est,rpl"].map(|state| Tracer::start(&self.home, state, self.count)));
    }

    fn transact(&mut self, mut ops: Vec<Value>) {
        ops.insert(0, json!("OVN_Northbound"));
        let answers = self.northbound.call("transact", &Value::Array(ops)).unwrap();
        let errors: Vec<&Value> = answers.as_array().unwrap().iter().filter(|a| a.get("error").is_some()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    fn insert(&self, row: &WholeRow) -> Value {
        let columns = &self.schema["tables"][row.table.name]["columns"];
        let mut values = serde_json::Map::new();
        for (column, value) in &row.columns {
            let name = row.table.column(*column).name;
            if columns.get(name).is_some() {
                let mut text = Vec::new();
                value.write_json(&mut text);
                values.insert(name.to_owned(), serde_json::from_slice(&text).unwrap());
            }
        }
        json!({"op": "insert", "table": row.table.name, "uuid": row.uuid.to_string(), "row": values})
    }

    /// What ovn-trace says of the first packet of a connection.
    pub fn trace(&mut self, packet: &Packet, way: &Way<'_>) -> String {
        self.tracers.as_mut().unwrap()[0].trace(packet, way)
    }

    /// What it says of an answer, which is a packet of its own here.
    pub fn trace_reply(&mut self, packet: &Packet, way: &Way<'_>) -> String {
        self.tracers.as_mut().unwrap()[1].trace(packet, way)
    }
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let shared = vec![dir.path().to_owned()];
        let root = std::env::var_os("OVENBIRD_TEST_OVN").map(|tree| RootTree { dir: PathBuf::from(tree), shared });
        Home { place: Place { root, ..Place::default() }, dir }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        for variable in ["OVS_RUNDIR", "OVN_RUNDIR", "OVS_DBDIR", "OVN_DBDIR", "OVS_LOGDIR", "OVN_LOGDIR"] {
            command.env(variable, self.dir.path());
        }
        command
    }

    fn spawn(&self, words: &[&str]) -> Child {
        self.place.spawn(&mut self.command(words)).unwrap()
    }

    /// Runs a command to its end; whether it could, and succeeded.
    fn runs(&self, words: &[&str]) -> bool {
        self.place.spawn(&mut self.command(words)).is_ok_and(|mut child| child.wait().unwrap().success())
    }
}

impl Tracer {
    fn start(home: &Home, state: &str, count: u64) -> Tracer {
        let dir = home.dir.path();
        let control = dir.join(format!("trace-{count}-{}.ctl", state.replace(',', "-")));
        let arguments = [format!("--db=unix:{}/sb.sock", dir.display()), format!("--unixctl={}", control.display())];
        let flag = format!("--ct={state}");
        let mut words = vec!["ovn-trace", &arguments[0], &arguments[1], "--detach", "--no-chdir"];
        words.extend(std::iter::repeat_n(&*flag, LOOK_UPS));
        // It detaches once it has read the rows; `exit` ends it.
        assert!(home.runs(&words));
        Tracer { rpc: connect(&control), left: LOOK_UPS }
    }

    fn trace(&mut self, packet: &Packet, way: &Way<'_>) -> String {
        assert!(self.left >= LOOK_UPS_OF_PACKET, "fewer packets between two calls of hold");
        self.left -= LOOK_UPS_OF_PACKET;
        let answer = self.rpc.call("trace", &json!(["--summary", way.switch, flow(packet, way)])).unwrap();
        let text = answer.as_str().unwrap();
        assert!(text.contains("ingress("), "{packet}: {text}");
        text.to_owned()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.rpc.exit();
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        self.tracers = None;
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A packet as ovn-trace(8) takes it.
fn flow(packet: &Packet, way: &Way<'_>) -> String {
    let mac = |mac: u64| mac.to_be_bytes()[2..].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    let family = if packet.source.is_ipv4() { "ip4" } else { "ip6" };
    let (Packet { source, destination, source_port, port, .. }, Way { inport, .. }) = (packet, way);
    let protocol = match packet.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp if family == "ip4" => "icmp4.type==8 && icmp4.code==0",
        Protocol::Icmp => "icmp6.type==128 && icmp6.code==0",
    };
    let ports = format!("{protocol}.src=={source_port} && {protocol}.dst=={port}");
    let transport = if packet.protocol == Protocol::Icmp { protocol } else { &ports };
    format!(
        "inport==\"{inport}\" && eth.src=={} && eth.dst=={} && {family}.src=={source} && {family}.dst=={destination} && ip.ttl==64 && {transport}",
        mac(way.eth_src),
        mac(way.eth_dst)
    )
}

/// Connects as soon as somebody listens.
fn connect(socket: &Path) -> Rpc {
    loop {
        match Rpc::connect(socket) {
            Some(rpc) => return rpc,
            None => std::thread::yield_now(),
        }
    }
}
