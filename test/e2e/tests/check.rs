//! `ovenbird check policy` on a real lab: what it says of pods, nodes and addresses, that OVN's logical flows say the same, and that it says so when
//! they do not.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::{Lab, Options, testing, wait_for};
use serde_json::Value;

const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: in, namespace: web}, spec: {podSelector: {}, ingress: [
  {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: db}}}], ports: [{port: 8080}]},
  {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: db}, spec: {podSelector: {}, policyTypes: [Egress],
  egress: [{to: [{namespaceSelector: {}}], ports: [{port: 8080}, {port: 53, protocol: UDP}]}]}}
";

const ADMIN_POLICIES: &str = "
{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: guard}, spec: {priority: 10,
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: web}}}, ingress: [
    {name: no databases, action: Deny, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: db}}}], ports: [{portNumber: {protocol: TCP, port: 8080}}]},
    {name: owners decide, action: Pass, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: db}}}]},
    {name: neighbours, action: Allow, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: web}}}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: floor}, spec: {tier: Baseline, priority: 0,
  subject: {namespaces: {}}, egress: [
    {name: no strangers, action: Deny, to: [{networks: [203.0.113.0/24]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}]}}
";

/// Arguments, the exit code, and what is said of admin policies; NetworkPolicy web/closed isolates web/a.
const ADMIN_QUESTIONS: [(&str, i32, &str); 4] = [
    ("web/a --from db/b --port 8080", 1, "AdminNetworkPolicy guard ingress[0] \"no databases\" denies it"),
    (
        "web/a --from db/b --port 53",
        1,
        "AdminNetworkPolicy guard ingress[1] \"owners decide\" leaves it to NetworkPolicies",
    ),
    ("web/a --from web/b --port 8080", 0, "AdminNetworkPolicy guard ingress[2] \"neighbours\" lets it pass"),
    ("web/a --to 203.0.113.5 --port 443", 1, "ClusterNetworkPolicy floor egress[0] \"no strangers\" denies it"),
];

/// Arguments, and the exit code that they must have.
const QUESTIONS: [(&str, i32); 11] = [
    ("web/a --from db/b --port 8080", 0),
    ("web/a --from db/b --port 8081", 1),
    ("web/a --from web/b --port 8080", 1),
    ("web/b --to web/a --port icmp", 1),
    ("web/a --from node:node1 --port icmp", 0),
    ("web/a --from node:node2 --port 8080", 1),
    ("web/a --from 192.0.2.9 --port sctp/9", 0),
    ("web/a --from 198.51.100.9 --port 8080", 1),
    ("db/b --to 203.0.113.5 --port 443", 1),
    ("web/a --to 203.0.113.5 --port 443", 0),
    ("web/a --from web/a --port 80", 0),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_and_ovn_say_the_same_or_it_is_said() -> Result<()> {
    let Some(lab) = testing::lab("e2e-check", Options { nodes: 2, ..Options::default() }).await? else { return Ok(()) };
    let pods = [("web", "a", "node1"), ("web", "b", "node1"), ("db", "b", "node2")];
    lab.apply(include_str!("../../../deploy/crds.yaml")).await?;
    let namespaces = pods::namespace("web") + &pods::namespace("db");
    lab.apply(&(namespaces + &pods.map(|(namespace, name, node)| pods::pod(namespace, name, node)).concat())).await?;
    lab.await_running("web").await?;
    lab.await_running("db").await?;
    lab.apply(POLICIES).await?;
    let isolated = |name| move |lab: &Lab| check(lab, name).is_ok_and(|out| text(&out).contains("isolated by"));
    for name in ["web/a", "db/b"] {
        wait_for("the policies to be known", LIMIT, || isolated(name)(&lab))?;
    }
    for (question, code) in QUESTIONS {
        settled(&lab, question, code)?;
    }
    json_has_both(&lab)?;
    errors_say_the_next_step(&lab)?;
    a_difference_is_said(&lab).await?;
    admin_policies_are_asked(&lab).await
}

fn check(lab: &Lab, question: &str) -> Result<Output> {
    let socket = ovenbird_lab_socket(lab);
    let argv: Vec<&str> = "ovenbird check policy".split(' ').chain(question.split(' ')).collect();
    lab.scene("central")?.output(&[&argv[..], &["--socket", &socket]].concat())
}

fn ovenbird_lab_socket(lab: &Lab) -> String {
    lab.layout().home("central").join("master1.sock").display().to_string()
}

/// Everything that was printed.
fn text(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// The snapshot says it at once, and OVN as soon as northd has caught up. Returns what is said then.
fn settled(lab: &Lab, question: &str, code: i32) -> Result<String> {
    let out = check(lab, question)?;
    ensure!(out.status.code() == Some(code), "{question}: {} instead of {code}:\n{}", out.status, text(&out));
    let mut last = None;
    let agreed = wait_for("OVN to agree", LIMIT, || {
        last = check(lab, &format!("{question} --live")).ok();
        last.as_ref().is_some_and(|out| out.status.code() == Some(code))
    });
    agreed.with_context(|| format!("{question} --live:\n{}", last.as_ref().map(text).unwrap_or_default()))?;
    let said = last.as_ref().map(text).unwrap_or_default();
    ensure!(said.contains("ovn-trace") && !said.contains("DIFFER"), "{question}:\n{said}");
    Ok(said)
}

fn json_has_both(lab: &Lab) -> Result<()> {
    let out = check(lab, "web/a --from web/b --port 8080 --live --output json")?;
    let answer: Value = serde_json::from_slice(&out.stdout).context("reading the answer")?;
    ensure!(answer["decision"]["verdict"] == "denied", "{answer:#}");
    let paths = answer["decision"]["paths"].as_array().map_or(0, Vec::len);
    let live = answer["live"].as_array().context("no live")?;
    ensure!(paths == 2 && live.len() == paths, "{answer:#}");
    let drops =
        |one: &Value| one["arrives"] == false && one["detail"].as_str().is_some_and(|d| d.contains("ls_out_acl"));
    ensure!(live.iter().all(drops), "{answer:#}");
    Ok(())
}

fn errors_say_the_next_step(lab: &Lab) -> Result<()> {
    for (question, said) in [
        ("web/nobody", "pods of namespace web: web/a, web/b"),
        ("web/a --from node:node9", "nodes: node1, node2"),
        ("web/a --port 80", "--from"),
        ("web/a --from web/b --to db/b", "cannot be used with"),
        ("web/a --from web/b --live", "--port"),
        ("web/a --from 10.0.0.0/8", "ask for one of its addresses"),
        ("web/a --from web/b --port 80 --live --sb-address unix:/nowhere", "OVN_SB_DB"),
    ] {
        let out = check(lab, question)?;
        ensure!(
            out.status.code() == Some(2) && text(&out).contains(said),
            "{question}: {}\n{}",
            out.status,
            text(&out)
        );
    }
    let out = lab.scene("central")?.output(&["ovenbird", "check", "policy", "web/a", "--socket", "/nowhere"])?;
    ensure!(out.status.code() == Some(2) && text(&out).contains("cannot reach a master"), "{}", text(&out));
    Ok(())
}

/// northd sleeps: what the master has written since is not what OVN does.
async fn a_difference_is_said(lab: &Lab) -> Result<()> {
    let question = "web/b --from db/b --port 8080 --live";
    lab.pause("central/northd")?;
    lab.delete("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: in, namespace: web}}").await?;
    let closed = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: web}, spec: {podSelector: {}}}";
    lab.apply(closed).await?;
    let mut last = None;
    let differs = wait_for("the difference", LIMIT, || {
        last = check(lab, question).ok();
        last.as_ref().is_some_and(|out| out.status.code() == Some(3))
    });
    let said = last.as_ref().map(text).unwrap_or_default();
    lab.resume("central/northd")?;
    differs.with_context(|| format!("{question}:\n{said}"))?;
    ensure!(said.starts_with("DENIED") && said.contains("THE SNAPSHOT AND OVN DIFFER"), "{said}");
    settled(lab, question.trim_end_matches(" --live"), 1).map(drop)
}

/// The rule of an admin policy that decides is named, in both tiers.
async fn admin_policies_are_asked(lab: &Lab) -> Result<()> {
    lab.apply(ADMIN_POLICIES).await?;
    let known = || check(lab, "web/a").is_ok_and(|out| ["guard", "floor"].iter().all(|name| text(&out).contains(name)));
    wait_for("the admin policies to be known", LIMIT, known)?;
    for (question, code, why) in ADMIN_QUESTIONS {
        let said = settled(lab, question, code)?;
        ensure!(said.contains(why), "{question}: not {why:?} but\n{said}");
    }
    Ok(())
}
