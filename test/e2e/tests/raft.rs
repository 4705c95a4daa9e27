//! A Northbound of three members that loses its leader, again and again, while pods come and go: no step is left to a person, nothing
//! is written twice, and the member that died catches up.

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::databases::{Database, Member, leader};
use ovenbird_lab::{Lab, Options, ServiceModel, Status, testing, wait_for};

const NAMESPACE: &str = "raft";
const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_under_load_costs_no_row_and_no_step() -> Result<()> {
    let options = Options { nodes: 2, databases: ServiceModel::Raft, ..Options::default() };
    let Some(lab) = testing::lab("e2e-raft", options).await? else { return Ok(()) };
    lab.apply(&pods::namespace(NAMESPACE)).await?;
    for round in 0..ROUNDS {
        a_leader_dies(&lab, round).await.with_context(|| format!("round {round}"))?;
    }
    let matrix = ovenbird_lab::demo::matrix(&lab, &Status::of(&lab).await?, NAMESPACE)?;
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    pods::delete_all(&pods::api(&lab, NAMESPACE).await?).await?;
    northbound::equals_from_scratch(&lab).context("after all pods went")
}

async fn a_leader_dies(lab: &Lab, round: usize) -> Result<()> {
    let old = leader(lab.layout(), Database::Northbound)?;
    pods::churn(lab, NAMESPACE, round, || lab.kill(&old.component())).await?;
    // The other two go on without it.
    lab.await_running(NAMESPACE).await?;
    northbound::equals_from_scratch(lab).context("while a member is dead")?;
    let unowned = northbound::unowned(&northbound::dump(lab)?);
    ensure!(unowned.is_empty(), "rows that are not ours: {unowned:?}");
    let new = leader(lab.layout(), Database::Northbound)?;
    ensure!(new != old, "{} is dead and leads", old.component());
    lab.start(&old.component())?;
    catches_up(lab, old)
}

/// Waits until a member follows, and has what the leader has.
fn catches_up(lab: &Lab, member: Member) -> Result<()> {
    let mut status = String::new();
    wait_for(&format!("{} to rejoin", member.component()), LIMIT, || {
        status = member.cluster_status(lab.layout()).unwrap_or_else(|error| format!("{error:#}"));
        status.contains("\nRole: follower\n") && status.contains("\nStatus: cluster member\n")
    })
    .with_context(|| status.clone())?;
    let mut last = Vec::new();
    wait_for(&format!("{} to have what the leader has", member.component()), LIMIT, || {
        let dumps =
            northbound::dump_of(lab, &member.unix(lab.layout())).and_then(|own| Ok((own, northbound::dump(lab)?)));
        last = dumps.map_or_else(|error| vec![format!("{error:#}")], |(own, all)| northbound::difference(&own, &all));
        last.is_empty()
    })
    .with_context(|| last.join("\n"))
}
