//! Storms of endpoints: how many transactions they take, and that those hold the lists that changed and nothing else, to the byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod world;

use ovenbird_topology::{EndpointSliceFact, Fact, ServiceFact};
use serde_json::{Value, json};

use world::World;

impl World {
    fn service(&mut self, name: &str, addresses: &[String]) {
        let port = json!({"port": 80, "targetPort": 8080, "protocol": "TCP"});
        let object =
            json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIPs": addresses, "ports": [port]}});
        let fact = ServiceFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut self.texts);
        self.apply(Fact::Service(fact));
    }

    fn slice(&mut self, service: &str, part: usize, family: &str, addresses: &[String]) {
        let endpoints: Vec<Value> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"namespace": "ns", "name": format!("{service}-{family}-{part}"), "labels": labels},
            "addressType": family, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        let fact = EndpointSliceFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut self.texts);
        self.apply(Fact::EndpointSlice(fact));
    }
}

/// Pod number `n`; the first hundred are those of one node.
fn pod(n: usize) -> String {
    format!("10.{}.{}.{}", 128 + n / 62_500, n / 250 % 250, n % 250 + 3)
}

fn list(addresses: &[String]) -> String {
    let mut backends: Vec<String> = addresses.iter().map(|ip| format!("{ip}:8080")).collect();
    backends.sort_by_key(|text| text.rsplit_once(':').unwrap().0.parse::<std::net::IpAddr>().unwrap());
    backends.join(",")
}

#[test]
fn the_drain_of_a_node_is_one_transaction_for_each_hundred_services() {
    const SERVICES: usize = 400;
    let others = |i: usize| (1..5).map(|n| pod(1_000 + i * 4 + n)).collect::<Vec<_>>();
    let address = |i: usize| format!("10.96.{}.{}", i / 250, i % 250 + 1);
    let mut world = World::new();
    for i in 0..SERVICES {
        world.service(&format!("s{i}"), &[address(i)]);
        world.slice(&format!("s{i}"), 0, "IPv4", &[vec![pod(i / 4)], others(i)].concat());
    }
    world.meet();
    for i in 0..SERVICES {
        world.slice(&format!("s{i}"), 0, "IPv4", &others(i));
    }
    let transactions = world.transactions();
    assert_eq!(transactions.iter().map(Vec::len).collect::<Vec<_>>(), [100; 4]);
    let mut written: Vec<String> =
        transactions.iter().flatten().map(|op| json!([op["op"], op["table"], op["row"]]).to_string()).collect();
    written.sort();
    let row = |i: usize| json!({"vips": ["map", [[format!("{}:80", address(i)), list(&others(i))]]]});
    let mut wanted: Vec<String> =
        (0..SERVICES).map(|i| json!(["update", "Load_Balancer", row(i)]).to_string()).collect();
    wanted.sort();
    assert_eq!(written, wanted);
}

#[test]
fn a_restart_of_many_endpoints_writes_the_list_that_changed_and_no_other() {
    const ENDPOINTS: usize = 250;
    const ADDRESSES: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
    let parts = [0..100, 100..200, 200..ENDPOINTS];
    let old = |part: std::ops::Range<usize>| part.map(pod).collect::<Vec<_>>();
    let mut world = World::new();
    world.service("big", &ADDRESSES.map(str::to_owned));
    for (n, part) in parts.iter().enumerate() {
        world.slice("big", n, "IPv4", &old(part.clone()));
        let v6: Vec<_> = part.clone().map(|n| format!("fd00:10:128::{:x}", n + 16)).collect();
        world.slice("big", n, "IPv6", &v6);
    }
    world.meet();
    // What came while nothing could be sent is one change.
    let new = |part: std::ops::Range<usize>| part.map(|n| pod(n + 500)).collect::<Vec<_>>();
    for (n, part) in parts.iter().enumerate() {
        for done in 1..=part.len() {
            let middle = part.start + done;
            world.slice("big", n, "IPv4", &[new(part.start..middle), old(middle..part.end)].concat());
            world.translate();
        }
    }
    let transactions = world.transactions();
    let [transaction] = &transactions[..] else { panic!("{} transactions", transactions.len()) };
    let [op] = &transaction[..] else { panic!("{transaction:?}") };
    let key = format!("{}:80", ADDRESSES[0]);
    let set = json!(["vips", "insert", ["map", [[key, list(&new(0..ENDPOINTS))]]]]);
    assert_eq!(op["mutations"], json!([["vips", "delete", ["set", [key]]], set]));
    assert_eq!(op.to_string().len(), set.to_string().len() + 171, "the list, and once the row and the key");
}
