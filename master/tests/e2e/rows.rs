//! Objects become rows, and rows stay as they should be.

use ovenbird_schema::northbound::{load_balancer as lb, logical_switch as ls, logical_switch_port as lsp};
use ovsdb::{Condition, Mutation, Mutator, Op, Uuid};
use serde_json::json;

use crate::world::{View, World, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_pods_become_rows() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("early", "n1").await;
    let master = world.master("a");
    world.add_node("n2").await;
    for i in 0..10 {
        world.add_pod(&format!("web-{i}"), if i % 2 == 0 { "n1" } else { "n2" }).await;
    }
    world.add_pod_with("host", json!({"nodeName": "n1", "hostNetwork": true})).await;
    world.add_pod_with("unbound", json!({})).await;
    let mut view = world.view();
    view.agrees().await;
    let ports = view.ports();
    assert_eq!(ports.len(), 11);
    assert!(!ports.iter().any(|p| p.contains("host") || p.contains("unbound")), "{ports:?}");
    world.delete_pod("web-3").await;
    view.until("lost the port", |r| !r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_web-3")).await;
    view.agrees().await;
    let status = world.status("a").await;
    assert_eq!(status["leader"], true);
    assert_eq!(status["nodes"][0]["name"], "n1");
    assert_eq!(status["waiting"], json!([]));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_become_rows_and_are_never_cut_off() {
    if skipped() {
        return;
    }
    const WEB: &str = "Service_default/web_TCP_cluster";
    let world = World::new().await;
    world.add_node("n1").await;
    world.add_service("web", "10.96.0.10", &["10.244.0.3", "10.244.0.4"]).await;
    let master = world.master("a");
    let mut view = world.view();
    view.agrees().await;
    world.add_service("later", "10.96.0.11", &[]).await;
    world.set_endpoints("web", &["10.244.0.4"]).await;
    view.until("lost an endpoint", |r| View::vips(r, WEB).as_deref() == Some("10.96.0.10:80=10.244.0.4:8080 ")).await;
    view.agrees().await;
    assert_eq!(View::vips(&view.replica, "Service_default/later_TCP_cluster").as_deref(), Some("10.96.0.11:80= "));
    master.stop().await;

    // The lists come one after the other: a Service whose slices are not told yet must keep its endpoints.
    let master = world.master("a");
    let status = world
        .until("a", "came to rest", |s| {
            let complete = |watch: &serde_json::Value| watch["complete"] == true;
            s["leader"] == true && s["watches"].as_array().is_some_and(|all| all.iter().all(complete))
        })
        .await;
    assert_eq!(status["northbound"]["transactions"], 0, "{status:#}");
    master.stop().await;
}

/// More than are translated at a time.
#[tokio::test(flavor = "multi_thread")]
async fn many_services_become_rows_and_stay() {
    if skipped() {
        return;
    }
    const COUNT: usize = 180;
    let name = |n: usize| format!("web-{n}");
    let world = World::new().await;
    for n in 0..COUNT {
        world.add_service(&name(n), &format!("10.96.{}.{}", n / 200 + 1, n % 200 + 1), &["10.244.0.3"]).await;
    }
    let master = world.master("a");
    let mut view = world.view();
    view.agrees().await;
    assert_eq!(view.replica.len(&lb::TABLE), COUNT);
    master.stop().await;

    let settled = |s: &serde_json::Value| s["leader"] == true && s["northbound"]["settled"] == true;
    let lists =
        |s: &serde_json::Value| s["watches"].as_array().is_some_and(|w| w.iter().all(|w| w["complete"] == true));
    let master = world.master("a");
    let status = world.until("a", "came to rest", |s| settled(s) && lists(s)).await;
    assert_eq!(status["northbound"]["transactions"], 0, "{status:#}");
    master.stop().await;

    let services = kube::Api::<k8s_openapi::api::core::v1::Service>::namespaced(world.client(), "default");
    services.delete(&name(7), &Default::default()).await.expect("delete");
    let master = world.master("a");
    view.until("lost the Service", |r| r.len(&lb::TABLE) == COUNT - 1).await;
    view.agrees().await;
    let status = world.until("a", "came to rest", |s| settled(s) && lists(s)).await;
    assert_eq!(status["northbound"]["transactions"], 1, "{status:#}");
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_writes_nothing_and_finds_what_went_meanwhile() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    for name in ["a", "b", "c"] {
        world.add_pod(name, "n1").await;
    }
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    master.stop().await;

    let master = world.master("a");
    let idle = |s: &serde_json::Value| s["leader"] == true && s["northbound"]["connected"] == true;
    let lists =
        |s: &serde_json::Value| s["watches"].as_array().is_some_and(|w| w.iter().all(|w| w["complete"] == true));
    let status = world.until("a", "came to rest", |s| idle(s) && lists(s)).await;
    assert_eq!(status["northbound"]["transactions"], 0, "{status:#}");
    assert_eq!(status["commits"], json!([]));
    master.stop().await;

    world.delete_pod("b").await;
    let master = world.master("a");
    view.until("lost the port", |r| !r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_b")).await;
    view.agrees().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_edits_are_healed_and_strangers_are_left_alone() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("a", "n1").await;
    world.add_pod("b", "n1").await;
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    let status = world.until("a", "settled", |s| s["northbound"]["settled"] == true).await;
    assert_eq!(status["drift"]["healed"], 0, "what it has just written itself is no drift");
    let port = |replica: &ovsdb::Replica, name: &str| -> Uuid {
        let mut rows = replica.rows(&lsp::TABLE);
        rows.find(|(_, row)| lsp::Ref(row).name() == name).map(|(uuid, _)| uuid).expect("the port")
    };
    let (a, b) = (port(&view.replica, "default_a"), port(&view.replica, "default_b"));
    let switch = view.replica.rows(&ls::TABLE).find(|(_, r)| ls::Ref(r).name() == "n1").map(|(u, _)| u).expect("n1");
    let (stranger, foreign) = (Uuid::new_v4(), Uuid::new_v4());
    let to_set = |uuid: Uuid| ovsdb::Datum::set([uuid.into()]);
    view.meddle(&[
        // Our row is deleted (a port goes with its last reference), another one changed.
        Op::Mutate {
            table: "Logical_Switch",
            conditions: vec![Condition::uuid(switch)],
            mutations: vec![Mutation::new("ports", Mutator::Delete, to_set(a))],
        },
        Op::Update {
            table: "Logical_Switch_Port",
            conditions: vec![Condition::uuid(b)],
            row: vec![("addresses", ovsdb::Datum::set(["unknown".into()]))],
        },
        // Rows of others: a switch, and a port on our switch.
        Op::Insert { table: "Logical_Switch", uuid: Some(stranger), row: vec![("name", "theirs".into())] },
        Op::Insert { table: "Logical_Switch_Port", uuid: Some(foreign), row: vec![("name", "their-port".into())] },
        Op::Mutate {
            table: "Logical_Switch",
            conditions: vec![Condition::uuid(switch)],
            mutations: vec![Mutation::new("ports", Mutator::Insert, to_set(foreign))],
        },
    ])
    .await;
    view.until("healed", |r| {
        r.row(&lsp::TABLE, &a).is_some()
            && r.row(&lsp::TABLE, &b).is_some_and(|row| !lsp::Ref(row).addresses().any(|x| x == "unknown"))
    })
    .await;
    assert!(view.replica.row(&ls::TABLE, &stranger).is_some());
    assert!(view.replica.row(&lsp::TABLE, &foreign).is_some());
    let status = world.until("a", "counted", |s| s["drift"]["healed"].as_u64() >= Some(2)).await;
    assert_eq!(status["drift"]["findings"], 0);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_annotations_get_an_event_and_harm_nobody() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("good", "n1").await;
    let long = "x".repeat(253);
    world.add_pod(&long, "n1").await;
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    world.annotate_pod("good", json!("{not json")).await;
    world.add_pod("next", "n1").await;
    view.until("refused", |r| !r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_good")).await;
    view.agrees().await;
    assert_eq!(view.ports(), ["default_next".to_owned(), format!("default_{long}")]);
    let events: kube::Api<k8s_openapi::api::events::v1::Event> = kube::Api::namespaced(world.client(), "default");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let list = events.list(&Default::default()).await.expect("events");
        let told = list.items.iter().find(|e| e.reason.as_deref() == Some("InvalidAnnotation"));
        if let Some(event) = told {
            assert_eq!(event.regarding.as_ref().and_then(|r| r.name.as_deref()), Some("good"));
            assert!(event.note.as_deref().is_some_and(|n| n.contains("k8s.ovn.org/pod-networks")), "{event:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no Event");
        tokio::task::yield_now().await;
    }
    // The annotation taken away, the pod gets a new one.
    world.annotate_pod("good", json!(null)).await;
    view.until("back", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_good")).await;
    view.agrees().await;
    master.stop().await;
}
