//! The Northbound edited by hand, and its server and the API server restarted: ours is healed, a stranger's is left alone, and no
//! step is left to a person.

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::fault::await_api;
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::{Lab, Options, Status, testing, wait_for};

const NAMESPACE: &str = "edits";

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_restarts_heal_without_a_person() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-nb", options).await? else { return Ok(()) };
    lab.apply(
        &(pods::namespace(NAMESPACE) + &pods::pod(NAMESPACE, "a", "node1") + &pods::pod(NAMESPACE, "b", "node2")),
    )
    .await?;
    lab.await_running(NAMESPACE).await?;
    hand_edits_are_healed(&lab).context("hand edits")?;
    the_northbound_server_restarts(&lab).await.context("Northbound server restarts")?;
    the_api_server_restarts(&lab).await.context("API server restarts")?;
    northbound::equals_from_scratch(&lab).context("after everything")
}

fn hand_edits_are_healed(lab: &Lab) -> Result<()> {
    let before = northbound::dump(lab)?;
    let edits: [&[&str]; 5] = [
        &["lsp-del", "edits_a"],
        &["lsp-set-addresses", "edits_b", "unknown"],
        &["ls-del", "node2"],
        &["lrp-del", "rtos-node1"],
        &["set", "logical_switch", "node1", "other_config:subnet=192.0.2.0/24"],
    ];
    for edit in edits {
        lab.exec_node("central", &[&["ovn-nbctl"], edit].concat())?;
        let mut last = Vec::new();
        wait_for("the edit to be healed", LIMIT, || {
            last = northbound::dump(lab).map(|dump| northbound::difference(&dump, &before)).unwrap_or_default();
            last.is_empty()
        })
        .with_context(|| format!("{edit:?}:\n{}", last.join("\n")))?;
    }
    // What is not ours stays: a switch of a stranger, and a key of a stranger in a row of ours.
    lab.exec_node("central", &["ovn-nbctl", "ls-add", "stranger"])?;
    lab.exec_node("central", &["ovn-nbctl", "set", "logical_switch", "node1", "external_ids:stranger=here"])?;
    lab.exec_node("central", &["ovn-nbctl", "lsp-del", "edits_a"])?;
    wait_for("the port to be healed beside a stranger", LIMIT, || {
        northbound::dump(lab)
            .is_ok_and(|dump| northbound::names(&dump, "Logical_Switch_Port").contains(&"edits_a".into()))
    })?;
    let dump = northbound::dump(lab)?;
    ensure!(northbound::names(&dump, "Logical_Switch").contains(&"stranger".into()), "the stranger's switch is gone");
    let key = lab.exec_node("central", &["ovn-nbctl", "get", "logical_switch", "node1", "external_ids:stranger"])?;
    ensure!(key.trim() == "here", "the stranger's key is gone: {key}");
    lab.exec_node("central", &["ovn-nbctl", "ls-del", "stranger"])?;
    lab.exec_node("central", &["ovn-nbctl", "remove", "logical_switch", "node1", "external_ids", "stranger"]).map(drop)
}

async fn the_northbound_server_restarts(lab: &Lab) -> Result<()> {
    let before = northbound::dump(lab)?;
    lab.kill("central/nb")?;
    // A pod that comes while nobody can write.
    lab.apply(&pods::pod(NAMESPACE, "during-nb", "node1")).await?;
    lab.start("central/nb")?;
    lab.await_running(NAMESPACE).await?;
    let missing: Vec<_> = northbound::difference(&northbound::dump(lab)?, &before)
        .into_iter()
        .filter(|line| line.starts_with("missing"))
        .collect();
    ensure!(missing.is_empty(), "{missing:?}");
    everything_reaches_everything(lab).await
}

async fn the_api_server_restarts(lab: &Lab) -> Result<()> {
    lab.kill("apiserver")?;
    lab.start("apiserver")?;
    await_api(lab)?;
    lab.apply(&pods::pod(NAMESPACE, "after-api", "node2")).await?;
    lab.await_running(NAMESPACE).await?;
    everything_reaches_everything(lab).await
}

async fn everything_reaches_everything(lab: &Lab) -> Result<()> {
    let matrix = ovenbird_lab::demo::matrix(lab, &Status::of(lab).await?, NAMESPACE)?;
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    Ok(())
}
