//! Times of the writer without a server: `cargo run --release -p ovenbird-reconcile --example speed [PODS]`.
//!
//! Prints the CPU time of a cold start's plan, of a comparison of everything that finds nothing, and of one pod coming and going.

use std::time::Duration;

use ovenbird_reconcile::{
    CommitConfig, Committer, Contribution, Desired, DesiredRow, Output, Owner, OwnerKind, RowId, Scope, Want, Zone,
    plan, row_uuid,
};
use ovenbird_schema::northbound::{DATABASE, address_set, logical_switch as switch, logical_switch_port as port};
use ovsdb::{Datum, MonitorSpec, Replica, TxnReply};

const NODE: OwnerKind = OwnerKind { rank: 10, name: "Node" };
const SELECTOR: OwnerKind = OwnerKind { rank: 20, name: "Selector" };
const POD: OwnerKind = OwnerKind { rank: 30, name: "Pod" };
const PODS_PER_NODE: usize = 50;

fn main() {
    let pods: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5000);
    let mut desired = Desired::new(Zone(0), &DATABASE);
    let start = cpu_time();
    fill(&mut desired, pods);
    println!("set: {pods} pods in {:?}", (cpu_time() - start));

    let mut replica = Replica::new(&DATABASE, &MonitorSpec::everything(&DATABASE));
    let start = cpu_time();
    let whole = plan(&mut desired, &replica, Scope::Dirty);
    println!("cold plan: {} operations in {:?}", whole.ops().count(), (cpu_time() - start));

    replica.apply_json(&contents(&desired), &mut Vec::new()).unwrap_or_else(|e| println!("contents: {e}"));
    let start = cpu_time();
    let nothing = plan(&mut desired, &replica, Scope::All);
    println!("audit: {} operations in {:?}", nothing.ops().count(), (cpu_time() - start));

    let mut committer = Committer::new(CommitConfig::default(), None);
    committer.allow_deletes(&mut desired, true);
    println!("first pass: {:?}", committer.next(&mut desired, &replica, Duration::ZERO).map(|b| b.rows));
    let rounds = 1000;
    let start = cpu_time();
    for n in 0..rounds {
        let owner = Owner::new(POD, format!("default/new-{n}"));
        desired.set(&owner, pod(&owner, pods + n, n));
        let batch = committer.next(&mut desired, &replica, Duration::ZERO);
        assert_eq!(batch.map(|b| b.rows), Some(3));
        committer.on_reply(&mut desired, Ok(&TxnReply::default()), Duration::ZERO);
    }
    println!("one pod: {:?} from event to transaction", (cpu_time() - start) / rounds as u32);
}

/// CPU time of this thread: other load on the machine does not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn fill(desired: &mut Desired, pods: usize) {
    for n in 0..pods.div_ceil(PODS_PER_NODE) {
        let owner = Owner::new(NODE, format!("node-{n}"));
        let columns = vec![wish(switch::name(format!("node-{n}"))), (switch::PORTS, Want::Members)];
        let row = DesiredRow { zone: Zone(0), table: &switch::TABLE, id: switch_id(n), columns };
        desired.set(&owner, Output { rows: vec![row], ..Output::default() });
    }
    let owner = Owner::new(SELECTOR, "all");
    let columns = vec![wish(address_set::name("all")), (address_set::ADDRESSES, Want::Members)];
    let row = DesiredRow { zone: Zone(0), table: &address_set::TABLE, id: set_id(), columns };
    desired.set(&owner, Output { rows: vec![row], ..Output::default() });
    for n in 0..pods {
        let owner = Owner::new(POD, format!("default/pod-{n}"));
        desired.set(&owner, pod(&owner, n, n / PODS_PER_NODE));
    }
}

fn pod(owner: &Owner, n: usize, node: usize) -> Output {
    let id = RowId::Ours(row_uuid("Logical_Switch_Port", owner, ""));
    let address = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    let columns = vec![
        wish(port::name(owner.key.replace('/', "_"))),
        wish(port::addresses([format!("0a:58:0a:00:00:01 {address}")])),
        wish(port::port_security([format!("0a:58:0a:00:00:01 {address}")])),
        (port::OPTIONS, Want::Keys([("requested-chassis".into(), Some(format!("node-{node}").into()))].into())),
        (
            port::EXTERNAL_IDS,
            Want::Keys([("namespace".into(), Some("default".into())), ("pod".into(), Some("true".into()))].into()),
        ),
    ];
    let member = |table, row, column, member| Contribution { zone: Zone(0), table, row, column, member };
    let contributions = vec![
        member(&switch::TABLE, switch_id(node % 100), switch::PORTS, id.uuid().into()),
        member(&address_set::TABLE, set_id(), address_set::ADDRESSES, address.into()),
    ];
    let rows = vec![DesiredRow { zone: Zone(0), table: &port::TABLE, id, columns }];
    Output { rows, contributions, ..Output::default() }
}

fn switch_id(n: usize) -> RowId {
    RowId::Ours(row_uuid("Logical_Switch", &Owner::new(NODE, format!("node-{n}")), ""))
}

fn set_id() -> RowId {
    RowId::Ours(row_uuid("Address_Set", &Owner::new(SELECTOR, "all"), ""))
}

fn wish((column, value): (ovsdb::ColumnId, Datum)) -> (ovsdb::ColumnId, Want) {
    (column, Want::Exactly(value))
}

/// The desired state as a monitor would tell it.
fn contents(desired: &Desired) -> String {
    let mut tables = std::collections::BTreeMap::<&str, Vec<String>>::new();
    for row in desired.rows() {
        let columns: Vec<String> = row
            .columns
            .iter()
            .map(|(column, value)| {
                let mut json = Vec::new();
                value.write_json(&mut json);
                format!("\"{}\":{}", row.table.column(*column).name, String::from_utf8_lossy(&json))
            })
            .collect();
        let text = format!("\"{}\":{{\"insert\":{{{}}}}}", row.uuid, columns.join(","));
        tables.entry(row.table.name).or_default().push(text);
    }
    let tables: Vec<String> = tables.iter().map(|(t, rows)| format!("\"{t}\":{{{}}}", rows.join(","))).collect();
    format!("{{{}}}", tables.join(","))
}
