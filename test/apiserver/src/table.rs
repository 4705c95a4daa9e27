//! The Table form that `kubectl get` prints: columns for pods, nodes and a few more, name and age for the rest.

use serde_json::{Value, json};

use crate::form;
use crate::object;
use crate::resource::Resource;

/// Header, JSON type, whether only `-o wide` shows it.
type Column = (&'static str, &'static str, bool);

const NAME_AND_AGE: &[Column] = &[("Name", "string", false), ("Age", "string", false)];
const PODS: &[Column] = &[
    ("Name", "string", false),
    ("Ready", "string", false),
    ("Status", "string", false),
    ("Restarts", "string", false),
    ("Age", "string", false),
    ("IP", "string", true),
    ("Node", "string", true),
];
const NODES: &[Column] = &[
    ("Name", "string", false),
    ("Status", "string", false),
    ("Age", "string", false),
    ("Version", "string", false),
    ("Internal-IP", "string", true),
];
const NAMESPACES: &[Column] = &[("Name", "string", false), ("Status", "string", false), ("Age", "string", false)];
const SERVICES: &[Column] = &[
    ("Name", "string", false),
    ("Type", "string", false),
    ("Cluster-IP", "string", false),
    ("Port(s)", "string", false),
    ("Age", "string", false),
];
const LEASES: &[Column] = &[("Name", "string", false), ("Holder", "string", false), ("Age", "string", false)];
const EVENTS: &[Column] = &[
    ("Last Seen", "string", false),
    ("Type", "string", false),
    ("Reason", "string", false),
    ("Object", "string", false),
    ("Message", "string", false),
];

fn columns(resource: &Resource) -> &'static [Column] {
    match resource.id.as_str() {
        "pods" => PODS,
        "nodes" => NODES,
        "namespaces" => NAMESPACES,
        "services" => SERVICES,
        "leases.coordination.k8s.io" => LEASES,
        "events" => EVENTS,
        _ => NAME_AND_AGE,
    }
}

/// A table without rows.
pub(crate) fn head(resource: &Resource, version: &str) -> Value {
    let columns = columns(resource).iter().map(|(name, kind, wide)| {
        json!({"name": name, "type": kind, "format": if *name == "Name" { "name" } else { "" },
               "description": "", "priority": i32::from(*wide)})
    });
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns.collect::<Vec<_>>(),
           "metadata": {"resourceVersion": version}})
}

/// The row of one object.
pub(crate) fn row(resource: &Resource, value: &Value) -> Value {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("<none>").to_owned();
    let name = text("/metadata/name");
    let age = age(&text("/metadata/creationTimestamp"));
    let cells = match resource.id.as_str() {
        "pods" => {
            let restarts = container_sum(value, |status| status["restartCount"].as_u64().unwrap_or(0));
            let ready = container_sum(value, |status| u64::from(status["ready"] == true));
            let total = value["spec"]["containers"].as_array().map_or(0, Vec::len);
            let ready = format!("{ready}/{total}");
            let (address, node) = (text("/status/podIP"), text("/spec/nodeName"));
            vec![name, ready, pod_status(value), restarts.to_string(), age, address, node]
        }
        "nodes" => {
            let (version, address) = (text("/status/nodeInfo/kubeletVersion"), internal_ip(value));
            vec![name, node_status(value), age, version, address]
        }
        "namespaces" => vec![name, text("/status/phase"), age],
        "services" => vec![name, text("/spec/type"), text("/spec/clusterIP"), ports(value), age],
        "leases.coordination.k8s.io" => vec![name, text("/spec/holderIdentity"), age],
        "events" => {
            let object = format!("{}/{}", text("/involvedObject/kind").to_lowercase(), text("/involvedObject/name"));
            vec![age, text("/type"), text("/reason"), object, text("/message")]
        }
        _ => vec![name, age],
    };
    json!({"cells": cells, "object": form::partial(value)})
}

fn container_sum(value: &Value, of: impl Fn(&Value) -> u64) -> u64 {
    value["status"]["containerStatuses"].as_array().into_iter().flatten().map(of).sum()
}

fn pod_status(value: &Value) -> String {
    if object::is_terminating(value) {
        return "Terminating".into();
    }
    let status = &value["status"];
    let waiting = status["containerStatuses"].as_array().into_iter().flatten();
    let waiting = waiting.filter_map(|status| status["state"]["waiting"]["reason"].as_str()).next();
    waiting.or(status["reason"].as_str()).or(status["phase"].as_str()).unwrap_or("Unknown").to_owned()
}

fn node_status(value: &Value) -> String {
    let conditions = value["status"]["conditions"].as_array().into_iter().flatten();
    let ready =
        conditions.filter(|condition| condition["type"] == "Ready").map(|condition| &condition["status"]).next();
    let ready = match ready.and_then(Value::as_str) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    };
    if value["spec"]["unschedulable"] == true { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn internal_ip(value: &Value) -> String {
    let addresses = value["status"]["addresses"].as_array().into_iter().flatten();
    let mut internal = addresses.filter(|address| address["type"] == "InternalIP");
    internal.next().and_then(|address| address["address"].as_str()).unwrap_or("<none>").to_owned()
}

fn ports(value: &Value) -> String {
    let ports = value["spec"]["ports"].as_array().into_iter().flatten();
    let ports = ports.map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP")));
    ports.collect::<Vec<_>>().join(",")
}

/// How long ago, in kubectl's words: `12s`, `5m`, `3h`, `2d`.
fn age(created: &str) -> String {
    let Ok(created) = created.parse::<jiff::Timestamp>() else { return "<unknown>".into() };
    match jiff::Timestamp::now().as_second().saturating_sub(created.as_second()).max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}
