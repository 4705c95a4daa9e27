//! Carries steps out, in their order, to the first that fails.
//!
//! ```text
//! Step::Ovs --> ovs-vsctl     Step::Nft --> nft     steps of ip(8) that follow each other --> one ip -batch
//! ```
//!
//! Must not: choose, skip or repeat a step.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use ovsdb::Endpoint;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::plan::Step;
use crate::nft;
use crate::tool::{ToolError, Vsctl};

/// A step that failed; those before it are done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The tool cannot be run.
    #[error("running {0} (package {1})")]
    Tool(&'static str, &'static str, #[source] std::io::Error),
    /// It refused.
    #[error("{0}: {1}")]
    Refused(String, String),
}

/// Carries them out. Returns how long ip(8) took in all: the time in which addresses are on their way.
///
/// # Errors
/// The first step that failed.
pub async fn apply(ovs: &[Endpoint], steps: &[Step]) -> Result<Duration, StepError> {
    let mut moving = Duration::ZERO;
    for group in steps.chunk_by(|a, b| a.ip().is_some() && b.ip().is_some() && a.is_v6_rule() == b.is_v6_rule()) {
        match group {
            [step @ Step::Ovs(args)] => {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                Vsctl::new(ovs).run(&args).await.map_err(|e| refused(step, e))?;
            }
            [step @ Step::Nft(text)] => nft::apply(text).await.map_err(|e| refused(step, e))?,
            lines => {
                let begun = Instant::now();
                ip(lines).await?;
                moving = moving.max(begun.elapsed());
            }
        }
    }
    Ok(moving)
}

fn refused(step: &Step, error: ToolError) -> StepError {
    match error {
        ToolError::Run(tool, e) => StepError::Tool(tool.name, tool.package, e),
        ToolError::Refused(_, said) => StepError::Refused(step.to_string(), said),
    }
}

/// Hands the lines to one ip(8), which sends each as it reads it and ends at the first that fails.
async fn ip(steps: &[Step]) -> Result<(), StepError> {
    let tool = |e| StepError::Tool("ip", "iproute2", e);
    let mut text = String::new();
    for line in steps.iter().filter_map(Step::ip) {
        text.push_str(&line);
        text.push('\n');
    }
    let mut child = Command::new("ip")
        .args(steps.first().filter(|step| step.is_v6_rule()).map(|_| "-6"))
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(tool)?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it did not read it complains about itself.
        drop(stdin.write_all(text.as_bytes()).await);
    }
    let output = child.wait_with_output().await.map_err(tool)?;
    let failed = || {
        // "Command failed -:3"
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.rsplit(':').next().and_then(|n| n.trim().parse::<usize>().ok());
        line.and_then(|n| steps.get(n.checked_sub(1)?)).map_or("ip -batch".to_owned(), ToString::to_string)
    };
    succeeded(&output, failed)
}

fn succeeded(output: &Output, what: impl FnOnce() -> String) -> Result<(), StepError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(StepError::Refused(what(), said))
}
