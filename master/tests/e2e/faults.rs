//! Servers and masters that go away at bad moments.

use ovenbird_schema::northbound::{logical_switch_port as lsp, nb_global};
use ovsdb::Replica;

use crate::world::{World, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_killed_at_any_moment_leaves_no_orphan() {
    if skipped() {
        return;
    }
    let world = World::new().await;
    for node in ["n1", "n2"] {
        world.add_node(node).await;
    }
    let mut view = world.view();
    // Each round kills it after another number of operations, so at another point of its work.
    for round in 0..6 {
        let master = world.process("a");
        for i in 0..(4 + 7 * round) {
            world.add_pod(&format!("r{round}-{i}"), if i % 2 == 0 { "n1" } else { "n2" }).await;
            if i % 3 == 2 {
                world.delete_pod(&format!("r{round}-{}", i - 1)).await;
            }
        }
        master.kill();
        if round > 0 {
            world.delete_pod(&format!("r{}-0", round - 1)).await;
        }
    }
    let master = world.process("a");
    view.agrees().await;
    master.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_northbound_restarts() {
    if skipped() {
        return;
    }
    let mut world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("before", "n1").await;
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    world.kill_northbound();
    world.until("a", "noticed", |s| s["northbound"]["connected"] == false).await;
    world.add_pod("meanwhile", "n1").await;
    world.delete_pod("before").await;
    world.start_northbound();
    view.until("has the new port", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_meanwhile"))
        .await;
    view.agrees().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_northbound_is_lost_and_written_anew() {
    if skipped() {
        return;
    }
    let mut world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("a", "n1").await;
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    // Each database has a row of its own in this table; the ports' UUIDs are the same in every one.
    let global = |r: &Replica| r.rows(&nb_global::TABLE).map(|(uuid, _)| uuid).collect::<Vec<_>>();
    let old = global(&view.replica);
    world.kill_northbound();
    world.make_database();
    world.start_northbound();
    view.until("is another", |r| global(r) != old).await;
    view.agrees().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts() {
    if skipped() {
        return;
    }
    let mut world = World::new().await;
    world.add_node("n1").await;
    world.add_pod("before", "n1").await;
    let mut view = world.view();
    let master = world.master("a");
    view.agrees().await;
    world.stop_api().await;
    world.until("a", "let the lease go", |s| s["leader"] == false).await;
    world.start_api().await;
    world.add_pod("after", "n1").await;
    world.delete_pod("before").await;
    view.until("has the new port", |r| r.rows(&lsp::TABLE).any(|(_, row)| lsp::Ref(row).name() == "default_after"))
        .await;
    view.agrees().await;
    master.stop().await;
}
