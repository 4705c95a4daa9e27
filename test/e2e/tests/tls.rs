//! Databases that speak TLS and nothing else to the network, and a master that trusts the wrong authority: it says so, waits, and
//! comes in when the file is right.

use std::fs;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, master, northbound, pods};
use ovenbird_lab::pki::Pki;
use ovenbird_lab::{Lab, Options, ServiceModel, Status, testing, wait_for};

const NAMESPACE: &str = "tls";
/// A master that is no concern of the pods'.
const STRAY: &str = "stray";

#[tokio::test(flavor = "multi_thread")]
async fn pods_meet_over_tls_and_a_wrong_authority_is_named() -> Result<()> {
    let options = Options { nodes: 2, databases: ServiceModel::Raft, tls: true, ..Options::default() };
    let Some(lab) = testing::lab("e2e-tls", options).await? else { return Ok(()) };
    let two = pods::pod(NAMESPACE, "a", "node1") + &pods::pod(NAMESPACE, "b", "node2");
    lab.apply(&(pods::namespace(NAMESPACE) + &two)).await?;
    lab.await_running(NAMESPACE).await?;
    let argv = lab.layout().processes().get("central/master")?.spec.argv;
    ensure!(argv.iter().any(|argument| argument.matches("ssl:").count() == 3), "no TLS to three members: {argv:?}");
    a_wrong_authority_is_named(&lab).context("a wrong authority")?;
    let matrix = ovenbird_lab::demo::matrix(&lab, &Status::of(&lab).await?, NAMESPACE)?;
    ensure!(matrix.failures().is_empty(), "{}\n{}", matrix.table(), matrix.failures().join("\n"));
    northbound::equals_from_scratch(&lab)
}

fn a_wrong_authority_is_named(lab: &Lab) -> Result<()> {
    let stranger = Pki::at(lab.layout().home("central").join("stranger"));
    stranger.create(None)?;
    let trusted = stranger.files(STRAY).ca_certificate;
    let file = trusted.display().to_string();
    let spec = master::another(lab, STRAY, &[("--nb-client-cacert", &file)])?;
    let (name, processes) = (spec.name.clone(), lab.layout().processes());
    processes.start(spec)?;
    // Every endpoint is tried and named, with the file to look at and the reason.
    let server = lab.layout().over_fabric(ovenbird_lab::databases::Database::Northbound)?;
    let mut log = String::new();
    wait_for("the log to name the servers, the file and what is wrong", LIMIT, || {
        log = fs::read_to_string(processes.log_path(&name)).unwrap_or_default();
        let told = |server: &str| {
            let words = [" WARN ", server, &file, "must hold the authority", "invalid peer certificate"];
            log.lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        server.split(',').all(told)
    })
    .with_context(|| log.clone())?;
    let northbound = master::status(lab, STRAY)?["northbound"].clone();
    let detail = northbound["detail"].as_str().unwrap_or_default();
    ensure!(northbound["connected"] == false && detail.contains(&file), "{northbound}");
    // The file is put right under it, and nobody starts it again.
    fs::copy(lab.layout().pki().files("central").ca_certificate, &trusted)?;
    wait_for("the same process to connect", LIMIT, || {
        master::status(lab, STRAY).is_ok_and(|status| status["northbound"]["connected"] == true)
    })?;
    lab.stop(&name)
}
