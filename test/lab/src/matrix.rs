//! The reachability matrix: from every pod and every node to every pod, by ping and TCP, in every family.
//!
//! In: places to probe from, pods with addresses. Out: one cell per pair. It must not touch the API.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::place::Place;
use crate::probe::{PORT, Target};
use crate::table::{Colour, Table};

/// A new flow may take this long to work everywhere.
const LIMIT: Duration = Duration::from_secs(5);

/// Where to probe from.
#[derive(Clone, Debug)]
pub struct Source {
    /// As shown: a pod's name, or `host NODE`.
    pub name: String,
    /// Its network namespace.
    pub place: Place,
}

/// What to probe.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The pod's name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<std::net::IpAddr>,
}

/// All pairs.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// One per pair of a source and a destination.
    pub cells: Vec<Cell>,
}

/// One pair.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Name of the source.
    pub from: String,
    /// Name of the pod.
    pub to: String,
    /// What was tried.
    pub checks: Vec<Check>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// `p4`, `t4`, `p6`, `t6`: ping or TCP, and the family.
    pub kind: String,
    /// The target in the syntax of `ovenbird-lab probe`.
    pub target: String,
    /// Round-trip time, `None` when it failed.
    pub microseconds: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Matrix {
    /// Probes all pairs at the same time.
    ///
    /// # Errors
    /// When a source's namespace cannot be entered.
    pub fn probe(sources: &[Source], destinations: &[Destination]) -> Result<Self> {
        let rows: Result<Vec<_>> = thread::scope(|scope| {
            let rows: Vec<_> = sources.iter().map(|source| scope.spawn(|| row(source, destinations))).collect();
            rows.into_iter().map(|row| row.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?).collect()
        });
        Ok(Self { cells: rows?.concat() })
    }

    /// The checks that failed, as sentences.
    pub fn failures(&self) -> Vec<String> {
        let of_cell = |cell: &Cell| {
            let failed = cell.checks.iter().filter_map(|check| Some((check, check.error.as_deref()?)));
            failed
                .map(|(check, error)| format!("{} to {}: {}: {error}", cell.from, cell.to, check.target))
                .collect::<Vec<_>>()
        };
        self.cells.iter().flat_map(of_cell).collect()
    }

    /// How many checks were made.
    pub fn checks(&self) -> usize {
        self.cells.iter().map(|cell| cell.checks.len()).sum()
    }

    /// As a table: a row per source, a column per pod; what works by its short name, what does not as `--`.
    pub fn table(&self) -> Table {
        let width =
            self.cells.iter().position(|cell| cell.from != self.cells[0].from).unwrap_or(self.cells.len()).max(1);
        let heads = self.cells.iter().take(width).map(|cell| cell.to.clone());
        let mut table = Table::new(std::iter::once("from \\ to".to_owned()).chain(heads));
        for row in self.cells.chunks(width) {
            let cells = row.iter().map(|cell| {
                let marks =
                    cell.checks.iter().map(|check| if check.error.is_none() { check.kind.as_str() } else { "--" });
                let colour =
                    if cell.checks.iter().all(|check| check.error.is_none()) { Colour::Good } else { Colour::Bad };
                (marks.collect::<Vec<_>>().join(" "), colour)
            });
            table.row(std::iter::once((row[0].from.clone(), Colour::Plain)).chain(cells));
        }
        table
    }
}

fn row(source: &Source, destinations: &[Destination]) -> Result<Vec<Cell>> {
    source.place.run(|| {
        // Threads that are started here inherit the namespace.
        Ok(thread::scope(|scope| {
            let cells: Vec<_> = destinations.iter().map(|to| scope.spawn(|| cell(source, to))).collect();
            cells.into_iter().filter_map(|cell| cell.join().ok()).collect()
        }))
    })
}

fn cell(source: &Source, destination: &Destination) -> Cell {
    let targets = destination.ips.iter().flat_map(|ip| [Target::Ping(*ip), Target::Tcp(SocketAddr::new(*ip, PORT))]);
    let checks = targets.map(|target| {
        let outcome = target.check(LIMIT);
        let kind = if matches!(target, Target::Ping(_)) { 'p' } else { 't' };
        Check {
            kind: format!("{kind}{}", if target.ip().is_ipv4() { 4 } else { 6 }),
            target: target.to_string(),
            microseconds: outcome.as_ref().ok().and_then(|time| u64::try_from(time.as_micros()).ok()),
            error: outcome.err().map(|error| format!("{error:#}")),
        }
    });
    Cell { from: source.name.clone(), to: destination.name.clone(), checks: checks.collect() }
}
