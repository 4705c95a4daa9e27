//! A lab for an automatic test: its own folder, so that several can stand side by side, and a loud skip where none can.
//!
//! In: a name, options. Out: a lab, or nothing where there is no root. It must not hide a failure as a skip.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ovenbird_kube::Cache;

use crate::lab::{Lab, keep_logs};
use crate::options::{Api, Options};
use crate::progress::Progress;

/// Set in the environment, it says that tests on real Kubernetes are wanted.
const ASKED_FOR: &str = "OVENBIRD_TEST_REAL";
/// Set in the environment, it is the tree that tests take OVN from (`ovenbird-lab up --ovn`), where they do not choose one themselves.
const OVN: &str = "OVENBIRD_TEST_OVN";

/// Builds a lab below `/run/NAME-PID`. Without root it says SKIP and returns `None`; where `CI` is `true`, that is an error. A real
/// lab is asked for apart, by `make test-real`, as Kubernetes takes minutes to build: without [`ASKED_FOR`] it is skipped.
///
/// # Errors
/// When the lab does not come up, with the last lines of every log that holds an error.
pub async fn lab(name: &str, options: Options) -> Result<Option<Lab>> {
    if !nix::unistd::geteuid().is_root() {
        let text = format!("SKIP: {name} needs root (network namespaces)");
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            bail!("{text}");
        }
        eprintln!("{text}");
        return Ok(None);
    }
    if options.api == Api::Real {
        if std::env::var_os(ASKED_FOR).is_none() {
            eprintln!("SKIP: {name} needs real Kubernetes; `make test-real` builds it and runs this");
            return Ok(None);
        }
        Cache::ready()?;
    }
    let dir = Path::new("/run").join(format!("{name}-{}", std::process::id()));
    let ovn = options.ovn.clone().or_else(|| std::env::var_os(OVN).map(PathBuf::from));
    let outcome = Lab::up(Options { dir: dir.clone(), ovn, ..options }, Progress::shown()).await;
    outcome.map(Some).or_else(|error| {
        let logs = complaints(&dir);
        keep_logs(&dir).context("keeping the logs of a lab that did not come up")?;
        crate::down(&dir).context("taking down a lab that did not come up")?;
        Err(error.context(logs))
    })
}

/// Lines that complain, of all logs.
pub fn complaints(dir: &Path) -> String {
    let logs = fs::read_dir(dir.join("logs")).into_iter().flatten().flatten();
    let of_log = |path: &Path| {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let bad =
            text.lines().filter(|line| ["WARN", "ERR", "rror", "panicked"].iter().any(|word| line.contains(word)));
        bad.map(|line| format!("{}: {line}\n", path.file_name().unwrap_or_default().display())).collect::<Vec<_>>()
    };
    logs.flat_map(|file| of_log(&file.path()).into_iter().rev().take(10).rev().collect::<Vec<_>>()).collect()
}
