//! Requests that make no sense get a Status with the right code, and the server goes on; faults that tests inject.

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::{client, pod, post, refused, start};

#[tokio::test]
async fn nonsense_is_refused() {
    let (server, _) = start().await;
    let client = client(&server);
    let pods = "/api/v1/namespaces/default/pods";
    Api::<Pod>::namespaced(client.clone(), "default").create(&PostParams::default(), &pod("p")).await.unwrap();
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let deep = "[".repeat(100_000);
    let copies: Vec<_> =
        (0..60).map(|n| json!({"op": "copy", "from": "/spec", "path": format!("/spec/x{n}")})).collect();
    let bomb = serde_json::to_string(&copies).unwrap();
    let cases: &[(&str, &str, &str, &str, u16)] = &[
        ("GET", "/nowhere", json, "", 404),
        ("GET", "/api/v2/pods", json, "", 404),
        ("GET", "/apis/apps/v1/pods", json, "", 404),
        ("GET", "/api/v1/namespaces/default/nodes", json, "", 404),
        ("GET", "/api/v1/pods/p", json, "", 404),
        ("GET", "/api/v1/namespaces/default/pods/%ff", json, "", 400),
        ("GET", "/api/v1/pods?limit=many", json, "", 400),
        ("GET", "/api/v1/pods?continue=nonsense", json, "", 400),
        ("GET", "/api/v1/pods?resourceVersion=x", json, "", 400),
        ("GET", "/api/v1/pods?resourceVersion=99999999", json, "", 504),
        ("GET", "/api/v1/pods?watch=perhaps", json, "", 400),
        ("GET", "/api/v1/pods?labelSelector=a%20b%20c(", json, "", 400),
        ("GET", "/api/v1/pods?watch=1&sendInitialEvents=true", json, "", 400),
        ("POST", pods, json, "{", 400),
        ("POST", pods, json, "[]", 400),
        ("POST", pods, json, "null", 400),
        ("POST", pods, json, &deep, 400),
        ("POST", pods, json, "{}", 422),
        ("POST", pods, json, r#"{"metadata": 7, "spec": [], "kind": {}}"#, 422),
        ("POST", pods, json, r#"{"kind": "Node", "metadata": {"name": "x"}}"#, 400),
        ("POST", pods, json, r#"{"metadata": {"name": "x", "namespace": "other"}}"#, 400),
        ("POST", pods, "application/vnd.kubernetes.protobuf", "k8s", 400),
        ("POST", "/api/v1/pods", json, r#"{"metadata": {"name": "x"}}"#, 400),
        ("POST", "/api/v1/namespaces/default/pods/p", json, "{}", 405),
        ("PUT", "/api/v1/namespaces/default/pods/p", json, r#"{"metadata": {"name": "q"}}"#, 400),
        ("PUT", "/api/v1/namespaces/default/pods/p/binding", json, "{}", 405),
        ("POST", "/api/v1/namespaces/default/pods/p/binding", json, "{}", 422),
        ("PATCH", "/api/v1/namespaces/default/pods/p", merge, "7", 400),
        ("PATCH", "/api/v1/namespaces/default/pods/p", "text/plain", "{}", 415),
        (
            "PATCH",
            "/api/v1/namespaces/default/pods/p",
            "application/json-patch+json",
            r#"[{"op": "remove", "path": "/x/y"}]"#,
            422,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/pods/p",
            "application/json-patch+json",
            r#"[{"op": "replace", "path": "", "value": 7}]"#,
            422,
        ),
        ("PATCH", "/api/v1/namespaces/default/pods/p", "application/json-patch+json", &bomb, 422),
        ("PATCH", "/api/v1/namespaces/default/pods/p", "application/apply-patch+yaml", "{}", 400),
        ("PATCH", "/api/v1/namespaces/default/pods/p?fieldManager=m", "application/apply-patch+yaml", "a: [b", 400),
        (
            "PATCH",
            "/api/v1/namespaces/default/pods/p",
            "application/strategic-merge-patch+json",
            r#"{"spec": {"$patch": "x"}}"#,
            400,
        ),
        ("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=soon", json, "", 400),
    ];
    for (method, path, media, body, code) in cases {
        let request = Request::builder().method(*method).uri(*path).header("content-type", *media);
        let result = client.request_text(request.body(body.as_bytes().to_vec()).unwrap()).await;
        assert_eq!(refused(result).0, *code, "{method} {path} {body:.60}");
    }
    assert_eq!(client.request_text(Request::get("/readyz").body(Vec::new()).unwrap()).await.unwrap(), "ok");
}

#[tokio::test]
async fn odd_objects_are_data() {
    let (_server, client) = start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let odd = json!({"metadata": {"name": "x", "labels": 7, "annotations": [], "finalizers": {}}, "data": null});
    let body = serde_json::to_vec(&odd).unwrap();
    client.request::<Value>(Request::post(path).body(body).unwrap()).await.unwrap();
    for patch in [json!({"metadata": null}), json!({"kind": null, "metadata": {"labels": [1]}}), json!({"spec": 1e300})]
    {
        let request = Request::patch(format!("{path}/x")).header("content-type", "application/merge-patch+json");
        let body = serde_json::to_vec(&patch).unwrap();
        let answer = client.request::<Value>(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer["metadata"]["name"], "x");
    }
}

#[tokio::test]
async fn a_namespace_with_an_odd_status_can_be_deleted() {
    let (_server, client) = start().await;
    let path = "/api/v1/namespaces/kube-public";
    let patch = serde_json::to_vec(&json!({"status": "odd"})).unwrap();
    let request = Request::patch(format!("{path}/status")).header("content-type", "application/merge-patch+json");
    client.request::<Value>(request.body(patch).unwrap()).await.unwrap();
    client.request::<Value>(Request::delete(path).body(Vec::new()).unwrap()).await.unwrap();
    assert_eq!(refused(client.request::<Value>(Request::get(path).body(Vec::new()).unwrap()).await).0, 404);
}

#[tokio::test]
async fn injected_failures_end_after_their_count() {
    let (server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    post(&server, "/ovenbird-test/fail?count=2&code=429&method=POST&path=/pods").await;
    for _ in 0..2 {
        assert_eq!(refused(pods.create(&PostParams::default(), &pod("a")).await), (429, "TooManyRequests".into()));
    }
    pods.list(&ListParams::default()).await.unwrap();
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
}

#[tokio::test]
async fn a_paused_server_answers_later() {
    let (server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    post(&server, "/ovenbird-test/pause").await;
    let parameters = ListParams::default();
    let mut listing = Box::pin(pods.list(&parameters));
    assert!(futures::poll!(&mut listing).is_pending());
    post(&server, "/ovenbird-test/resume").await;
    assert_eq!(listing.await.unwrap().items.len(), 0);
}
