//! Several masters: one writes.

use nix::sys::signal::Signal;
use ovenbird_schema::northbound::logical_switch_port as lsp;

use crate::world::{World, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_masters_one_writes_and_hands_over_at_once() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    let first = world.master("a");
    world.until("a", "led", |s| s["leader"] == true).await;
    let second = world.master("b");
    world.add_pod("one", "n1").await;
    let mut view = world.view();
    view.agrees().await;
    let standby = world.until("b", "was warm", |s| s["northbound"]["connected"] == true).await;
    assert_eq!(standby["leader"], false);
    assert_eq!(standby["commits"], serde_json::json!([]));
    let stopped = tokio::time::Instant::now();
    first.stop().await;
    world.until("b", "led", |s| s["leader"] == true).await;
    // Not a matter of speed: without the hand-over it would be the lease's three seconds.
    assert!(stopped.elapsed() < std::time::Duration::from_secs(3), "waited for the lease to expire");
    world.add_pod("two", "n1").await;
    view.until("has both", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_two")).await;
    view.agrees().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_writes_nothing_after_waking() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    world.add_node("n1").await;
    let old = world.process("old");
    world.until("old", "led", |s| s["leader"] == true).await;
    world.add_pod("one", "n1").await;
    let mut view = world.view();
    view.agrees().await;
    // Pods that come in the very moment of the pause are work it has begun.
    for i in 0..8 {
        world.add_pod(&format!("burst-{i}"), "n1").await;
    }
    old.signal(Signal::SIGSTOP);
    let new = world.process("new");
    world.until("new", "led", |s| s["leader"] == true).await;
    world.add_pod("two", "n1").await;
    view.until("has the new port", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_two")).await;
    view.agrees().await;
    let before = versions(&world).await;
    let epoch = world.until("new", "raised the epoch", |s| s["epoch"].is_u64()).await["epoch"].clone();
    old.signal(Signal::SIGCONT);
    let woken = world.until("old", "stood by", |s| s["leader"] == false && s["northbound"]["connected"] == true).await;
    let committed = |c: &serde_json::Value| c["outcome"] == "committed";
    let commits = woken["commits"].as_array().expect("commits").iter().filter(|c| committed(c)).count();
    world.add_pod("three", "n1").await;
    view.until("has the next", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_three")).await;
    view.agrees().await;
    let after = world.status("old").await;
    assert_eq!(after["commits"].as_array().expect("commits").iter().filter(|c| committed(c)).count(), commits);
    assert_eq!(world.status("new").await["epoch"], epoch, "nobody fenced it out");
    let now = versions(&world).await;
    assert!(before.iter().all(|version| now.contains(version)), "no pod was touched: {before:?} {now:?}");
    new.kill();
    old.kill();
}

/// name and resourceVersion of every pod.
async fn versions(world: &World) -> Vec<(Option<String>, Option<String>)> {
    let pods = world.pods().list(&Default::default()).await.expect("pods");
    pods.items.into_iter().map(|pod| (pod.metadata.name, pod.metadata.resource_version)).collect()
}
