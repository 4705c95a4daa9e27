//! What ADD is told about its pod.

use super::*;

const NETWORK: &str =
    r#"{"default":{"ip_addresses":["10.128.0.3/24"],"mac_address":"0a:58:0a:80:00:03","gateway_ips":["10.128.0.1"]}}"#;

fn pod(uid: &str) -> Pod {
    Pod { uid: uid.into(), node: "n1".into(), network: Some(NETWORK.into()), ..Pod::default() }
}

fn book(in_api: Option<Pod>) -> Arc<PodBook> {
    let lookup: Lookup = Box::new(move |_, _| Box::pin(std::future::ready(Ok(in_api.clone()))));
    Arc::new(PodBook::new("n1", lookup))
}

fn web(uid: Option<&str>) -> PodRef {
    PodRef { namespace: "default".into(), name: "web".into(), uid: uid.map(str::to_owned) }
}

async fn error(book: &PodBook, uid: &str) -> (Code, String) {
    let e = book.until_ready(&web(Some(uid))).await.unwrap_err();
    (e.code, e.to_string())
}

#[tokio::test]
async fn a_known_pod_is_ready_at_once_with_and_without_uid() {
    let book = book(None);
    book.apply("default/web".into(), Pod { static_uid: Some("s".into()), ..pod("u1") });
    for uid in [None, Some("u1"), Some("s")] {
        let ready = book.until_ready(&web(uid)).await.unwrap();
        // That of what runs: mirrors come and go.
        assert_eq!((ready.uid.as_str(), ready.network.addresses.len()), ("s", 1));
        assert_eq!(ready.bandwidth, Ok(Bandwidth::default()));
    }
}

#[tokio::test]
async fn an_annotation_that_comes_later_wakes_the_waiter() {
    let book = book(Some(pod("u1")));
    let waiter = tokio::spawn({
        let book = book.clone();
        async move { book.until_ready(&web(Some("u1"))).await }
    });
    book.apply("default/web".into(), pod("u0"));
    book.apply("default/web".into(), Pod { network: None, ..pod("u1") });
    book.apply("default/web".into(), pod("u1"));
    assert_eq!(waiter.await.unwrap().unwrap().uid, "u1");
}

#[tokio::test]
async fn errors_say_what_is_wrong_with_the_pod() {
    let gone = "pod default/web does not exist".to_owned();
    assert_eq!(error(&book(None), "u1").await, (Code::UnknownContainer, gone));
    let (code, text) = error(&book(Some(pod("u2"))), "u1").await;
    assert!(code == Code::UnknownContainer && text.contains("has UID u2"), "{text}");
    let (_, text) = error(&book(Some(Pod { node: "n2".into(), ..pod("u1") })), "u1").await;
    assert!(text.contains(r#"is bound to node "n2""#), "{text}");
    let broken = book(None);
    broken.apply("default/web".into(), Pod { network: Some("{".into()), ..pod("u1") });
    let (code, text) = error(&broken, "u1").await;
    assert!(code == Code::InvalidConfig && text.contains("annotation k8s.ovn.org/pod-networks"), "{text}");
}

#[tokio::test]
async fn a_list_replaces_what_was_known() {
    let book = book(None);
    book.apply("default/old".into(), pod("u0"));
    book.begin();
    book.listed("default/web".into(), pod("u1"));
    assert!(book.get("default", "old").is_some(), "until the list is complete");
    book.complete();
    book.until_complete().await;
    assert!(book.get("default", "old").is_none() && book.get("default", "web").is_some());
}

#[tokio::test]
async fn ports_of_the_node_are_told_when_they_change_and_those_of_older_pods_first() {
    let book = book(None);
    let mut told = book.host_ports();
    let asking = |created, port| Pod {
        created,
        host_ports: HostPort::new(None, Some(port), None, 80).into_iter().collect(),
        ..pod("u")
    };
    book.apply("default/plain".into(), pod("u"));
    assert!(!told.has_changed().unwrap());
    book.apply("default/a".into(), Pod { network: None, ..asking(2, 2) });
    assert!(!told.has_changed().unwrap(), "it has no address yet");
    book.apply("default/a".into(), asking(2, 2));
    book.apply("default/b".into(), asking(1, 1));
    let ports = |all: &[HostPorts]| all.iter().flat_map(|pod| &pod.ports).map(|p| p.port).collect::<Vec<_>>();
    assert_eq!(ports(&told.borrow_and_update()), [1, 2]);
    book.delete("default/b");
    assert_eq!(ports(&told.borrow_and_update()), [2]);
}
