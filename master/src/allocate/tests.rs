//! The allocator against a small world: facts in, requests and facts out. Steps read as a story.

use ovenbird_topology::config::{DEFAULT_JOIN_SUBNETS, DEFAULT_MTU, OnNetworks, Settings};
use ovenbird_topology::{NodeFact, PodAddresses};

use super::*;
use crate::annotate::Outcome;
use crate::object::{Guard, Told};

mod tags;

/// An allocator, and what it asked for.
struct World {
    allocator: Allocator,
    fx: Effects,
    version: u32,
    /// What the next facts say: of nodes the parent port, of pods tag and UID.
    parent: Option<Str>,
    tag: Option<u16>,
    uid: Str,
}

impl World {
    /// Settled and active, with the nodes `n1`, `n2`, ... that have the subnets given.
    fn new(cluster: &str, nodes: &[&str]) -> World {
        World::with(Config::parse(cluster, "", DEFAULT_JOIN_SUBNETS, DEFAULT_MTU).expect("valid"), nodes)
    }

    fn with(config: Config, nodes: &[&str]) -> World {
        let mut world = World {
            allocator: Allocator::new(config),
            fx: Effects::default(),
            version: 0,
            parent: None,
            tag: None,
            uid: "u".into(),
        };
        for (i, subnet) in nodes.iter().enumerate() {
            world.node(&format!("n{}", i + 1), Some((subnet, i as u16 + 2)));
        }
        world.allocator.settle(&mut world.fx);
        world.allocator.set_active(true, &mut world.fx);
        world
    }

    fn guard(&mut self) -> Guard {
        self.version += 1;
        Guard { uid: "u".into(), version: self.version.to_string().into() }
    }

    fn node(&mut self, name: &str, has: Option<(&str, u16)>) {
        let fact = NodeFact {
            name: name.into(),
            created: 0,
            pod_cidrs: Vec::new(),
            subnets: has.map(|(subnet, _)| Ok(vec![subnet.parse().expect("subnet")])),
            id: has.map(|(_, id)| Ok(id)),
            chassis: None,
            management_mac: None,
            gateway: None,
            host_cidrs: None,
            pod_mtu: None,
            labels: Box::default(),
            userspace: false,
            parent: self.parent.clone().map(|port| Ok(Box::new(port))),
        };
        let guard = self.guard();
        self.allocator.upsert_node(Told { fact, guard }, &mut self.fx);
    }

    fn pod(&mut self, name: &str, node: &str, has: Option<&str>) {
        self.told(name, node, has, false);
    }

    fn told(&mut self, name: &str, node: &str, has: Option<&str>, finished: bool) {
        self.tell(name, node, has, (None, finished));
    }

    fn told_on(&mut self, name: &str, node: &str, has: Option<&str>, on: Option<&str>) {
        self.tell(name, node, has, (on, false));
    }

    fn tell(&mut self, name: &str, node: &str, has: Option<&str>, (on, finished): (Option<&str>, bool)) {
        let tag = self.tag;
        let addresses = |ip: &str| {
            let v4: std::net::Ipv4Addr = ip.parse().expect("address");
            PodAddresses { v4: Some(v4), v6: None, mac: ovenbird_api::Mac::of(v4.into()), dhcp: false, tag }
        };
        let fact = PodFact {
            key: format!("ns/{name}").into(),
            uid: self.uid.clone(),
            node: Some(node.into()),
            network: has.map(|ip| Ok(addresses(ip))),
            lease: None,
            on: on.map(Into::into),
            weight: None,
            labels: Box::default(),
            created: 0,
            host_ports: Box::default(),
            ports: Box::default(),
            host_network: false,
            finished,
        };
        let guard = self.guard();
        self.allocator.upsert_pod(Told { fact, guard }, &mut self.fx);
    }

    fn delete(&mut self, name: &str) {
        self.allocator.delete(&FactKey::Pod(format!("ns/{name}").into()), &mut self.fx);
    }

    /// The write of a pod that was based on `version` ends.
    fn ends(&mut self, pod: &str, version: u32, outcome: Outcome) {
        self.done(Target::Pod(format!("ns/{pod}").into()), version, outcome);
    }

    fn done(&mut self, target: Target, version: u32, outcome: Outcome) {
        self.allocator.outcome(Done { target, version: version.to_string().into(), outcome }, &mut self.fx);
    }

    /// Requests since the last call: `object@version key=text`, pods shortened to their first address.
    fn asked(&mut self) -> Vec<String> {
        let one = |request: Request| {
            let object = match request.target {
                Target::Node(name) => name.to_string(),
                Target::Pod(key) => key.trim_start_matches("ns/").to_owned(),
            };
            let texts = request.annotations.iter().map(|(_, text)| match text.split('"').nth(5) {
                Some(address) => address.split('/').next().unwrap_or_default().to_owned(),
                None => text.clone(),
            });
            format!("{object}@{} {}", request.guard.version, texts.collect::<Vec<_>>().join(" "))
        };
        self.fx.requests.drain(..).map(one).collect()
    }

    /// What the engine sees of a pod, by the last fact since the last call.
    fn seen(&mut self, pod: &str) -> Option<String> {
        let key = format!("ns/{pod}");
        let facts = self.fx.facts.drain(..).filter_map(|fact| match fact {
            Fact::Pod(pod) if *pod.key == *key => Some(pod),
            _ => None,
        });
        let network = facts.fold(None, |_, pod| Some(pod)).expect("a fact of the pod").network;
        network.map(|n| n.expect("readable").v4.expect("IPv4").to_string())
    }

    fn why(&self, pod: &str) -> Option<String> {
        let key = format!("ns/{pod}");
        self.allocator.waiting().into_iter().find(|w| *w.key == *key).map(|w| w.why)
    }

    fn complaints(&mut self) -> Vec<String> {
        let all = self.fx.complaints.drain(..);
        all.flat_map(|(subject, d)| d.into_iter().map(move |d| format!("{} {}", subject.key, d.reason))).collect()
    }
}

#[test]
fn nothing_is_chosen_before_the_lists_are_complete_and_we_lead() {
    let config = Config::parse("10.1.0.0/16/24", "", DEFAULT_JOIN_SUBNETS, DEFAULT_MTU).expect("valid");
    let mut world = World { allocator: Allocator::new(config), ..World::new("10.1.0.0/16/24", &[]) };
    world.pod("new", "n1", None);
    world.pod("old", "n1", Some("10.1.0.3"));
    world.node("n1", Some(("10.1.0.0/24", 2)));
    world.node("n2", None);
    world.allocator.settle(&mut world.fx);
    assert_eq!(world.asked(), [""; 0]);
    assert_eq!(world.why("new").as_deref(), Some("no address is chosen yet"));
    assert_eq!(world.why("old"), None);
    world.allocator.set_active(true, &mut world.fx);
    assert_eq!(world.asked(), ["new@1 10.1.0.4", "n2@4 {\"default\":[\"10.1.1.0/24\"]} 3"]);
}

#[test]
fn a_choice_is_shown_at_once_and_confirmed_by_watch() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    assert_eq!(world.asked(), ["a@2 10.1.0.3"]);
    assert_eq!(world.seen("a").as_deref(), Some("10.1.0.3"));
    // A status update that does not know of the annotation yet.
    world.pod("a", "n1", None);
    assert_eq!(world.seen("a").as_deref(), Some("10.1.0.3"));
    assert_eq!(world.asked(), [""; 0]);
    world.ends("a", 2, Outcome::Written);
    assert_eq!(world.why("a").as_deref(), Some("its annotation is being written"));
    world.pod("a", "n1", Some("10.1.0.3"));
    assert_eq!(world.why("a"), None);
    world.pod("b", "n1", None);
    assert_eq!(world.asked(), ["b@5 10.1.0.4"]);
}

#[test]
fn a_conflict_is_written_again_on_the_newer_version() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    world.ends("a", 2, Outcome::Conflict);
    assert_eq!(world.asked(), ["a@2 10.1.0.3"]);
    assert_eq!(world.seen("a"), None, "not shown while it is not being written");
    world.pod("a", "n1", None);
    assert_eq!(world.asked(), ["a@3 10.1.0.3"], "the same choice, on the newer version");
    world.pod("a", "n1", None);
    world.ends("a", 3, Outcome::Conflict);
    assert_eq!(world.asked(), ["a@4 10.1.0.3"], "the newer version was known already");
    assert_eq!(world.seen("a").as_deref(), Some("10.1.0.3"));
}

#[test]
fn what_failed_is_not_shown_stays_reserved_and_is_tried_again() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    world.ends("a", 2, Outcome::Failed("refused".into()));
    assert_eq!(world.seen("a"), None);
    assert!(world.why("a").expect("waits").ends_with("trying again: refused"));
    world.pod("b", "n1", None);
    assert_eq!(world.asked(), ["a@2 10.1.0.3", "b@3 10.1.0.4"], "for it may have been written");
    world.allocator.retry(&mut world.fx);
    assert_eq!(world.asked(), ["a@2 10.1.0.3"]);
    assert_eq!(world.seen("a").as_deref(), Some("10.1.0.3"));
}

#[test]
fn a_refusal_is_told_once_and_taken_back() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    for _ in 0..2 {
        world.ends("a", 2, Outcome::Refused("webhook x denies it".into()));
        world.allocator.retry(&mut world.fx);
    }
    let complaints = std::mem::take(&mut world.fx.complaints);
    let [(subject, told)] = complaints.as_slice() else { panic!("{complaints:?}") };
    assert_eq!((&*subject.key, told[0].reason), ("ns/a", "AnnotationRefused"));
    assert!(told[0].message.ends_with("trying again: webhook x denies it"), "{}", told[0].message);
    assert_eq!(world.why("a").as_deref(), Some(&*told[0].message), "still, while it is tried again");
    world.pod("a", "n1", Some("10.1.0.3"));
    assert!(matches!(world.fx.complaints.as_slice(), [(_, none)] if none.is_empty()), "{:?}", world.fx.complaints);
}

#[test]
fn losing_the_lead_takes_choices_back() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    world.allocator.set_active(false, &mut world.fx);
    assert_eq!(world.seen("a"), None);
    // The other leader chooses differently.
    world.pod("b", "n1", Some("10.1.0.3"));
    world.asked();
    world.allocator.set_active(true, &mut world.fx);
    assert_eq!(world.asked(), ["a@2 10.1.0.4"]);
    assert_eq!(world.why("b"), None);
}

#[test]
fn a_finished_or_deleted_pod_frees_its_address_at_once() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", Some("10.1.0.3"));
    world.pod("b", "n1", Some("10.1.0.4"));
    world.told("a", "n1", Some("10.1.0.3"), true);
    world.pod("c", "n1", None);
    world.delete("b");
    world.pod("d", "n1", None);
    assert_eq!(world.asked(), ["c@5 10.1.0.3", "d@6 10.1.0.4"]);
}

#[test]
fn a_full_node_complains_once_and_serves_whoever_waits() {
    // A /29 has room for four pods.
    let mut world = World::new("10.1.0.0/24/29", &["10.1.0.0/29"]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.pod(name, "n1", None);
    }
    assert_eq!(world.asked().len(), 4);
    assert_eq!(world.complaints(), ["ns/e NoFreeAddress", "ns/f NoFreeAddress"]);
    assert!(world.why("e").expect("waits").contains("all addresses of 10.1.0.0/29 are in use"));
    world.pod("e", "n1", None);
    assert_eq!(world.complaints(), [""; 0], "a status update repeats nothing");
    world.delete("b");
    assert_eq!(world.asked(), ["e@8 10.1.0.4"]);
    assert!(world.why("f").is_some());
}

#[test]
fn two_pods_with_one_address_do_no_harm_to_others() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", Some("10.1.0.3"));
    world.pod("b", "n1", Some("10.1.0.3"));
    world.pod("c", "n1", Some("10.9.0.3"));
    assert!(world.why("b").expect("refused").contains("in use by another pod"));
    assert!(world.why("c").expect("refused").contains("not a pod address"));
    world.pod("d", "n1", None);
    assert_eq!(world.asked(), ["d@5 10.1.0.4"]);
    // The one goes, the other has the address for itself.
    world.delete("a");
    assert_eq!(world.why("b"), None);
}

#[test]
fn a_removed_annotation_is_written_anew() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", Some("10.1.0.9"));
    world.pod("a", "n1", None);
    assert_eq!(world.asked(), ["a@3 10.1.0.3"]);
}

#[test]
fn a_pod_waits_for_its_node_and_the_nodes_subnet() {
    let mut world = World::new("10.1.0.0/16/24", &[]);
    world.pod("a", "n7", None);
    assert_eq!(world.why("a").as_deref(), Some("node n7 does not exist"));
    world.node("n7", None);
    assert_eq!(world.why("a").as_deref(), Some("node n7 has no subnet yet"));
    assert_eq!(world.asked(), ["n7@2 {\"default\":[\"10.1.0.0/24\"]} 2"]);
    world.done(Target::Node("n7".into()), 2, Outcome::Written);
    // A heartbeat from before the write: the choice stands, and nothing is given away.
    world.node("n7", None);
    world.node("n8", None);
    assert_eq!(
        world.asked(),
        ["n7@3 {\"default\":[\"10.1.0.0/24\"]} 2", "n8@4 {\"default\":[\"10.1.1.0/24\"]} 3"],
        "at worst it is written twice"
    );
    world.node("n7", Some(("10.1.0.0/24", 2)));
    assert_eq!(world.asked(), ["a@1 10.1.0.3"]);
}

#[test]
fn subnets_run_out_with_a_complaint_and_come_back() {
    let mut world = World::new("10.1.0.0/24/25", &["10.1.0.0/25", "10.1.0.128/25"]);
    world.node("late", None);
    assert_eq!(world.complaints(), ["late NoFreeSubnet"]);
    assert_eq!(world.asked(), ["late@3 4"], "it gets what there is");
    world.node("late", None);
    assert_eq!(world.complaints(), [""; 0]);
    world.done(Target::Node("late".into()), 3, Outcome::Written);
    world.asked();
    world.allocator.delete(&FactKey::Node("n1".into()), &mut world.fx);
    assert!(world.asked().concat().contains("10.1.0.0/25"), "what was freed");
}

#[test]
fn of_two_nodes_with_one_subnet_one_waits() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.node("twin", Some(("10.1.0.0/24", 9)));
    world.pod("a", "twin", None);
    world.pod("b", "n1", None);
    assert_eq!(world.asked(), ["b@4 10.1.0.3"]);
    assert!(world.allocator.waiting()[0].why.contains("overlaps that of node n1"));
    world.allocator.delete(&FactKey::Node("n1".into()), &mut world.fx);
    assert_eq!(world.asked(), ["a@3 10.1.0.3"], "the subnet is the twin's now");
}

#[test]
fn a_pod_recreated_under_its_name_is_another() {
    let mut world = World::new("10.1.0.0/16/24", &["10.1.0.0/24"]);
    world.pod("a", "n1", None);
    world.asked();
    let mut fact = match world.fx.facts.pop() {
        Some(Fact::Pod(pod)) => pod,
        other => panic!("a pod, not {other:?}"),
    };
    fact.uid = "u2".into();
    fact.network = None;
    let guard = Guard { uid: "u2".into(), version: "90".into() };
    world.allocator.upsert_pod(Told { fact, guard }, &mut world.fx);
    assert_eq!(world.asked(), ["a@90 10.1.0.3"]);
    // The answer to the write on the pod before it.
    world.fx.facts.clear();
    world.ends("a", 2, Outcome::Conflict);
    assert!(world.asked().is_empty() && world.fx.facts.is_empty(), "changes nothing");
}

/// Networks, their namespaces, and pods of these.
mod networks {
    use ovenbird_api::annotation::{NETWORK, POD_NETWORKS};
    use ovenbird_api::underlay::{Holder, NetworkStatus};
    use ovenbird_topology::facts::NetworkSpec;
    use ovenbird_topology::{Interner, NamespaceFact, NetworkFact};

    use super::*;

    impl World {
        fn network(&mut self, name: &str, spec: serde_json::Value) {
            self.network_with(name, spec, &[]);
        }

        fn network_with(&mut self, name: &str, spec: serde_json::Value, in_use: &[&str]) {
            let spec: NetworkSpec = serde_json::from_value(spec).expect("a spec");
            let meta = kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() };
            let in_use = in_use.iter().map(|ip| ((*ip).to_owned(), Holder::default())).collect();
            let fact = NetworkFact::new(&meta, &spec, &NetworkStatus { in_use }, &mut Interner::default());
            self.allocator.upsert_network(fact, &mut self.fx);
        }

        fn namespace(&mut self, labels: &[(&str, &str)]) {
            let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            let fact = NamespaceFact { name: "ns".into(), labels, acl_logging: None };
            self.allocator.upsert_namespace(fact, &mut self.fx);
        }

        fn annotated(&mut self) -> Vec<Vec<&'static str>> {
            let keys = |r: Request| r.annotations.iter().map(|(key, _)| *key).collect();
            self.fx.requests.drain(..).map(keys).collect()
        }
    }

    fn vlan(subnet: &str) -> serde_json::Value {
        serde_json::json!({"providerNetwork": "fabric", "vlan": 100, "subnets": [subnet],
            "gateway": {"physical": ["192.168.100.1"]}, "excludeIPs": ["192.168.100.2-192.168.100.4"],
            "namespaceSelector": {"matchLabels": {"vlan": "100"}}})
    }

    #[test]
    fn pods_of_selected_namespaces_get_addresses_there_and_keep_them() {
        let mut world = World::new("10.128.0.0/14/23", &["10.128.0.0/23", "10.128.2.0/23"]);
        world.namespace(&[]);
        world.pod("old", "n1", None);
        assert_eq!(world.asked(), ["old@3 10.128.0.3"]);
        world.network("v100", vlan("192.168.100.0/29"));
        world.namespace(&[("vlan", "100")]);
        world.pod("old", "n1", None);
        assert_eq!(world.asked(), [""; 0], "what is chosen stays");
        world.pod("a", "n1", None);
        world.pod("b", "n2", None);
        assert_eq!(world.asked(), ["a@5 192.168.100.5 v100", "b@6 192.168.100.6 v100"], "one pool for all nodes");
        world.pod("c", "n1", None);
        assert_eq!(world.asked(), [""; 0], "there are no more");
        assert_eq!(world.allocator.waiting().len(), 4, "three are being written, one has none");
        world.delete("b");
        assert_eq!(world.asked(), ["c@7 192.168.100.6 v100"]);
    }

    #[test]
    fn a_pod_whose_address_others_have_is_given_another() {
        let mut world = World::new("10.128.0.0/14/23", &["10.128.0.0/23"]);
        world.namespace(&[("vlan", "100")]);
        world.network("v100", vlan("192.168.100.0/24"));
        world.pod("a", "n1", None);
        assert_eq!(world.asked(), ["a@2 192.168.100.5 v100"]);
        let on_network = |world: &mut World, ip: &str| {
            world.told_on("a", "n1", Some(ip), Some("v100"));
            let removed: Vec<_> =
                world.fx.requests.drain(..).map(|r| (r.guard.version.to_string(), r.removed, r.annotations)).collect();
            removed
        };
        let gone = |version: &str| (version.to_owned(), &[POD_NETWORKS, NETWORK][..], vec![]);
        assert_eq!(on_network(&mut world, "192.168.100.5"), []);
        // Its node finds out.
        world.network_with("v100", vlan("192.168.100.0/24"), &["192.168.100.5"]);
        let first = world.fx.requests.pop().expect("a request");
        assert_eq!((&*first.guard.version, first.removed), ("3", &[POD_NETWORKS, NETWORK][..]));
        // The pod has changed meanwhile.
        world.ends("a", 3, Outcome::Conflict);
        world.fx.requests.clear();
        assert_eq!(on_network(&mut world, "192.168.100.5"), [gone("4")]);
        world.pod("a", "n1", None);
        world.pod("b", "n1", None);
        assert_eq!(world.asked(), ["a@5 192.168.100.6 v100", "b@6 192.168.100.7 v100"]);
        assert_eq!(on_network(&mut world, "192.168.100.6"), []);
        world.network_with("v100", vlan("192.168.100.0/24"), &["192.168.100.5"]);
        assert_eq!(world.asked(), [""; 0], "nothing more");
    }

    #[test]
    fn a_pod_waits_for_its_namespace_and_for_room() {
        let mut world = World::new("10.128.0.0/14/23", &["10.128.0.0/23"]);
        world.network("v100", vlan("192.168.100.0/24"));
        world.pod("a", "n1", None);
        assert_eq!(world.asked(), [""; 0]);
        assert_eq!(world.allocator.waiting()[0].why, "its namespace is not known yet");
        world.namespace(&[("vlan", "100")]);
        assert_eq!(world.annotated(), [[POD_NETWORKS, NETWORK]]);
        world.pod("other", "n1", None);
        world.network("v100", serde_json::json!({}));
        world.pod("late", "n1", None);
        assert_eq!(world.asked()[1..], ["late@4 10.128.0.3"], "a network without effect has no pods");
    }

    #[test]
    fn where_a_server_gives_addresses_a_pod_has_a_mac_and_its_lease_changes_nothing() {
        let mut world = World::new("10.128.0.0/14/23", &["10.128.0.0/23"]);
        world.network(
            "v100",
            serde_json::json!({"providerNetwork": "fabric", "vlan": 100, "addresses": "DHCP",
                "subnets": ["192.168.100.0/30"], "namespaceSelector": {"matchLabels": {"vlan": "100"}}}),
        );
        world.namespace(&[("vlan", "100")]);
        // The subnet has room for two, and the server for whom it likes.
        for pod in ["a", "b", "c"] {
            world.uid = format!("uid-{pod}").into();
            world.pod(pod, "n1", None);
            let request = world.fx.requests.pop().expect("a request");
            let network = ovenbird_api::PodNetwork::parse(&request.annotations[0].1).expect("readable");
            assert!(network.dhcp && network.addresses.is_empty() && network.gateways.is_empty(), "{network:?}");
            assert_eq!(network.mac, ovenbird_api::Mac::of_uid(&world.uid));
        }
        let Some(Fact::Pod(mut fact)) = world.fx.facts.pop() else { panic!("a pod is shown") };
        fact.lease = Some(Ok("192.168.100.2".parse().expect("an address")));
        let guard = world.guard();
        world.allocator.upsert_pod(Told { fact, guard }, &mut world.fx);
        assert_eq!((world.why("c"), world.asked().len(), world.complaints().len()), (None, 0, 0));
    }

    #[test]
    fn a_network_that_comes_takes_the_pods_for_which_nothing_is_chosen() {
        let mut world = World::new("10.128.0.0/14/23", &[]);
        world.namespace(&[("vlan", "100")]);
        world.pod("a", "n1", None);
        assert_eq!(world.asked(), [""; 0], "its node has no subnet yet");
        world.network("v100", vlan("192.168.100.0/24"));
        assert_eq!(world.asked(), ["a@1 192.168.100.5 v100"]);
    }

    #[test]
    fn where_nobody_is_on_networks_pods_have_addresses_of_their_node() {
        let settings = Settings { on_networks: OnNetworks::Nobody, ..Settings::default() };
        let mut world = World::with(Config::new(&settings).expect("valid"), &["10.128.0.0/23"]);
        world.network("v100", vlan("192.168.100.0/24"));
        world.namespace(&[("vlan", "100")]);
        world.pod("a", "n1", None);
        assert_eq!(world.asked(), ["a@2 10.128.0.3"]);
    }

    #[test]
    fn where_pods_are_on_networks_alone_they_wait_for_one() {
        let settings = Settings { on_networks: OnNetworks::Everybody, ..Settings::default() };
        let mut world = World::with(Config::new(&settings).expect("valid"), &["10.128.0.0/23"]);
        world.pod("a", "n1", None);
        assert_eq!(world.complaints(), [""; 0], "its namespace is not known yet");
        world.namespace(&[("vlan", "100")]);
        assert_eq!(world.complaints(), ["ns/a NoNetwork"]);
        world.pod("b", "n1", None);
        assert_eq!((world.complaints(), world.asked()), (vec!["ns/b NoNetwork".to_owned()], vec![]));
        let why = world.why("b").expect("it waits");
        assert!(why.contains("no Network takes pods of its namespace") && why.contains("default"), "{why}");
        world.network("v100", vlan("192.168.100.0/24"));
        assert_eq!(world.asked(), ["a@2 192.168.100.5 v100", "b@3 192.168.100.6 v100"]);
        assert_eq!(world.complaints(), [""; 0]);
        world.network("v100", serde_json::json!({}));
        world.pod("c", "n1", None);
        assert_eq!(world.complaints(), ["ns/c NoNetwork"], "a Network without effect takes nobody");
    }
}
