//! The shape of Services in the Northbound: how many rows there are, and who is translated again when something changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;

use ovenbird_reconcile::Output;
use ovenbird_topology::{
    Change, Config, EndpointSliceFact, Engine, Fact, Interner, NodeFact, PodFact, ServiceFact, kinds,
};
use serde_json::{Value, json};

struct World {
    engine: Engine,
    texts: Interner,
    held: BTreeMap<String, Output>,
}

impl World {
    fn new(nodes: usize) -> World {
        let config = Config::parse("10.128.0.0/14/24", "10.96.0.0/16", "100.64.0.0/16", 1400).unwrap();
        let mut world = World { engine: Engine::new(config), texts: Interner::default(), held: BTreeMap::new() };
        (0..nodes).for_each(|n| world.node(n, "zone-a"));
        world
    }

    fn node(&mut self, n: usize, zone: &str) {
        let uplink = format!("172.18.{}.{}", n / 200, n % 200 + 2);
        let gateway = json!({"default": {"mode": "shared", "bridge-id": "br-ex", "interface-id": format!("br-ex_n{n}"),
            "mac-address": "02:42:ac:12:00:04", "ip-addresses": [format!("{uplink}/16")], "next-hops": ["172.18.255.1"],
            "node-port-enable": "true", "vlan-id": "0"}});
        let node = json!({"metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": zone}, "annotations": {
            "k8s.ovn.org/node-subnets": format!(r#"{{"default":["10.{}.{}.0/24"]}}"#, 128 + n / 256, n % 256),
            "k8s.ovn.org/node-chassis-id": format!("cid-{n}"),
            "k8s.ovn.org/node-id": (n + 2).to_string(),
            "k8s.ovn.org/host-cidrs": format!(r#"["{uplink}/16"]"#),
            "k8s.ovn.org/l3-gateway-config": gateway.to_string(),
        }}});
        self.apply(Fact::Node(NodeFact::from_k8s(&serde_json::from_value(node).unwrap())));
    }

    fn service(&mut self, name: &str, spec: &Value) {
        let mut object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        object["spec"]["clusterIPs"] = json!([format!("10.96.0.{}", name.len())]);
        let object = serde_json::from_value(object).unwrap();
        let fact = ServiceFact::from_k8s(&object, &mut self.texts);
        self.apply(Fact::Service(fact));
    }

    fn slice(&mut self, service: &str, endpoints: &[(&str, usize)]) {
        let endpoints: Vec<Value> =
            endpoints.iter().map(|(ip, n)| json!({"addresses": [ip], "nodeName": format!("n{n}")})).collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"namespace": "ns", "name": service, "labels": labels}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        let object = serde_json::from_value(object).unwrap();
        let fact = EndpointSliceFact::from_k8s(&object, &mut self.texts);
        self.apply(Fact::EndpointSlice(fact));
    }

    fn apply(&mut self, fact: Fact) {
        self.engine.apply(Change::Upsert(fact));
    }

    /// Translates what is dirty. Returns the Services among it.
    fn catch_up(&mut self) -> Vec<String> {
        let dirty = self.engine.take_dirty();
        for owner in &dirty {
            let output = self.engine.translate(owner);
            self.held.insert(owner.to_string(), output);
        }
        dirty.into_iter().filter(|o| o.kind == kinds::SERVICE).map(|o| o.key.to_string()).collect()
    }

    /// Rows and contributions of a Service.
    fn size(&self, name: &str) -> (usize, usize) {
        let output = &self.held[&format!("Service ns/{name}")];
        (output.rows.len(), output.contributions.len())
    }
}

fn port(more: &Value) -> Value {
    let mut spec = json!({"ports": [{"port": 80, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn rows_of_plain_services_do_not_grow_with_nodes() {
    for nodes in [1, 10, 300] {
        let mut world = World::new(nodes);
        world.service("a", &json!({"ports": [{"port": 80}]}));
        world.service("bb", &port(&json!({"type": "NodePort"})));
        world.service("ccc", &port(&json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]})));
        for name in ["a", "bb", "ccc"] {
            world.slice(name, &[("10.128.0.3", 0), ("10.128.0.4", 0)]);
        }
        world.catch_up();
        // One in the group of all; that of node ports, which not every router serves, in those of switches and of routers.
        assert_eq!((world.size("a"), world.size("bb"), world.size("ccc")), ((1, 1), (2, 3), (2, 3)), "{nodes} nodes");
    }
}

#[test]
fn where_nodes_differ_rows_follow_the_endpoints_and_zones() {
    for nodes in [4, 40] {
        let mut world = World::new(nodes);
        world.service("local", &json!({"ports": [{"port": 80}], "internalTrafficPolicy": "Local"}));
        world.slice("local", &[("10.128.0.3", 0), ("10.128.1.3", 1)]);
        world.service("host", &json!({"ports": [{"port": 80}]}));
        world.slice("host", &[("172.18.0.2", 0)]);
        world.catch_up();
        // Two nodes with endpoints and all the others; each switch and each router refers to one of these.
        assert_eq!(world.size("local"), (3, 2 * nodes), "{nodes} nodes");
        // The router of the host that is an endpoint; all switches by group, the other routers one by one.
        assert_eq!(world.size("host"), (2, nodes + 1), "{nodes} nodes");
    }
}

#[test]
fn only_those_are_translated_that_a_change_concerns() {
    let mut world = World::new(3);
    world.service("a", &json!({"ports": [{"port": 80}]}));
    world.service("bb", &port(&json!({"type": "NodePort"})));
    world.service("local", &json!({"ports": [{"port": 80}], "internalTrafficPolicy": "Local"}));
    world.slice("a", &[("10.128.0.3", 0)]);
    world.slice("local", &[("10.128.0.3", 0)]);
    assert_eq!(world.catch_up().len(), 3);

    world.slice("a", &[("10.128.0.3", 0), ("10.128.0.4", 0)]);
    assert_eq!(world.catch_up(), ["ns/a"]);
    world.slice("a", &[("10.128.0.3", 0), ("10.128.0.4", 0)]);
    assert!(world.catch_up().is_empty(), "what is the same is no change");
    // A heartbeat changes nothing of a fact.
    world.node(0, "zone-a");
    assert!(world.catch_up().is_empty());
    // A node comes: only for those that differ from node to node.
    world.node(3, "zone-a");
    assert_eq!(world.catch_up(), ["ns/local"]);
    // A pod that is no endpoint's business.
    let pod = json!({"metadata": {"namespace": "ns", "name": "p", "annotations": {"k8s.ovn.org/pod-networks":
        r#"{"default":{"ip_addresses":["10.128.0.3/24"],"mac_address":"0a:58:0a:80:00:03"}}"#}},
        "spec": {"nodeName": "n0", "containers": []}});
    let pod = PodFact::from_k8s(&serde_json::from_value(pod).unwrap(), &mut world.texts);
    world.apply(Fact::Pod(pod));
    assert!(world.catch_up().is_empty());
}
