//! Properties of the engine over random histories: what it yields depends on the facts alone, never on the way to them, and no
//! annotation text makes it panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use ovenbird_api::{L3Gateway, PodNetwork, bandwidth, node};
use ovenbird_reconcile::{Output, Owner};
use ovenbird_topology::{Change, Config, Engine, Fact, FactKey, Interner, NamespaceFact, NodeFact, PodFact};
use proptest::prelude::*;
use serde_json::json;

/// One step of a history. Names and values are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Node {
        name: u8,
        created: u8,
        subnets: Option<String>,
        chassis: bool,
        gateway: Option<String>,
    },
    Pod {
        name: u8,
        created: u8,
        node: Option<u8>,
        network: Option<String>,
        phase: u8,
    },
    DeleteNode(u8),
    DeletePod(u8),
    Namespace(u8),
    /// The pipeline catches up: dirty owners are translated.
    Catch,
}

fn subnets() -> impl Strategy<Value = String> {
    let net = (0u8..2).prop_map(|i| format!(r#""10.128.{}.0/23","fd01:0:0:{i}::/64""#, i * 2));
    prop_oneof![
        8 => net.prop_map(|nets| format!(r#"{{"default":[{nets}]}}"#)),
        1 => Just(r#"{"default":"10.128.0.0/22"}"#.to_owned()),
        1 => Just(r#"{"default":"192.168.0.0/24"}"#.to_owned()),
        1 => any::<String>(),
    ]
}

fn gateway() -> impl Strategy<Value = String> {
    let told = (0u8..3, any::<bool>()).prop_map(|(i, shared)| {
        let mode = if shared { "shared" } else { "local" };
        format!(
            r#"{{"default":{{"mode":"{mode}","interface-id":"br-ex_n{i}","mac-address":"0a:58:00:00:00:0{i}","ip-addresses":["172.18.0.{i}/16"],"next-hops":["172.18.0.9"]}}}}"#
        )
    });
    prop_oneof![8 => told, 1 => any::<String>()]
}

fn network() -> impl Strategy<Value = String> {
    let ips = (0u8..2, 2u8..5).prop_map(|(i, n)| format!(r#""10.128.{}.{n}/23","fd01:0:0:{i}::{n}/64""#, i * 2));
    prop_oneof![
        8 => ips.prop_map(|ips| format!(r#"{{"default":{{"ip_addresses":[{ips}],"mac_address":"0a:58:00:00:00:01"}}}}"#)),
        1 => "\\{\"default\":\\{\"ip_addresses\":.{0,20}\\}\\}",
        1 => any::<String>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let option = proptest::option::weighted(0.9, 0u8..3);
    prop_oneof![
        4 => (0u8..3, 0u8..3, proptest::option::weighted(0.8, subnets()), any::<bool>(),
              proptest::option::weighted(0.7, gateway()))
            .prop_map(|(name, created, subnets, chassis, gateway)| Step::Node { name, created, subnets, chassis, gateway }),
        8 => (0u8..6, 0u8..3, option, proptest::option::weighted(0.9, network()), 0u8..8)
            .prop_map(|(name, created, node, network, phase)| Step::Pod { name, created, node, network, phase }),
        1 => (0u8..3).prop_map(Step::DeleteNode),
        2 => (0u8..6).prop_map(Step::DeletePod),
        1 => (0u8..2).prop_map(Step::Namespace),
        4 => Just(Step::Catch),
    ]
}

fn change(step: &Step, interner: &mut Interner) -> Option<Change> {
    let time = |created: &u8| format!("2026-01-01T00:00:0{created}Z");
    Some(match step {
        Step::Node { name, created, subnets, chassis, gateway } => {
            let mut annotations = serde_json::Map::new();
            annotations.insert("k8s.ovn.org/node-id".into(), (2 + created).to_string().into());
            if let Some(text) = gateway {
                annotations.insert("k8s.ovn.org/l3-gateway-config".into(), text.clone().into());
            }
            if let Some(text) = subnets {
                annotations.insert("k8s.ovn.org/node-subnets".into(), text.clone().into());
            }
            if *chassis {
                annotations.insert("k8s.ovn.org/node-chassis-id".into(), format!("cid-{name}").into());
            }
            let node = json!({"metadata":
                {"name": format!("n{name}"), "creationTimestamp": time(created), "annotations": annotations}});
            Change::Upsert(Fact::Node(NodeFact::from_k8s(&serde_json::from_value::<Node>(node).unwrap())))
        }
        Step::Pod { name, created, node, network, phase } => {
            let annotations = network.as_ref().map(|text| json!({"k8s.ovn.org/pod-networks": text}));
            let phases = ["Pending", "Running", "Running", "Running", "Running", "Running", "Succeeded", "Failed"];
            let pod = json!({
                "metadata": {"namespace": "ns", "name": format!("p{name}"), "uid": format!("u{name}-{created}"),
                    "creationTimestamp": time(created), "annotations": annotations},
                "spec": {"containers": [], "nodeName": node.map(|n| format!("n{n}")), "hostNetwork": *phase == 4},
                "status": {"phase": phases[usize::from(*phase)]},
            });
            let pod = serde_json::from_value::<Pod>(pod).unwrap();
            Change::Upsert(Fact::Pod(PodFact::from_k8s(&pod, interner)))
        }
        Step::DeleteNode(name) => Change::Delete(FactKey::Node(format!("n{name}").into())),
        Step::DeletePod(name) => Change::Delete(FactKey::Pod(format!("ns/p{name}").into())),
        Step::Namespace(name) => {
            let namespace = json!({"metadata": {"name": format!("ns{name}"), "labels": {"a": "b"}}});
            let namespace = serde_json::from_value::<Namespace>(namespace).unwrap();
            Change::Upsert(Fact::Namespace(NamespaceFact::from_k8s(&namespace, interner)))
        }
        Step::Catch => return None,
    })
}

fn engine() -> Engine {
    Engine::new(Config::parse("10.128.0.0/14/23,fd01::/48/64", "", "100.64.0.0/16,fd98::/64", 1400).unwrap())
}

/// What a consumer holds: the last output of each owner, nothing for those that yield nothing.
type Held = BTreeMap<Owner, Output>;

fn catch_up(engine: &mut Engine, held: &mut Held) {
    for owner in engine.take_dirty() {
        let output = engine.translate(&owner);
        if output == Output::default() {
            held.remove(&owner);
        } else {
            held.insert(owner, output);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Incremental is the same as from scratch, and as from scratch in another order.
    #[test]
    fn outputs_follow_from_the_facts_alone(steps in prop::collection::vec(step(), 0..40)) {
        let mut interner = Interner::default();
        let (mut incremental, mut held) = (engine(), Held::new());
        let mut facts: BTreeMap<FactKey, Fact> = BTreeMap::new();
        for step in &steps {
            match change(step, &mut interner) {
                None => catch_up(&mut incremental, &mut held),
                Some(change) => {
                    match &change {
                        Change::Upsert(fact) => drop(facts.insert(fact.key(), fact.clone())),
                        Change::Delete(key) => drop(facts.remove(key)),
                    }
                    incremental.apply(change);
                }
            }
        }
        catch_up(&mut incremental, &mut held);
        prop_assert!(incremental.take_dirty().is_empty());

        let mut scratch = engine();
        for fact in facts.into_values().rev() {
            scratch.apply(Change::Upsert(fact));
        }
        prop_assert_eq!(incremental.owners(), scratch.owners());
        let mut fresh = Held::new();
        catch_up(&mut scratch, &mut fresh);
        prop_assert_eq!(&held, &fresh);

        // A pass over all owners, as the audit does, finds what is held.
        for owner in incremental.owners() {
            let output = incremental.translate(&owner);
            prop_assert_eq!(output, held.get(&owner).cloned().unwrap_or_default());
        }
    }

    /// Every contribution of reachable outputs goes to a row that some owner yields, and no row is yielded twice.
    #[test]
    fn rows_are_unique_and_containers_exist(steps in prop::collection::vec(step(), 0..40)) {
        let mut interner = Interner::default();
        let (mut engine, mut held) = (engine(), Held::new());
        steps.iter().filter_map(|s| change(s, &mut interner)).for_each(|c| engine.apply(c));
        catch_up(&mut engine, &mut held);
        let mut ids: Vec<_> = held.values().flat_map(|o| &o.rows).map(|row| format!("{:?}", row.id)).collect();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
        for contribution in held.values().flat_map(|o| &o.contributions) {
            let container = format!("{:?}", contribution.row);
            prop_assert!(ids.contains(&container), "{}", container);
        }
    }

    /// No annotation text makes a parser panic, nor its error longer than a screen.
    #[test]
    fn annotations_are_values_or_errors(text in prop_oneof![
        any::<String>(),
        r#"[\[{"]{0,3}(default|ipv4|ip_addresses|mac_address|routes|dest)?[":\[{]{0,3}[0-9a-f.:/]{0,20}["\]}]{0,4}"#,
        "[+-]?[0-9.]{0,40}([numkMGTPE]i?|[eE][+-]?[0-9]{0,4})?",
    ]) {
        let results = [
            PodNetwork::parse(&text).err(),
            node::parse_subnets(&text).err(),
            node::parse_id(&text).err(),
            node::parse_chassis_id(&text).err(),
            node::parse_primary_ifaddr(&text).err(),
            node::parse_encap_ips(&text).err(),
            node::parse_host_cidrs(&text).err(),
            node::parse_management_mac(&text).err(),
            L3Gateway::parse(&text).err(),
            bandwidth::parse_limit("kubernetes.io/ingress-bandwidth", &text).err(),
        ];
        for error in results.into_iter().flatten() {
            prop_assert!(error.to_string().chars().count() < 1000, "{}", error);
        }
    }
}
