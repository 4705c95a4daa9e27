//! Services for cases: as objects in the API, and as load balancers in the database.
//!
//! Must not: know a case.

use std::ops::Range;

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use ovenbird_schema::northbound::{load_balancer as lb, load_balancer_group as group};
use ovsdb::{MonitorSpec, Replica, TableSpec, Uuid};
use serde_json::{Value, json};

use crate::cluster::{ApiServer, namespace_of};
use crate::rows::Rows;
use crate::server::Server;

/// Endpoints of each.
pub const ENDPOINTS: usize = 5;

/// Creates Services, each with one slice.
pub async fn fill(api: &ApiServer, services: Range<usize>) -> anyhow::Result<()> {
    let endpoints = |i| (0..ENDPOINTS).map(|n| endpoint_of(i, n)).collect::<Vec<_>>();
    create(api, services.map(|i| (service(i), vec![slice(i, &name_of(i), &endpoints(i))]))).await
}

/// Creates Services with their slices.
pub async fn create(api: &ApiServer, all: impl Iterator<Item = (Value, Vec<Value>)>) -> anyhow::Result<()> {
    let client = api.client()?;
    let create = |(service, slices): (Value, Vec<Value>)| {
        let client = client.clone();
        async move {
            let now = PostParams::default();
            let service: Service = serde_json::from_value(service).context("make a Service")?;
            let namespace = service.metadata.namespace.clone().unwrap_or_default();
            let services = Api::<Service>::namespaced(client.clone(), &namespace);
            services.create(&now, &service).await.context("create a Service")?;
            for slice in slices {
                let slice: EndpointSlice = serde_json::from_value(slice).context("make a slice")?;
                let slices = Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
                slices.create(&now, &slice).await.context("create a slice")?;
            }
            anyhow::Ok(())
        }
    };
    futures::stream::iter(all).map(create).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    Ok(())
}

fn fields() -> Value {
    json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:ports": {}, "f:selector": {}, "f:sessionAffinity": {}}}}])
}

/// A Service of one port.
pub fn service(i: usize) -> Value {
    let (name, ip) = (name_of(i), format!("10.96.{}.{}", i / 250 + 1, i % 250 + 1));
    json!({
        "metadata": {"name": name, "namespace": namespace_of(i), "labels": labels(i), "managedFields": fields()},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}], "selector": {"app": name},
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
    })
}

fn labels(i: usize) -> Value {
    json!({"app": name_of(i), "team": format!("team-{}", i % 20)})
}

/// A slice of it as the EndpointSlice controller would write it.
pub fn slice(i: usize, name: &str, endpoints: &[Value]) -> Value {
    let mut labels = labels(i);
    labels["kubernetes.io/service-name"] = name_of(i).into();
    labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    json!({
        "metadata": {"name": name, "namespace": namespace_of(i), "labels": labels, "managedFields": fields()},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// The endpoint with number `n` of a Service.
pub fn endpoint_of(i: usize, n: usize) -> Value {
    endpoint(i, i * ENDPOINTS + n)
}

/// A pod as an endpoint of a Service.
pub fn endpoint(i: usize, pod: usize) -> Value {
    json!({
        "addresses": [format!("10.{}.{}.{}", 128 + pod / 62_500, pod / 250 % 250, pod % 250 + 3)],
        "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": format!("node-{}", pod % 100),
        "targetRef": {"kind": "Pod", "name": format!("web-{pod}"), "namespace": namespace_of(i), "uid": "7b0d0a0e-0000-4000-8000-000000000000"},
    })
}

/// Name of a Service.
pub fn name_of(i: usize) -> String {
    format!("service-{i}")
}

/// Changes the endpoints of a slice.
pub async fn patch(client: &kube::Client, i: usize, slice: &str, endpoints: Vec<Value>) -> anyhow::Result<()> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), &namespace_of(i));
    let patch = Patch::Merge(json!({"endpoints": endpoints}));
    slices.patch(slice, &PatchParams::default(), &patch).await.context("patch a slice")?;
    Ok(())
}

/// UUID of the load balancer of a Service.
pub fn row_of(replica: &Replica, i: usize) -> anyhow::Result<Uuid> {
    let name = format!("Service_{}/{}_TCP_cluster", namespace_of(i), name_of(i));
    let row = replica.rows(&lb::TABLE).find(|(_, row)| lb::Ref(row).name() == name);
    Ok(row.context("a Service without row")?.0)
}

/// Load balancers and their groups, whole.
pub async fn watch(northbound: &Server) -> anyhow::Result<Rows> {
    let spec = MonitorSpec::new().with(TableSpec::all(&lb::TABLE)).with(TableSpec::all(&group::TABLE));
    Rows::watch(northbound, spec).await
}

/// The names of load balancers only: what disturbs the server least.
pub async fn names(northbound: &Server) -> anyhow::Result<Rows> {
    Rows::watch(northbound, MonitorSpec::new().with(TableSpec::columns(&lb::TABLE, [lb::NAME]))).await
}

/// Members of the groups.
pub fn members(replica: &Replica) -> usize {
    replica.rows(&group::TABLE).map(|(_, row)| group::Ref(row).load_balancer().count()).sum()
}
