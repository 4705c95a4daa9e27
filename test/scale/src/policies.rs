//! NetworkPolicies for cases: as objects in the API, as rows in the database, and the labels by which pods are selected.
//!
//! Must not: know a case.

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use ovenbird_schema::northbound::{address_set as set, logical_switch_port as lsp, port_group as pg};
use ovsdb::{MonitorSpec, Replica, TableSpec, Uuid};
use serde_json::{Value, json};

use crate::cluster::{ApiServer, namespace_of, pod_name};
use crate::rows::Rows;
use crate::server::Server;

/// What tells rows of one kind apart.
const NAME_KEY: &str = "k8s.ovn.org/name";

/// Creates policies, given as namespace, name and `spec`.
pub async fn create(api: &ApiServer, all: impl Iterator<Item = (String, String, Value)>) -> anyhow::Result<()> {
    let client = api.client()?;
    let create = |(namespace, name, spec): (String, String, Value)| {
        let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &namespace);
        async move {
            let fields = json!([{"manager": "kubectl", "operation": "Update", "apiVersion": "networking.k8s.io/v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:podSelector": {}, "f:policyTypes": {}}}}]);
            let object =
                json!({"metadata": {"name": name, "namespace": namespace, "managedFields": fields}, "spec": spec});
            let policy: NetworkPolicy = serde_json::from_value(object).context("make a policy")?;
            policies.create(&PostParams::default(), &policy).await.context("create a policy")?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(all).map(create).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Pods with this label, as a selector.
pub fn labelled(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

/// A policy for the pods of a selector: these peers may come in, to one port.
pub fn let_in(pods: &Value, from: &[Value]) -> Value {
    let ports = json!([{"protocol": "TCP", "port": 8080}]);
    json!({"podSelector": pods, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": ports}]})
}

/// Sets a label of the pod with number `i` of S1.
pub async fn label_pod(client: &kube::Client, i: usize, key: &str, value: &str) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace_of(i));
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    pods.patch(&pod_name(i), &PatchParams::default(), &patch).await.context("label a pod")?;
    Ok(())
}

/// Sets a label of a namespace.
pub async fn label_namespace(client: &kube::Client, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.patch(name, &PatchParams::default(), &patch).await.context("label a namespace")?;
    Ok(())
}

/// Members of groups and sets, and the names of ports: what changes of labels lead to.
pub async fn watch(northbound: &Server) -> anyhow::Result<Rows> {
    let spec = MonitorSpec::new()
        .with(TableSpec::columns(&lsp::TABLE, [lsp::NAME]))
        .with(TableSpec::columns(&pg::TABLE, [pg::EXTERNAL_IDS, pg::PORTS]))
        .with(TableSpec::columns(&set::TABLE, [set::EXTERNAL_IDS, set::ADDRESSES]));
    Rows::watch(northbound, spec).await
}

/// The port of the pod with number `i` of S1.
pub fn port_of(replica: &Replica, i: usize) -> anyhow::Result<Uuid> {
    let name = format!("{}_{}", namespace_of(i), pod_name(i));
    let row = replica.rows(&lsp::TABLE).find(|(_, row)| lsp::Ref(row).name() == name);
    Ok(row.with_context(|| format!("no port {name}"))?.0)
}

/// The group of the pods that a selection has, such as `team-0/app=web`.
pub fn group_of(replica: &Replica, selection: &str) -> anyhow::Result<Uuid> {
    let name = selection.replace('/', ":");
    let is_it = |row: pg::Ref<'_>| row.external_ids().iter().any(|(key, value)| key == NAME_KEY && value == name);
    let row = replica.rows(&pg::TABLE).find(|(_, row)| is_it(pg::Ref(row)));
    Ok(row.with_context(|| format!("no group of {selection}"))?.0)
}

/// True when a port is in a group.
pub fn is_in(replica: &Replica, group: Uuid, port: Uuid) -> bool {
    replica.row(&pg::TABLE, &group).is_some_and(|row| pg::Ref(row).ports().any(|member| member == port))
}

/// The sets of all selections whose text begins so.
pub fn sets_of(replica: &Replica, beginning: &str) -> Vec<Uuid> {
    let is_it =
        |row: set::Ref<'_>| row.external_ids().iter().any(|(key, text)| key == NAME_KEY && text.starts_with(beginning));
    replica.rows(&set::TABLE).filter(|(_, row)| is_it(set::Ref(row))).map(|(uuid, _)| uuid).collect()
}

/// Addresses in these sets, together.
pub fn addresses_in(replica: &Replica, sets: &[Uuid]) -> usize {
    let rows = sets.iter().filter_map(|uuid| replica.row(&set::TABLE, uuid));
    rows.map(|row| set::Ref(row).addresses().count()).sum()
}
