//! Lists and watches: pages of one snapshot, selections, resuming, bookmarks, history that is gone, restarts.

use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, ObjectList, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use ovenbird_apiserver::{ApiServer, Options};
use serde_json::json;

use crate::{client, pod, post, refused, start};

fn names<K: ResourceExt + Clone>(list: &ObjectList<K>) -> Vec<String> {
    list.iter().map(ResourceExt::name_any).collect()
}

async fn create(pods: &Api<Pod>, names: &[&str]) {
    for name in names {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
}

/// The next `count` events as (type, name), bookmarks left out.
async fn events(pods: &Api<Pod>, params: &WatchParams, version: &str, count: usize) -> Vec<(&'static str, String)> {
    let stream = pods.watch(params, version).await.unwrap();
    let seen = stream.map(|event| match event.unwrap() {
        WatchEvent::Added(pod) => Some(("ADDED", pod.name_any())),
        WatchEvent::Modified(pod) => Some(("MODIFIED", pod.name_any())),
        WatchEvent::Deleted(pod) => Some(("DELETED", pod.name_any())),
        WatchEvent::Bookmark(_) => None,
        WatchEvent::Error(status) => Some(("ERROR", status.code.to_string())),
    });
    seen.filter_map(async |event| event).take(count).collect().await
}

#[tokio::test]
async fn pages_show_one_snapshot() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a", "b", "c", "d", "e"]).await;
    let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((names(&first), first.metadata.remaining_item_count), (vec!["a".into(), "b".into()], Some(3)));
    pods.delete("d", &DeleteParams::default()).await.unwrap();
    create(&pods, &["bb"]).await;
    let token = first.metadata.continue_.clone().unwrap();
    let second = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.unwrap();
    let third = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!((names(&third), third.metadata.continue_), (vec!["e".into()], None));
}

#[tokio::test]
async fn pages_end_with_410_when_history_is_gone() {
    let (server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a", "b"]).await;
    let first = pods.list(&ListParams::default().limit(1)).await.unwrap();
    post(&server, "/ovenbird-test/expire-history").await;
    let token = first.metadata.continue_.unwrap();
    let refusal = refused(pods.list(&ListParams::default().limit(1).continue_token(&token)).await);
    assert_eq!(refusal, (410, "Expired".into()));
}

#[tokio::test]
async fn selectors_select() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a", "b", "c"]).await;
    let by_label = async |selector: &str| names(&pods.list(&ListParams::default().labels(selector)).await.unwrap());
    assert_eq!(by_label("app=a").await, ["a"]);
    assert_eq!(by_label("app!=a").await, ["b", "c"]);
    assert_eq!(by_label("app in (a, c),app").await, ["a", "c"]);
    assert_eq!(by_label("app notin (a,c)").await, ["b"]);
    assert_eq!(by_label("!app").await, [""; 0]);
    assert_eq!(refused(pods.list(&ListParams::default().labels("app in a")).await).0, 400);
    let by_field = async |selector: &str| names(&pods.list(&ListParams::default().fields(selector)).await.unwrap());
    assert_eq!(by_field("metadata.name=b").await, ["b"]);
    assert_eq!(by_field("status.phase=Pending,metadata.name!=b").await, ["a", "c"]);
    assert_eq!(by_field("status.phase=Running").await, [""; 0]);
    assert_eq!(refused(pods.list(&ListParams::default().fields("spec.nonsense=1")).await).0, 400);
}

#[tokio::test]
async fn metadata_alone_can_be_listed() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a"]).await;
    let list: ObjectList<PartialObjectMeta<Pod>> = pods.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(names(&list), ["a"]);
    assert_eq!(pods.get_metadata("a").await.unwrap().labels()["app"], "a");
}

#[tokio::test]
async fn a_watch_resumes_after_its_version() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a"]).await;
    let version = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    create(&pods, &["b"]).await;
    pods.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}))).await.unwrap();
    pods.delete("b", &DeleteParams::default()).await.unwrap();
    let seen = events(&pods, &WatchParams::default(), &version, 3).await;
    assert_eq!(seen, [("ADDED", "b".into()), ("MODIFIED", "a".into()), ("DELETED", "b".into())]);
    let all = events(&pods, &WatchParams::default(), "0", 1).await;
    assert_eq!(all, [("ADDED", "a".into())]);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a"]).await;
    let version = pods.get("a").await.unwrap().resource_version().unwrap();
    for label in [json!("y"), json!("z"), json!(null)] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"x": label}}}));
        pods.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    let seen = events(&pods, &WatchParams::default().labels("x"), &version, 3).await;
    assert_eq!(seen, [("ADDED", "a".into()), ("MODIFIED", "a".into()), ("DELETED", "a".into())]);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    let stream = pods.watch(&WatchParams::default().timeout(1), "0").await.unwrap();
    assert_eq!(stream.count().await, 0);
}

#[tokio::test]
async fn history_is_bounded() {
    let server = ApiServer::start(Options { history: 2, ..Options::default() }).await.unwrap();
    let pods = Api::<Pod>::namespaced(client(&server), "default");
    let version = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    create(&pods, &["a", "b", "c"]).await;
    assert_eq!(events(&pods, &WatchParams::default(), &version, 1).await, [("ERROR", "410".into())]);
    let version = pods.get("a").await.unwrap().resource_version().unwrap();
    let seen = events(&pods, &WatchParams::default(), &version, 2).await;
    assert_eq!(seen, [("ADDED", "b".into()), ("ADDED", "c".into())]);
}

/// Waits until a watcher has told of `name`, through whatever it meets on the way.
async fn until_applied(stream: &mut (impl futures::Stream<Item = watcher::Result<Pod>> + Unpin), name: &str) {
    loop {
        match stream.next().await {
            Some(Ok(pod)) if pod.name_any() == name => return,
            Some(_) => {}
            None => panic!("the watcher ended"),
        }
    }
}

async fn survives_faults(config: watcher::Config) {
    let (server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client, "default");
    create(&pods, &["a"]).await;
    let mut stream = pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
    until_applied(&mut stream, "a").await;
    create(&pods, &["b"]).await;
    until_applied(&mut stream, "b").await;
    for faults in [
        &["close-watches"][..],
        &["expire-history", "close-watches"],
        &["fail?count=1&code=500&method=GET", "close-watches"],
    ] {
        for fault in faults {
            post(&server, &format!("/ovenbird-test/{fault}")).await;
        }
        let name = format!("after-{}", faults.join("-").replace(['?', '&', '='], "."));
        create(&pods, &[&name.to_lowercase()]).await;
        until_applied(&mut stream, &name.to_lowercase()).await;
    }
}

#[tokio::test]
async fn a_list_watcher_survives_faults() {
    survives_faults(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_streaming_list_watcher_survives_faults() {
    survives_faults(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn metadata_alone_can_be_watched() {
    let (_server, client) = start().await;
    create(&Api::namespaced(client.clone(), "default"), &["a"]).await;
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(client, "default");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = pin!(watcher(pods.clone(), config).applied_objects());
        let object = stream.next().await.unwrap().unwrap();
        assert_eq!(object.labels()["app"], "a");
    }
}

#[tokio::test]
async fn a_restarted_server_knows_its_objects() {
    let directory = tempfile::tempdir().unwrap();
    let data = Some(directory.path().join("data"));
    let server = ApiServer::start(Options { data: data.clone(), ..Options::default() }).await.unwrap();
    let address = server.address();
    let pods = Api::<Pod>::namespaced(client(&server), "default");
    create(&pods, &["a", "b"]).await;
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    let before = pods.get("b").await.unwrap();
    let mut stream = pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects());
    until_applied(&mut stream, "b").await;
    server.shutdown().await;
    let _server = ApiServer::start(Options { data, listen: address, ..Options::default() }).await.unwrap();
    assert_eq!(pods.get("b").await.unwrap(), before);
    assert_eq!(refused(pods.get("a").await).0, 404);
    let seen = events(&pods, &WatchParams::default(), &before.resource_version().unwrap(), 1).await;
    assert_eq!(seen, [("DELETED", "a".into())], "history since the last start survives");
    create(&pods, &["c"]).await;
    until_applied(&mut stream, "c").await;
}

#[tokio::test]
async fn a_cut_off_last_line_is_dropped_and_damage_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let options = Options { data: Some(path.clone()), ..Options::default() };
    let server = ApiServer::start(options.clone()).await.unwrap();
    create(&Api::namespaced(client(&server), "default"), &["a", "b"]).await;
    server.shutdown().await;
    let mut log = std::fs::read(&path).unwrap();
    log.truncate(log.len() - 10);
    std::fs::write(&path, &log).unwrap();
    let server = ApiServer::start(options.clone()).await.unwrap();
    let list = Api::<Pod>::namespaced(client(&server), "default").list(&ListParams::default()).await.unwrap();
    assert_eq!(names(&list), ["a"]);
    server.shutdown().await;
    let text = std::fs::read_to_string(&path).unwrap().replacen("S pods {", "S pods [", 1);
    std::fs::write(&path, text).unwrap();
    let error = ApiServer::start(options)
        .await
        .err()
        .map(|error| anyhow::Error::from(error).chain().map(|e| e.to_string()).collect::<Vec<_>>().join(": "));
    assert!(error.as_deref().is_some_and(|text| text.contains("line 6 of the data file")), "{error:?}");
}

#[tokio::test]
async fn many_clients_see_every_event_once() {
    let (_server, client) = start().await;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let wanted: Vec<String> = (0..50).map(|n| format!("p{n}")).collect();
    let follow = async |client: Client| {
        let pods = Api::<Pod>::namespaced(client, "default");
        events(&pods, &WatchParams::default(), "4", 50).await.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    let followers = futures::future::join_all((0..8).map(|_| follow(client.clone())));
    let write = async {
        for name in &wanted {
            create(&pods, &[name]).await;
        }
    };
    let (seen, ()) = futures::join!(followers, write);
    assert!(seen.iter().all(|names| *names == wanted), "{seen:?}");
}
