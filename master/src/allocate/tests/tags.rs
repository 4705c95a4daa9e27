//! Tags of pods on a node that is a VM.

use super::*;

/// A world with a node `n1` that is a VM.
fn world(subnet: &str) -> World {
    let mut world = World::new("10.1.0.0/16/16", &[subnet]);
    nest(&mut world, subnet);
    world
}

fn nest(world: &mut World, subnet: &str) {
    world.parent = Some("vif".into());
    world.node("n1", Some((subnet, 2)));
    world.parent = None;
}

impl World {
    /// Tags since the last call: `pod=tag`.
    fn tags(&mut self) -> Vec<String> {
        let one = |request: Request| {
            let Target::Pod(key) = request.target else { panic!("a pod, not {:?}", request.target) };
            let network = ovenbird_api::PodNetwork::parse(&request.annotations[0].1).expect("readable");
            format!("{}={}", key.trim_start_matches("ns/"), network.tag.map_or("none".into(), |tag| tag.to_string()))
        };
        self.fx.requests.drain(..).map(one).collect()
    }

    /// A pod as annotated.
    fn tagged(&mut self, name: &str, ip: &str, tag: u16, finished: bool) {
        self.tag = Some(tag);
        self.told(name, "n1", Some(ip), finished);
        self.tag = None;
    }
}

#[test]
fn pods_of_a_vm_have_tags_and_others_none() {
    let mut world = world("10.1.0.0/16");
    world.pod("a", "n1", None);
    world.pod("b", "n1", None);
    assert_eq!(world.tags(), ["a=2", "b=3"]);
    let Some(Fact::Pod(shown)) = world.fx.facts.pop() else { panic!("no fact") };
    assert_eq!(shown.network.expect("chosen").expect("readable").tag, Some(3), "shown to the engine at once");
    let mut plain = World::new("10.1.0.0/16/16", &["10.1.0.0/16"]);
    plain.pod("a", "n1", None);
    assert_eq!(plain.tags(), ["a=none"]);
}

#[test]
fn what_is_written_again_has_the_same_tag() {
    let mut world = world("10.1.0.0/16");
    world.pod("a", "n1", None);
    assert_eq!(world.tags(), ["a=2"]);
    world.ends("a", world.version, Outcome::Conflict);
    world.pod("a", "n1", None);
    assert_eq!(world.tags(), ["a=2"]);
    world.ends("a", world.version, Outcome::Failed("x".into()));
    world.allocator.retry(&mut world.fx);
    assert_eq!(world.tags(), ["a=2"]);
}

#[test]
fn a_finished_pod_keeps_its_tag_until_it_is_deleted() {
    // Addresses for four pods: those of a finished pod are free at once.
    let mut world = world("10.1.0.0/29");
    world.tagged("a", "10.1.0.3", 4094, false);
    world.tagged("a", "10.1.0.3", 4094, true);
    world.tagged("b", "10.1.0.4", 4093, false);
    for name in ["c", "d"] {
        world.pod(name, "n1", None);
    }
    assert_eq!(world.tags(), ["c=2", "d=3"]);
    world.tagged("e", "10.1.0.6", 4094, false);
    assert!(world.why("e").expect("refused").contains("tag 4094 is pod ns/a's"), "{:?}", world.why("e"));
    world.delete("a");
    assert_eq!(world.why("e"), None, "the tag is its own now");
}

#[test]
fn finished_pods_are_known_after_a_restart() {
    let config = Config::parse("10.1.0.0/16/16", "", DEFAULT_JOIN_SUBNETS, DEFAULT_MTU).expect("valid");
    let mut world = World { allocator: Allocator::new(config), ..World::new("10.1.0.0/16/16", &[]) };
    nest(&mut world, "10.1.0.0/16");
    world.tagged("done", "10.1.0.3", 3, true);
    world.tagged("runs", "10.1.0.4", 2, false);
    world.pod("new", "n1", None);
    assert_eq!(world.tags(), [""; 0], "nothing is chosen before the lists are complete");
    world.allocator.settle(&mut world.fx);
    world.allocator.set_active(true, &mut world.fx);
    assert_eq!(world.tags(), ["new=4"]);
}

#[test]
fn tags_run_out_with_a_complaint_and_come_back() {
    let mut world = world("10.1.0.0/16");
    for i in 0..4093 {
        world.pod(&format!("p{i}"), "n1", None);
    }
    assert_eq!(world.tags().last().expect("all").as_str(), "p4092=4094");
    world.pod("late", "n1", None);
    world.pod("elsewhere", "n2", None);
    assert_eq!(world.complaints(), ["ns/late NoFreeTag"]);
    assert!(world.why("late").expect("waits").contains("all tags of the node's parent port are in use"));
    world.told("p7", "n1", None, true);
    assert_eq!(world.tags(), [""; 0], "it is finished, but there");
    world.delete("p7");
    assert_eq!(world.tags(), ["late=9"]);
}

#[test]
fn losing_the_lead_takes_tags_back() {
    let mut world = world("10.1.0.0/16");
    world.pod("a", "n1", None);
    world.allocator.set_active(false, &mut world.fx);
    // The other leader chooses differently.
    world.tagged("b", "10.1.0.9", 2, false);
    world.tags();
    world.allocator.set_active(true, &mut world.fx);
    assert_eq!(world.tags(), ["a=3"]);
    assert_eq!(world.why("b"), None);
}

#[test]
fn a_pod_recreated_under_its_name_has_no_right_to_the_former_tag() {
    let mut world = world("10.1.0.0/16");
    world.tagged("a", "10.1.0.3", 2, false);
    world.uid = "u2".into();
    world.pod("a", "n1", None);
    assert_eq!(world.tags(), ["a=3"]);
}
