//! Asks ovn-trace(8) what OVN's logical flows do with the first packet of a connection.
//!
//! Inputs: a path with its microflow, and where the Southbound is. Output: whether the packet arrives, and the last that the trace says of it.
//! What a trace cannot tell is an error, not a verdict. Must not: know policies.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use ovenbird_topology::check::answer::{Microflow, Path, Verdict};
use serde::Serialize;
use tokio::process::Command;

/// Look-ups in connection tracking on the way; the connection is new to each of them. A packet meets two on each switch.
const LOOK_UPS: usize = 8;
/// How long a trace may take; it reads the whole Southbound first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest part of a match that is told.
const CONDITION: usize = 160;
/// Source port of the packet.
const SOURCE_PORT: u16 = 40000;

/// Where ovn-trace finds logical flows.
#[derive(Debug, clap::Args)]
pub struct Southbound {
    /// OVN Southbound for --live; without it ovn-trace's own default
    #[arg(long, env = "OVN_SB_DB", value_name = "ENDPOINTS")]
    sb_address: Option<String>,
    /// Private key for an ssl: Southbound
    #[arg(long, value_name = "FILE")]
    sb_client_privkey: Option<PathBuf>,
    /// Certificate for an ssl: Southbound
    #[arg(long, value_name = "FILE")]
    sb_client_cert: Option<PathBuf>,
    /// Certificate of the authority that signed the Southbound's
    #[arg(long, value_name = "FILE")]
    sb_client_cacert: Option<PathBuf>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traced {
    /// It arrives; none when it was not followed.
    pub arrives: Option<bool>,
    /// The last that the trace says of it, or why it was not followed.
    pub detail: String,
}

impl Traced {
    /// OVN does something else than a verdict on one port.
    pub fn differs(&self, verdict: Verdict) -> bool {
        self.arrives.is_some_and(|arrives| arrives != (verdict == Verdict::Allowed))
    }
}

/// Follows the packet of a path.
///
/// # Errors
/// When ovn-trace does not run, cannot reach the Southbound, or does not know the ports.
pub async fn follow(southbound: &Southbound, path: &Path) -> anyhow::Result<Traced> {
    let Some(flow) = &path.microflow else {
        let detail = "not followed: there is no logical port to start from".to_owned();
        let itself = path.source == path.destination;
        let detail =
            if itself { "not followed: what a pod sends to itself takes a Service".to_owned() } else { detail };
        return Ok(Traced { arrives: None, detail });
    };
    judge(&run(southbound, flow, &expression(path, flow)).await?, flow)
}

async fn run(southbound: &Southbound, flow: &Microflow, expression: &str) -> anyhow::Result<String> {
    let mut command = Command::new("ovn-trace");
    command.args(["--no-leader-only", "--detailed"]);
    command.args(std::iter::repeat_n("--ct=new", LOOK_UPS));
    command.args(southbound.sb_address.iter().map(|address| format!("--db={address}")));
    let files = [
        ("--private-key", &southbound.sb_client_privkey),
        ("--certificate", &southbound.sb_client_cert),
        ("--ca-cert", &southbound.sb_client_cacert),
    ];
    for (option, file) in files {
        command.args(file.iter().map(|file| format!("{option}={}", file.display())));
    }
    command.arg(&flow.switch).arg(expression).stdin(Stdio::null()).kill_on_drop(true);
    let out = tokio::time::timeout(PATIENCE, command.output()).await;
    let out = out.with_context(|| {
        format!(
            "ovn-trace does not answer within {} s; is --sb-address (OVN_SB_DB) the Southbound?",
            PATIENCE.as_secs()
        )
    })?;
    let out = out.context("run ovn-trace; --live needs OVN's tools on this host (ovn-common)")?;
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("unknown logical port") {
        bail!("OVN does not know the port {} yet; `ovn-nbctl --wait=sb sync` waits for ovn-northd", flow.inport);
    }
    if is_foreign(&said) {
        bail!(
            "ovn-trace is of another release than ovn-northd: it cannot read all logical flows; run --live where OVN's own tools are"
        );
    }
    if !out.status.success() {
        bail!("{}; is --sb-address (OVN_SB_DB) the Southbound?", said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Some logical flow has actions that this ovn-trace does not know, and so leaves out; ovn-northd alone writes them.
fn is_foreign(said: &str) -> bool {
    said.contains("parsing actions failed")
}

/// The packet as ovn-trace takes it: ovn-sb(5), Logical_Flow, `match`.
fn expression(path: &Path, flow: &Microflow) -> String {
    let Microflow { inport, eth_src, eth_dst, protocol, port, .. } = flow;
    let (source, destination) = (path.source, path.destination);
    let ip = if source.is_ipv4() { "ip4" } else { "ip6" };
    let transport = match (port, protocol.as_str(), ip) {
        (Some(port), ..) => format!("{protocol}.src == {SOURCE_PORT} && {protocol}.dst == {port}"),
        (None, "icmp", "ip4") => "icmp4.type == 8 && icmp4.code == 0".to_owned(),
        (None, "icmp", _) => "icmp6.type == 128 && icmp6.code == 0".to_owned(),
        _ => "ip".to_owned(),
    };
    format!(
        "inport == \"{inport}\" && eth.src == {eth_src} && eth.dst == {eth_dst} && {ip}.src == {source} && {ip}.dst == {destination} \
         && ip.ttl == 64 && {transport}"
    )
}

/// Whether a trace ends at the port that it should, and where it ends.
fn judge(trace: &str, flow: &Microflow) -> anyhow::Result<Traced> {
    let (mut switch, mut last) = (None, None);
    for line in trace.lines().map(str::trim_start) {
        // `egress(dp="node1", inport="web_b", outport="web_a")`
        if let Some((_, rest)) = line.split_once("gress(dp=\"") {
            switch = rest.split('"').next();
        }
        last = stage(line).or(last);
    }
    let (Some(switch), Some((table, condition))) = (switch, last) else {
        bail!(
            "ovn-trace: {}; `ovn-nbctl --wait=sb sync` waits for ovn-northd",
            trace.lines().last().unwrap_or("no trace")
        );
    };
    let output = format!("output to \"{}\"", flow.outport);
    if trace.contains(&output) {
        return Ok(Traced { arrives: Some(true), detail: output });
    }
    let end = if trace.trim_end().ends_with("drop;") { "dropped by" } else { "gets no further than" };
    let condition: String = condition.chars().take(CONDITION).collect();
    Ok(Traced { arrives: Some(false), detail: format!("{end} {table} of {switch}: {condition}") })
}

/// Table and match of a line such as ` 4. ls_out_acl (northd.c:6543): outport == @g, priority 2000, uuid b32b2b13`.
fn stage(line: &str) -> Option<(&str, &str)> {
    let (number, rest) = line.split_once(". ")?;
    number.parse::<u8>().ok()?;
    let (table, rest) = rest.split_once(' ')?;
    let condition = rest.split_once("): ").map_or(rest, |(_, condition)| condition);
    Some((table, condition.rsplit_once(", priority ").map_or(condition, |(condition, _)| condition)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# tcp,reg14=0x4\n\ningress(dp=\"node1\", inport=\"web_b\")\n---\n 0. ls_in_check_port_sec (northd.c:8432): 1, \
        priority 50, uuid 5657713f\n    next;\n\negress(dp=\"node1\", inport=\"web_b\", outport=\"web_a\")\n---\n";

    fn flow() -> Microflow {
        let text = String::from;
        Microflow {
            switch: text("node1"),
            inport: text("web_b"),
            eth_src: text("0a:58:0a:f4:00:04"),
            eth_dst: text("0a:58:0a:f4:00:03"),
            outport: text("web_a"),
            protocol: text("tcp"),
            port: Some(8080),
        }
    }

    #[test]
    fn ends_of_traces() {
        let end = |text: &str| judge(&format!("{HEAD}{text}"), &flow()).unwrap();
        let out = end(
            " 9. ls_out_apply_port_sec (northd.c:5777): 1, priority 0, uuid 7\n    output;\n    /* output to \"web_a\", type \"\" */\n",
        );
        assert_eq!((out.arrives, &*out.detail), (Some(true), "output to \"web_a\""));
        let out =
            end(" 4. ls_out_acl (northd.c:6543): reg0[9] == 1 && (outport == @g), priority 2000, uuid b\n    drop;\n");
        assert_eq!(
            (out.arrives, &*out.detail),
            (Some(false), "dropped by ls_out_acl of node1: reg0[9] == 1 && (outport == @g)")
        );
        let out =
            end("17. lr_in_arp_resolve (northd.c:1): ip4, priority 1, uuid 4\n    /* No MAC binding. */\n    next;\n");
        assert_eq!(out.detail, "gets no further than lr_in_arp_resolve of node1: ip4");
        let error = judge("unknown datapath \"node1\"\n", &flow()).unwrap_err().to_string();
        assert_eq!(error, "ovn-trace: unknown datapath \"node1\"; `ovn-nbctl --wait=sb sync` waits for ovn-northd");
    }

    #[test]
    fn a_tool_of_another_release_is_told() {
        let said = "2026-11-28T13:51:16Z|00001|ovntrace|WARN|reg0[16] = 1; ct_commit_v9;: parsing actions failed (Syntax error at `ct_commit_v9'.)\n";
        assert!(is_foreign(said) && !is_foreign("ovntrace|WARN|a: unknown logical port\n"));
    }

    #[test]
    fn packets_as_ovn_trace_takes_them() {
        let path = |source: &str, destination: &str| Path {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            verdict: Verdict::Allowed,
            passes: Vec::new(),
            egress: None,
            ingress: None,
            microflow: None,
        };
        let ends = "inport == \"web_b\" && eth.src == 0a:58:0a:f4:00:04 && eth.dst == 0a:58:0a:f4:00:03 && ";
        let tcp = expression(&path("10.0.0.4", "10.0.0.3"), &flow());
        let wanted =
            "ip4.src == 10.0.0.4 && ip4.dst == 10.0.0.3 && ip.ttl == 64 && tcp.src == 40000 && tcp.dst == 8080";
        assert_eq!(tcp, format!("{ends}{wanted}"));
        let ping = Microflow { protocol: "icmp".into(), port: None, ..flow() };
        let ping = expression(&path("fd01::4", "fd01::3"), &ping);
        let wanted = "ip6.src == fd01::4 && ip6.dst == fd01::3 && ip.ttl == 64 && icmp6.type == 128 && icmp6.code == 0";
        assert_eq!(ping, format!("{ends}{wanted}"));
    }
}
