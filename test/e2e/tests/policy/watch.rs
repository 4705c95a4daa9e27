//! A truth table that is looked at all the time, while something happens to the cluster.
//!
//! ```text
//! denied rows  -- a datagram every so often, each from one socket ------> any answer: opened
//! all rows     -- whole rounds, new connections ------------------------> answers and silences that should not be
//! allowed ways -- streams of datagrams (`ovenbird_e2e::pulse`) ----------> every block that was lost
//! ```
//! Inputs: a table. Output: what was seen against it since it was looked at last. Must not: know what happens to the cluster.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ovenbird_e2e::LIMIT;
use ovenbird_e2e::pulse::{self, Lap, Pulse};
use ovenbird_e2e::witness::Protocol as Plain;
use ovenbird_lab::{Place, wait_for};
use ovenbird_verdict::{Cluster, Packet, Protocol};

use crate::table::{Row, Table};
use crate::world::{World, socket};

/// Between two datagrams of a denied row.
const DRIP: Duration = Duration::from_millis(40);
/// Between two blocks of a stream.
const BEAT: Duration = Duration::from_millis(20);
/// Port of the streams' echoes.
const ECHO: u16 = 9000;
/// Streams of each family.
const STREAMS: usize = 10;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Rounds of the whole table.
    pub rounds: usize,
    /// Datagrams of denied rows.
    pub drips: u64,
    /// Denied, and answered.
    pub opened: Vec<String>,
    /// Allowed, and silent; or another trouble.
    pub silent: Vec<String>,
}

/// A running watch.
pub struct Watch {
    end: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Begins to watch a table.
    pub fn start(table: &Table) -> Watch {
        let (end, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (flag, shared, whole) = (end.clone(), seen.clone(), table.clone());
        let mut workers = vec![thread::spawn(move || rounds(&whole, &flag, &shared))];
        let mut by_place: Vec<(Place, Vec<Row>)> = Vec::new();
        for row in table.denied_rows().filter(|row| row.packet.protocol == Protocol::Udp) {
            match by_place.iter_mut().find(|(place, _)| place == row.place()) {
                Some((_, rows)) => rows.push(row.clone()),
                None => by_place.push((row.place().clone(), vec![row.clone()])),
            }
        }
        for (place, rows) in by_place {
            let (flag, shared) = (end.clone(), seen.clone());
            workers.push(thread::spawn(move || place.run(|| drip(&rows, &flag, &shared))));
        }
        Watch { end, seen, workers }
    }

    /// Waits until this many more rounds have begun and ended.
    pub fn go_on(&self, count: usize) -> Result<()> {
        // The one that is under way began before.
        let goal = lock(&self.seen).rounds + count + 1;
        wait_for("rounds of the table", LIMIT, || lock(&self.seen).rounds >= goal || self.workers[0].is_finished())
    }

    /// What was seen since this was asked last.
    pub fn lap(&self) -> Seen {
        let mut seen = lock(&self.seen);
        Seen {
            rounds: seen.rounds,
            drips: seen.drips,
            opened: seen.opened.split_off(0),
            silent: seen.silent.split_off(0),
        }
    }

    /// Ends the watch, and tells what was seen since it was asked last.
    pub fn stop(mut self) -> Result<Seen> {
        self.end.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a watch panicked"))??;
        }
        Ok(self.lap())
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rounds(table: &Table, end: &AtomicBool, seen: &Mutex<Seen>) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        let (opened, silent) = table.look()?;
        let mut seen = lock(seen);
        seen.rounds += 1;
        seen.opened.extend(opened);
        seen.silent.extend(silent);
    }
    Ok(())
}

fn drip(rows: &[Row], end: &AtomicBool, seen: &Mutex<Seen>) -> Result<()> {
    let open = |row: &Row| {
        let any = if row.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let opened = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|own| {
            own.connect(row.to)?;
            own.set_nonblocking(true)?;
            Ok(own)
        });
        opened.with_context(|| row.title())
    };
    let sockets = rows.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut buffer = [0; 128];
    while !end.load(Ordering::Relaxed) {
        let next = Instant::now() + DRIP;
        for (row, own) in rows.iter().zip(&sockets) {
            // What ICMP said of an earlier one is nothing to stop for.
            let _ = own.send(b"who?");
            if own.recv(&mut buffer).is_ok() {
                lock(seen).opened.push(format!("{}: a datagram", row.title()));
            }
        }
        lock(seen).drips += rows.len() as u64;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Streams of datagrams between pods, along ways that all these states of the cluster allow. None may lose a block.
pub fn streams(world: &World, states: &[&Cluster]) -> Result<Vec<Pulse>> {
    for pod in &world.pods {
        pulse::echo(&pod.place, &pod.ips, ECHO)?;
    }
    let mut streams = Vec::new();
    for family in [0, 1] {
        let pairs = world.pods.iter().flat_map(|from| world.pods.iter().map(move |to| (from, to)));
        let allowed = pairs.filter(|(from, to)| {
            let (source, destination) = (from.ips[family], to.ips[family]);
            let packet = Packet { source, destination, protocol: Protocol::Udp, source_port: ECHO, port: ECHO };
            source != destination && states.iter().all(|state| state.verdict(&packet).allowed)
        });
        let allowed: Vec<_> = allowed.collect();
        // Spread over the pairs.
        let step = allowed.len().div_ceil(STREAMS).max(1);
        for (from, to) in allowed.into_iter().step_by(step) {
            let address = socket(to.ips[family], ECHO);
            let name = format!("{} -> {} ({address})", from.name, to.name);
            streams.push(Pulse::start(name, &from.place, Plain::Udp, address, BEAT)?);
        }
    }
    Ok(streams)
}

/// What each stream lost, for people.
pub fn losses(streams: &[&Pulse], laps: &[Lap]) -> Vec<String> {
    let lossy = streams.iter().zip(laps).filter(|(_, lap)| lap.lost > 0);
    lossy.map(|(stream, lap)| format!("{}: {} of {} blocks", stream.name(), lap.lost, lap.sent)).collect()
}
