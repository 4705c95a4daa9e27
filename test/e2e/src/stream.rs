//! A TCP stream that runs while something else is broken, and the proof that it lost nothing.
//!
//! In: a place to send from, a responder's address. Out: bytes echoed, segments lost. It must not reconnect.

use std::fs::File;
use std::io::{Read, Write, read_to_string};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use ovenbird_lab::{Place, wait_for};

use crate::LIMIT;

/// How long a report about a duplicate may take; only waited for in full when a segment was really lost.
const REPORT_LIMIT: Duration = Duration::from_secs(3);

/// A stream of numbered blocks, each sent after the echo of the one before.
#[derive(Debug)]
pub struct Stream {
    end: Arc<AtomicBool>,
    blocks: Arc<AtomicU64>,
    broken: Arc<OnceLock<String>>,
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
        // In a real node's place, /proc is the node's, which does not know this thread.
        let proc = File::open("/proc").context("opening /proc")?;
        let broken = Arc::new(OnceLock::new());
        let (flag, count, why, place) = (end.clone(), blocks.clone(), broken.clone(), from.clone());
        let worker = std::thread::spawn(move || {
            let outcome = place.run(|| send(stream, &proc, &flag, &count));
            outcome.inspect_err(|error| drop(why.set(format!("{error:#}"))))
        });
        Ok(Self { end, blocks, broken, worker })
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
        let why = self.broken.get().map_or("it has ended", String::as_str);
        ensure!(!self.worker.is_finished(), "the stream broke: {why}");
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

fn send(mut stream: TcpStream, proc: &File, end: &AtomicBool, blocks: &AtomicU64) -> Result<i64> {
    let before = lost(proc)?;
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
    let _ = wait_for("reports of duplicates", REPORT_LIMIT, || lost(proc).is_ok_and(|now| now <= before));
    Ok(lost(proc)? - before)
}

/// Segments that this thread's network namespace has sent again, less those whose first copy arrived after all. On a busy machine the
/// kernel sends again what is only late (RFC 8985, tail loss probes); the receiver reports these as duplicates (RFC 2883).
fn lost(proc: &File) -> Result<i64> {
    let again = counter(proc, "snmp", "Tcp:", "RetransSegs")?;
    let duplicates = counter(proc, "netstat", "TcpExt:", "TCPDSACKRecv")?;
    Ok(again - duplicates)
}

/// A counter of /proc/net: a line of names, then a line of values, each with the same prefix.
fn counter(proc: &File, file: &str, prefix: &str, name: &str) -> Result<i64> {
    let path = format!("thread-self/net/{file}");
    let file_of = openat(proc, path.as_str(), OFlag::O_RDONLY, Mode::empty()).context("opening TCP counters")?;
    let text = read_to_string(File::from(file_of)).context("reading TCP counters")?;
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { bail!("no TCP counters in {file}") };
    let value = names.split_whitespace().zip(values.split_whitespace()).find(|(head, _)| *head == name);
    value.with_context(|| format!("no {name}"))?.1.parse().with_context(|| format!("reading {name}"))
}
