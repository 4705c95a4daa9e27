//! Which resources are served: one table of built-in ones, as data, and those that stored CustomResourceDefinitions add.
//!
//! Input: the table below and CRD objects. Output: `Resource` descriptions for routing, discovery and storage. Nothing
//! here knows what an object means.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

/// One resource of one API version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether writes to the main resource leave `status` alone.
    pub(crate) status: bool,
    /// Comes from a CustomResourceDefinition.
    pub(crate) custom: bool,
    /// Field selector paths beyond metadata.name and metadata.namespace.
    pub(crate) fields: &'static [&'static str],
    /// Name of the collection in the store: `pods`, `deployments.apps`. Versions of one resource share it.
    pub(crate) id: String,
    head: String,
}

impl Resource {
    /// `v1` or `apps/v1`, as objects carry it.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// How the stored bytes of an object of this version start.
    fn head(&self) -> String {
        format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", self.api_version(), self.kind)
    }

    /// The bytes of a stored object in this version. Versions of one resource differ in apiVersion only.
    pub(crate) fn versioned(&self, bytes: &Bytes) -> Bytes {
        if bytes.starts_with(self.head.as_bytes()) {
            return bytes.clone();
        }
        let mut commas = bytes.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
        let body = commas.nth(1).map_or(0, |at| at + 1);
        [self.head.as_bytes(), &bytes[body..]].concat().into()
    }

    fn with_head(mut self) -> Self {
        self.head = self.head();
        self
    }
}

/// The collection whose objects declare further resources.
pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reason",
    "type",
    "reportingComponent",
];

/// Where a built-in resource lives and whether it has a status subresource.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Namespaced,
    NamespacedStatus,
    Cluster,
    ClusterStatus,
}
use Shape::{Cluster, ClusterStatus, Namespaced, NamespacedStatus};

type Builtin = (&'static str, &'static str, &'static str, &'static str, Shape, &'static [&'static str]);

/// Group, version, plural, kind, shape, short names.
#[rustfmt::skip]
const BUILTIN: &[Builtin] = &[
    ("", "v1", "namespaces", "Namespace", ClusterStatus, &["ns"]),
    ("", "v1", "nodes", "Node", ClusterStatus, &["no"]),
    ("", "v1", "pods", "Pod", NamespacedStatus, &["po"]),
    ("", "v1", "services", "Service", NamespacedStatus, &["svc"]),
    ("", "v1", "endpoints", "Endpoints", Namespaced, &["ep"]),
    ("", "v1", "configmaps", "ConfigMap", Namespaced, &["cm"]),
    ("", "v1", "secrets", "Secret", Namespaced, &[]),
    ("", "v1", "serviceaccounts", "ServiceAccount", Namespaced, &["sa"]),
    ("", "v1", "events", "Event", Namespaced, &["ev"]),
    ("", "v1", "replicationcontrollers", "ReplicationController", NamespacedStatus, &["rc"]),
    ("", "v1", "resourcequotas", "ResourceQuota", NamespacedStatus, &["quota"]),
    ("", "v1", "limitranges", "LimitRange", Namespaced, &["limits"]),
    ("", "v1", "persistentvolumes", "PersistentVolume", ClusterStatus, &["pv"]),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", NamespacedStatus, &["pvc"]),
    ("", "v1", "podtemplates", "PodTemplate", Namespaced, &[]),
    ("apps", "v1", "deployments", "Deployment", NamespacedStatus, &["deploy"]),
    ("apps", "v1", "daemonsets", "DaemonSet", NamespacedStatus, &["ds"]),
    ("apps", "v1", "statefulsets", "StatefulSet", NamespacedStatus, &["sts"]),
    ("apps", "v1", "replicasets", "ReplicaSet", NamespacedStatus, &["rs"]),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", Namespaced, &[]),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", NamespacedStatus, &["hpa"]),
    ("batch", "v1", "jobs", "Job", NamespacedStatus, &[]),
    ("batch", "v1", "cronjobs", "CronJob", NamespacedStatus, &["cj"]),
    ("coordination.k8s.io", "v1", "leases", "Lease", Namespaced, &[]),
    ("events.k8s.io", "v1", "events", "Event", Namespaced, &["ev"]),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", Namespaced, &[]),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", Namespaced, &["netpol"]),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", NamespacedStatus, &["ing"]),
    ("networking.k8s.io", "v1", "ingressclasses", "IngressClass", Cluster, &[]),
    ("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", ClusterStatus, &[]),
    ("networking.k8s.io", "v1", "ipaddresses", "IPAddress", Cluster, &["ip"]),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", NamespacedStatus, &["pdb"]),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", Namespaced, &[]),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", Namespaced, &[]),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", Cluster, &[]),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", Cluster, &[]),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", Cluster, &["pc"]),
    ("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", Cluster, &[]),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", Cluster, &["sc"]),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", ClusterStatus, &["crd", "crds"]),
];

fn builtin(&(group, version, plural, kind, shape, short): &Builtin) -> Resource {
    Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        short_names: short.iter().map(|name| (*name).into()).collect(),
        namespaced: matches!(shape, Namespaced | NamespacedStatus),
        status: matches!(shape, NamespacedStatus | ClusterStatus),
        custom: false,
        fields: match plural {
            "pods" => POD_FIELDS,
            "events" => EVENT_FIELDS,
            "nodes" => &["spec.unschedulable"],
            "secrets" => &["type"],
            "namespaces" => &["status.phase"],
            _ => &[],
        },
        // Both event APIs show the same events.
        id: if plural == "events" { plural.into() } else { collection(group, plural) },
        head: String::new(),
    }
    .with_head()
}

fn collection(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// The served versions that a CustomResourceDefinition declares; empty when the definition makes no sense.
pub(crate) fn of_crd(crd: &Value) -> Vec<Resource> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned).filter(|text| !text.is_empty());
    let (Some(group), Some(plural), Some(kind)) =
        (text(&spec["group"]), text(&spec["names"]["plural"]), text(&spec["names"]["kind"]))
    else {
        return Vec::new();
    };
    let short_names: Vec<String> =
        spec["names"]["shortNames"].as_array().into_iter().flatten().filter_map(text).collect();
    let served = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] != false);
    served
        .filter_map(|version| {
            let resource = Resource {
                version: text(&version["name"])?,
                singular: text(&spec["names"]["singular"]).unwrap_or_else(|| kind.to_lowercase()),
                short_names: short_names.clone(),
                namespaced: spec["scope"] != "Cluster",
                status: version["subresources"]["status"].is_object(),
                custom: true,
                fields: &[],
                id: collection(&group, &plural),
                group: group.clone(),
                plural: plural.clone(),
                kind: kind.clone(),
                head: String::new(),
            };
            Some(resource.with_head())
        })
        .collect()
}

/// Everything served now.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { resources: BUILTIN.iter().map(|row| Arc::new(builtin(row))).collect() }
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
    }

    /// The resource whose objects a collection holds; of several versions, the first.
    pub(crate) fn of_collection(&self, id: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| r.id == id)
    }

    /// A CRD was stored: serves what it declares instead of what it declared before. Built-in resources win.
    pub(crate) fn add_crd(&mut self, crd: &Value) {
        self.remove_crd(crd);
        let builtin = |id: &str| BUILTIN.iter().any(|(group, _, plural, ..)| collection(group, plural) == id);
        self.resources.extend(of_crd(crd).into_iter().filter(|resource| !builtin(&resource.id)).map(Arc::new));
    }

    pub(crate) fn remove_crd(&mut self, crd: &Value) {
        let gone = of_crd(crd);
        self.resources.retain(|r| !r.custom || gone.iter().all(|g| g.id != r.id));
    }
}
