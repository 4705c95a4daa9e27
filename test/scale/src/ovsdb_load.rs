//! `ovsdb-load`: a replica of 60,000 ports, against a raw dump of the same columns; and the memory that a port takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ovenbird_schema::northbound::{DATABASE, logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{Atom, Client, Config, Connection, Datum, Event, Handle, MonitorSpec, Op, Replica, TableSpec, Uuid};

use crate::outcome::Stopwatch;
use crate::raw::Raw;
use crate::server::Server;
use crate::{Context, Outcome, median, rss_bytes};

const PORTS: u128 = 60_000;
const PORTS_PER_SWITCH: u128 = 100;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let server = Server::start(&context.dir)?;
    fill(&server).await?;
    // The server's first dump is slower than the later ones.
    raw_dump(&server)?;

    let rss_before = rss_bytes()?;
    let (replica, _handle, _) = load(&server).await?;
    let per_port = (rss_bytes()?.saturating_sub(rss_before)) as f64 / PORTS as f64;
    let rows = (replica.len(&lsp::TABLE) + replica.len(&ls::TABLE)) as u64;
    drop((replica, _handle));

    let (mut ours, mut floor, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut usage = crate::Usage::default();
    for _ in 0..context.rounds {
        let (seconds, size) = raw_dump(&server)?;
        floor.push(seconds);
        bytes = size;
        let watch = Stopwatch::start()?;
        let (_replica, _handle, seconds) = load(&server).await?;
        ours.push(seconds);
        usage = watch.usage()?;
    }
    let more = BTreeMap::from([
        ("bytes_per_port", per_port.round().into()),
        ("wire_bytes_per_port", (bytes as f64 / PORTS as f64).round().into()),
    ]);
    let goal = "1.15 x, 800 bytes_per_port (must: 1.3 x, 1000)";
    Ok(Outcome { ours: median(ours), floor: median(floor), unit: "s", goal, usage, transactions: 0, rows, bytes, more })
}

/// A pod's port as the master writes it.
pub fn port(n: u128, switch: &str, uuid: Uuid) -> Op {
    let address = format!(
        "0a:58:0a:{:02x}:{:02x}:{:02x} 10.{}.{}.{}",
        n >> 16,
        n >> 8 & 255,
        n & 255,
        n >> 16,
        n >> 8 & 255,
        n & 255
    );
    let (namespace, pod) = (format!("namespace-{}", n % 200), format!("web-{:05x}-{n:05}", n * 7919 % 0xfffff));
    let text = |pairs: &[(&str, &str)]| Datum::map(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())));
    let row = vec![
        ("name", format!("{namespace}_{pod}").into()),
        ("addresses", Datum::set([Atom::from(address.as_str())])),
        ("port_security", Datum::set([Atom::from(address.as_str())])),
        (
            "options",
            text(&[
                ("requested-chassis", switch),
                ("iface-id-ver", &Uuid::from_u128((n << 64) | (n * 7919)).to_string()),
            ]),
        ),
        ("external_ids", text(&[("namespace", &namespace), ("pod", "true")])),
    ];
    Op::Insert { table: "Logical_Switch_Port", uuid: Some(uuid), row }
}

async fn fill(server: &Server) -> anyhow::Result<()> {
    let mut connection = Connection::open(&[server.endpoint()], None, Duration::from_secs(60)).await?;
    for switch in 0..PORTS / PORTS_PER_SWITCH {
        let name = format!("node-{switch}");
        let numbers = || switch * PORTS_PER_SWITCH..(switch + 1) * PORTS_PER_SWITCH;
        let id = |n: u128| Uuid::from_u128(n * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let mut ops: Vec<Op> = numbers().map(|n| port(n, &name, id(n))).collect();
        let members = Datum::set(numbers().map(|n| Atom::from(id(n))));
        let row = vec![("name", name.into()), ("ports", members)];
        ops.push(Op::Insert { table: "Logical_Switch", uuid: None, row });
        let reply = connection.transact("OVN_Northbound", &ops).await?;
        ensure!(reply.is_committed(), "fill the database: {:?}", reply.error());
    }
    Ok(())
}

fn spec() -> MonitorSpec {
    MonitorSpec::new().with(TableSpec::all(&lsp::TABLE)).with(TableSpec::all(&ls::TABLE))
}

/// From nothing to a complete replica; the seconds it took.
async fn load(server: &Server) -> anyhow::Result<(Replica, Handle, f64)> {
    let began = Instant::now();
    let mut replica = Replica::new(&DATABASE, &spec());
    let (handle, mut events) = Client::spawn(Config::new(vec![server.endpoint()]), &DATABASE, spec());
    let mut changes = Vec::new();
    loop {
        match events.recv().await.context("the client ended")? {
            Event::Connected(info) => replica.set_server(&info),
            Event::Update(update) => {
                replica.apply(&update, &mut changes)?;
                break;
            }
            other => bail!("instead of the contents: {other:?}"),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    ensure!(changes.len() as u128 == PORTS + PORTS / PORTS_PER_SWITCH, "{} rows", changes.len());
    Ok((replica, handle, seconds))
}

/// The same columns over a raw socket; seconds and bytes.
fn raw_dump(server: &Server) -> anyhow::Result<(f64, u64)> {
    let began = Instant::now();
    let mut raw = Raw::connect(server.socket())?;
    raw.send(br#"{"method":"monitor_cond_since","params":["OVN_Northbound","m",{"Logical_Switch_Port":[{}],"Logical_Switch":[{}]},"00000000-0000-0000-0000-000000000000"],"id":1}"#)?;
    let bytes = raw.receive(1)?.len() as u64;
    Ok((began.elapsed().as_secs_f64(), bytes))
}
