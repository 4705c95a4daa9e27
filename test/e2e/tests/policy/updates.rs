//! What changes under a table: labels of pods and namespaces, pods made anew at the address of others, policies edited and renamed. After each
//! change the whole new table comes to hold; while a policy is renamed,
//! nothing that both states deny opens for a moment (that nothing both allow is cut is not so yet: see `renames`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use ovenbird_e2e::pulse::{go_on, laps};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::{Mode, Options, testing};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::table::{self, Row, Table, Verdict};
use crate::watch::{self, Watch};
use crate::world::{World, document, pod, split};

/// A silence that is more than what renaming is known to cost.
const CUT: Duration = Duration::from_secs(1);

/// A world whose table is known, and its policies.
struct Changing {
    world: World,
    rows: Arc<[Row]>,
    policies: Vec<Value>,
    before: Vec<Verdict>,
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_follow_every_change() -> Result<()> {
    follow("e2e-policy-upd", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_classic_network_follow_every_change() -> Result<()> {
    follow("e2e-policy-ucl", Mode::Classic).await
}

async fn follow(lab: &str, mode: Mode) -> Result<()> {
    let options = Options { nodes: 2, mode, ..Options::default() };
    let Some(lab) = testing::lab(lab, options).await? else { return Ok(()) };
    let world = World::build(lab).await?;
    let rows = table::rows(&world)?;
    let mut changing = Changing { world, rows, policies: Vec::new(), before: Vec::new() };
    changing.labels().await?;
    changing.edits().await?;
    changing.addresses().await?;
    changing.renames().await
}

/// The policy of x that most changes are about, with another spec.
fn policy(name: &str, spec: &Value) -> Value {
    let metadata = json!({"namespace": "x", "name": name});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}

/// Web pods of all namespaces, and whoever is of the blue team to one port.
fn first() -> Value {
    json!({"podSelector": {}, "ingress": [
        {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": 80}]},
    ]})
}

impl Changing {
    /// The table that the API's objects ask for comes to hold.
    async fn holds(&mut self, what: &str, began: Instant) -> Result<()> {
        let table = Table::new(&self.rows, &self.world.cluster(&self.policies).await?);
        let held = table.hold(&self.world, &self.before, began).with_context(|| what.to_owned())?;
        println!("{:>5} ms: {what} ({} denied, {} stale)", held.after.as_millis(), table.denied(), held.stale.len());
        self.before = table.verdicts;
        Ok(())
    }

    async fn label_pod(&mut self, name: &str, app: &str) -> Result<()> {
        let (namespace, short) = split(name);
        let api = Api::<Pod>::namespaced(self.world.client.clone(), namespace);
        let patch = Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
        let began = Instant::now();
        api.patch(short, &PatchParams::default(), &patch).await.context("labelling a pod")?;
        self.holds(&format!("pod {name} becomes {app}"), began).await
    }

    async fn label_namespace(&mut self, name: &str, team: Option<&str>) -> Result<()> {
        let api = Api::<Namespace>::all(self.world.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
        let began = Instant::now();
        api.patch(name, &PatchParams::default(), &patch).await.context("labelling a namespace")?;
        self.holds(&format!("namespace {name} is of team {team:?}"), began).await
    }

    async fn labels(&mut self) -> Result<()> {
        self.policies = vec![policy("p", &first())];
        let began = Instant::now();
        self.world.create(&self.policies).await?;
        self.holds("the first policy", began).await?;
        self.label_pod("z/c", "web").await?;
        self.label_pod("z/c", "db").await?;
        self.label_namespace("z", Some("blue")).await?;
        self.label_namespace("y", None).await?;
        self.label_namespace("y", Some("blue")).await?;
        self.label_namespace("z", None).await
    }

    async fn edit(&mut self, what: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        change(&mut self.policies[0]["spec"]);
        let began = Instant::now();
        self.world.replace(&self.policies[0]).await?;
        self.holds(what, began).await
    }

    async fn edits(&mut self) -> Result<()> {
        let db = json!({"matchLabels": {"app": "db"}});
        self.edit("podSelector is moved", |spec| spec["podSelector"] = db).await?;
        let rule =
            json!({"from": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": "web"}]});
        self.edit("a rule is added", |spec| {
            spec["ingress"].as_array_mut().into_iter().for_each(|rules| rules.push(rule.clone()));
        })
        .await?;
        self.edit("the first rule is removed", |spec| {
            spec["ingress"].as_array_mut().into_iter().for_each(|rules| drop(rules.remove(0)));
        })
        .await?;
        self.edit("policyTypes says Egress alone", |spec| spec["policyTypes"] = json!(["Egress"])).await?;
        self.edit("policyTypes says both", |spec| spec["policyTypes"] = json!(["Ingress", "Egress"])).await?;
        self.edit("all as it was", |spec| *spec = first()).await
    }

    /// A pod goes, and another object of its name gets its address: with other labels, then with its own; and after one that has finished.
    async fn addresses(&mut self) -> Result<()> {
        let mut other = pod("y/a");
        other["metadata"]["labels"] = json!({"app": "other"});
        self.remake("y/a", &other).await?;
        self.holds("y/a made anew with other labels", Instant::now()).await?;
        self.remake("y/a", &pod("y/a")).await?;
        self.holds("y/a made anew as it was", Instant::now()).await?;
        // A pod that policies let through takes the address of z/c, finishes, and keeps its object; then z/c comes back.
        self.remove("z/c").await?;
        let mut finished = pod("z/c");
        finished["metadata"]["name"] = "finished".into();
        finished["metadata"]["labels"] = json!({"app": "web"});
        finished["spec"]["restartPolicy"] = "Never".into();
        finished["spec"]["containers"][0]["command"] = json!(["true"]);
        self.world.lab.apply(&document(&finished)).await?;
        let api = pods::api(&self.world.lab, "z").await?;
        let succeeded = |pod: Option<&Pod>| {
            pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Succeeded")
        };
        timeout(LIMIT, await_condition(api.clone(), "finished", succeeded)).await.context("it does not finish")??;
        self.make("z/c", &pod("z/c")).await?;
        let had = pods::ips(&api, "finished").await?;
        ensure!(had == self.world.pod("z/c")?.ips, "the finished pod had {had:?}");
        self.holds("z/c at the address of a pod that has finished", Instant::now()).await
    }

    async fn remove(&mut self, name: &str) -> Result<()> {
        let (namespace, short) = split(name);
        let api = pods::api(&self.world.lab, namespace).await?;
        api.delete(short, &DeleteParams::default()).await.context("deleting a pod")?;
        pods::await_gone(&api, short).await
    }

    async fn remake(&mut self, name: &str, manifest: &Value) -> Result<()> {
        self.remove(name).await?;
        self.make(name, manifest).await
    }

    async fn make(&mut self, name: &str, manifest: &Value) -> Result<()> {
        let old = self.world.pod(name)?.ips.clone();
        self.world.lab.apply(&document(manifest)).await?;
        let (namespace, short) = split(name);
        // Not all pods of the namespace: one has finished.
        let running = await_condition(pods::api(&self.world.lab, namespace).await?, short, is_pod_running());
        timeout(LIMIT, running).await.with_context(|| format!("{name} does not run"))??;
        self.world.find_pod(name).await?;
        let new = &self.world.pod(name)?.ips;
        ensure!(*new == old, "{name} had {old:?} and has {new:?}");
        self.rows = self.rows.iter().map(|row| row.relocated(&self.world)).collect();
        Ok(())
    }

    /// A policy goes and comes under another name: what both states deny never opens, and what streams lose on ways that both allow is told.
    async fn renames(&mut self) -> Result<()> {
        let (narrow, mut wider) = (first(), first());
        wider["egress"] = json!([{"to": [{"namespaceSelector": {}}]}]);
        let mut names =
            (0..).map(|turn| policy(&format!("renamed-{turn}"), if turn % 2 == 0 { &wider } else { &narrow }));
        let states =
            [self.world.cluster(&[policy("p", &first())]).await?, self.world.cluster(&[policy("p", &wider)]).await?];
        let tables = states.each_ref().map(|state| Table::new(&self.rows, state));
        let common = tables[0].agreeing(&tables[1]);
        let streams = watch::streams(&self.world, &[&states[0], &states[1]])?;
        let pulses: Vec<_> = streams.iter().collect();
        let watched = Watch::start(&common);
        watched.go_on(1)?;
        ovenbird_e2e::pulse::laps(&pulses);
        for _ in 0..6 {
            let new: Vec<_> = names.by_ref().take(1).collect();
            self.world.create(&new).await?;
            self.world.delete(&self.policies).await?;
            self.policies = new;
            watched.go_on(1)?;
            go_on(&pulses, 10)?;
        }
        let laps = laps(&pulses);
        let seen = watched.stop()?;
        println!(
            "renamed six times: {} streams, {} rounds of {} rows, {} datagrams of denied rows",
            pulses.len(),
            seen.rounds,
            common.len(),
            seen.drips
        );
        ensure!(seen.opened.is_empty(), "denied by both, and open:\n{}", seen.opened.join("\n"));
        // A new connection may meet a flow that the datapath should have forgotten; what streams lose is told below.
        let few = seen.silent.len() * 100 <= seen.rounds * common.len();
        ensure!(few, "allowed by both, and silent:\n{}", seen.silent.join("\n"));
        ensure!(seen.drips > 0 && pulses.len() >= 10, "{} streams, {} datagrams", pulses.len(), seen.drips);
        // Open: a rename costs some streams a few blocks (about 100 ms), all of them between nodes, some without any policy at either
        // end; a busy machine alone costs some, too. Issue 6 asks for none.
        println!("lost by renaming, cause unknown: {:?}", watch::losses(&pulses, &laps));
        let silence = laps.iter().map(|lap| lap.silence).max().unwrap_or_default();
        ensure!(silence < CUT, "a stream was silent for {silence:?}");
        streams.into_iter().try_for_each(|stream| stream.stop())
    }
}
