//! The lab's scheduler, a stand-in for kube-scheduler: pods without a node go to the Ready nodes in turn.
//!
//! It honours `nodeSelector` and `unschedulable`, and nothing else. Only used with the embedded API server.
//! In: watches of pods and nodes. Out: bindings. It must not look at resources, taints or affinity.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use kube::api::{Api, PostParams};
use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tracing::{info, warn};

enum Change {
    Node(Box<watcher::Event<Node>>),
    Pod(Box<watcher::Event<Pod>>),
}

#[derive(Default)]
struct Scheduler {
    /// Nodes that take pods, with their labels.
    ready: BTreeMap<String, BTreeMap<String, String>>,
    /// Pods without a node: (namespace, name) and node selector.
    pending: BTreeMap<(String, String), BTreeMap<String, String>>,
    turn: usize,
}

/// Binds pods until the process is ended.
///
/// # Errors
/// Never, at present: the watches retry for ever.
pub async fn run(client: Client) -> Result<()> {
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let nodes = nodes.filter_map(async |event| event.ok().map(|event| Change::Node(Box::new(event)))).boxed();
    let pods = pods.filter_map(async |event| event.ok().map(|event| Change::Pod(Box::new(event)))).boxed();
    let mut changes = stream::select(nodes, pods);
    let mut scheduler = Scheduler::default();
    while let Some(change) = changes.next().await {
        scheduler.note(change);
        for (pod, node) in scheduler.assign() {
            bind(&client, &pod, &node).await;
        }
    }
    Ok(())
}

impl Scheduler {
    fn note(&mut self, change: Change) {
        match change {
            Change::Node(event) => self.note_node(*event),
            Change::Pod(event) => self.note_pod(*event),
        }
    }

    fn note_node(&mut self, event: watcher::Event<Node>) {
        match event {
            Init => self.ready.clear(),
            Apply(node) | InitApply(node) if takes_pods(&node) => {
                self.ready.insert(node.name_any(), node.labels().clone());
            }
            Apply(node) | InitApply(node) | Delete(node) => drop(self.ready.remove(&node.name_any())),
            InitDone => {}
        }
    }

    fn note_pod(&mut self, event: watcher::Event<Pod>) {
        match event {
            Init => self.pending.clear(),
            Apply(pod) | InitApply(pod) if waits(&pod) => {
                let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.clone()).unwrap_or_default();
                self.pending.insert(key(&pod), selector);
            }
            Apply(pod) | InitApply(pod) | Delete(pod) => drop(self.pending.remove(&key(&pod))),
            InitDone => {}
        }
    }

    /// Takes the pods that some node accepts now out of those that wait.
    fn assign(&mut self) -> Vec<((String, String), String)> {
        let mut assigned = Vec::new();
        self.pending.retain(|pod, selector| {
            let fits = |(_, labels): &(&String, &BTreeMap<String, String>)| {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            let nodes: BTreeSet<_> = self.ready.iter().filter(fits).map(|(name, _)| name).collect();
            let Some(node) = nodes.iter().nth(self.turn.checked_rem(nodes.len()).unwrap_or(0)) else { return true };
            self.turn += 1;
            assigned.push((pod.clone(), (*node).clone()));
            false
        });
        assigned
    }
}

fn takes_pods(node: &Node) -> bool {
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !unschedulable && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn waits(pod: &Pod) -> bool {
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().is_some_and(|name| !name.is_empty()));
    !bound && pod.metadata.deletion_timestamp.is_none()
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

async fn bind(client: &Client, (namespace, name): &(String, String), node: &str) {
    let target = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.into()),
        ..Default::default()
    };
    let mut binding = Binding { target, ..Binding::default() };
    binding.metadata.name = Some(name.clone());
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let bound: kube::Result<serde_json::Value> =
        api.create_subresource("binding", name, &PostParams::default(), &binding).await;
    match bound {
        Ok(_) => info!(namespace, name, node, "bound"),
        // Gone or bound by someone else meanwhile: its next event, if any, says so.
        Err(error) => warn!(namespace, name, node, %error, "binding"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str, zone: &str) -> Node {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let object =
            json!({"metadata": {"name": name, "labels": {"zone": zone}}, "status": {"conditions": conditions}});
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})).unwrap()
    }

    fn nodes_of(scheduler: &mut Scheduler) -> Vec<String> {
        scheduler.assign().into_iter().map(|((_, pod), node)| format!("{pod} {node}")).collect()
    }

    #[test]
    fn ready_nodes_take_turns_and_selectors_hold() {
        let mut scheduler = Scheduler::default();
        let containers = json!([{"name": "c"}]);
        for name in ["a", "b", "c"] {
            scheduler.note_pod(Apply(pod(name, &json!({"containers": containers}))));
        }
        assert!(nodes_of(&mut scheduler).is_empty(), "no node is ready");
        scheduler.note_node(Apply(node("n1", "True", "east")));
        scheduler.note_node(Apply(node("n2", "True", "west")));
        scheduler.note_node(Apply(node("n3", "False", "west")));
        assert_eq!(nodes_of(&mut scheduler), ["a n1", "b n2", "c n1"]);
        assert!(nodes_of(&mut scheduler).is_empty(), "each is bound once");
        let picky = json!({"containers": containers, "nodeSelector": {"zone": "west"}});
        scheduler.note_pod(Apply(pod("d", &picky)));
        scheduler.note_pod(Apply(pod("e", &json!({"containers": containers, "nodeSelector": {"zone": "north"}}))));
        assert_eq!(nodes_of(&mut scheduler), ["d n2"]);
    }
}
