//! Golden tables: `golden/services/CASE.yaml` is a node's settings and a cluster, `CASE.nft` the table, which the real nft must take. All cases
//! but `none` and `behind` show only what a node without Services does not have. `UPDATE_GOLDEN=1` rewrites them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ovenbird_classic::services::{Behind, Connection, Services, Settings, TABLE, Weights};
use ovenbird_nft::{Table, delete, script};
use ovenbird_topology::{EndpointSliceFact, Interner, ServiceFact};
use proptest::prelude::*;
use serde_json::{Value, json};

mod real;

use real::{enter, nft, shown};

/// Settings of the case; what it does not name is usual.
fn settings(value: &Value) -> Settings {
    let text = |key: &str, usual: &str| value[key].as_str().unwrap_or(usual).to_owned();
    fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
        text.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().unwrap()).collect()
    }
    Settings {
        node: text("node", "n1"),
        zone: value["zone"].as_str().map(str::to_owned),
        pods: list(&text("pods", "10.244.1.0/24")),
        addresses: list(&text("addresses", "192.168.1.11")),
        node_ports: value["nodePorts"].as_bool().unwrap_or(true),
        node_port_addresses: list(&text("nodePortAddresses", "")),
        service_cidrs: list(&text("serviceCIDRs", "10.96.0.0/16")),
        cluster: list(&text("cluster", "10.244.0.0/16")),
        behind: value["behind"]
            .as_str()
            .map(|interface| Behind { interface: interface.to_owned(), for_others: list(&text("forOthers", "")) }),
    }
}

fn load(file: &Path) -> Services {
    let text = std::fs::read_to_string(file).unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let mut services = Services::new(settings(&objects.remove(0)));
    let mut interner = Interner::default();
    objects.into_iter().for_each(|object| apply(&mut services, object, &mut interner));
    services
}

fn apply(services: &mut Services, object: Value, interner: &mut Interner) {
    match object["kind"].as_str().unwrap() {
        "Service" => {
            let object: Service = serde_json::from_value(object).unwrap();
            services.set_service(ServiceFact::from_k8s(&object, interner));
        }
        // Of pods all that matters: their weights by address.
        "Weights" => services.set_weights(serde_json::from_value(object["pods"].clone()).unwrap()),
        "EndpointSlice" => {
            let object: EndpointSlice = serde_json::from_value(object).unwrap();
            services.set_slice(EndpointSliceFact::from_k8s(&object, interner));
        }
        other => panic!("{other}"),
    }
}

/// The table without what is in every one of these settings.
fn own(case: &Path, mut table: Table) -> Table {
    let settings = serde_saphyr::from_multiple::<Value>(&std::fs::read_to_string(case).unwrap()).unwrap().remove(0);
    let base = Services::new(crate::settings(&settings)).table();
    if !case.ends_with("none.yaml") && !case.ends_with("behind.yaml") {
        table.sets.retain(|name, set| base.sets.get(name) != Some(set));
        table.chains.retain(|name, chain| base.chains.get(name) != Some(chain));
    }
    table
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/services");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut cases: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "yaml")).collect();
    cases.sort();
    assert!(cases.len() > 5);
    cases
}

#[test]
fn golden() {
    for case in cases() {
        let text = own(&case, load(&case).table()).to_string();
        let expected = case.with_extension("nft");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &text).unwrap();
        }
        let known = std::fs::read_to_string(&expected).unwrap_or_default();
        assert!(known == text, "{} differs; UPDATE_GOLDEN=1 rewrites it:\n{text}", expected.display());
    }
}

/// From one case to the next, and whatever was written is found again.
#[test]
fn nft_takes_them_and_the_way_from_one_to_the_next() {
    if !enter() {
        return;
    }
    let mut before = Table::new(TABLE);
    for case in cases() {
        let table = load(&case).table();
        nft(&["-f", "-"], &script(&before, &table));
        assert_eq!(script(&shown(TABLE), &table), "", "{}: a second run changes nothing", case.display());
        before = table;
    }
    nft(&["-f", "-"], &delete(TABLE));
}

#[test]
fn connections_of_udp_that_lead_nowhere_are_told() {
    let mut interner = Interner::default();
    let mut services = Services::new(settings(&Value::Null));
    let ports = json!([{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}, {"name": "web", "port": 80}]);
    let service = json!({"kind": "Service", "metadata": {"name": "dns", "namespace": "ns"}, "spec": {"clusterIPs": ["10.96.0.10"], "ports": ports}});
    let slice = |ready: &[&str]| {
        let endpoints: Vec<_> = ready.iter().map(|ip| json!({"addresses": [ip]})).collect();
        json!({
            "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": "dns-a", "namespace": "ns", "labels": {"kubernetes.io/service-name": "dns"}},
            "ports": [{"name": "dns", "protocol": "UDP", "port": 5353}, {"name": "web", "port": 80}],
        })
    };
    let connection = |called: &str, answering: &str| Connection {
        client: "10.244.1.4:4444".parse().unwrap(),
        called: called.parse().unwrap(),
        answering: answering.parse().unwrap(),
    };
    apply(&mut services, service, &mut interner);
    apply(&mut services, slice(&["10.244.1.5", "10.244.1.6"]), &mut interner);
    services.table();
    let mut known = services.take_udp();
    assert!(known.is_stale(&connection("10.96.0.10:53", "10.96.0.10:53")), "from before there was a Service");
    assert!(!known.is_stale(&connection("10.96.0.10:53", "10.244.1.6:5353")));
    assert!(!known.is_stale(&connection("10.96.0.10:80", "10.96.0.10:80")), "only UDP is told");
    apply(&mut services, slice(&["10.244.1.6", "10.244.1.5"]), &mut interner);
    services.table();
    assert!(services.take_udp().is_empty());
    apply(&mut services, slice(&["10.244.1.5"]), &mut interner);
    services.table();
    known.extend(services.take_udp());
    assert!(known.is_stale(&connection("10.96.0.10:53", "10.244.1.6:5353")));
    assert!(known.is_stale(&connection("192.168.1.11:30053", "10.244.1.6:5353")));
    assert!(!known.is_stale(&connection("192.168.1.12:30053", "192.168.1.12:30053")), "another host's");
    services.remove_service("ns/dns");
    services.table();
    assert!(services.take_udp().is_stale(&connection("10.96.0.10:53", "10.244.1.5:5353")));
}

/// What happens to one of a few objects.
#[derive(Clone, Debug)]
enum Step {
    Service { name: u8, ports: u8, ips: u8, external: u8, flags: u8, created: u8 },
    Slice { name: u8, service: u8, endpoints: Vec<(u8, u8)>, ports: u8 },
    NoService(u8),
    NoSlice(u8),
    Settings(u8),
    Weights(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let endpoints = prop::collection::vec((0u8..6, 0u8..8), 0..5);
    prop_oneof![
        4 => (0u8..4, 0u8..4, 0u8..3, 0u8..4, any::<u8>(), 0u8..3).prop_map(|(name, ports, ips, external, flags, created)| {
            Step::Service { name, ports, ips, external, flags, created }
        }),
        4 => (0u8..6, 0u8..4, endpoints, 1u8..4)
            .prop_map(|(name, service, endpoints, ports)| Step::Slice { name, service, endpoints, ports }),
        1 => (0u8..4).prop_map(Step::NoService),
        1 => (0u8..6).prop_map(Step::NoSlice),
        1 => (0u8..4).prop_map(Step::Settings),
        1 => prop::collection::vec(1u8..4, 6).prop_map(Step::Weights),
    ]
}

/// The object that a step makes.
fn object(step: &Step) -> Value {
    let names = ["http", "dns"];
    let chosen = |bits: u8| names.iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0);
    let protocol = |i: usize| ["TCP", "UDP"][i];
    match step {
        Step::Service { name, ports, ips, external, flags, created } => {
            let on = |bit: u8| flags & (1 << bit) != 0;
            let policy = |bit: u8| if on(bit) { "Local" } else { "Cluster" };
            let ports: Vec<_> = chosen(*ports)
                .map(|(i, n)| {
                    let node_port = on(0).then_some(30000 + i32::from(*name) * 2 + i32::try_from(i).unwrap());
                    json!({"name": n, "port": 80 + i, "protocol": protocol(i), "nodePort": node_port})
                })
                .collect();
            let ips = match ips {
                0 => json!([format!("10.96.0.{name}")]),
                1 => json!([format!("10.96.0.{name}"), format!("fd96::{name}")]),
                _ => json!(["None"]),
            };
            let ranges =
                if on(4) { json!(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "fd00::/8"]) } else { json!([]) };
            json!({
                "kind": "Service",
                "metadata": {
                    "name": format!("s{name}"), "namespace": "ns", "creationTimestamp": format!("2026-01-0{}T00:00:00Z", created + 1),
                    "annotations": {"ovenbird.io/scheduler": if on(6) { "wrr" } else { "rr" }},
                },
                "spec": {
                    "clusterIPs": ips, "ports": ports, "externalIPs": [format!("192.0.2.{external}"), format!("2001:db8::{external}")],
                    "sessionAffinity": if on(1) { "ClientIP" } else { "None" },
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": if on(5) { 60 } else { 90 }}},
                    "internalTrafficPolicy": policy(2), "externalTrafficPolicy": policy(3), "loadBalancerSourceRanges": ranges,
                },
                "status": {"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{external}")}]}},
            })
        }
        Step::Slice { name, service, endpoints, ports } => {
            // The last of two names of a slice is for IPv6.
            let prefix = if name % 2 == 0 { "10.244.1." } else { "fd00:244:0:1::" };
            let endpoints: Vec<_> = endpoints
                .iter()
                .map(|(n, flags)| {
                    let (node, conditions) = (
                        format!("n{}", flags & 1),
                        json!({"ready": flags & 2 == 0, "serving": true, "terminating": flags & 4 != 0}),
                    );
                    json!({"addresses": [format!("{prefix}{n}")], "nodeName": node, "conditions": conditions})
                })
                .collect();
            let ports: Vec<_> =
                chosen(*ports).map(|(i, n)| json!({"name": n, "port": 8000 + i, "protocol": protocol(i)})).collect();
            json!({
                "kind": "EndpointSlice",
                "metadata": {"name": format!("e{name}"), "namespace": "ns", "labels": {"kubernetes.io/service-name": format!("s{service}")}},
                "addressType": if name % 2 == 0 { "IPv4" } else { "IPv6" }, "endpoints": endpoints, "ports": ports,
            })
        }
        _ => Value::Null,
    }
}

fn varied(which: u8) -> Settings {
    let pods = if which & 1 == 0 { "10.244.1.0/24" } else { "10.244.1.0/24,fd00:244:0:1::/64" };
    settings(&json!({"pods": pods, "cluster": "10.244.0.0/16,fd00:244::/48", "nodePorts": which & 2 == 0}))
}

/// Whatever happens, in whatever order: the kernel has what a daemon that starts now would write.
#[test]
fn changes_lead_where_a_new_start_leads() {
    if !enter() {
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(30),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec((step(), any::<bool>()), 1..25);
    let result = runner.run(&steps, |steps| {
        nft(&["-f", "-"], &delete(TABLE));
        let mut interner = Interner::default();
        let mut services = Services::new(varied(1));
        let (mut current, mut weights) = (varied(1), Weights::new());
        let mut objects = std::collections::BTreeMap::new();
        for (step, write) in &steps {
            match step {
                Step::Service { name, .. } => drop(objects.insert(format!("ns/s{name}"), object(step))),
                Step::Slice { name, .. } => drop(objects.insert(format!("ns/e{name}"), object(step))),
                Step::NoService(name) => {
                    services.remove_service(&format!("ns/s{name}"));
                    objects.remove(&format!("ns/s{name}"));
                }
                Step::NoSlice(name) => {
                    services.remove_slice(&format!("ns/e{name}"));
                    objects.remove(&format!("ns/e{name}"));
                }
                Step::Settings(which) => {
                    current = varied(*which);
                    services.set_settings(current.clone());
                }
                Step::Weights(all) => {
                    let of = |(n, weight): (usize, &u8)| (format!("10.244.1.{n}").parse().unwrap(), *weight);
                    weights = all.iter().enumerate().map(of).collect();
                    services.set_weights(weights.clone());
                }
            }
            if let Value::Object(_) = object(step) {
                apply(&mut services, object(step), &mut interner);
            }
            if *write {
                let (old, new) = services.take_changes();
                nft(&["-f", "-"], &script(&old, &new));
            }
        }
        let (old, new) = services.take_changes();
        nft(&["-f", "-"], &script(&old, &new));
        let mut fresh = Services::new(current);
        fresh.set_weights(weights);
        objects.into_values().for_each(|object| apply(&mut fresh, object, &mut interner));
        let fresh = fresh.table();
        prop_assert_eq!(services.table().to_string(), fresh.to_string());
        prop_assert_eq!(script(&shown(TABLE), &fresh), "");
        Ok(())
    });
    result.unwrap();
}
