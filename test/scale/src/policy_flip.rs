//! `policy-flip`: S1 with 100 and with 1,000 NetworkPolicies, and a pod that changes a label: from sending the PATCH to its port being in
//! another group; against the PATCH's own answer. `policy-burst`: 60 pods change theirs at once, and a namespace one that 50 policies
//! select, from the first PATCH to the last row; against the answers to as many PATCHes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use ovsdb::{Replica, Uuid};
use serde_json::{Value, json};

use crate::cluster::{ApiServer, Master, NAMESPACES, PODS, SELDOM, namespace_of};
use crate::policies::{
    addresses_in, create, group_of, is_in, label_namespace, label_pod, labelled, let_in, port_of, sets_of, watch,
};
use crate::rows::Rows;
use crate::server::Server;
use crate::written::Written;
use crate::{Context, Outcome, Usage, quantile};

/// Policies of each namespace, and so 100 and 1,000.
const EACH: [usize; 2] = [5, 50];
/// Flips that are timed, an even number.
const FLIPS: usize = 300;
/// The pod between which groups goes.
const APPS: [&str; 2] = ["web-1", "web-2"];
/// Pods that change at once.
const BURST: usize = 60;
/// Bursts of each kind and round, an even number.
const BURSTS: usize = 10;
/// The namespace whose label changes, by number, and how many policies select it.
const FLIPPED: usize = 2;
const SELECTING: usize = 50;

/// Runs `policy-flip`.
pub async fn flip(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    let (mut more, mut last, mut usage, mut made) = (BTreeMap::new(), (0.0, 0.0), Usage::default(), 0);
    let mut written = Written::default();
    let keys = [["p50_ms_at_100", "p99_ms_at_100", "patch_ms_at_100"], ["p50_ms", "p99_ms", "patch_ms"]];
    for (each, keys) in EACH.into_iter().zip(keys) {
        create(&api, some(made..each)).await?;
        made = each;
        let dir = context.dir.join(each.to_string());
        std::fs::create_dir_all(&dir).context("make a folder")?;
        let server = Server::start(&dir)?;
        let master = Master::start(&dir, &api, &server)?;
        master.settle(SELDOM)?;
        let mut rows = watch(&server).await?;
        let client = api.client()?;
        label_pod(&client, 0, "app", APPS[1]).await?;
        let before = Written::so_far(&master)?;
        let ours = flips(&client, &mut rows).await?;
        written = Written::default();
        written.add(&before, &Written::so_far(&master)?);
        let floor = answers(&client).await?;
        usage = master.usage()?;
        master.stop()?;
        more.insert(keys[0], ms(quantile(&ours, 0.5)).into());
        more.insert(keys[1], ms(quantile(&ours, 0.99)).into());
        more.insert(keys[2], ms(quantile(&floor, 0.5)).into());
        last = (quantile(&ours, 0.5) * 1e3, quantile(&floor, 0.5) * 1e3);
    }
    more.insert("transactions_per_flip", (written.transactions as f64 / FLIPS as f64).into());
    Ok(Outcome {
        ours: last.0,
        floor: last.1,
        unit: "ms",
        goal: "1.3 x (must: p50 5 ms, 1 transaction)",
        usage,
        transactions: written.transactions,
        rows: FLIPS as u64,
        bytes: written.bytes / FLIPS as u64,
        more,
    })
}

/// Policies with these numbers of each namespace: the first denies all, each other one lets the pods of an app reach those of another.
pub fn some(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, String, Value)> {
    let spec = |n: usize| match n {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        _ => {
            let peer = json!({"podSelector": labelled("app", &format!("web-{}", n + 1))});
            let_in(&labelled("app", &format!("web-{n}")), &[peer])
        }
    };
    let all = move |namespace| numbers.clone().map(move |n| (namespace_of(namespace), format!("policy-{n}"), spec(n)));
    (0..NAMESPACES).flat_map(all)
}

/// Times from sending the PATCH of a label to seeing the port in the group that the label leads to, and in no other.
async fn flips(client: &kube::Client, rows: &mut Rows) -> anyhow::Result<Vec<Duration>> {
    let groups = Groups::of(&rows.replica, 0)?;
    let mut times = Vec::new();
    for n in 0..FLIPS {
        let began = Instant::now();
        let patching = label_pod(client, 0, "app", APPS[n % 2]);
        let seeing = rows.until(|replica| groups.are(replica, n % 2));
        let seeing = async { seeing.await.map(|()| began.elapsed()) };
        times.push(futures::future::try_join(patching, seeing).await?.1);
    }
    Ok(times)
}

/// Times of PATCHes of a label that nothing selects.
async fn answers(client: &kube::Client) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in 0..FLIPS {
        let began = Instant::now();
        label_pod(client, 0, "revision", &(n % 2).to_string()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// The port of a pod, and the groups of both apps in its namespace.
struct Groups {
    port: Uuid,
    groups: [Uuid; 2],
}

impl Groups {
    fn of(replica: &Replica, i: usize) -> anyhow::Result<Groups> {
        let group = |app| group_of(replica, &format!("{}/app={app}", namespace_of(i)));
        Ok(Groups { port: port_of(replica, i)?, groups: [group(APPS[0])?, group(APPS[1])?] })
    }

    /// True when the port is in that group alone.
    fn are(&self, replica: &Replica, app: usize) -> bool {
        is_in(replica, self.groups[app], self.port) && !is_in(replica, self.groups[1 - app], self.port)
    }
}

/// Runs `policy-burst`.
pub async fn burst(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..PODS, true).await?;
    create(&api, some(0..EACH[1])).await?;
    create(&api, (0..SELECTING).map(|n| ("team-0".to_owned(), format!("open-{n}"), open(n)))).await?;
    let server = Server::start(&context.dir)?;
    let master = Master::start(&context.dir, &api, &server)?;
    master.settle(SELDOM)?;
    let mut rows = watch(&server).await?;
    let client = api.client()?;
    let count = context.rounds * BURSTS;
    flip_all(&client, &mut rows, 1).await?;
    let before = Written::so_far(&master)?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for n in 0..count {
        ours.push(flip_all(&client, &mut rows, n % 2).await?);
    }
    let between = Written::so_far(&master)?;
    let mut opened = Vec::new();
    for n in 0..count {
        opened.push(open_namespace(&client, &mut rows, n % 2 == 0).await?);
    }
    let after = Written::so_far(&master)?;
    for n in 0..count {
        let began = Instant::now();
        label_all(&client, "revision", &n.to_string()).await?;
        floor.push(began.elapsed());
    }
    let usage = master.usage()?;
    master.stop()?;
    let per = |later: u64, sooner: u64| (later - sooner) as f64 / count as f64;
    Ok(Outcome {
        ours: ms(quantile(&ours, 0.5)),
        floor: ms(quantile(&floor, 0.5)),
        unit: "ms",
        goal: "50 ms (must: 1 transaction while one is in flight)",
        usage,
        transactions: (between.transactions - before.transactions) / count as u64,
        rows: BURST as u64,
        bytes: (between.bytes - before.bytes) / count as u64,
        more: BTreeMap::from([
            ("p99_ms", ms(quantile(&ours, 0.99)).into()),
            ("transactions_per_burst", per(between.transactions, before.transactions).into()),
            ("namespace_ms", ms(quantile(&opened, 0.5)).into()),
            ("namespace_transactions", per(after.transactions, between.transactions).into()),
            ("namespace_bytes", per(after.bytes, between.bytes).into()),
        ]),
    })
}

/// Lets in a namespace by its label: every second policy all pods of it, the others those of an app.
fn open(n: usize) -> Value {
    let mut peer = json!({"namespaceSelector": labelled("open", "true")});
    if n % 2 == 1 {
        peer["podSelector"] = labelled("app", &format!("web-{n}"));
    }
    let_in(&labelled("app", "web-0"), &[peer])
}

/// Numbers of the pods that flip.
fn flipping() -> impl Iterator<Item = usize> {
    // Not those of which the label of the namespace is changed.
    (0..PODS).filter(|i| i % NAMESPACES != FLIPPED).take(BURST)
}

async fn label_all(client: &kube::Client, key: &str, value: &str) -> anyhow::Result<()> {
    let all = futures::stream::iter(flipping().map(|i| label_pod(client, i, key, value)));
    all.buffer_unordered(BURST).try_collect().await
}

/// Time until all pods that flip are in the groups of an app.
async fn flip_all(client: &kube::Client, rows: &mut Rows, app: usize) -> anyhow::Result<Duration> {
    let mut missing: Vec<Groups> = flipping().map(|i| Groups::of(&rows.replica, i)).collect::<Result<_, _>>()?;
    let began = Instant::now();
    let seeing = rows.until(|replica| {
        while missing.last().is_some_and(|groups| groups.are(replica, app)) {
            missing.pop();
        }
        missing.is_empty()
    });
    let seeing = async { seeing.await.map(|()| began.elapsed()) };
    Ok(futures::future::try_join(label_all(client, "app", APPS[app]), seeing).await?.1)
}

/// Time until the sets of all policies that select a label have, or have no more, the pods of the namespace that gets or loses it.
async fn open_namespace(client: &kube::Client, rows: &mut Rows, open: bool) -> anyhow::Result<Duration> {
    let name = namespace_of(FLIPPED);
    let of_app = |i: usize| (i % 97) % 2 == 1 && i % 97 < SELECTING;
    let selected = |i: usize| 1 + usize::from(of_app(i));
    let all: usize = (0..PODS).filter(|i| i % NAMESPACES == FLIPPED).map(selected).sum();
    let sets = sets_of(&rows.replica, "[open=true]");
    let wanted = if open { all } else { 0 };
    let began = Instant::now();
    let patching = label_namespace(client, &name, "open", if open { "true" } else { "false" });
    let seeing = rows.until(|replica| addresses_in(replica, &sets) == wanted);
    let seeing = async { seeing.await.map(|()| began.elapsed()) };
    Ok(futures::future::try_join(patching, seeing).await?.1)
}

/// Seconds as milliseconds with two decimals.
fn ms(seconds: f64) -> f64 {
    (seconds * 1e5).round() / 1e2
}
