//! Server-side apply: creation, ownership, conflicts, and what is dropped when it is no longer applied.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{refused, start};

fn map(data: &Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}))
}

#[tokio::test]
async fn apply_creates_and_changes_nothing_the_second_time() {
    let (_server, client) = start().await;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let first = maps.patch("m", &PatchParams::apply("a"), &map(&json!({"k": "v"}))).await.unwrap();
    assert_eq!(first.data.as_ref().unwrap()["k"], "v");
    let fields = serde_json::to_value(first.managed_fields()).unwrap();
    assert_eq!(fields[0]["manager"], "a");
    assert_eq!(fields[0]["fieldsV1"], json!({"f:data": {"f:k": {}}}));
    let second = maps.patch("m", &PatchParams::apply("a"), &map(&json!({"k": "v"}))).await.unwrap();
    assert_eq!(second.resource_version(), first.resource_version());
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let (_server, client) = start().await;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    maps.patch("m", &PatchParams::apply("a"), &map(&json!({"x": "1", "y": "2"}))).await.unwrap();
    maps.patch("m", &PatchParams::apply("b"), &map(&json!({"y": "2", "z": "3"}))).await.unwrap();
    let left = maps.patch("m", &PatchParams::apply("a"), &map(&json!({}))).await.unwrap();
    assert_eq!(serde_json::to_value(left.data).unwrap(), json!({"y": "2", "z": "3"}));
}

#[tokio::test]
async fn another_managers_field_is_taken_only_by_force() {
    let (_server, client) = start().await;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    maps.patch("m", &PatchParams::apply("a"), &map(&json!({"k": "a"}))).await.unwrap();
    let other = map(&json!({"k": "b"}));
    assert_eq!(refused(maps.patch("m", &PatchParams::apply("b"), &other).await), (409, "Conflict".into()));
    let forced = maps.patch("m", &PatchParams::apply("b").force(), &other).await.unwrap();
    assert_eq!(forced.data.unwrap()["k"], "b");
    let back = map(&json!({"k": "a"}));
    assert_eq!(refused(maps.patch("m", &PatchParams::apply("a"), &back).await), (409, "Conflict".into()));
    let plain = Patch::Merge(json!({"data": {"k": null}}));
    maps.patch("m", &PatchParams::default(), &plain).await.unwrap();
    maps.patch("m", &PatchParams::apply("a"), &back).await.unwrap();
}

#[tokio::test]
async fn items_of_keyed_lists_have_owners_of_their_own() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    let containers = |items: &[(&str, &str)]| {
        let items: Vec<_> = items.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": items}});
        Patch::Apply(pod)
    };
    let images =
        |pod: Pod| -> Vec<_> { pod.spec.unwrap().containers.into_iter().map(|c| (c.name, c.image.unwrap())).collect() };
    pods.patch("p", &PatchParams::apply("a"), &containers(&[("one", "x"), ("two", "x")])).await.unwrap();
    pods.patch("p", &PatchParams::apply("b"), &containers(&[("three", "y")])).await.unwrap();
    let pod = pods.patch("p", &PatchParams::apply("a"), &containers(&[("one", "z")])).await.unwrap();
    assert_eq!(images(pod), [("one".into(), "z".into()), ("three".into(), "y".into())]);
}

/// The sequence of kube-lease-manager: apply to take an orphan, strategic patches to renew and to release.
#[tokio::test]
async fn of_two_candidates_one_takes_a_lease() {
    let (_server, client) = start().await;
    let leases = Api::<Lease>::namespaced(client, "default");
    let spec = |spec: Value| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec});
    let take = |who: &str| Patch::Apply(spec(json!({"holderIdentity": who, "leaseDurationSeconds": 30})));
    let by = |who: &str| PatchParams { field_manager: Some(who.into()), ..PatchParams::default() };
    leases.patch("l", &by("a"), &take("a")).await.unwrap();
    leases.patch("l", &by("a"), &Patch::Strategic(spec(json!({"leaseTransitions": 1})))).await.unwrap();
    assert_eq!(refused(leases.patch("l", &by("b"), &take("b")).await), (409, "Conflict".into()));
    let release = spec(json!({"holderIdentity": null, "leaseDurationSeconds": null}));
    leases.patch("l", &by("a"), &Patch::Strategic(release)).await.unwrap();
    let lease = leases.patch("l", &by("b"), &take("b")).await.unwrap();
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
}
