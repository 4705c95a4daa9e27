//! CustomResourceDefinitions: served as soon as stored, gone with all objects when deleted; and the two event APIs.

use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use kube::{Client, ResourceExt};
use ovenbird_apiserver::{ApiServer, Options};
use serde_json::{Value, json};

use crate::{client, object, refused, start};

fn definition(versions: &Value) -> CustomResourceDefinition {
    object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gateways.ovenbird.io"},
        "spec": {
            "group": "ovenbird.io", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "gateways", "singular": "gateway", "kind": "Gateway", "shortNames": ["gw"]},
        },
    }))
}

fn gateways(client: Client, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("ovenbird.io", version, "Gateway");
    Api::namespaced_with(client, "default", &ApiResource::from_gvk_with_plural(&kind, "gateways"))
}

fn gateway() -> DynamicObject {
    object(json!({
        "apiVersion": "ovenbird.io/v1", "kind": "Gateway", "metadata": {"name": "g"},
        "spec": {"size": 1}, "status": {"ready": true},
    }))
}

#[tokio::test]
async fn a_definition_is_served_until_it_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { data: Some(directory.path().join("data")), ..Options::default() };
    let server = ApiServer::start(options.clone()).await.unwrap();
    let crds = Api::<CustomResourceDefinition>::all(client(&server));
    let versions = json!([
        {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}},
        {"name": "v1beta1", "served": true, "storage": false},
    ]);
    let api = gateways(client(&server), "v1");
    assert_eq!(refused(api.list(&ListParams::default()).await).0, 404);
    let stored = crds.create(&PostParams::default(), &definition(&versions)).await.unwrap();
    let conditions = stored.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True"));
    let created = api.create(&PostParams::default(), &gateway()).await.unwrap();
    assert_eq!(created.data.get("status"), None, "status is not written by create");
    let status = Patch::Merge(json!({"status": {"ready": true}, "spec": {"size": 2}}));
    let patched = api.patch_status("g", &PatchParams::default(), &status).await.unwrap();
    assert_eq!((&patched.data["status"]["ready"], &patched.data["spec"]["size"]), (&json!(true), &json!(1)));
    let strategic = Patch::Strategic(json!({"spec": {"size": 2}}));
    assert_eq!(refused(api.patch("g", &PatchParams::default(), &strategic).await).0, 415);
    server.shutdown().await;

    let server = ApiServer::start(options).await.unwrap();
    let other = gateways(client(&server), "v1beta1").get("g").await.unwrap();
    assert_eq!(other.types.unwrap().api_version, "ovenbird.io/v1beta1", "served in every version after a restart");
    let crds = Api::<CustomResourceDefinition>::all(client(&server));
    crds.delete("gateways.ovenbird.io", &DeleteParams::default()).await.unwrap();
    let api = gateways(client(&server), "v1");
    assert_eq!(refused(api.list(&ListParams::default()).await).0, 404);
    crds.create(&PostParams::default(), &definition(&versions)).await.unwrap();
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn an_event_is_seen_by_both_apis() {
    let (_server, client) = start().await;
    let events = Api::<Event>::namespaced(client.clone(), "default");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "text", "reason": "R",
        "type": "Normal", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    events.create(&PostParams::default(), &object(event)).await.unwrap();
    let core = Api::<CoreEvent>::namespaced(client, "default");
    let found = core.list(&ListParams::default().fields("involvedObject.name=p")).await.unwrap();
    assert_eq!(found.iter().map(|event| event.message.as_deref()).collect::<Vec<_>>(), [Some("text")]);
    assert_eq!(events.get("e").await.unwrap().name_any(), "e");
}

#[tokio::test]
async fn discovery_names_every_resource() {
    let (_server, client) = start().await;
    let discovered = kube::discovery::Discovery::new(client).run().await.unwrap();
    let kinds: Vec<_> = discovered.groups().flat_map(|group| group.recommended_resources()).collect();
    for (kind, scope, status) in
        [("Pod", Scope::Namespaced, true), ("Node", Scope::Cluster, true), ("Lease", Scope::Namespaced, false)]
    {
        let (_, capabilities) = kinds.iter().find(|(resource, _)| resource.kind == kind).unwrap();
        assert_eq!(capabilities.scope, scope, "{kind}");
        assert_eq!(capabilities.subresources.iter().any(|(resource, _)| resource.plural == "status"), status, "{kind}");
        assert!(capabilities.supports_operation("watch"), "{kind}");
    }
}
