//! Admin policies, packet by packet: the tiers before and after NetworkPolicy, of all kinds, in the overlay and in the classic network.
//!
//! What must hold is what the evaluator of admin policies says of the whole table.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use ovenbird_lab::{Mode, Options, testing};
use ovenbird_verdict::evaluate::admin::Tiers;
use ovenbird_verdict::evaluate::admin::object::Policy;
use serde_json::{Value, json};

use crate::table::{self, Table};
use crate::world::{World, document};

/// What is there together, and at least so many rows are denied.
struct Case {
    name: &'static str,
    admin: Vec<Value>,
    policies: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_policies_hold() -> Result<()> {
    hold("e2e-policy-adm", Mode::Overlay).await
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_policies_hold_on_a_classic_network() -> Result<()> {
    hold("e2e-policy-admk", Mode::Classic).await
}

async fn hold(lab: &str, mode: Mode) -> Result<()> {
    let Some(lab) = testing::lab(lab, Options { nodes: 2, mode, ..Options::default() }).await? else { return Ok(()) };
    lab.apply(include_str!("../../../../deploy/crds.yaml")).await?;
    let world = World::build(lab).await?;
    let rows = table::rows(&world)?;
    let nodes = Api::<Node>::all(world.client.clone()).list(&ListParams::default()).await.context("listing nodes")?;
    let mut before = Table::new(&rows, &world.cluster(&[]).await?).verdicts;
    for Case { name, admin, policies } in cases(&world) {
        let cluster = world.cluster(&policies).await?;
        let read = |policy: &Value| serde_json::from_value::<Policy>(policy.clone()).context("reading a policy");
        let read = admin.iter().map(read).collect::<Result<Vec<_>>>()?;
        let table = Table::of_tiers(&rows, &Tiers { cluster: &cluster, nodes: &nodes.items, policies: &read });
        ensure!(table.denied() > 0 && table.denied() < table.len(), "{name}: {} rows denied", table.denied());
        // Otherwise the case would say nothing of admin policies.
        let without = Table::new(&rows, &cluster);
        ensure!(table.agreeing(&without).len() < table.len(), "{name}: as without them");
        let manifest: String = admin.iter().map(document).collect();
        let began = Instant::now();
        world.create(&policies).await.context(name)?;
        world.lab.apply(&manifest).await.context(name)?;
        let held = table.hold(&world, &before, began).with_context(|| name.to_owned())?;
        println!("{:>5} ms: {name} ({} denied)", held.after.as_millis(), table.denied());
        world.lab.delete(&manifest).await?;
        world.delete(&policies).await?;
        before = table.verdicts;
    }
    Ok(())
}

fn cases(world: &World) -> Vec<Case> {
    let team = |team: &str| json!({"matchLabels": {"team": team}});
    let (red, blue) = (json!({"namespaces": team("red")}), json!({"namespaces": team("blue")}));
    let tcp = |port: u16| json!([{"portNumber": {"protocol": "TCP", "port": port}}]);
    vec![
        Case {
            name: "what an administrator denies no NetworkPolicy allows",
            admin: vec![anp(
                "deny",
                10,
                json!({"subject": red, "ingress": [{"name": "no blue", "action": "Deny", "from": [blue], "ports": tcp(80)}]}),
            )],
            policies: vec![network("x", &json!({"podSelector": {}, "ingress": [{}]}))],
        },
        Case {
            name: "what an administrator allows no NetworkPolicy denies, and the first priority decides",
            admin: vec![
                anp(
                    "later",
                    20,
                    json!({"subject": red, "ingress": [{"name": "none", "action": "Deny", "from": [blue]}]}),
                ),
                anp(
                    "first",
                    5,
                    json!({"subject": red, "ingress": [{"name": "one port", "action": "Allow", "from": [blue], "ports": tcp(8080)}]}),
                ),
            ],
            policies: vec![network("x", &json!({"podSelector": {}}))],
        },
        Case {
            name: "what is passed is for NetworkPolicies, and of pods without any for the baseline",
            admin: vec![
                anp(
                    "pass",
                    10,
                    json!({"subject": red, "ingress": [{"name": "ask", "action": "Pass", "from": [blue]}]}),
                ),
                admin(
                    "BaselineAdminNetworkPolicy",
                    "v1alpha1",
                    "default",
                    &json!({"subject": red, "ingress": [{"name": "floor", "action": "Deny", "from": [{"namespaces": {}}]}]}),
                ),
            ],
            policies: vec![network(
                "x",
                &json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]}),
            )],
        },
        cluster_case(world, &red),
    ]
}

fn cluster_case(world: &World, red: &Value) -> Case {
    let beyond: Vec<String> =
        world.beyond().iter().map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })).collect();
    Case {
        name: "a ClusterNetworkPolicy of each tier, on what leaves",
        admin: vec![
            admin(
                "ClusterNetworkPolicy",
                "v1alpha2",
                "strict",
                &json!({
                    "tier": "Admin", "priority": 1,
                    "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}},
                    "egress": [
                        {"name": "web", "action": "Accept", "to": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}]},
                        {"name": "none beyond", "action": "Deny", "to": [{"networks": beyond}], "protocols": [{"udp": {"destinationPort": {"number": 53}}}]},
                    ],
                }),
            ),
            admin(
                "ClusterNetworkPolicy",
                "v1alpha2",
                "usual",
                &json!({
                    "tier": "Baseline", "priority": 1, "subject": {"namespaces": {}},
                    "egress": [{"name": "no red", "action": "Deny", "to": [red]}],
                }),
            ),
        ],
        policies: vec![],
    }
}

fn anp(name: &str, priority: i32, mut spec: Value) -> Value {
    spec["priority"] = priority.into();
    admin("AdminNetworkPolicy", "v1alpha1", name, &spec)
}

fn admin(kind: &str, version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn network(namespace: &str, spec: &Value) -> Value {
    let metadata = json!({"namespace": namespace, "name": "p"});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}
