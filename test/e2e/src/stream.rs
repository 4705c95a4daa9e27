//! A TCP stream that runs while something else is broken, and the proof that it lost nothing.
//!
//! In: a place to send from, a responder's address. Out: bytes echoed, segments lost. It must not reconnect.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ovenbird_lab::{Place, wait_for};

use crate::LIMIT;

/// How long a report about a duplicate may take; only waited for in full when a segment was really lost.
const REPORT_LIMIT: Duration = Duration::from_secs(3);

/// A stream of numbered blocks, each sent after the echo of the one before.
#[derive(Debug)]
pub struct Stream {
    end: Arc<AtomicBool>,
    blocks: Arc<AtomicU64>,
    worker: JoinHandle<Result<i64>>,
}

impl Stream {
    /// Connects from a pod's namespace and starts.
    ///
    /// # Errors
    /// When the responder does not answer.
    pub fn start(from: &Place, to: SocketAddr) -> Result<Self> {
        let stream =
            from.run(|| TcpStream::connect_timeout(&to, LIMIT).with_context(|| format!("connecting to {to}")))?;
        stream.set_read_timeout(Some(LIMIT)).context("setting a time limit")?;
        let (end, blocks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count, place) = (end.clone(), blocks.clone(), from.clone());
        let worker = std::thread::spawn(move || place.run(|| send(stream, &flag, &count)));
        Ok(Self { end, blocks, worker })
    }

    /// Waits until this many more blocks have come back.
    ///
    /// # Errors
    /// When the stream has stalled or broken.
    pub fn await_blocks(&self, count: u64) -> Result<()> {
        let goal = self.blocks.load(Ordering::Relaxed) + count;
        wait_for("the stream to go on", LIMIT, || {
            self.blocks.load(Ordering::Relaxed) >= goal || self.worker.is_finished()
        })?;
        ensure!(!self.worker.is_finished(), "the stream broke");
        Ok(())
    }

    /// Ends the stream. Returns how many of its segments were lost on the way.
    ///
    /// # Errors
    /// When the stream broke, or an echo differed from what was sent.
    pub fn stop(self) -> Result<i64> {
        self.end.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| anyhow!("the stream panicked"))?
    }
}

fn send(mut stream: TcpStream, end: &AtomicBool, blocks: &AtomicU64) -> Result<i64> {
    let before = lost()?;
    let mut block = [0; 1024];
    while !end.load(Ordering::Relaxed) {
        let number = blocks.load(Ordering::Relaxed);
        block[..8].copy_from_slice(&number.to_be_bytes());
        stream.write_all(&block).context("sending")?;
        let mut echo = [0; 1024];
        stream.read_exact(&mut echo).context("waiting for the echo")?;
        ensure!(echo == block, "block {number} came back changed");
        blocks.store(number + 1, Ordering::Relaxed);
    }
    // The report about the last segment that was sent twice may still be on its way.
    let _ = wait_for("reports of duplicates", REPORT_LIMIT, || lost().is_ok_and(|now| now <= before));
    Ok(lost()? - before)
}

/// Segments that this thread's network namespace has sent again, less those whose first copy arrived after all. On a busy machine the
/// kernel sends again what is only late (RFC 8985, tail loss probes); the receiver reports these as duplicates (RFC 2883).
fn lost() -> Result<i64> {
    let (again, duplicates) = (counter("snmp", "Tcp:", "RetransSegs")?, counter("netstat", "TcpExt:", "TCPDSACKRecv")?);
    Ok(again - duplicates)
}

/// A counter of /proc/net: a line of names, then a line of values, each with the same prefix.
fn counter(file: &str, prefix: &str, name: &str) -> Result<i64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).context("reading TCP counters")?;
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { bail!("no TCP counters in {file}") };
    let value = names.split_whitespace().zip(values.split_whitespace()).find(|(head, _)| *head == name);
    value.with_context(|| format!("no {name}"))?.1.parse().with_context(|| format!("reading {name}"))
}
