//! Masters that die, wait, or sleep through their own replacement: one writes, none leaves an orphan, and what stands afterwards is
//! what a fresh master would have written.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::{Lab, Options, testing, wait_for};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

const NAMESPACE: &str = "churn";
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_master_killed_at_any_moment_leaves_no_orphan() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-kill", options).await? else { return Ok(()) };
    lab.apply(&pods::namespace(NAMESPACE)).await?;
    for round in 0..ROUNDS {
        // The kill lands between the requests of a burst of creations and deletions; which one differs from round to round.
        let strike = || lab.kill("central/master").and_then(|()| lab.start("central/master"));
        pods::churn(&lab, NAMESPACE, round, strike).await.with_context(|| format!("round {round}"))?;
    }
    lab.await_running(NAMESPACE).await?;
    northbound::equals_from_scratch(&lab).context("after the churn")?;
    a_pod_deleted_while_no_master_runs_leaves_nothing(&lab).await
}

async fn a_pod_deleted_while_no_master_runs_leaves_nothing(lab: &Lab) -> Result<()> {
    lab.apply(&pods::pod(NAMESPACE, "forgotten", "node1")).await?;
    lab.await_running(NAMESPACE).await?;
    lab.kill("central/master")?;
    let api = pods::api(lab, NAMESPACE).await?;
    api.delete("forgotten", &DeleteParams::default()).await?;
    pods::await_gone(&api, "forgotten").await?;
    let port = "churn_forgotten".to_owned();
    ensure!(
        northbound::names(&northbound::dump(lab)?, "Logical_Switch_Port").contains(&port),
        "the port went without a master"
    );
    lab.start("central/master")?;
    wait_for("the forgotten port to go", LIMIT, || {
        northbound::dump(lab).is_ok_and(|dump| !northbound::names(&dump, "Logical_Switch_Port").contains(&port))
    })?;
    northbound::equals_from_scratch(lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_masters_one_writes_and_a_sleeper_writes_nothing_when_it_wakes() -> Result<()> {
    let options = Options { nodes: 1, masters: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-two", options).await? else { return Ok(()) };
    lab.apply(&(pods::namespace(NAMESPACE) + &pods::pod(NAMESPACE, "first", "node1"))).await?;
    lab.await_running(NAMESPACE).await?;
    northbound::equals_from_scratch(&lab).context("with two masters")?;
    let api = pods::api(&lab, NAMESPACE).await?;

    let (sleeper, other) = leader_and_other(&lab).await?;
    lab.pause(&sleeper)?;
    await_leader(&lab, &other).await.context("after the leader was paused")?;
    // The world moves on while it sleeps: what it remembers is now wrong.
    lab.apply(&pods::pod(NAMESPACE, "second", "node1")).await?;
    api.delete("first", &DeleteParams::default()).await?;
    pods::await_gone(&api, "first").await?;
    lab.await_running(NAMESPACE).await?;
    lab.resume(&sleeper)?;
    await_following(&lab, &sleeper).await?;
    ensure!(holder(&lab).await? == identity(&other), "the sleeper took the lease back");
    northbound::equals_from_scratch(&lab).context("after the sleeper woke")?;

    // The new leader dies for good: the woken one serves.
    lab.kill(&other)?;
    await_leader(&lab, &sleeper).await.context("after the second leader was killed")?;
    lab.apply(&pods::pod(NAMESPACE, "third", "node1")).await?;
    lab.await_running(NAMESPACE).await?;
    northbound::equals_from_scratch(&lab).context("after the take-over")
}

/// `master1` is `central/master`, `master2` is `central/master2`.
fn identity(component: &str) -> String {
    if component == "central/master" { "master1".into() } else { component.trim_start_matches("central/").into() }
}

async fn holder(lab: &Lab) -> Result<String> {
    let lease = Api::<Lease>::namespaced(lab.client().await?, "kube-system")
        .get("ovenbird-master")
        .await
        .context("reading the lease")?;
    lease.spec.and_then(|spec| spec.holder_identity).context("nobody holds the lease")
}

async fn leader_and_other(lab: &Lab) -> Result<(String, String)> {
    let masters = ["central/master".to_owned(), "central/master2".to_owned()];
    let holder = holder(lab).await?;
    let [first, second] = masters;
    Ok(if identity(&first) == holder { (first, second) } else { (second, first) })
}

async fn await_leader(lab: &Lab, component: &str) -> Result<()> {
    let wanted = identity(component);
    block_in_place(|| {
        wait_for(&format!("{component} to lead"), LIMIT, || {
            Handle::current().block_on(holder(lab)).is_ok_and(|holder| holder == wanted)
        })
    })
}

/// Waits until a master says of itself, in its metrics, that it does not lead.
async fn await_following(lab: &Lab, component: &str) -> Result<()> {
    let port = if component == "central/master" { 9409 } else { 9410 };
    let url = format!("http://127.0.0.1:{port}/metrics");
    block_in_place(|| {
        wait_for(&format!("{component} to know that it does not lead"), LIMIT, || {
            lab.exec_node("central", &["curl", "-sf", "--max-time", "1", &url]).is_ok_and(|text| {
                text.lines().any(|line| line.contains("leader") && !line.starts_with('#') && line.ends_with(" 0"))
            })
        })
    })
}
