//! What a case reports, as one line for people and as JSON for programs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::Value;

/// Result of a case.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Our figure.
    pub ours: f64,
    /// The least possible, measured in the same run; 0 when the goal is absolute.
    pub floor: f64,
    /// Unit of both, e.g. `s` or `us`.
    pub unit: &'static str,
    /// What we aim at, in words, e.g. `1.15 x and 0.80 KB per port`.
    pub goal: &'static str,
    /// What our side took.
    pub usage: Usage,
    /// Transactions that we sent.
    pub transactions: u64,
    /// Rows that we read or wrote.
    pub rows: u64,
    /// Bytes on our sockets.
    pub bytes: u64,
    /// Anything else worth keeping; shown on the line too when a number.
    pub more: BTreeMap<&'static str, Value>,
}

/// Resources of this process over a stretch of time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// Wall-clock seconds.
    pub wall_seconds: f64,
    /// CPU seconds, user and system.
    pub cpu_seconds: f64,
    /// Resident bytes at the end.
    pub rss_bytes: u64,
}

/// Measures [`Usage`] from its making on.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    cpu: Duration,
}

impl Outcome {
    /// `name: ours X, floor Y, ratio R, goal G`.
    pub fn line(&self, name: &str) -> String {
        let Outcome { ours, floor, unit, goal, .. } = self;
        let more: String = self.more.iter().map(|(key, value)| format!(", {key} {value}")).collect();
        format!("{name}: ours {ours:.3} {unit}, floor {floor:.3} {unit}, ratio {:.2}, goal {goal}{more}", self.ratio())
    }

    /// The JSON file's text.
    pub fn json(&self, name: &str) -> anyhow::Result<String> {
        let mut value = serde_json::to_value(self).context("write the outcome as JSON")?;
        value["case"] = name.into();
        value["ratio"] = self.ratio().into();
        Ok(format!("{value:#}\n"))
    }

    fn ratio(&self) -> f64 {
        if self.floor > 0.0 { self.ours / self.floor } else { 0.0 }
    }
}

impl Usage {
    /// Of several processes together.
    pub fn sum(all: &[Usage]) -> Usage {
        all.iter().fold(Usage::default(), |sum, one| Usage {
            wall_seconds: sum.wall_seconds.max(one.wall_seconds),
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            rss_bytes: sum.rss_bytes + one.rss_bytes,
        })
    }
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> anyhow::Result<Stopwatch> {
        Ok(Stopwatch { began: Instant::now(), cpu: cpu_time()? })
    }

    /// What was used since the start.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let wall_seconds = self.began.elapsed().as_secs_f64();
        let cpu_seconds = (cpu_time()? - self.cpu).as_secs_f64();
        Ok(Usage { wall_seconds, cpu_seconds, rss_bytes: rss_bytes()? })
    }
}

fn cpu_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("read the CPU clock")?.into())
}

/// Resident bytes of this process.
pub fn rss_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kilobytes * 1024)
}

/// The time that a share of some times does not exceed, in seconds; 0 of none.
pub fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let place = (times.len() as f64 * share).ceil() as usize;
    times.get(place.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64)
}

/// The middle one of some figures; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
