//! Runs a tool of the host to its end, or until it says something.
//!
//! In: its name, arguments, what it reads. Out: what it printed, or its complaint. Must not: know what a tool does.

use std::ffi::OsStr;
use std::process::Stdio;

use ovsdb::Endpoint;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

/// Longest part of a tool's complaint that is repeated.
const COMPLAINT: usize = 400;

/// A tool, and the Debian package that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the program.
    pub name: &'static str,
    /// Package.
    pub package: &'static str,
}

/// nft(8).
pub const NFT: Tool = Tool { name: "nft", package: "nftables" };
/// conntrack(8).
pub const CONNTRACK: Tool = Tool { name: "conntrack", package: "conntrack" };
/// ovs-vsctl(8); mostly by way of [`Vsctl`].
pub const VSCTL: Tool = Tool { name: "ovs-vsctl", package: "openvswitch-switch" };
/// ovs-ofctl(8).
pub const OFCTL: Tool = Tool { name: "ovs-ofctl", package: "openvswitch-switch" };

/// A tool that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It cannot be run.
    #[error("running {} (package {})", .0.name, .0.package)]
    Run(Tool, #[source] std::io::Error),
    /// It refused.
    #[error("{0}: {1}")]
    Refused(&'static str, String),
}

impl Tool {
    /// Runs it with something to read, and returns what it prints.
    ///
    /// # Errors
    /// When it cannot be run, or complains.
    pub async fn run<A: AsRef<OsStr>>(
        self,
        args: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Result<String, ToolError> {
        let failed = |e| ToolError::Run(self, e);
        let mut child = Command::new(self.name)
            .args(args)
            .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // What it did not read it complains about itself.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        let output = output.map_err(failed)?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(said(&output.stdout));
        }
        Err(ToolError::Refused(self.name, said(&output.stderr).chars().take(COMPLAINT).collect()))
    }

    /// Runs it until it prints or complains of a line with this text, and ends it then.
    ///
    /// # Errors
    /// When it cannot be run, or ends by itself.
    pub async fn until<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>, text: &str) -> Result<(), ToolError> {
        let failed = |e| ToolError::Run(self, e);
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let other = writer.try_clone().map_err(failed)?;
        let mut command = Command::new(self.name);
        command.args(args).stdin(Stdio::null()).stdout(writer).stderr(other).kill_on_drop(true);
        let _child = command.spawn().map_err(failed)?;
        // Its ends of the pipe are ours, too, until it goes.
        drop(command);
        let mut lines = BufReader::new(Receiver::from_owned_fd(reader.into()).map_err(failed)?).lines();
        let mut last = String::new();
        while let Some(line) = lines.next_line().await.map_err(failed)? {
            if line.contains(text) {
                return Ok(());
            }
            last = line;
        }
        Err(ToolError::Refused(self.name, last.chars().take(COMPLAINT).collect()))
    }
}

/// ovs-vsctl on this host's database.
#[derive(Clone, Debug)]
pub struct Vsctl {
    /// `--db`, unless it is the default one.
    db: Option<String>,
}

impl Vsctl {
    /// On the first of these servers.
    pub fn new(ovs: &[Endpoint]) -> Vsctl {
        Vsctl { db: ovs.first().map(|endpoint| format!("--db={endpoint}")) }
    }

    /// Runs commands, and returns what they print.
    ///
    /// # Errors
    /// As [`Tool::run`]; also when vswitchd does not follow in 30 seconds, where it is waited for.
    pub async fn run(&self, args: &[&str]) -> Result<String, ToolError> {
        let own = ["--timeout=30"].into_iter().chain(self.db.as_deref());
        VSCTL.run(own.chain(args.iter().copied()), "").await
    }

    /// A column of the rows that meet a condition, a value each.
    ///
    /// # Errors
    /// As [`Vsctl::run`].
    pub async fn find(&self, table: &str, column: &str, condition: &str) -> Result<Vec<String>, ToolError> {
        let columns = format!("--columns={column}");
        let found = self.run(&["--bare", "--no-heading", &columns, "find", table, condition]).await?;
        Ok(found.split_whitespace().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_tool_says_is_passed_on() {
        let sh = Tool { name: "sh", package: "dash" };
        assert_eq!(sh.run(["-c", "cat"], "a\nb\n").await.unwrap(), "a\nb");
        let error = sh.run(["-c", "cat >&2; exit 1"], "no").await.unwrap_err().to_string();
        assert_eq!(error, "sh: no");
        // More than a pipe holds, both ways.
        let much = "x".repeat(1 << 20);
        assert_eq!(sh.run(["-c", "cat"], &much).await.unwrap().len(), much.len());
        sh.run(["-c", "exit 0"], &much).await.unwrap();
        let until = async |line: &str| sh.until(["-c", line], "b").await.map_err(|e| e.to_string());
        assert_eq!(until("echo a; echo b; exec sleep 1000").await, Ok(()));
        assert_eq!(until("echo a; echo b >&2; exec sleep 1000").await, Ok(()));
        assert_eq!(until("echo a; echo no >&2").await, Err("sh: no".into()));
        let none = Tool { name: "no-such-tool", package: "none" };
        assert_eq!(none.run(["x"], "").await.unwrap_err().to_string(), "running no-such-tool (package none)");
    }
}
