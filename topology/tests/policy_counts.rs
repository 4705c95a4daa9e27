//! What changes of labels, and pods that come, take while there are policies: transactions, rows and bytes, exactly.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod world;

use ovenbird_topology::{Fact, NamespaceFact, NetworkPolicyFact, NodeFact, PodFact};
use serde_json::{Value, json};

use world::World;

/// What a transaction does, an operation a line: operation, table, column, number of members; a row that is inserted has none.
fn shape(transaction: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = |value: &Value| value[1].as_array().filter(|_| value[0] == "set").map_or(1, Vec::len);
    let mutation =
        |op: &Value, m: &Value| format!("{} {} {} {}", text(&op["table"]), text(&m[0]), text(&m[1]), members(&m[2]));
    let mut lines: Vec<String> = Vec::new();
    for op in transaction {
        match op["mutations"].as_array() {
            Some(mutations) => lines.extend(mutations.iter().map(|m| mutation(op, m))),
            None => lines.push(format!("{} {}", text(&op["table"]), text(&op["op"]))),
        }
    }
    lines.sort();
    lines
}

impl World {
    /// Nodes, and namespaces `ns-0` and so on, each with the label `team` of the same value as its name.
    fn cluster(&mut self, namespaces: usize) {
        for n in 0..4 {
            let subnets = format!(r#"{{"default":["10.128.{n}.0/24","fd00:10:128:{n}::/64"]}}"#);
            let annotations = json!({"k8s.ovn.org/node-subnets": subnets, "k8s.ovn.org/node-id": (n + 2).to_string()});
            let node = json!({"metadata": {"name": format!("n{n}"), "annotations": annotations}});
            self.apply(Fact::Node(NodeFact::from_k8s(&serde_json::from_value(node).unwrap())));
        }
        for n in 0..namespaces {
            self.namespace(n, &format!("ns-{n}"));
        }
    }

    fn namespace(&mut self, n: usize, team: &str) {
        let object = json!({"metadata": {"name": format!("ns-{n}"), "labels": {"team": team}}});
        let fact = NamespaceFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut self.texts);
        self.apply(Fact::Namespace(fact));
    }

    /// Pod number `i` of a namespace; no two of the same number.
    fn pod(&mut self, namespace: usize, i: usize, app: &str) {
        let (node, host) = (i % 4, i / 4 + 3);
        let network = json!({"default": {"ip_addresses": [format!("10.128.{node}.{host}/24"), format!("fd00:10:128:{node}::{host:x}/64")],
            "mac_address": format!("0a:58:0a:80:{node:02x}:{host:02x}")}});
        let annotations = json!({"k8s.ovn.org/pod-networks": network.to_string()});
        let object = json!({
            "metadata": {"namespace": format!("ns-{namespace}"), "name": format!("p{i}"), "uid": format!("u{i}"),
                "labels": {"app": app, "tier": "front"}, "annotations": annotations},
            "spec": {"nodeName": format!("n{node}"), "containers": []}, "status": {"phase": "Running"}});
        let fact = PodFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut self.texts);
        self.apply(Fact::Pod(fact));
    }

    fn policy(&mut self, namespace: usize, name: &str, pods: &Value, from: &Value) {
        let spec = json!({"podSelector": pods, "ingress": [{"from": [from], "ports": [{"port": 8080}]}]});
        let object = json!({"metadata": {"namespace": format!("ns-{namespace}"), "name": name}, "spec": spec});
        let fact = NetworkPolicyFact::from_k8s(&serde_json::from_value(object).unwrap(), &mut self.texts);
        self.apply(Fact::NetworkPolicy(fact));
    }

    /// A policy for each of `count` apps of a namespace, which lets in the next.
    fn chain(&mut self, namespace: usize, count: usize) {
        for n in 0..count {
            let app = |n: usize| json!({"matchLabels": {"app": format!("a{n}")}});
            self.policy(namespace, &format!("chain-{n}"), &app(n), &json!({"podSelector": app(n + 1)}));
        }
    }

    /// The one transaction that what has changed takes.
    fn transaction(&mut self) -> Vec<Value> {
        let mut transactions = self.transactions();
        assert_eq!(transactions.len(), 1, "transactions");
        transactions.pop().unwrap()
    }
}

/// Out of the group and the sets of one app, into those of another; its isolation stays. As much among ten policies as among 1,000.
#[test]
fn a_flip_of_a_label_is_one_transaction_of_the_members_that_change() {
    let flip = |policies: usize| {
        let mut world = World::new();
        world.cluster(1);
        world.chain(0, policies);
        for i in 0..20 {
            world.pod(0, i, "a3");
        }
        world.meet();
        world.pod(0, 7, "a5");
        world.transaction()
    };
    let few = flip(10);
    let expected = [
        "Address_Set addresses delete 1",
        "Address_Set addresses delete 1",
        "Address_Set addresses insert 1",
        "Address_Set addresses insert 1",
        "Port_Group ports delete 1",
        "Port_Group ports insert 1",
    ];
    assert_eq!(shape(&few), expected);
    assert_eq!(few, flip(1_000));
}

/// Of 60 pods in 3 namespaces at once: each row that changes is written once.
#[test]
fn a_burst_of_flips_is_one_transaction() {
    let mut world = World::new();
    world.cluster(3);
    (0..3).for_each(|n| world.chain(n, 8));
    (0..60).for_each(|i| world.pod(i % 3, i, "a3"));
    world.meet();
    (0..60).for_each(|i| world.pod(i % 3, i, "a5"));
    let lines = shape(&world.transaction());
    let of = |line: &str| lines.iter().filter(|other| *other == line).count();
    assert_eq!(of("Port_Group ports insert 20") + of("Port_Group ports delete 20"), 3 + 3);
    assert_eq!(of("Address_Set addresses insert 20") + of("Address_Set addresses delete 20"), 6 + 6);
    assert_eq!(lines.len(), 18);
}

/// A label of a namespace by which 50 policies let its pods in: its addresses enter the set that the policies share.
#[test]
fn a_label_of_a_namespace_is_one_transaction_however_many_policies_select_it() {
    let mut world = World::new();
    world.cluster(2);
    for n in 0..50 {
        let subject = json!({"matchLabels": {"app": format!("a{n}")}});
        let open = json!({"namespaceSelector": {"matchLabels": {"team": "open"}}});
        world.policy(0, &format!("open-{n}"), &subject, &open);
    }
    (0..80).for_each(|i| world.pod(i % 2, i, "a1"));
    world.meet();
    world.namespace(1, "open");
    let transaction = world.transaction();
    assert_eq!(shape(&transaction), ["Address_Set addresses insert 40"; 2]);
}

/// A pod that comes writes its port, that of its switch, and one member of each group and set that it is in: policies that do not
/// select it cost neither a row nor a byte.
#[test]
fn a_pod_costs_nothing_for_policies_that_do_not_select_it() {
    let come = |others: usize| {
        let mut world = World::new();
        world.cluster(2);
        for namespace in 0..2 {
            world.chain(namespace, others);
        }
        world.policy(0, "front", &json!({"matchLabels": {"tier": "front"}}), &json!({"podSelector": {}}));
        (0..20).for_each(|i| world.pod(i % 2, i, "a1"));
        world.meet();
        world.pod(0, 30, "none");
        world.transaction()
    };
    let few = come(10);
    let expected = [
        "Address_Set addresses insert 1",
        "Address_Set addresses insert 1",
        "Logical_Switch ports insert 1",
        "Logical_Switch_Port insert",
        "Port_Group ports insert 1",
        "Port_Group ports insert 1",
    ];
    assert_eq!(shape(&few), expected);
    assert_eq!(few, come(1_000));
}

/// Pods of many namespaces and nodes that come at once: those that share most groups go together, so that a transaction fills few sets.
/// Were they taken by node, most groups would be in most transactions.
#[test]
fn pods_that_share_groups_go_together() {
    const NAMESPACES: usize = 6;
    let mut world = World::new();
    world.cluster(NAMESPACES);
    for namespace in 0..NAMESPACES {
        world.policy(namespace, "all", &json!({}), &json!({"namespaceSelector": {}}));
        world.chain(namespace, 4);
    }
    world.meet();
    (0..240).for_each(|i| world.pod(i / 4 % NAMESPACES, i, &format!("a{}", i / 24 % 4)));
    let transactions = world.transactions();
    let lines = transactions.iter().flat_map(|transaction| shape(transaction));
    let groups = lines.filter(|line| line.starts_with("Port_Group")).count();
    // 6 namespaces with 6 groups each (isolated, all, and 4 apps), and those that lie across the end of a transaction.
    assert_eq!((transactions.len(), groups), (4, 45), "transactions, and groups that they fill");
}
