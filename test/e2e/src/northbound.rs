//! The Northbound as it is, and as a master with nothing but the API server's objects would write it from scratch.
//!
//! In: a lab. Out: dumps that can be compared. It must not write to the lab's own Northbound.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use ovenbird_lab::{Lab, Spec, wait_for};
use serde_json::Value;

use crate::{LIMIT, master};

/// What northd and people may set in our rows, or what only exists where northd runs: not part of the comparison.
const VOLATILE: [&str; 6] = ["up", "dynamic_addresses", "tag", "status", "_version", "enabled"];
/// Rows that ovsdb-server and northd keep for themselves.
const FOREIGN_TABLES: [&str; 3] = ["NB_Global", "Connection", "SSL"];
const OWNER: &str = "k8s.ovn.org/owner-controller";

/// Rows by table and UUID; each a map of columns as ovsdb-client(1) prints them.
pub type Dump = BTreeMap<String, Rows>;
/// Columns by UUID.
type Rows = BTreeMap<String, BTreeMap<String, Value>>;

/// The lab's Northbound.
///
/// # Errors
/// When the server does not answer.
pub fn dump(lab: &Lab) -> Result<Dump> {
    dump_of(lab, &lab.layout().nb())
}

/// What one of several servers has, even if another leads their cluster.
///
/// # Errors
/// When it does not answer.
pub fn dump_of(lab: &Lab, server: &str) -> Result<Dump> {
    let leader = if server.contains(',') { "--leader-only" } else { "--no-leader-only" };
    let argv = ["ovsdb-client", "--timeout=30", leader, "--format=json", "dump", server, "OVN_Northbound"];
    let text = lab.exec_node("central", &argv)?;
    let mut tables = Dump::new();
    for table in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let table = table.context("reading a dump")?;
        let name = table["caption"].as_str().unwrap_or_default().trim_end_matches(" table").to_owned();
        if FOREIGN_TABLES.contains(&name.as_str()) {
            continue;
        }
        let heads: Vec<_> = table["headings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for row in table["data"].as_array().into_iter().flatten().filter_map(Value::as_array) {
            let mut columns: BTreeMap<_, _> =
                heads.iter().map(|head| (*head).to_owned()).zip(row.iter().cloned()).collect();
            let uuid = columns.remove("_uuid").and_then(|uuid| Some(uuid[1].as_str()?.to_owned())).unwrap_or_default();
            columns.retain(|column, _| !VOLATILE.contains(&column.as_str()));
            columns.values_mut().for_each(sort_sets);
            tables.entry(name.clone()).or_default().insert(uuid, columns);
        }
    }
    Ok(tables)
}

/// Sets and maps have no order (RFC 7047 section 5.1).
fn sort_sets(value: &mut Value) {
    if let Some(members) = value.get_mut(1).and_then(Value::as_array_mut) {
        members.sort_by_key(ToString::to_string);
    }
}

/// The names in a table, sorted.
pub fn names(dump: &Dump, table: &str) -> Vec<String> {
    let rows = dump.get(table).into_iter().flat_map(BTreeMap::values);
    let mut names: Vec<_> = rows.filter_map(|row| Some(row.get("name")?.as_str()?.to_owned())).collect();
    names.sort();
    names
}

/// Rows that say of themselves, by UUID or external_ids, that they are not ours: `table uuid`.
pub fn unowned(dump: &Dump) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in dump {
        for (uuid, columns) in rows {
            let tagged = uuid.ends_with("6f76656e") && uuid.as_bytes().get(14) == Some(&b'8');
            let named = columns.get("external_ids").is_none_or(|ids| ids.to_string().contains(OWNER));
            if !tagged || !named {
                found.push(format!("{table} {uuid}"));
            }
        }
    }
    found
}

/// The differences of two dumps, for people.
pub fn difference(actual: &Dump, wanted: &Dump) -> Vec<String> {
    let tables: BTreeSet<_> = actual.keys().chain(wanted.keys()).collect();
    let empty = BTreeMap::new();
    let mut lines = Vec::new();
    for table in tables {
        let (have, want) = (actual.get(table).unwrap_or(&empty), wanted.get(table).unwrap_or(&empty));
        let only = |word: &str, these: &Rows, those: &Rows| {
            let rows = these.iter().filter(|(uuid, _)| !those.contains_key(*uuid));
            rows.map(|(uuid, columns)| format!("{word} {table} {uuid} {}", text(columns.get("name"))))
                .collect::<Vec<_>>()
        };
        lines.extend(only("orphan", have, want));
        lines.extend(only("missing", want, have));
        for (uuid, columns) in have {
            let differ =
                want.get(uuid).into_iter().flatten().filter(|(column, value)| columns.get(*column) != Some(*value));
            let name = text(columns.get("name"));
            lines.extend(differ.map(|(column, value)| {
                format!("changed {table} {uuid} {name} {column}: {}, wanted {value}", text(columns.get(column)))
            }));
        }
    }
    lines
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "-".into(), Value::to_string)
}

/// Waits until the lab's Northbound equals what a second master writes into an empty one, from the same API server. The second
/// master holds a Lease of its own; everything it could allocate is allocated, so it writes no annotation.
///
/// # Errors
/// The differences, when they never meet.
pub fn equals_from_scratch(lab: &Lab) -> Result<()> {
    let scratch = Scratch::start(lab)?;
    let mut last = Vec::new();
    let met = wait_for("the Northbound to equal one written from scratch", LIMIT, || {
        match (dump(lab), dump_of(lab, &scratch.server)) {
            (Ok(actual), Ok(wanted)) => {
                last = difference(&actual, &wanted);
                last.is_empty() && !wanted.is_empty()
            }
            _ => false,
        }
    });
    let said = || lab.layout().processes().log_tail("central/scratch-master");
    met.with_context(|| format!("{}\nthe scratch master said last:\n{}", last.join("\n"), said()))
}

/// A Northbound and a master that nobody else uses.
struct Scratch<'a> {
    lab: &'a Lab,
    server: String,
}

impl<'a> Scratch<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let (layout, processes) = (lab.layout(), lab.layout().processes());
        let home = layout.home("central");
        let file = |name: &str| home.join(name).display().to_string();
        let _ = fs::remove_file(home.join("scratch.db"));
        lab.exec_node("central", &["ovsdb-tool", "create", &file("scratch.db"), "/usr/share/ovn/ovn-nb.ovsschema"])?;
        let argv = vec![
            "ovsdb-server".into(),
            file("scratch.db"),
            format!("--remote=punix:{}", file("scratch.sock")),
            format!("--unixctl={}", file("scratch.ctl")),
        ];
        let (env, place) = (layout.env("central"), layout.place("central"));
        processes.start(Spec { name: "central/scratch-nb".into(), argv, env, place })?;
        let scratch = Self { lab, server: format!("unix:{}", file("scratch.sock")) };
        wait_for("the scratch Northbound", LIMIT, || {
            std::os::unix::net::UnixStream::connect(home.join("scratch.sock")).is_ok()
        })?;
        // The account of the lab's own master may have its one Lease only.
        let kubeconfig = layout.kubeconfig().display().to_string();
        let flags = [("--nb-address", scratch.server.as_str()), ("--kubeconfig", &kubeconfig)];
        let mut master = master::another(lab, "scratch-master", &flags)?;
        // A Lease of each start: the one before was killed, and holds its own until it runs out.
        master.argv.extend(["--lease-name".into(), format!("scratch-{}", uuid_like(lab)?)]);
        processes.start(master)?;
        Ok(scratch)
    }
}

/// Something that differs from start to start.
fn uuid_like(lab: &Lab) -> Result<String> {
    let id = lab.component("central/scratch-nb")?;
    Ok(format!("{}-{}", id.pid, id.started))
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        for component in ["central/scratch-master", "central/scratch-nb"] {
            if let Err(error) = self.lab.kill(component) {
                eprintln!("ending {component}: {error:#}");
            }
        }
    }
}
