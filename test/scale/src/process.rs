//! What a process has used, as /proc tells from outside. Must not: change it.

use anyhow::Context as _;

use crate::Usage;

/// Of a process since its start; its wall-clock time is not known.
pub fn usage_of(pid: i32) -> anyhow::Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let status = read("status")?;
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let rss: u64 = rss.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime, in hundredths of a second.
    Ok(Usage { wall_seconds: 0.0, cpu_seconds: (ticks(11) + ticks(12)) / 100.0, rss_bytes: rss * 1024 })
}

/// Load of the machine over the last minute: how much others disturb.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split(' ').next().unwrap_or_default().parse().context("read /proc/loadavg")
}
