//! What a person sees of policies in the classic network: verdicts in the kernel's log where a namespace asks for it, and what `ovenbird check policy
//! --live` advises, which is run as it stands.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Family, Lab, testing, wait_for};
use serde_json::json;

use super::options;

const NAMESPACE: &str = "kernel-logged";
/// Lets nftables of other network namespaces than the machine's first one log, too.
const ALL_NAMESPACES: &str = "/proc/sys/net/netfilter/nf_log_all_netns";
/// What the rules that let through and stop say before each packet, with the severity that is asked for (syslog(2)).
const LET_THROUGH: (&str, u32) = ("NP:kernel-logged:in:Ingress:0 allow: ", 5);
const STOPPED: (&str, u32) = ("NP:kernel-logged:Ingress drop: ", 1);

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_seen() -> Result<()> {
    let Some(lab) = testing::lab("e2e-cl-seen", options(1, Family::V4, &[])).await? else { return Ok(()) };
    lab.apply(&(namespace("{}") + &pods::pod(NAMESPACE, "a", "node1") + &pods::pod(NAMESPACE, "b", "node1"))).await?;
    lab.await_running(NAMESPACE).await?;
    let api = pods::api(&lab, NAMESPACE).await?;
    let (a, b) = (pods::ips(&api, "a").await?[0], pods::ips(&api, "b").await?[0]);
    // From b, and nobody else.
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "in", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": format!("{b}/32")}}]}]},
    });
    lab.apply(&policy.to_string()).await?;
    let reaches = |from: &str, to| -> Result<bool> {
        let place = lab.scene(&format!("{NAMESPACE}/{from}"))?.place().clone();
        Ok(place.run(|| Target::Ping(to).check(Duration::from_millis(500))).is_ok())
    };
    wait_for("the policy to stop a", LIMIT, || reaches("a", b).is_ok_and(|reached| !reached))?;
    ensure!(reaches("b", a)?, "b is let through");
    advice_can_be_followed(&lab, || reaches("a", b).map(drop)).context("ovenbird check policy --live")?;
    let mut log = Log::open()?;
    // The pings of a are one connection, which began before there was a policy; what b sends is a new one each time.
    let both = || -> Result<()> {
        reaches("a", b)?;
        let place = lab.scene(&format!("{NAMESPACE}/b"))?.place().clone();
        let refused = place.run(|| Ok(TcpStream::connect_timeout(&SocketAddr::new(a, 9), LIMIT)))?;
        ensure!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "b is let through");
        Ok(())
    };
    lab.apply(&namespace(r#"{"deny": "alert", "allow": "notice"}"#)).await?;
    wait_for("both verdicts in the kernel's log", LIMIT, || {
        both().is_ok() && log.read().is_ok_and(|lines| [STOPPED, LET_THROUGH].iter().all(|line| lines.contains(line)))
    })
    .with_context(|| format!("{:?}", log.lines))?;
    lab.apply(&namespace("{}")).await?;
    wait_for("the log to be quiet", LIMIT, || {
        let before = log.read().map_or(0, <[_]>::len);
        both().is_ok() && log.read().is_ok_and(|lines| lines.len() == before)
    })
}

/// The command says that there is no OVN, and what to do on the nodes; that shows the verdict, and leaves nothing.
fn advice_can_be_followed(lab: &Lab, send: impl Fn() -> Result<()>) -> Result<()> {
    let socket = lab.layout().home("central").join("master1.sock").display().to_string();
    let question =
        format!("ovenbird check policy {NAMESPACE}/b --from {NAMESPACE}/a --port icmp --live --socket {socket}");
    let out = lab.scene("central")?.output(&question.split(' ').collect::<Vec<_>>())?;
    let said = [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    ensure!(
        out.status.code() == Some(2) && said.contains("in network mode classic there is none"),
        "{}\n{said}",
        out.status
    );
    let commands: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let [begin, watch, end] = commands[..] else { anyhow::bail!("three commands, not\n{said}") };
    let run = |command: &str| lab.exec_node("node1", &["sh", "-ec", command]);
    run(begin)?;
    let (mut told, write) = std::io::pipe().context("a pipe")?;
    let watch = watch.split('#').next().unwrap_or_default().trim();
    // Its words come in blocks, unless it believes to speak to a terminal; its end brings the rest.
    let mut command = Command::new("timeout");
    command.args(["-s", "INT", "5", "sh", "-c", &format!("exec {watch}")]).stdout(write).stderr(Stdio::inherit());
    let mut watching = lab.scene("node1")?.place().spawn(&mut command)?;
    drop(command);
    while watching.try_wait().context("waiting for nft")?.is_none() {
        send()?;
    }
    let mut text = String::new();
    told.read_to_string(&mut text).context("reading what nft says")?;
    let dropped = text.lines().any(|line| line.contains("inet ovenbird-policy") && line.contains("verdict drop"));
    ensure!(dropped, "the verdict is not in\n{text}");
    run(end)?;
    let left = run("nft list tables")?;
    ensure!(!left.contains("ovenbird-ask"), "{left}");
    Ok(())
}

fn namespace(logging: &str) -> String {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "annotations": {"k8s.ovn.org/acl-logging": logging}},
    });
    format!("---\n{namespace}\n")
}

/// The kernel's log from now on, with what nftables of all namespaces say.
struct Log {
    file: File,
    before: String,
    /// Which of the two rules has spoken, and how loud.
    lines: Vec<(&'static str, u32)>,
}

impl Log {
    fn open() -> Result<Log> {
        let before = std::fs::read_to_string(ALL_NAMESPACES).context(ALL_NAMESPACES)?;
        std::fs::write(ALL_NAMESPACES, "1").context(ALL_NAMESPACES)?;
        let mut file =
            File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg").context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("the end of the log")?;
        Ok(Log { file, before, lines: Vec::new() })
    }

    /// All lines so far. A record is `PRIORITY,...;TEXT`, its severity the last three bits (kernel documentation, ABI/testing/dev-kmsg).
    fn read(&mut self) -> Result<&[(&'static str, u32)]> {
        let mut buffer = [0; 8192];
        loop {
            let length = match self.file.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(&self.lines),
                // Older records were overwritten.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            };
            let record = String::from_utf8_lossy(&buffer[..length]);
            let (head, text) = record.split_once(';').unwrap_or_default();
            let level = head.split(',').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or_default() & 7;
            let rule = [STOPPED.0, LET_THROUGH.0].into_iter().find(|name| text.starts_with(name));
            self.lines.extend(rule.map(|name| (name, level)));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Nobody is told when that fails.
        let _ = std::fs::write(ALL_NAMESPACES, &self.before);
    }
}
