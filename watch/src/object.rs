//! Kubernetes objects as far as we read them: decoding skips everything else.
//!
//! A Pod of 3.7 KB JSON has about 300 bytes that matter. These types implement kube's `Resource`, so its list and watch
//! machinery fills them straight from the wire: no full object is ever built, no managedFields parsed, no foreign annotation
//! copied. Must not: interpret a value (that is `topology`'s part).
//!
//! Inputs: JSON. Outputs: [`Slim`] objects, and from those [`Told`]: a fact with what a guarded write needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use ovenbird_api::annotation::STATIC_POD_UID;
use ovenbird_topology::{Interner, NamespaceFact, NodeFact, PodFact};
use ovsdb::Str;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

pub mod admin_policy;
pub mod network;
mod service;
mod slice;

pub use service::ServiceKind;
pub use slice::SlimSlice;

/// Annotations with one of these prefixes are ours to read; others are skipped unread.
const PREFIXES: [&str; 3] = ["k8s.ovn.org/", "ovenbird.io/", STATIC_POD_UID];

/// Which parts of a kind we read.
pub trait Kind: Clone + fmt::Debug + Send + Sync + 'static {
    /// The API's own type, for its group, version and name.
    type Full: Resource<DynamicType = ()>;
    /// Wanted part of `spec`.
    type Spec: Clone + fmt::Debug + Default + DeserializeOwned + Send + Sync + 'static;
    /// Wanted part of `status`.
    type Status: Clone + fmt::Debug + Default + DeserializeOwned + Send + Sync + 'static;
}

/// An object of kind `K`, without all that we do not read.
#[derive(Clone, Debug)]
pub struct Slim<K: Kind> {
    /// name, namespace, uid, resourceVersion, generation, labels, both timestamps and our annotations.
    pub meta: ObjectMeta,
    /// Part of the spec.
    pub spec: K::Spec,
    /// Part of the status.
    pub status: K::Status,
}

/// Node.
#[derive(Clone, Debug)]
pub struct NodeKind;
/// Pod.
#[derive(Clone, Debug)]
pub struct PodKind;
/// Namespace.
#[derive(Clone, Debug)]
pub struct NamespaceKind;

/// Part of Node.spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeSpec {
    /// Networks that kube-controller-manager gave to the node, if it gives any.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// Part of Pod.spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node that the pod is bound to.
    pub node_name: Option<String>,
    /// True when the pod shares the node's network.
    pub host_network: Option<bool>,
    /// Containers.
    pub containers: Option<Vec<Container>>,
    /// Containers that run before those; some stay.
    pub init_containers: Option<Vec<Container>>,
}

/// Part of a container's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Ports it names.
    pub ports: Option<Vec<v1::ContainerPort>>,
    /// `Always` of an init container that stays.
    pub restart_policy: Option<String>,
}

/// Part of Pod.status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// One for each container, once there are any.
    pub container_statuses: Option<Vec<ContainerStatus>>,
}

/// Part of a container's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerStatus {
    /// Its state.
    pub state: Option<ContainerState>,
}

/// Part of a container's state.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerState {
    /// There when the container is done.
    pub terminated: Option<Nothing>,
}

/// No part at all.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Nothing {}

impl Kind for NodeKind {
    type Full = v1::Node;
    type Spec = NodeSpec;
    type Status = Nothing;
}

impl Kind for PodKind {
    type Full = v1::Pod;
    type Spec = PodSpec;
    type Status = PodStatus;
}

impl Kind for NamespaceKind {
    type Full = v1::Namespace;
    type Spec = Nothing;
    type Status = Nothing;
}

impl<K: Kind> Resource for Slim<K> {
    type DynamicType = ();
    type Scope = <K::Full as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        K::Full::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        K::Full::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        K::Full::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        K::Full::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<'de, K: Kind> Deserialize<'de> for Slim<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire: Wire<K::Spec, K::Status> = Wire::deserialize(deserializer)?;
        let meta = wire.metadata.into();
        Ok(Slim { meta, spec: wire.spec.unwrap_or_default(), status: wire.status.unwrap_or_default() })
    }
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> ObjectMeta {
        ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            labels: meta.labels,
            generation: meta.generation,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            annotations: Some(meta.annotations.0),
            ..ObjectMeta::default()
        }
    }
}

#[derive(Deserialize)]
struct Wire<S, T> {
    metadata: Meta,
    spec: Option<S>,
    status: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    annotations: Annotations,
}

/// Our annotations out of all.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ours;
        impl<'de> Visitor<'de> for Ours {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }

            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut ours = BTreeMap::new();
                while let Some(Key(key)) = map.next_key()? {
                    if PREFIXES.iter().any(|p| key.starts_with(p)) {
                        ours.insert(key.into_owned(), map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Annotations(ours))
            }
        }
        deserializer.deserialize_any(Ours)
    }
}

/// A map key, borrowed where the text has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fact of an object, and what a guarded write to it needs.
#[derive(Clone, Debug)]
pub struct Told<F> {
    /// The fact.
    pub fact: F,
    /// Version and identity of the object that the fact is of.
    pub guard: Guard,
}

/// Which version of which object was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// `metadata.uid`.
    pub uid: Str,
    /// `metadata.resourceVersion`.
    pub version: Str,
}

impl Guard {
    fn of(meta: &ObjectMeta) -> Guard {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
        Guard { uid: text(&meta.uid), version: text(&meta.resource_version) }
    }
}

impl Slim<NodeKind> {
    /// The fact of a Node.
    pub fn tell(self) -> Told<NodeFact> {
        let spec = v1::NodeSpec { pod_cidrs: self.spec.pod_cidrs, ..v1::NodeSpec::default() };
        let node = v1::Node { metadata: self.meta, spec: Some(spec), status: None };
        Told { fact: NodeFact::from_k8s(&node), guard: Guard::of(&node.metadata) }
    }
}

impl Slim<PodKind> {
    /// The fact of a Pod.
    pub fn tell(self, interner: &mut Interner) -> Told<PodFact> {
        let PodSpec { node_name, host_network, containers, init_containers } = self.spec;
        let state = |state: ContainerState| v1::ContainerState {
            terminated: state.terminated.map(|_| v1::ContainerStateTerminated::default()),
            ..v1::ContainerState::default()
        };
        let container =
            |c: ContainerStatus| v1::ContainerStatus { state: c.state.map(state), ..v1::ContainerStatus::default() };
        let full = |all: Option<Vec<Container>>| all.into_iter().flatten().map(v1::Container::from).collect::<Vec<_>>();
        let statuses = self.status.container_statuses.filter(|_| self.meta.deletion_timestamp.is_some());
        let pod = v1::Pod {
            metadata: self.meta,
            spec: Some(v1::PodSpec {
                node_name,
                host_network,
                containers: full(containers),
                init_containers: Some(full(init_containers)),
                ..v1::PodSpec::default()
            }),
            status: Some(v1::PodStatus {
                phase: self.status.phase,
                container_statuses: statuses.map(|all| all.into_iter().map(container).collect()),
                ..v1::PodStatus::default()
            }),
        };
        Told { fact: PodFact::from_k8s(&pod, interner), guard: Guard::of(&pod.metadata) }
    }
}

impl From<Container> for v1::Container {
    fn from(Container { ports, restart_policy }: Container) -> v1::Container {
        v1::Container { ports, restart_policy, ..v1::Container::default() }
    }
}

impl Slim<NamespaceKind> {
    /// The fact of a Namespace; nothing is written to those.
    pub fn tell(self, interner: &mut Interner) -> NamespaceFact {
        NamespaceFact::from_k8s(&v1::Namespace { metadata: self.meta, spec: None, status: None }, interner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-0","namespace":"default","uid":"u1",
        "resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app":"web"},
        "annotations":{"k8s.ovn.org/pod-networks":"{}","ovenbird.io/x":"y","kubectl.kubernetes.io/last-applied-configuration":"{\"a\":1}"},
        "managedFields":[{"manager":"m","fieldsV1":{"f:metadata":{}}}]},
        "spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}],"hostNetwork":true},
        "status":{"phase":"Running","conditions":[{"type":"Ready"}]}}"#;

    #[test]
    fn a_pod_keeps_what_matters_and_nothing_else() {
        let pod: Slim<PodKind> = serde_json::from_str(POD).expect("decodes");
        assert_eq!(pod.meta.name.as_deref(), Some("web-0"));
        assert_eq!(pod.meta.resource_version.as_deref(), Some("7"));
        let annotations: Vec<_> =
            pod.meta.annotations.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(annotations, [("k8s.ovn.org/pod-networks", "{}"), ("ovenbird.io/x", "y")]);
        assert_eq!(pod.meta.labels.expect("labels")["app"], "web");
        assert!(pod.meta.managed_fields.is_none() && pod.meta.deletion_timestamp.is_none());
        assert_eq!((pod.spec.node_name.as_deref(), pod.spec.host_network), (Some("n1"), Some(true)));
        assert_eq!(pod.status.phase.as_deref(), Some("Running"));
    }

    #[test]
    fn the_fact_is_that_of_the_full_object() {
        let done = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","namespace":"ns","uid":"u2","resourceVersion":"8",
            "creationTimestamp":"2026-01-01T00:00:00Z","deletionTimestamp":"2026-01-01T00:01:00Z"},
            "spec":{"nodeName":"n1","containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":8080}]}],"initContainers":[
            {"name":"i","restartPolicy":"Always","ports":[{"containerPort":1,"hostPort":1}]}]},"status":{"phase":"Running","containerStatuses":[{"name":"c","ready":false,
            "restartCount":0,"image":"i","imageID":"","state":{"terminated":{"exitCode":0}}}]}}"#;
        for text in [POD, done] {
            let full: v1::Pod = serde_json::from_str(text).expect("decodes");
            let slim: Slim<PodKind> = serde_json::from_str(text).expect("decodes");
            let told = slim.tell(&mut Interner::default());
            assert_eq!(told.fact, PodFact::from_k8s(&full, &mut Interner::default()));
            assert_eq!(Some(&*told.guard.uid), full.metadata.uid.as_deref());
        }
        assert!(
            serde_json::from_str::<Slim<PodKind>>(done).expect("decodes").tell(&mut Interner::default()).fact.finished
        );
        let mirror = r#"{"metadata":{"name":"x","namespace":"ns","uid":"u3","annotations":{"kubernetes.io/config.mirror":"s3"}}}"#;
        let told = serde_json::from_str::<Slim<PodKind>>(mirror).expect("decodes").tell(&mut Interner::default());
        assert_eq!((&*told.fact.uid, &*told.guard.uid), ("s3", "u3"), "what runs, and what is written to");
        let node = r#"{"metadata":{"name":"n","annotations":{"k8s.ovn.org/node-id":"7"}},"spec":{"podCIDRs":["10.1.0.0/24"]}}"#;
        let full: v1::Node = serde_json::from_str(node).expect("decodes");
        let slim: Slim<NodeKind> = serde_json::from_str(node).expect("decodes");
        assert_eq!(slim.tell().fact, NodeFact::from_k8s(&full));
    }

    #[test]
    fn absent_and_null_parts_are_empty() {
        let node: Slim<NodeKind> = serde_json::from_str(
            r#"{"metadata":{"name":"n","annotations":null,"labels":null},"spec":{"podCIDRs":["10.1.0.0/24"]}}"#,
        )
        .expect("decodes");
        assert_eq!(node.spec.pod_cidrs.as_deref(), Some(&["10.1.0.0/24".to_owned()][..]));
        let namespace: Slim<NamespaceKind> = serde_json::from_str(
            r#"{"metadata":{"name":"n"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}"#,
        )
        .expect("decodes");
        assert_eq!(namespace.meta.name.as_deref(), Some("n"));
    }

    #[test]
    fn a_list_and_a_watch_line_decode() {
        let list =
            format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"9"}},"items":[{POD}]}}"#);
        let list: kube::core::ObjectList<Slim<PodKind>> = serde_json::from_str(&list).expect("decodes");
        assert_eq!(list.items.len(), 1);
        let line = format!(r#"{{"type":"MODIFIED","object":{POD}}}"#);
        let event: kube::core::WatchEvent<Slim<PodKind>> = serde_json::from_str(&line).expect("decodes");
        assert!(matches!(event, kube::core::WatchEvent::Modified(pod) if pod.spec.host_network == Some(true)));
    }
}
