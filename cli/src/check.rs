//! `ovenbird check policy`: whether traffic passes, by which rules, and whether OVN agrees.
//!
//! ```text
//! arguments -> Query -> master's admin socket -> Answer -> text | JSON, exit code
//!                                                  '-- --live: each path's packet -> ovn-trace -> does it arrive?
//! ```
//!
//! The master answers from its snapshot. Must not: judge by itself, or change anything.

mod kernel;
mod text;
mod trace;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use jsonrpsee::core::ClientError;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use ovenbird_topology::check::Query;
use ovenbird_topology::check::answer::{Answer, Decision, Enforcer, Verdict};
use ovenbird_topology::check::query::{End, PodName, Port};
use serde::Serialize;

use crate::admin::{Admin, Output, runtime};
use text::Style;
use trace::{Southbound, Traced};

/// Exit code of what is denied, or allowed in part.
const DENIED: u8 = 1;
/// Exit code of a question that has no answer.
pub const ERROR: u8 = 2;
/// Exit code when the snapshot and OVN say different things.
const DIFFER: u8 = 3;

/// JSON-RPC 2.0: the master has no such method.
const METHOD_NOT_FOUND: i32 = -32601;

const EXAMPLES: &str = "Examples:
  ovenbird check policy web/a                                  what isolates the pod, and all rules
  ovenbird check policy web/a --from db/b --port tcp/80        may pod db/b reach port 80 of web/a?
  ovenbird check policy web/a --from db/b                      which ports may it reach?
  ovenbird check policy web/a --from node:node1 --port 8080    a node, and what runs on its network
  ovenbird check policy web/a --to 10.0.0.7 --port udp/53      an address
  ovenbird check policy web/a --to db/b --port tcp/sql --live  a port by the name that db/b gives it; and ask OVN, too

Policies see traffic after load balancing: instead of a Service, ask for the pods behind it.

Exit codes:
  0  all that was asked for is allowed, or the rules were shown
  1  it is denied, or only a part of it is allowed
  2  there is no answer: no such pod, no master, wrong arguments
  3  with --live: the snapshot and ovn-trace differ";

/// Arguments of `ovenbird check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether NetworkPolicies and admin policies let traffic of a pod pass, and by which rule.
    #[command(after_help = EXAMPLES)]
    Policy(Policy),
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("end"))]
struct Policy {
    /// The pod
    #[arg(value_name = "NAMESPACE/POD")]
    pod: PodName,
    /// Who sends to it: NAMESPACE/POD, node:NAME or an address
    #[arg(long, value_name = "END", group = "end")]
    from: Option<End>,
    /// Whom it sends to: NAMESPACE/POD, node:NAME or an address
    #[arg(long, value_name = "END", group = "end")]
    to: Option<End>,
    /// Protocol and port: tcp/80, 80, udp/dns, icmp; without it, all that passes is told
    #[arg(long, value_name = "PORT", requires = "end")]
    port: Option<Port>,
    /// Follow a packet through OVN's logical flows, too (ovn-trace), and say when that differs; in network mode classic, say what to ask instead
    #[arg(long, requires = "port")]
    live: bool,
    /// Text for people, or JSON for programs
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    southbound: Southbound,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    /// Of each path; none without `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<&'a [Traced]>,
}

/// Runs the command; the code is as `--help` says.
///
/// # Errors
/// When the master does not answer, or has no answer; with `--live` when ovn-trace has none.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Policy(policy) = &args.what;
    let query =
        Query { pod: policy.pod.clone(), from: policy.from.clone(), to: policy.to.clone(), port: policy.port.clone() };
    let answer = ask(&policy.admin, &query)?;
    let live = match &answer {
        Answer::Decision(decision) if policy.live => Some(follow(&policy.southbound, decision)?),
        _ => None,
    };
    let stdout = std::io::stdout();
    let text = match policy.output {
        Output::Json => {
            let report = Report { answer: &answer, live: live.as_deref() };
            format!("{}\n", serde_json::to_string_pretty(&report).context("write JSON")?)
        }
        Output::Text => {
            let coloured = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            text::answer(&answer, live.as_deref(), Style { coloured })
        }
    };
    (&stdout).write_all(text.as_bytes()).context("write to stdout")?;
    Ok(ExitCode::from(code(&answer, live.as_deref())))
}

fn ask(admin: &Admin, query: &Query) -> anyhow::Result<Answer> {
    runtime()?.block_on(async {
        let client = admin.connect().await?;
        let asked = client.request("check_policy", rpc_params![query]).await;
        asked.map_err(|error| match error {
            ClientError::Call(said) if said.code() == METHOD_NOT_FOUND => {
                anyhow::anyhow!("the master is older than this command and cannot check policies; update it")
            }
            ClientError::Call(said) => anyhow::anyhow!("{}", said.message()),
            other => anyhow::Error::new(other).context("ask the master"),
        })
    })
}

fn follow(southbound: &Southbound, decision: &Decision) -> anyhow::Result<Vec<Traced>> {
    anyhow::ensure!(decision.enforced_by == Enforcer::Ovn, "{}", kernel::instead(decision));
    runtime()?.block_on(async {
        let mut live = Vec::new();
        for path in &decision.paths {
            live.push(trace::follow(southbound, path).await?);
        }
        Ok(live)
    })
}

fn code(answer: &Answer, live: Option<&[Traced]>) -> u8 {
    let Answer::Decision(decision) = answer else { return 0 };
    if live.is_some_and(|live| differs(decision, live)) {
        return DIFFER;
    }
    if decision.verdict == Verdict::Allowed { 0 } else { DENIED }
}

/// OVN says something else of some path.
fn differs(decision: &Decision, live: &[Traced]) -> bool {
    decision.paths.iter().zip(live).any(|(path, traced)| traced.differs(path.verdict))
}
