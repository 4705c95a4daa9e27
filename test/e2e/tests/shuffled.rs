//! Everything that runs dies in one order and comes back in another, and one node loses its power in the middle of it: the cluster converges, in
//! every network mode. Then what Ovenbird runs is stopped for long, under streams that must not notice.
//!
//! Orders come of a seed, which is printed; `OVENBIRD_TEST_SEED` takes one again. `OVENBIRD_TEST_ALL` stops the daemons for a minute.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::datapath::eventually;
use ovenbird_e2e::fault::await_api;
use ovenbird_e2e::pulse::{Pulse, echo, go_on, laps};
use ovenbird_e2e::reach::{all_cells, two_on_each_node};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{northbound, pods};
use ovenbird_lab::{Lab, Mode, Options, Status, testing};

const NAMESPACE: &str = "shuffled";
/// Port of the streams' echo.
const ECHO: u16 = 7300;
/// Between two blocks of a stream.
const PERIOD: Duration = Duration::from_millis(10);
const ROUNDS: u64 = 3;
/// Names of processes of the lab itself, without which nothing is as in a cluster, of its switch, and of what a rendering from scratch uses.
const NOT_OF_A_CLUSTER: [&str; 4] = ["gate", "scheduler", "central/scratch", "underlay/"];

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_converges() -> Result<()> {
    converges("e2e-shuffle", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_network_converges() -> Result<()> {
    converges("e2e-shuffle-cl", Mode::Classic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_a_vlan_converge() -> Result<()> {
    converges("e2e-shuffle-vl", Mode::Underlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_nodes_converge() -> Result<()> {
    converges("e2e-shuffle-ne", Mode::Nested).await
}

async fn converges(name: &str, mode: Mode) -> Result<()> {
    let Some(lab) = testing::lab(name, Options { nodes: 2, mode, ..Options::default() }).await? else { return Ok(()) };
    let nodes = lab.layout().options.node_names();
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    lab.await_running(NAMESPACE).await?;
    all_reach_all(&lab).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed =
        std::env::var("OVENBIRD_TEST_SEED").map_or(Ok(now), |text| text.parse()).context("OVENBIRD_TEST_SEED")?;
    for round in 0..ROUNDS {
        let began = Instant::now();
        let told = shuffle(&lab, seed.wrapping_add(round))?;
        // What was chosen while it all came back must be as good as what was there before.
        lab.apply(
            &nodes.iter().map(|node| pods::pod(NAMESPACE, &format!("late-{round}-{node}"), node)).collect::<String>(),
        )
        .await
        .with_context(|| told.clone())?;
        let outcome = async {
            lab.await_running(NAMESPACE).await?;
            all_reach_all(&lab).await?;
            // A classic network has no Northbound, and that of VMs has rows of whoever made these.
            if matches!(mode, Mode::Overlay | Mode::Underlay) { northbound::equals_from_scratch(&lab) } else { Ok(()) }
        };
        outcome.await.with_context(|| told.clone())?;
        println!("{told}: converged {:.1?} after the first kill", began.elapsed());
    }
    daemons_are_away(&lab).await
}

/// Ends everything and starts it again. Returns in which order, for people.
fn shuffle(lab: &Lab, seed: u64) -> Result<String> {
    let nodes = lab.layout().options.node_names();
    let dark = shuffled(seed, &nodes).into_iter().next().context("no nodes")?;
    let of_dark = format!("{dark}/");
    let records = lab.layout().processes().all();
    let names = records.iter().map(|record| record.spec.name.clone());
    let mut ends: Vec<String> = names
        .filter(|name| !name.starts_with(&of_dark) && NOT_OF_A_CLUSTER.iter().all(|not| !name.starts_with(not)))
        .chain([dark.clone()])
        .collect();
    ends = shuffled(seed, &ends);
    let mut starts = shuffled(seed ^ u64::MAX, &ends);
    databases_first(&mut starts);
    let told = format!("seed {seed}: ended {}; started {}", ends.join(", "), starts.join(", "));
    for name in &ends {
        if *name == dark { lab.power_off(name) } else { lab.kill(name) }.with_context(|| told.clone())?;
    }
    for name in &starts {
        if *name == dark { lab.power_on(name) } else { lab.start(name) }.with_context(|| told.clone())?;
    }
    await_api(lab).with_context(|| told.clone())?;
    Ok(told)
}

/// No operating system starts a switch before its database.
fn databases_first(names: &mut [String]) {
    let at = |names: &[String], name: &str| names.iter().position(|other| other == name);
    for switch in 0..names.len() {
        let Some(host) = names[switch].strip_suffix("/vswitchd") else { continue };
        if let Some(database) = at(names, &format!("{host}/ovsdb")).filter(|database| *database > switch) {
            names.swap(switch, database);
        }
    }
}

fn shuffled(seed: u64, names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_by_cached_key(|name| {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        hasher.finish()
    });
    names
}

async fn all_reach_all(lab: &Lab) -> Result<()> {
    let status = Status::of(lab).await?;
    eventually(lab, "all to reach all", || all_cells(lab, &status, NAMESPACE).map(drop))
}

/// Without master and node daemons, and without the API server, what runs goes on.
async fn daemons_are_away(lab: &Lab) -> Result<()> {
    let seconds = if std::env::var_os("OVENBIRD_TEST_ALL").is_some() { 60 } else { 5 };
    let place = |pod: &str| Ok::<_, anyhow::Error>(lab.scene(&format!("{NAMESPACE}/{pod}"))?.place().clone());
    let mut streams = Vec::new();
    let api = pods::api(lab, NAMESPACE).await?;
    for (from, to) in [("a-node1", "b-node1"), ("a-node1", "a-node2"), ("b-node2", "b-node1")] {
        let ips = pods::ips(&api, to).await?;
        if streams.iter().all(|(_, known): &(Pulse, &str)| *known != to) {
            echo(&place(to)?, &ips, ECHO)?;
        }
        for ip in ips {
            let name = format!("{from} to {to} ({ip})");
            streams.push((Pulse::start(name, &place(from)?, Protocol::Udp, SocketAddr::new(ip, ECHO), PERIOD)?, to));
        }
    }
    let pulses: Vec<&Pulse> = streams.iter().map(|(pulse, _)| pulse).collect();
    let nodes = lab.layout().options.node_names();
    let daemons: Vec<String> = ["apiserver".to_owned(), "central/master".into()]
        .into_iter()
        .chain(nodes.iter().map(|node| format!("{node}/ovenbird-node")))
        .collect();
    laps(&pulses);
    daemons.iter().try_for_each(|daemon| lab.kill(daemon))?;
    // Each wait has a limit of its own.
    (0..seconds).try_for_each(|_| go_on(&pulses, 100))?;
    let away = laps(&pulses);
    daemons.iter().rev().try_for_each(|daemon| lab.start(daemon))?;
    go_on(&pulses, 100)?;
    for (pulse, lap) in pulses.iter().zip(away.into_iter().zip(laps(&pulses))) {
        for (when, lap) in [("while they were away", lap.0), ("when they came back", lap.1)] {
            ensure!(lap.lost == 0 && lap.broken.is_none(), "{} {when}: {lap:?}", pulse.name());
        }
    }
    streams.into_iter().try_for_each(|(pulse, _)| pulse.stop())
}
