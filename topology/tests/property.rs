//! Properties of the engine over random histories: what it yields depends on the facts alone, never on the way to them, and no
//! annotation text makes it panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use ovenbird_api::{L3Gateway, PodNetwork, bandwidth, node};
use ovenbird_reconcile::{Output, Owner, Want};
use ovenbird_schema::northbound::{load_balancer as lb, logical_router as lr, logical_switch as ls};
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config, EndpointSliceFact, Engine, Fact, FactKey, Interner, NamespaceFact,
    NetworkFact, NetworkPolicyFact, NodeFact, PodFact, ProviderNetworkFact, ServiceFact,
};
use ovsdb::{Atom, Uuid};
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
        look: u8,
    },
    DeleteNode(u8),
    DeletePod(u8),
    /// `look` chooses labels and annotations.
    Namespace {
        name: u8,
        look: u8,
    },
    DeleteNamespace(u8),
    /// `shape` chooses selectors, directions, peers and ports.
    Policy {
        name: u8,
        shape: u16,
    },
    DeletePolicy(u8),
    /// `shape` chooses VLAN, subnet, gateways and namespaces.
    Network {
        name: u8,
        shape: u16,
    },
    DeleteNetwork(u8),
    /// `ready` has a bit for each node.
    Provider {
        ready: u8,
    },
    DeleteProvider,
    /// `shape` chooses priority, subject, actions, peers and ports.
    Admin {
        kind: u8,
        name: u8,
        shape: u16,
    },
    DeleteAdmin {
        kind: u8,
        name: u8,
    },
    /// The database has tiers of ACLs.
    Tiers(bool),
    /// `shape` chooses policies, ports, families and annotations.
    Service {
        name: u8,
        shape: u16,
    },
    /// `endpoints`: address, node and condition of each.
    Slice {
        name: u8,
        service: u8,
        endpoints: Vec<(u8, u8, u8)>,
    },
    DeleteService(u8),
    DeleteSlice(u8),
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
    let vlan = (2u8..5).prop_map(|n| {
        format!(r#"{{"default":{{"ip_addresses":["192.168.100.{n}/24"],"mac_address":"0a:58:00:00:00:02"}}}}"#)
    });
    prop_oneof![
        4 => vlan,
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
        8 => (0u8..6, 0u8..3, option, proptest::option::weighted(0.9, network()), 0u8..8, any::<u8>())
            .prop_map(|(name, created, node, network, phase, look)| Step::Pod { name, created, node, network, phase, look }),
        1 => (0u8..3).prop_map(Step::DeleteNode),
        2 => (0u8..6).prop_map(Step::DeletePod),
        3 => (0u8..2, 0u8..4).prop_map(|(name, look)| Step::Namespace { name, look }),
        1 => (0u8..2).prop_map(Step::DeleteNamespace),
        6 => (0u8..4, any::<u16>()).prop_map(|(name, shape)| Step::Policy { name, shape }),
        2 => (0u8..4).prop_map(Step::DeletePolicy),
        4 => (0u8..2, any::<u16>()).prop_map(|(name, shape)| Step::Network { name, shape }),
        1 => (0u8..2).prop_map(Step::DeleteNetwork),
        3 => any::<u8>().prop_map(|ready| Step::Provider { ready }),
        1 => Just(Step::DeleteProvider),
        4 => (0u8..3, 0u8..2, any::<u16>()).prop_map(|(kind, name, shape)| Step::Admin { kind, name, shape }),
        1 => (0u8..3, 0u8..2).prop_map(|(kind, name)| Step::DeleteAdmin { kind, name }),
        1 => any::<bool>().prop_map(Step::Tiers),
        4 => (0u8..2, any::<u16>()).prop_map(|(name, shape)| Step::Service { name, shape }),
        6 => (0u8..3, 0u8..3, prop::collection::vec((0u8..4, 0u8..4, 0u8..8), 0..4))
            .prop_map(|(name, service, endpoints)| Step::Slice { name, service, endpoints }),
        1 => (0u8..2).prop_map(Step::DeleteService),
        1 => (0u8..3).prop_map(Step::DeleteSlice),
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
            if *chassis && *created == 2 {
                annotations.insert("ovenbird.io/datapath-type".into(), "netdev".into());
            }
            let node = json!({"metadata": {"name": format!("n{name}"), "creationTimestamp": time(created),
                "labels": {"topology.kubernetes.io/zone": format!("z{created}")}, "annotations": annotations}});
            Change::Upsert(Fact::Node(NodeFact::from_k8s(&serde_json::from_value::<Node>(node).unwrap())))
        }
        Step::Pod { name, created, node, network, phase, look } => {
            let on = ["", "", "v0", "v1"][usize::from(look >> 6)];
            let annotations =
                network.as_ref().map(|text| json!({"k8s.ovn.org/pod-networks": text, "ovenbird.io/network": on}));
            let phases = ["Pending", "Running", "Running", "Running", "Running", "Running", "Succeeded", "Failed"];
            // Few ports of the node, so that they meet.
            let address = ["", "0.0.0.0", "172.18.0.0"][usize::from(*created)];
            let port = json!({"name": "web", "containerPort": 80 + (look & 1), "hostPort": 8000 + u32::from(*phase) % 2, "hostIP": address});
            let ports = if *phase > 1 { json!([port]) } else { json!([]) };
            let pod = json!({
                "metadata": {"namespace": namespace(name % 2), "name": format!("p{name}"), "labels": labels(look >> 1), "uid": format!("u{name}-{created}"),
                    "creationTimestamp": time(created), "annotations": annotations},
                "spec": {"containers": [{"name": "c", "ports": ports}], "nodeName": node.map(|n| format!("n{n}")), "hostNetwork": *phase == 4},
                "status": {"phase": phases[usize::from(*phase)]},
            });
            let pod = serde_json::from_value::<Pod>(pod).unwrap();
            Change::Upsert(Fact::Pod(PodFact::from_k8s(&pod, interner)))
        }
        Step::DeleteNode(name) => Change::Delete(FactKey::Node(format!("n{name}").into())),
        Step::DeletePod(name) => Change::Delete(FactKey::Pod(format!("{}/p{name}", namespace(name % 2)).into())),
        Step::DeleteNamespace(name) => Change::Delete(FactKey::Namespace(namespace(*name).into())),
        Step::Policy { name, shape } => {
            let policy = policy(*name, *shape);
            Change::Upsert(Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(&policy, interner)))
        }
        Step::DeletePolicy(name) => {
            Change::Delete(FactKey::NetworkPolicy(format!("{}/p{name}", namespace(name % 2)).into()))
        }
        Step::Network { name, shape } => Change::Upsert(Fact::Network(vlan(*name, *shape, interner))),
        Step::DeleteNetwork(name) => Change::Delete(FactKey::Network(format!("v{name}").into())),
        Step::Provider { ready } => Change::Upsert(Fact::ProviderNetwork(provider(*ready, interner))),
        Step::DeleteProvider => Change::Delete(FactKey::ProviderNetwork("fabric".into())),
        Step::Namespace { name, look } => {
            let logging = [r#"{"deny":"alert"}"#, "?"][usize::from(look & 1)];
            let namespace = json!({"metadata": {"name": namespace(*name), "labels": labels(*look),
                "annotations": {"k8s.ovn.org/acl-logging": logging}}});
            let namespace = serde_json::from_value::<Namespace>(namespace).unwrap();
            Change::Upsert(Fact::Namespace(NamespaceFact::from_k8s(&namespace, interner)))
        }
        Step::Service { name, shape } => Change::Upsert(Fact::Service(service(*name, *shape, interner))),
        Step::Slice { name, service, endpoints } => {
            Change::Upsert(Fact::EndpointSlice(slice(*name, *service, endpoints, interner)))
        }
        Step::DeleteService(name) => Change::Delete(FactKey::Service(format!("ns/s{name}").into())),
        Step::DeleteSlice(name) => Change::Delete(FactKey::EndpointSlice(format!("ns/e{name}").into())),
        Step::Admin { kind, name, shape } => Change::Upsert(Fact::AdminPolicy(admin(*kind, *name, *shape, interner))),
        Step::DeleteAdmin { kind, name } => {
            Change::Delete(FactKey::AdminPolicy((AdminKind::ALL[usize::from(*kind)], format!("a{name}").into())))
        }
        Step::Tiers(_) | Step::Catch => return None,
    })
}

fn namespace(name: u8) -> &'static str {
    ["ns", "other"][usize::from(name)]
}

fn labels(look: u8) -> serde_json::Value {
    [json!({"app": "a"}), json!({"app": "b", "tier": "x"}), json!({}), json!(null)][usize::from(look % 4)].clone()
}

fn policy(name: u8, shape: u16) -> NetworkPolicy {
    let choose = |at: u16, of: &[serde_json::Value]| of[usize::from(shape >> at) % of.len()].clone();
    let selectors = [
        json!({}),
        json!({"matchLabels": {"app": "a"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
        json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
    ];
    let peers = [
        json!(null),
        json!([{"podSelector": choose(4, &selectors)}]),
        json!([{"namespaceSelector": choose(4, &selectors), "podSelector": choose(6, &selectors)}]),
        json!([{"namespaceSelector": choose(4, &selectors)}, {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/32"]}}]),
    ];
    let ports =
        [json!(null), json!([{"port": 80}, {"port": "web"}]), json!([{"port": "web"}]), json!([{"endPort": 7}])];
    let rule = |peers_name: &str| json!([{peers_name: choose(8, &peers), "ports": choose(10, &ports)}]);
    let types = [json!(null), json!(["Egress"]), json!(["Ingress", "Egress"])];
    let object = json!({
        "metadata": {"namespace": namespace(name % 2), "name": format!("p{name}")},
        "spec": {"podSelector": choose(0, &selectors), "policyTypes": choose(2, &types),
            "ingress": rule("from"), "egress": if shape >> 12 & 1 == 1 { rule("to") } else { json!([]) }},
    });
    serde_json::from_value(object).unwrap()
}

fn admin(kind: u8, name: u8, shape: u16, interner: &mut Interner) -> AdminPolicyFact {
    let choose = |at: u16, of: &[serde_json::Value]| of[usize::from(shape >> at) % of.len()].clone();
    let selectors = [json!({}), json!({"matchLabels": {"app": "a"}}), json!({"matchLabels": {"tier": "x"}})];
    let pods = json!({"pods": {"namespaceSelector": choose(0, &selectors), "podSelector": choose(2, &selectors)}});
    let peers = [
        json!([{"namespaces": choose(4, &selectors)}]),
        json!([{"networks": ["192.0.2.0/24"]}, {"nodes": {}}]),
        json!([{"domainNames": ["example.org"]}]),
    ];
    let ports = [json!(null), json!([{"namedPort": "web"}]), json!([{"portNumber": {"port": 80}}])];
    let actions = [json!("Allow"), json!("Deny"), json!("Pass")];
    let rule = |at: u16, peers_name: &str| json!({"action": choose(at, &actions), peers_name: choose(at + 2, &peers), "ports": choose(at + 1, &ports)});
    let meta = serde_json::from_value(json!({"name": format!("a{name}")})).unwrap();
    let spec = json!({"tier": if shape & 1 == 1 { "Admin" } else { "Baseline" }, "priority": shape % 3, "subject": pods,
        "ingress": [rule(6, "from"), rule(8, "from")], "egress": [rule(10, "to")]});
    let spec = serde_json::from_value(spec).unwrap();
    AdminPolicyFact::new(AdminKind::ALL[usize::from(kind)], &meta, &spec, interner)
}

fn vlan(name: u8, shape: u16, interner: &mut Interner) -> NetworkFact {
    let bit = |n: u16| shape >> n & 1 == 1;
    let subnet = if bit(0) { "192.168.100.0/24" } else { "192.168.101.0/24" };
    let address = |host: u8| if bit(0) { format!("192.168.100.{host}") } else { format!("192.168.101.{host}") };
    let selectors = [json!(null), json!({}), json!({"matchLabels": {"app": "a"}})];
    let spec = json!({"providerNetwork": "fabric", "vlan": if bit(1) { 100 } else { 100 + u16::from(name) }, "subnets": [subnet],
        "gateway": {"physical": if bit(2) { json!([address(1)]) } else { json!([]) }, "ovn": if bit(3) { json!([address(4)]) } else { json!([]) }},
        "namespaceSelector": selectors[usize::from(shape >> 4 & 3) % 3], "default": bit(6)});
    let meta = serde_json::from_value(
        json!({"name": format!("v{name}"), "creationTimestamp": format!("2026-01-01T00:00:0{}Z", shape >> 7 & 1)}),
    );
    NetworkFact::new(&meta.unwrap(), &serde_json::from_value(spec).unwrap(), &Default::default(), interner)
}

fn provider(ready: u8, interner: &mut Interner) -> ProviderNetworkFact {
    let nodes = (0..3).map(|n| (format!("n{n}"), json!({"ready": ready >> n & 1 == 1})));
    let status = json!({"nodes": nodes.collect::<serde_json::Map<_, _>>()});
    let meta = serde_json::from_value(json!({"name": "fabric"})).unwrap();
    ProviderNetworkFact::new(&meta, &Default::default(), &serde_json::from_value(status).unwrap(), interner)
}

fn service(name: u8, shape: u16, interner: &mut Interner) -> ServiceFact {
    let bit = |n: u16| shape >> n & 1 == 1;
    let policy = |local: bool| if local { "Local" } else { "Cluster" };
    let ips = match shape % 4 {
        0 => json!([format!("10.96.0.{name}")]),
        1 => json!([format!("fd02::{name}"), format!("10.96.0.{name}")]),
        2 => json!(["None"]),
        _ => json!([format!("fd02::{name}")]),
    };
    let node_port = |p: u16| if bit(7) { 30000 + p + 10 * u16::from(name) } else { 0 };
    let protocol = if bit(6) { "UDP" } else { "TCP" };
    let port = |p: u16, name: &str| json!({"name": name, "port": p, "nodePort": node_port(p), "protocol": protocol});
    let schedulers = ["rr", "sh", "wrr", "lc"];
    let object = json!({
        "metadata": {"namespace": "ns", "name": format!("s{name}"), "creationTimestamp": format!("2026-01-01T00:00:0{}Z", shape >> 12 & 1),
            "annotations": {"ovenbird.io/scheduler": schedulers[usize::from(shape >> 10 & 3)]}},
        "spec": {"clusterIPs": ips, "ports": [port(80, "a"), port(81, "b")], "externalIPs": if bit(8) { json!(["192.0.2.1"]) } else { json!([]) },
            "internalTrafficPolicy": policy(bit(4)), "externalTrafficPolicy": policy(bit(5)),
            "sessionAffinity": if bit(9) { "ClientIP" } else { "None" }},
    });
    ServiceFact::from_k8s(&serde_json::from_value(object).unwrap(), interner)
}

fn slice(name: u8, service: u8, endpoints: &[(u8, u8, u8)], interner: &mut Interner) -> EndpointSliceFact {
    let endpoint = |(address, node, kind): &(u8, u8, u8)| {
        let address = match address {
            0 => format!("172.18.0.{node}"),
            2 => format!("192.168.100.{}", node + 2),
            3 => format!("fd01::{}", address + 2),
            _ => format!("10.128.0.{}", address + 1),
        };
        let hints =
            json!({"forZones": [{"name": format!("z{}", kind >> 2)}], "forNodes": [{"name": format!("n{node}")}]});
        json!({"addresses": [address], "nodeName": (*node < 3).then(|| format!("n{node}")),
            "conditions": {"ready": kind & 3 != 1, "serving": true, "terminating": kind & 3 == 1},
            "hints": if kind & 2 == 2 { hints } else { json!(null) }})
    };
    let object = json!({
        "metadata": {"namespace": "ns", "name": format!("e{name}"), "labels": {"kubernetes.io/service-name": format!("s{service}")}},
        "addressType": "IPv4",
        "ports": [{"name": "a", "port": 8080 + u16::from(name), "protocol": "TCP"}, {"name": "b", "port": 9090, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    EndpointSliceFact::from_k8s(&serde_json::from_value(object).unwrap(), interner)
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

/// Protocols and keys of `vips` that a switch, router or group has by contributions.
fn balanced(held: &Held) -> BTreeMap<Uuid, Vec<String>> {
    let rows = held.values().flat_map(|o| &o.rows).filter(|row| row.table.name == lb::TABLE.name);
    let mut vips: BTreeMap<Atom, Vec<String>> = BTreeMap::new();
    for row in rows {
        let column = |id| row.columns.iter().find(|(c, _)| *c == id).map(|(_, want)| want.clone());
        let (Some(Want::Exactly(map)), Some(Want::Exactly(protocol))) = (column(lb::VIPS), column(lb::PROTOCOL)) else {
            panic!("{row:?}");
        };
        let addresses = map.pairs().iter().map(|(address, _)| format!("{protocol:?} {address:?}"));
        vips.insert(row.id.uuid().into(), addresses.collect());
    }
    let mut balanced: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for contribution in held.values().flat_map(|o| &o.contributions) {
        let addresses = vips.get(&contribution.member).into_iter().flatten().cloned();
        balanced.entry(contribution.row.uuid()).or_default().extend(addresses);
    }
    balanced
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Incremental is the same as from scratch, and as from scratch in another order.
    #[test]
    fn outputs_follow_from_the_facts_alone(steps in prop::collection::vec(step(), 0..40)) {
        let mut interner = Interner::default();
        let (mut incremental, mut held) = (engine(), Held::new());
        let mut facts: BTreeMap<FactKey, Fact> = BTreeMap::new();
        let mut tiers = false;
        for step in &steps {
            if let Step::Tiers(new) = step {
                tiers = *new;
                incremental.set_acl_tiers(tiers);
            }
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
        scratch.set_acl_tiers(tiers);
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

    /// No switch or router has two load balancers for one address.
    #[test]
    fn an_address_is_balanced_once_in_a_place(steps in prop::collection::vec(step(), 0..40)) {
        let mut interner = Interner::default();
        let (mut engine, mut held) = (engine(), Held::new());
        steps.iter().filter_map(|s| change(s, &mut interner)).for_each(|c| engine.apply(c));
        catch_up(&mut engine, &mut held);
        let balanced = balanced(&held);
        let groups = |uuid: &Uuid| balanced.get(uuid).into_iter().flatten();
        for user in held.values().flat_map(|o| &o.rows) {
            let of_switch = user.table.name == ls::TABLE.name;
            let column = if of_switch { ls::LOAD_BALANCER_GROUP } else { lr::LOAD_BALANCER_GROUP };
            if !of_switch && user.table.name != lr::TABLE.name {
                continue;
            }
            let referred = user.columns.iter().find(|(c, _)| *c == column);
            let Some((_, Want::Exactly(referred))) = referred else { continue };
            let all = referred.atoms().iter().filter_map(Atom::as_uuid).chain([user.id.uuid()]);
            let mut addresses: Vec<_> = all.flat_map(|uuid| groups(&uuid)).collect();
            addresses.sort();
            let count = addresses.len();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), count, "{:?}", addresses);
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
