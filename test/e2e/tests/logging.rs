//! Verdicts of policies are logged where a namespace asks for it: each by its rule's name, with the severity that was asked for, and no more
//! packets a second than the meter lets through.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Family, Lab, Options, testing, wait_for};
use serde_json::json;

const NAMESPACE: &str = "logged";
/// Names of ACLs.
const LET_THROUGH: &str = "NP:logged:in:Ingress:0";
const STOPPED: &str = "NP:logged:Ingress";

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_logged_as_the_namespace_asks() -> Result<()> {
    let options = Options { nodes: 1, family: Family::V4, ..Options::default() };
    let Some(lab) = testing::lab("e2e-logging", options).await? else { return Ok(()) };
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
    let limit = Duration::from_secs(1);
    let reaches = |from: &str, to| -> Result<bool> {
        Ok(lab.scene(&format!("{NAMESPACE}/{from}"))?.place().run(|| Target::Ping(to).check(limit)).is_ok())
    };
    wait_for("the policy to stop a", LIMIT, || reaches("a", b).is_ok_and(|reached| !reached))?;
    ensure!(reaches("b", a)?, "b is let through");
    ensure!(logged(&lab)?.is_empty(), "nothing is logged unless asked for: {:?}", logged(&lab)?);

    lab.apply(&namespace(r#"{"deny": "alert", "allow": "notice"}"#)).await?;
    let has = |name: &str, verdict: &str, severity: &str| {
        let wanted = [format!("name=\"{name}\""), format!("verdict={verdict}"), format!("severity={severity}")];
        let fits = |line: &String| wanted.iter().all(|part| line.contains(part));
        logged(&lab).is_ok_and(|lines| lines.iter().any(fits))
    };
    wait_for("both verdicts in the log", LIMIT, || {
        // What is tried is in the log, whatever comes of it.
        let _ = (reaches("a", b), reaches("b", a));
        has(STOPPED, "drop", "alert") && has(LET_THROUGH, "allow", "notice")
    })?;

    lab.apply(&namespace("{}")).await?;
    wait_for("the log to be quiet", LIMIT, || {
        let before = logged(&lab).map_or(0, |lines| lines.len());
        let _ = (reaches("a", b), reaches("b", a));
        logged(&lab).is_ok_and(|lines| lines.len() == before)
    })
}

fn namespace(logging: &str) -> String {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "annotations": {"k8s.ovn.org/acl-logging": logging}},
    });
    format!("---\n{namespace}\n")
}

/// What ovn-controller has logged of ACLs.
fn logged(lab: &Lab) -> Result<Vec<String>> {
    let path = lab.layout().processes().log_path("node1/ovn-controller");
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let lines =
        String::from_utf8_lossy(&text).lines().filter(|line| line.contains("acl_log")).map(str::to_owned).collect();
    Ok(lines)
}
