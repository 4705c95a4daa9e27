//! `pod-add-share`: the CNI ADD as containerd sees it, on real Kubernetes, and how much of it is waiting for OVN. The floor is the
//! `bridge` plugin with `host-local` in the same kind of cluster, under the same load: pods one after the other, then 20 at once.
//!
//! Both plugins are called through this program, which takes the time (see [`stopwatch`]); the waiting is what the node daemon's own
//! metrics say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::kubernetes::{Cluster, Network, Pace};
use crate::process::load_average;
use crate::{Context, Outcome, Usage, quantile};

/// The plugins that are timed.
const OURS: &str = "ovenbird-cni";
const BRIDGE: &str = "bridge";
/// In the folder of programs: one line for each ADD, its microseconds.
const TIMES: &str = "times";
const STEP: &str = "ovenbird_node_cni_add_step_seconds";
/// Pods of a round: one after the other, and together.
const SERIAL: usize = 10;
const AT_ONCE: usize = 20;

/// When this program is called as one of the plugins: calls the real one and notes how long an ADD took. Returns its exit code.
pub fn stopwatch() -> anyhow::Result<Option<u8>> {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let real = match called.file_name().and_then(|name| name.to_str()) {
        Some(OURS) => std::env::current_exe().context("find this program")?.with_file_name(OURS),
        Some(BRIDGE) => Path::new("/usr/lib/cni").join(BRIDGE),
        _ => return Ok(None),
    };
    let began = Instant::now();
    let status = Command::new(&real).status().with_context(|| format!("run {}", real.display()))?;
    let took = began.elapsed().as_micros();
    if std::env::var_os("CNI_COMMAND") == Some(OsString::from("ADD")) {
        let file = called.with_file_name(TIMES);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(file).context("open the file of times")?;
        file.write_all(format!("{took}\n").as_bytes()).context("note the time")?;
    }
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let folders = [programs(&context.dir.join("ours"))?, programs(&context.dir.join("bridge"))?];
    let clusters =
        [Cluster::up(Network::Ours, Some(&folders[0])).await?, Cluster::up(Network::Bridge, Some(&folders[1])).await?];
    for (cluster, folder) in clusters.iter().zip(&folders) {
        cluster.start(2, Pace::Burst).await?;
        cluster.clear().await?;
        fs::remove_file(folder.join(TIMES)).context("forget the first times")?;
    }
    let before = clusters[0].node_metrics()?;
    let (mut serial, mut at_once) = (<[Vec<Duration>; 2]>::default(), <[Vec<Duration>; 2]>::default());
    for _ in 0..context.rounds {
        for (which, cluster) in clusters.iter().enumerate() {
            for _ in 0..SERIAL {
                cluster.start(1, Pace::Burst).await?;
                cluster.clear().await?;
            }
            serial[which].extend(take_times(&folders[which])?);
            cluster.start(AT_ONCE, Pace::Burst).await?;
            cluster.clear().await?;
            at_once[which].extend(take_times(&folders[which])?);
        }
    }
    let after = clusters[0].node_metrics()?;
    let spent = |step: &str| {
        let name = format!("{STEP}_sum{{step=\"{step}\"}}");
        after.get(&name).unwrap_or(&0.0) - before.get(&name).unwrap_or(&0.0)
    };
    let all: f64 = serial[0].iter().chain(&at_once[0]).map(Duration::as_secs_f64).sum();
    let rounded = |figure: f64| Value::from((figure * 1e3).round() / 1e3);
    let ms = |times: &[Duration], at: f64| quantile(times, at) * 1e3;
    let (ours, floor) = (ms(&serial[0], 0.5), ms(&serial[1], 0.5));
    Ok(Outcome {
        ours,
        floor,
        unit: "ms",
        goal: "bridge + the wait for OVN (must: 3 x)",
        usage: Usage::sum(&[clusters[0].usage("node1/ovenbird-node")?]),
        transactions: 0,
        rows: (serial[0].len() + at_once[0].len()) as u64,
        bytes: 0,
        more: BTreeMap::from([
            ("p99_ms", rounded(ms(&serial[0], 0.99))),
            ("bridge_p99_ms", rounded(ms(&serial[1], 0.99))),
            ("at_once_ms", rounded(ms(&at_once[0], 0.5))),
            ("at_once_p99_ms", rounded(ms(&at_once[0], 0.99))),
            ("bridge_at_once_ms", rounded(ms(&at_once[1], 0.5))),
            ("bridge_at_once_p99_ms", rounded(ms(&at_once[1], 0.99))),
            ("ovn_share", rounded(spent("ovn-installed") / all)),
            ("annotation_share", rounded(spent("annotation") / all)),
            ("vswitch_share", rounded(spent("vswitch") / all)),
            ("link_share", rounded(spent("link") / all)),
            ("load", load_average()?.into()),
        ]),
    })
}

/// A folder with all of Ovenbird's programs, in which the plugins are this program.
fn programs(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).context("make a folder")?;
    let own = std::env::current_exe().context("find this program")?;
    let link = |to: &Path, name: &std::ffi::OsStr| {
        std::os::unix::fs::symlink(to, folder.join(name)).with_context(|| format!("link {}", name.display()))
    };
    let beside = fs::read_dir(own.parent().context("this program has no folder")?).context("list the programs")?;
    for file in beside.flatten().filter(|file| file.file_name() != OURS && file.path().extension().is_none()) {
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            link(&file.path(), &file.file_name())?;
        }
    }
    link(&own, OURS.as_ref())?;
    link(&own, BRIDGE.as_ref())?;
    Ok(folder.to_owned())
}

/// The times that were noted since the last call.
fn take_times(folder: &Path) -> anyhow::Result<Vec<Duration>> {
    let file = folder.join(TIMES);
    let text = fs::read_to_string(&file).context("read the file of times")?;
    fs::remove_file(&file).context("forget the times")?;
    text.lines().map(|line| Ok(Duration::from_micros(line.parse().context("read a time")?))).collect()
}
