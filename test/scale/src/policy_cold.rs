//! `policy-cold`: 300 namespaces, 3,000 NetworkPolicies and 30,000 annotated pods into an empty Northbound; from the start of the process
//! to the last row, against reading the same lists and writing the same rows with bare sockets. `policy-memory`: resident
//! megabytes that the policies take there, beyond the pods.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::PostParams;
use ovenbird_schema::northbound::{
    acl, address_set as set, logical_switch as ls, logical_switch_port as lsp, port_group as pg,
};
use ovsdb::{MonitorSpec, Replica, TableSpec};
use serde_json::{Value, json};

use crate::cluster::{ApiServer, Master, NODES, SELDOM, at_rest, pod, ports_of};
use crate::policies::{create, labelled, let_in};
use crate::record::{cold_floor, policies, switches};
use crate::rows::Rows;
use crate::server::Server;
use crate::{Context, Outcome, Usage, median};

const NAMESPACES: usize = 300;
const PODS: usize = 30_000;
/// Apps of each namespace; each has a policy, beside two for all pods.
const APPS: usize = 8;
/// Namespaces of a team, whose equal apps may reach each other.
const TEAM: usize = 10;

/// Runs `policy-cold`.
pub async fn cold(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    fill(&api).await?;
    create(&api, all_policies()).await?;
    let (mut ours, mut floor, mut usage) = (Vec::new(), Vec::new(), Usage::default());
    let (mut transactions, mut lists, mut bytes, mut rows) = (0, 0, 0, 0);
    for round in 0..context.rounds {
        let dir = context.dir.join(round.to_string());
        std::fs::create_dir_all(dir.join("raw")).context("make a folder")?;
        let server = Server::start(&dir)?;
        let names = MonitorSpec::new().with(TableSpec::columns(&lsp::TABLE, [lsp::NAME]));
        let mut names = Rows::watch(&server, names).await?;
        let master = Master::start(&dir, &api, &server)?;
        names.until(|replica| replica.len(&lsp::TABLE) == ports_of(PODS)).await?;
        ours.push(master.began.elapsed().as_secs_f64());
        usage = master.usage()?;
        drop(names);
        let all = whole(&server).await?;
        let members = members_of(&all.replica);
        let (status, _) = master.settle(SELDOM)?;
        transactions = status["northbound"]["transactions"].as_u64().unwrap_or_default();
        master.stop()?;
        let end = whole(&server).await?.replica;
        ensure!(members == members_of(&end), "the last port came before its policies");
        rows = [&lsp::TABLE, &acl::TABLE, &pg::TABLE, &set::TABLE].map(|table| all.replica.len(table)).iter().sum();
        let messages = [switches(&all.replica), policies(&all.replica)].concat();
        drop(all);
        bytes = messages.iter().map(|m| m.len() as u64).sum();
        let paths = ["api/v1/nodes", "api/v1/namespaces", "api/v1/pods", "apis/networking.k8s.io/v1/networkpolicies"];
        let (seconds, list_bytes) = cold_floor(&dir, &api, &paths, &messages)?;
        lists = list_bytes;
        floor.push(seconds);
    }
    Ok(Outcome {
        ours: median(ours),
        floor: median(floor),
        unit: "s",
        goal: "1.5 x, 3 s (must: 3 x)",
        usage,
        transactions,
        rows: rows as u64,
        bytes,
        more: BTreeMap::from([("list_bytes", lists.into()), ("cpu_s", usage.cpu_seconds.into())]),
    })
}

/// Runs `policy-memory`.
pub async fn memory(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    fill(&api).await?;
    let (mut figures, mut usage) = (Vec::new(), Usage::default());
    for name in ["without", "with"] {
        if name == "with" {
            create(&api, all_policies()).await?;
        }
        usage = at_rest(context, name, &api)?;
        figures.push(usage.rss_bytes as f64 / 1e6);
    }
    Ok(Outcome {
        ours: figures[1] - figures[0],
        floor: 0.0,
        unit: "MB",
        goal: "30 MB (must: 60)",
        usage,
        transactions: 0,
        rows: (NAMESPACES * (APPS + 2)) as u64,
        bytes: 0,
        more: BTreeMap::from([("mb_of_pods", figures[0].round().into()), ("mb_of_all", figures[1].round().into())]),
    })
}

/// Nodes, namespaces and pods: each namespace has one pod on each node.
async fn fill(api: &ApiServer) -> anyhow::Result<()> {
    api.create_nodes(true).await?;
    let client = api.client()?;
    let namespaces = Api::<Namespace>::all(client.clone());
    for n in 0..NAMESPACES {
        let object = json!({"metadata": {"name": namespace(n), "labels": {"team": team(n)}}});
        let object = serde_json::from_value(object).context("make a namespace")?;
        namespaces.create(&PostParams::default(), &object).await.context("create a namespace")?;
    }
    let create = |i: usize| {
        let client = client.clone();
        async move {
            let mut object = pod(i, NODES, true);
            object["metadata"]["namespace"] = namespace(i / NODES).into();
            object["metadata"]["labels"]["app"] = app(i % APPS).into();
            let pod: Pod = serde_json::from_value(object).context("make a pod")?;
            let pods = Api::<Pod>::namespaced(client, &namespace(i / NODES));
            pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..PODS).map(create).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    Ok(())
}

fn namespace(n: usize) -> String {
    format!("shop-{n}")
}

fn team(n: usize) -> String {
    format!("team-{}", n / TEAM)
}

fn app(n: usize) -> String {
    format!("app-{}", n % APPS)
}

fn all_policies() -> impl Iterator<Item = (String, String, Value)> {
    (0..NAMESPACES).flat_map(|n| {
        let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        let system = json!({"namespaceSelector": labelled("kubernetes.io/metadata.name", "kube-system")});
        let ports = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
        let names = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [system], "ports": ports}]});
        let for_all = [("deny-all".to_owned(), deny), ("names".to_owned(), names)];
        let apps = (0..APPS).map(move |a| (app(a), of_app(n, a)));
        for_all.into_iter().chain(apps).map(move |(name, spec)| (namespace(n), name, spec))
    })
}

/// An app is reached by its neighbour and by the same app of the team, and reaches its other neighbour and a range outside.
fn of_app(n: usize, a: usize) -> Value {
    let near = |a| json!({"podSelector": labelled("app", &app(a))});
    let same = json!({"namespaceSelector": labelled("team", &team(n)), "podSelector": labelled("app", &app(a))});
    let mut policy = let_in(&labelled("app", &app(a)), &[near(a + 1), same]);
    let outside = json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}});
    policy["policyTypes"] = json!(["Ingress", "Egress"]);
    policy["egress"] = json!([{"to": [near(a + APPS - 1), outside], "ports": policy["ingress"][0]["ports"]}]);
    policy
}

/// All tables that pods and policies have rows in, whole.
async fn whole(server: &Server) -> anyhow::Result<Rows> {
    let tables = [&ls::TABLE, &lsp::TABLE, &acl::TABLE, &pg::TABLE, &set::TABLE];
    let spec = tables.into_iter().fold(MonitorSpec::new(), |spec, table| spec.with(TableSpec::all(table)));
    Rows::watch(server, spec).await
}

/// ACLs, and members of groups and of sets: each once for all that there are.
fn members_of(replica: &Replica) -> [usize; 3] {
    let ports = replica.rows(&pg::TABLE).map(|(_, row)| pg::Ref(row).ports().count()).sum();
    let addresses = replica.rows(&set::TABLE).map(|(_, row)| set::Ref(row).addresses().count()).sum();
    [replica.len(&acl::TABLE), ports, addresses]
}
