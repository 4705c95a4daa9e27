//! A standalone ovsdb-server of the Northbound for a case, ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ovsdb::Endpoint;

const SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";

/// The server.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    pid: Pid,
}

impl Server {
    /// Starts one on an empty database; returns when it listens.
    pub fn start(dir: &Path) -> anyhow::Result<Server> {
        let file = |name: &str| dir.join(name).display().to_string();
        run("ovsdb-tool", &["create", &file("nb.db"), SCHEMA])?;
        let arguments = [
            "--detach",
            "--no-chdir",
            "-vconsole:off",
            &format!("--log-file={}", file("nb.log")),
            &format!("--pidfile={}", file("nb.pid")),
            &format!("--unixctl={}", file("nb.ctl")),
            &format!("--remote=punix:{}", file("nb.sock")),
            &file("nb.db"),
        ];
        run("ovsdb-server", &arguments)?;
        let pid = std::fs::read_to_string(dir.join("nb.pid")).context("read the pid of ovsdb-server")?;
        let pid = Pid::from_raw(pid.trim().parse().context("read the pid of ovsdb-server")?);
        Ok(Server { socket: dir.join("nb.sock"), pid })
    }

    /// Path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        kill(self.pid, Signal::SIGKILL).ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("run {program} (package openvswitch-common)"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}
