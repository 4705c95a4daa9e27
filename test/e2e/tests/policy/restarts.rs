//! What must not change a verdict: restarts of the master, of northd, of ovn-controllers, of switches, and a Northbound that loses its leader; in the
//! classic network of the master, of node daemons, which enforce there, and of switches. The table is watched all the time; then policy is
//! switched off, and on again.
//!
//! Of a switch in user space and an ovn-controller that fills its switch anew, only "denied became allowed" is an error: silence is printed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::LIMIT;
use ovenbird_e2e::fault::{Done, Fault, LISTED, sync};
use ovenbird_e2e::pulse::{Pulse, go_on, laps};
use ovenbird_lab::databases::{Database, leader};
use ovenbird_lab::{Lab, Mode, Options, ServiceModel, testing, wait_for};
use serde_json::{Value, json};

use crate::table::{self, Table};
use crate::watch::{self, Watch};
use crate::world::World;

/// Blocks of each stream after a fault.
const BLOCKS: u64 = 20;
/// On a busy machine streams lose blocks without any fault: so only a longer silence is held against one, and shorter cuts are not seen.
const CUT: Duration = Duration::from_secs(1);
/// As many new connections are silent when something is wrong with more than the datapath's cache.
const FEW: usize = 5;
const MASTER: &[&str] = &["central/master"];
const NODES: [&str; 2] = ["node1", "node2"];
/// Of these nobody may notice anything.
const UNNOTICED: [Fault; 4] = [
    Fault { name: "master, SIGTERM", components: MASTER, kill: false, done: LISTED },
    Fault { name: "master, SIGKILL", components: MASTER, kill: true, done: LISTED },
    Fault { name: "northd, SIGTERM", components: &["central/northd"], kill: false, done: Done::Southbound },
    Fault { name: "northd, SIGKILL", components: &["central/northd"], kill: true, done: Done::Southbound },
];
/// These may cost packets.
const NOTICED: [Fault; 2] = [
    Fault {
        name: "ovn-controllers, SIGKILL",
        components: &["node1/ovn-controller", "node2/ovn-controller"],
        kill: true,
        done: Done::Nodes,
    },
    Fault {
        name: "ovs-vswitchds, SIGKILL",
        components: &["node1/vswitchd", "node2/vswitchd"],
        kill: true,
        done: Done::Nodes,
    },
];

const DAEMONS: [&str; 2] = ["node1/ovenbird-node", "node2/ovenbird-node"];
/// A node daemon of the classic network has compared everything.
const COMPARED: Done = Done::Log("flows of obr0 are as they should be");
/// Of these nobody may notice anything in the classic network, where the kernel judges.
const UNNOTICED_IN_CLASSIC: [Fault; 4] = [
    UNNOTICED[0],
    UNNOTICED[1],
    Fault { name: "node daemons, SIGTERM", components: &DAEMONS, kill: false, done: COMPARED },
    Fault { name: "node daemons, SIGKILL", components: &DAEMONS, kill: true, done: COMPARED },
];

#[tokio::test(flavor = "multi_thread")]
async fn restarts_change_no_verdict() -> Result<()> {
    let options = Options { nodes: 2, databases: ServiceModel::Raft, ..Options::default() };
    change_no_verdict("e2e-policy-rst", options, |trial| {
        for fault in UNNOTICED {
            fault.strike(trial.lab, || trial.settle(fault.name, false))?;
        }
        trial.loses_its_leader()?;
        for fault in NOTICED {
            fault.strike(trial.lab, || trial.settle(fault.name, true))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_change_no_verdict_on_a_classic_network() -> Result<()> {
    let options = Options { nodes: 2, mode: Mode::Classic, ..Options::default() };
    change_no_verdict("e2e-policy-rstk", options, |trial| {
        for fault in UNNOTICED_IN_CLASSIC {
            fault.strike(trial.lab, || trial.settle(fault.name, false))?;
        }
        NODES.into_iter().try_for_each(|node| trial.loses_its_switch(node))
    })
    .await
}

async fn change_no_verdict(name: &str, options: Options, strike: impl Fn(&Trial<'_>) -> Result<()>) -> Result<()> {
    let enforcers: &[&str] = if options.mode == Mode::Classic { &DAEMONS } else { MASTER };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(()) };
    let world = World::build(lab).await?;
    let rows = table::rows(&world)?;
    let open = Table::new(&rows, &world.cluster(&[]).await?);
    let policies = policies();
    let cluster = world.cluster(&policies).await?;
    let table = Table::new(&rows, &cluster);
    ensure!(
        table.denied() > 100 && table.denied() + 100 < table.len(),
        "{} of {} rows denied",
        table.denied(),
        table.len()
    );
    world.create(&policies).await?;
    table.hold(&world, &open.verdicts, Instant::now())?;
    let streams = watch::streams(&world, &[&cluster])?;
    let pulses: Vec<_> = streams.iter().collect();
    let watched = Watch::start(&table);
    watched.go_on(1)?;
    let trial = Trial { lab: &world.lab, pulses: &pulses, watched: &watched };
    trial.settle("before", false)?;
    strike(&trial)?;
    let seen = watched.stop()?;
    streams.into_iter().try_for_each(Pulse::stop)?;
    println!("{} rounds of {} rows, {} datagrams of denied rows", seen.rounds, table.len(), seen.drips);
    switch(&world.lab, enforcers, "false")?;
    let held = open.hold(&world, &table.verdicts, Instant::now()).context("policy switched off")?;
    println!("{:>5} ms: policy switched off", held.after.as_millis());
    switch(&world.lab, enforcers, "true")?;
    let held = table.hold(&world, &open.verdicts, Instant::now()).context("policy switched on")?;
    println!("{:>5} ms: policy switched on", held.after.as_millis());
    Ok(())
}

fn policies() -> Vec<Value> {
    let policy = |namespace: &str, spec: Value| {
        let metadata = json!({"namespace": namespace, "name": "p"});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    };
    let blue = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}});
    let web = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}});
    vec![
        policy(
            "x",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [web]}, {"from": [blue], "ports": [{"port": "web"}]}],
            "egress": [{"to": [{"podSelector": {}}, blue]}]}),
        ),
        policy(
            "y",
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]}]}),
        ),
    ]
}

/// A watched table.
struct Trial<'a> {
    lab: &'a Lab,
    pulses: &'a [&'a Pulse],
    watched: &'a Watch,
}

impl Trial<'_> {
    /// Goes on for a while, and tells what was seen since the last time.
    fn settle(&self, what: &str, noticed: bool) -> Result<()> {
        go_on(self.pulses, BLOCKS).with_context(|| what.to_owned())?;
        self.watched.go_on(1)?;
        let seen = self.watched.lap();
        let laps = laps(self.pulses);
        let lost: usize = laps.iter().map(|lap| lap.lost).sum();
        let silence = laps.iter().map(|lap| lap.silence).max().unwrap_or_default();
        println!(
            "{what}: longest silence of {} streams {silence:.0?}, {lost} blocks lost, {} rows silent",
            laps.len(),
            seen.silent.len()
        );
        ensure!(seen.opened.is_empty(), "{what}: denied, and open:\n{}", seen.opened.join("\n"));
        if !noticed {
            println!("{what}: lost {:?}", watch::losses(self.pulses, &laps));
            ensure!(silence < CUT, "{what}: a stream was silent for {silence:?}");
            // A new connection may meet a flow that the datapath should have forgotten.
            ensure!(seen.silent.len() < FEW, "{what}: allowed, and silent:\n{}", seen.silent.join("\n"));
        }
        Ok(())
    }

    fn loses_its_leader(&self) -> Result<()> {
        let old = leader(self.lab.layout(), Database::Northbound)?;
        self.lab.kill(&old.component())?;
        let follows = || leader(self.lab.layout(), Database::Northbound).is_ok_and(|new| new != old);
        wait_for("another leader", LIMIT, follows)?;
        sync(self.lab, "--wait=hv")?;
        self.settle("the Northbound's leader, SIGKILL", false)?;
        self.lab.start(&old.component())
    }

    /// The switch of a classic network ends and comes back empty; the node daemon fills it.
    fn loses_its_switch(&self, node: &str) -> Result<()> {
        let socket = format!("unix:{}", self.lab.layout().dir().join(node).join("obr0.mgmt").display());
        let flows = || -> Result<usize> {
            let text = self.lab.exec_node(node, &["ovs-ofctl", "--no-stats", "dump-flows", &socket])?;
            Ok(text.matches("actions=").count())
        };
        let before = flows()?;
        let switch = format!("{node}/vswitchd");
        self.lab.kill(&switch)?;
        self.lab.start(&switch)?;
        wait_for("the flows to be there again", LIMIT, || flows().is_ok_and(|now| now == before))?;
        self.settle(&format!("{switch}, SIGKILL"), true)
    }
}

/// Starts who enforces with policy on or off.
fn switch(lab: &Lab, enforcers: &[&str], on: &str) -> Result<()> {
    enforcers.iter().try_for_each(|component| {
        lab.stop(component)?;
        let processes = lab.layout().processes();
        let mut spec = processes.get(component)?.spec;
        spec.argv.retain(|argument| !argument.starts_with("--enable-network-policy"));
        spec.argv.push(format!("--enable-network-policy={on}"));
        processes.start(spec).map(drop)
    })
}
