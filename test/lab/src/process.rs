//! Started processes: what was started (so that it can be started again) and which process it is (so that only it is ended).
//!
//! A process is known by its pid and its start time, so a pid that was reused is never taken for ours. Each has one file,
//! `LAB_DIR/processes/NAME.json`, written as soon as it runs. Nothing is ever searched for by name.
//!
//! In: specifications, signals. Out: records on disk, liveness. It must not know what a component means.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::place::Place;

/// One process on this machine, for ever: a pid and the clock tick at which it started (`/proc/PID/stat`, field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Clock ticks after boot.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).context("reading a pid")?;
        let (_, started) = stat(pid).with_context(|| format!("reading the start time of process {pid}"))?;
        Ok(Self { pid, started })
    }

    /// Whether it still runs; a zombie does not, once its last thread has closed its files.
    pub fn alive(self) -> bool {
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        stat(self.pid).is_some_and(|(state, started)| started == self.started && (state != 'Z' || threads() > 1))
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            // Between the check and here it can only have ended; the error says that and nothing else.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Sends a signal and waits until the process is gone.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn end(self, signal: Signal, limit: Duration) -> Result<()> {
        self.signal(signal);
        wait_for(&format!("process {} to end on {signal}", self.pid), limit, || {
            // It may be our own child: collect it, so that no zombie stays.
            let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            !self.alive()
        })
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything: count from the last ')'.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What to start: enough to start it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Unique in the lab, e.g. `node1/ovn-controller`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub place: Place,
}

/// What was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// How to start it again.
    pub spec: Spec,
    /// Which process it is.
    pub id: ProcessId,
}

/// The processes of one lab: records in `processes/` and output in `logs/`.
#[derive(Clone, Debug)]
pub struct Processes {
    records: PathBuf,
    logs: PathBuf,
}

impl Processes {
    /// The processes recorded under a lab's folder.
    pub fn new(lab_dir: &Path) -> Self {
        Self { records: lab_dir.join("processes"), logs: lab_dir.join("logs") }
    }

    /// Starts a process in the background, in a group of its own (a Ctrl-C at the terminal is not meant for it), and records it.
    ///
    /// # Errors
    /// When one of this name still runs, or it cannot be started.
    pub fn start(&self, spec: Spec) -> Result<ProcessId> {
        if let Ok(old) = self.get(&spec.name)
            && old.id.alive()
        {
            bail!("{} runs already, as process {}", spec.name, old.id.pid);
        }
        fs::create_dir_all(&self.records).context("creating the folder of process records")?;
        let [program, args @ ..] = spec.argv.as_slice() else { bail!("{} has no command", spec.name) };
        let log = self.open_log(&spec.name)?;
        let mut command = Command::new(program);
        command.args(args).envs(&spec.env).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = spec.place.spawn(&mut command).with_context(|| format!("starting {}", spec.name))?;
        let id = ProcessId::of(child.id())?;
        let record = Record { spec, id };
        write_atomic(&self.record_path(&record.spec.name), &serde_json::to_vec_pretty(&record)?)?;
        Ok(id)
    }

    /// Starts again what was started under this name before.
    ///
    /// # Errors
    /// When nothing was, or it still runs.
    pub fn start_again(&self, name: &str) -> Result<ProcessId> {
        self.start(self.get(name)?.spec)
    }

    /// The record of a name.
    ///
    /// # Errors
    /// When there is none; the text lists those there are.
    pub fn get(&self, name: &str) -> Result<Record> {
        let path = self.record_path(name);
        let Ok(bytes) = fs::read(&path) else {
            let known: Vec<_> = self.all().into_iter().map(|record| record.spec.name).collect();
            bail!("no component {name} in this lab; there are: {}", known.join(", "));
        };
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// All records, by name. Unreadable ones are left out.
    pub fn all(&self) -> Vec<Record> {
        let Ok(files) = fs::read_dir(&self.records) else { return Vec::new() };
        let read = |path: PathBuf| serde_json::from_slice::<Record>(&fs::read(path).ok()?).ok();
        let mut records: Vec<_> = files.flatten().filter_map(|file| read(file.path())).collect();
        records.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        records
    }

    /// Where a process's output goes.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{}.log", name.replace('/', ".")))
    }

    /// The last lines of a process's output, for messages about what went wrong.
    pub fn log_tail(&self, name: &str) -> String {
        let text = fs::read(self.log_path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// The file of a process's record.
    pub fn record_path(&self, name: &str) -> PathBuf {
        self.records.join(format!("{}.json", name.replace('/', ".")))
    }

    fn open_log(&self, name: &str) -> Result<File> {
        fs::create_dir_all(&self.logs).context("creating the folder of logs")?;
        let path = self.log_path(name);
        OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("opening {}", path.display()))
    }
}

/// Replaces a file as a whole, so that a reader or a crash never meets half of it.
///
/// # Errors
/// When the folder is missing or full.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))
}

/// Waits for a condition that nothing announces (a socket that accepts, a process that ends), looking every few milliseconds.
///
/// # Errors
/// When it is not met within `limit`.
pub fn wait_for(what: &str, limit: Duration, mut met: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !met() {
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(4));
    }
    Ok(())
}
