//! The life of objects, as kube-rs sees it: create, get, list, the patches, status, conflicts, deletion.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::{object, pod, refused, start};

#[tokio::test]
async fn initial_namespaces_exist() {
    let (_server, client) = start().await;
    let namespaces = Api::<Namespace>::all(client).list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = namespaces.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    assert_eq!(namespaces.items[0].labels()["kubernetes.io/metadata.name"], "default");
}

#[tokio::test]
async fn create_gives_identity_and_refuses_a_second() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let created = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(pods.get("a").await.unwrap().uid(), created.metadata.uid);
    assert_eq!(refused(pods.create(&PostParams::default(), &pod("a")).await), (409, "AlreadyExists".into()));
    assert_eq!(refused(pods.create(&PostParams::default(), &pod("A_b")).await), (422, "Invalid".into()));
    assert_eq!(refused(pods.get("b").await), (404, "NotFound".into()));
    let elsewhere = Api::<Pod>::namespaced(client, "nowhere");
    assert_eq!(refused(elsewhere.create(&PostParams::default(), &pod("a")).await), (404, "NotFound".into()));
}

#[tokio::test]
async fn generated_names_start_with_their_prefix() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    let mut generated = pod("x");
    (generated.metadata.name, generated.metadata.generate_name) = (None, Some("web-".into()));
    let name = pods.create(&PostParams::default(), &generated).await.unwrap().name_any();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn replace_needs_the_latest_version() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    let old = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let mut new = old.clone();
    new.labels_mut().insert("x".into(), "y".into());
    let stored = pods.replace("a", &PostParams::default(), &new).await.unwrap();
    assert_ne!(stored.resource_version(), old.resource_version());
    assert_eq!(refused(pods.replace("a", &PostParams::default(), &new).await), (409, "Conflict".into()));
    let same = pods.replace("a", &PostParams::default(), &stored).await.unwrap();
    assert_eq!(same.resource_version(), stored.resource_version(), "an update that changes nothing stores nothing");
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let params = PatchParams::default();
    let merge = Patch::Merge(json!({"metadata": {"annotations": {"k": "v"}, "labels": {"app": null}}}));
    let patched = pods.patch("a", &params, &merge).await.unwrap();
    assert_eq!((patched.annotations()["k"].as_str(), patched.labels().len()), ("v", 0));
    let strategic =
        Patch::Strategic(json!({"spec": {"containers": [{"name": "d", "image": "x"}, {"name": "c", "image": "y"}]}}));
    let patched = pods.patch("a", &params, &strategic).await.unwrap();
    let images: Vec<_> = patched.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.image.as_deref()).collect();
    assert_eq!(images, [Some("y"), Some("x")]);
    assert_eq!(patched.metadata.generation, Some(2));
    let json_patch = object(json!([{"op": "replace", "path": "/metadata/annotations/k", "value": "w"}]));
    let patched = pods.patch("a", &params, &Patch::Json::<()>(json_patch)).await.unwrap();
    assert_eq!(patched.annotations()["k"], "w");
    let stale = Patch::Merge(json!({"metadata": {"resourceVersion": "1", "labels": {"q": "r"}}}));
    assert_eq!(refused(pods.patch("a", &params, &stale).await), (409, "Conflict".into()));
    assert_eq!(refused(pods.patch("b", &params, &merge).await), (404, "NotFound".into()));
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let (_server, client) = start().await;
    let nodes = Api::<Node>::all(client);
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}});
    nodes.create(&PostParams::default(), &object(node)).await.unwrap();
    let both = Patch::Merge(json!({"spec": {"unschedulable": true}, "status": {"phase": "x"}}));
    let status = nodes.patch_status("n", &PatchParams::default(), &both).await.unwrap();
    assert_eq!(status.status.as_ref().unwrap().phase.as_deref(), Some("x"));
    assert_eq!(status.spec.as_ref().unwrap().unschedulable, None);
    let other = Patch::Merge(json!({"spec": {"unschedulable": true}, "status": {"phase": "y"}}));
    let main = nodes.patch("n", &PatchParams::default(), &other).await.unwrap();
    assert_eq!(main.status.unwrap().phase.as_deref(), Some("x"));
    assert_eq!(main.spec.unwrap().unschedulable, Some(true));
}

#[tokio::test]
async fn finalizers_hold_an_object_back() {
    let (_server, client) = start().await;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": ["example.com/f"]}});
    maps.create(&PostParams::default(), &object(map)).await.unwrap();
    let deleted = maps.delete("m", &DeleteParams::default()).await.unwrap();
    assert!(deleted.left().unwrap().metadata.deletion_timestamp.is_some());
    assert!(maps.get("m").await.is_ok());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("m", &PatchParams::default(), &release).await.unwrap();
    assert_eq!(refused(maps.get("m").await), (404, "NotFound".into()));
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    for name in ["free", "bound"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n"}});
    let params = PostParams::default();
    let bind = || pods.create_subresource::<_, serde_json::Value>("binding", "bound", &params, &binding);
    bind().await.unwrap();
    assert_eq!(refused(bind().await), (409, "Conflict".into()));
    let on_n = pods.list(&ListParams::default().fields("spec.nodeName=n")).await.unwrap();
    assert_eq!(on_n.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["bound"]);
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert_eq!(refused(pods.get("free").await), (404, "NotFound".into()));
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    let marked = pods.get("bound").await.unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("bound", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refused(pods.get("bound").await), (404, "NotFound".into()));
}

#[tokio::test]
async fn deletion_checks_its_preconditions() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let other = Preconditions { uid: Some("other".into()), resource_version: None };
    assert_eq!(
        refused(pods.delete("a", &DeleteParams::default().preconditions(other)).await),
        (409, "Conflict".into())
    );
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let (_server, client) = start().await;
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    namespaces.create(&PostParams::default(), &object(namespace)).await.unwrap();
    let pods = Api::<Pod>::namespaced(client, "team");
    pods.create(&PostParams::default(), &pod("free")).await.unwrap();
    let mut bound = pod("bound");
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    pods.create(&PostParams::default(), &bound).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    assert_eq!(namespaces.get("team").await.unwrap().status.unwrap().phase.as_deref(), Some("Terminating"));
    assert_eq!(refused(pods.create(&PostParams::default(), &pod("late")).await), (403, "Forbidden".into()));
    let left = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["bound"]);
    pods.delete("bound", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refused(namespaces.get("team").await), (404, "NotFound".into()));
}

#[tokio::test]
async fn leases_are_renewed() {
    let (_server, client) = start().await;
    let leases = Api::<Lease>::namespaced(client, "kube-system");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    leases.create(&PostParams::default(), &object(lease)).await.unwrap();
    let renew = Patch::Merge(json!({"spec": {"holderIdentity": "b", "renewTime": "2026-01-01T00:00:00.000000Z"}}));
    let renewed = leases.patch("l", &PatchParams::default(), &renew).await.unwrap();
    assert_eq!(renewed.spec.unwrap().holder_identity.as_deref(), Some("b"));
}
