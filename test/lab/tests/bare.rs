//! The lab itself, without any Ovenbird daemon: real OVS and OVN carry packets between hand-made ports, the stand-ins for kubelet and
//! runtime keep CNI's rules, and `down` leaves nothing.
//!
//! Needs root, OVS and OVN; says SKIP without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Encap, Lab, Options, Place, ServiceModel, down, testing, wait_for};

/// What a CNI plugin of two verbs can do without OVN: a veth, an address; each call is written down.
const FAKE_PLUGIN: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
here=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_ARGS $(cat)" >> "$here/calls"
[ -e "$here/refuse" ] && [ "$CNI_COMMAND" = ADD ] && { echo '{"code": 11, "msg": "try again", "details": "told to refuse"}'; exit 1; }
if [ "$CNI_COMMAND" = ADD ]; then
    ip -n "$(basename "$CNI_NETNS")" link add eth0 type veth peer name peer0
    ip -n "$(basename "$CNI_NETNS")" address add 10.9.8.7/24 dev eth0
    echo '{"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.9.8.7/24", "interface": 0}]}'
fi
"#;

fn bare(nodes: u16, encap: Encap) -> Options {
    Options { nodes, encap, bare: true, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_flow_between_hand_made_ports() -> Result<()> {
    let clustered = Options { databases: ServiceModel::Raft, tls: true, ..bare(2, Encap::Geneve) };
    for options in [bare(2, Encap::Geneve), bare(2, Encap::Vxlan), clustered] {
        let Some(lab) = testing::lab("lab-hand", options).await? else { return Ok(()) };
        lab.exec_node("central", &["ovn-nbctl", "ls-add", "sw"])?;
        let pods: Vec<_> = (1..=2).map(|index| attach_by_hand(&lab, index)).collect::<Result<_>>()?;
        lab.exec_node("central", &["ovn-nbctl", "--wait=hv", "sync"])?;
        for target in ["ping:10.244.0.2", "ping:fd01::2"] {
            pods[0].run(|| target.parse::<Target>()?.check(Duration::from_secs(5)))?;
        }
        drop(lab);
    }
    Ok(())
}

/// A port on node INDEX as a person would attach it: a namespace of its own, a veth, an Interface with an iface-id.
fn attach_by_hand(lab: &Lab, index: u16) -> Result<Place> {
    let (node, mac) = (format!("node{index}"), format!("0a:58:0a:f4:00:0{index}"));
    let addresses = format!("{mac} 10.244.0.{index} fd01::{index}");
    lab.exec_node("central", &["ovn-nbctl", "lsp-add", "sw", &node, "--", "lsp-set-addresses", &node, &addresses])?;
    // Inside a process of the node's namespace, so that it vanishes with the lab: the port is the node's own end of a veth.
    let script = format!(
        "ip link add pod0 type veth peer name ovs0 && ip link set ovs0 up && ethtool -K pod0 tx off && ovs-vsctl add-port br-int ovs0 \
         -- set interface ovs0 external_ids:iface-id={node} && ip link set pod0 address {mac} mtu 1400 up \
         && ip address add 10.244.0.{index}/24 dev pod0 && ip address add fd01::{index}/64 dev pod0 nodad"
    );
    lab.exec_node(&node, &["sh", "-c", &script])?;
    Ok(lab.scene(&node)?.place().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_keeps_the_rules_of_cni() -> Result<()> {
    let Some((lab, bin)) = lab_with_fake_plugin("lab-cni").await? else { return Ok(()) };
    lab.apply(&pods(&["first"])).await?;
    lab.await_running("default").await?;
    let pods_api = Api::<Pod>::namespaced(lab.client().await?, "default");
    let status = pods_api.get("first").await?.status.context("no status")?;
    ensure!(status.pod_ip.as_deref() == Some("10.9.8.7"), "{status:?}");
    let inside = lab.scene("default/first")?.checked(&["ip", "-br", "address", "show", "dev", "eth0"])?;
    ensure!(inside.contains("10.9.8.7/24"), "{inside}");

    // Killed and started again: the pod is the same one, still running.
    let process = ovenbird_lab::kubelet::Store::of_lab(lab.layout().dir())[0].process.context("no process")?;
    lab.kill("node1/kubelet")?;
    ensure!(process.alive(), "the pod's command ended with the kubelet");
    lab.start("node1/kubelet")?;
    wait_for("CHECK and GC", Duration::from_secs(10), || {
        let calls = calls(&bin);
        calls.contains("\nCHECK ") && calls.contains("\nGC ")
    })?;

    lab.delete(&pods(&["first"])).await?;
    await_gone(&pods_api, "first").await?;
    ensure!(!process.alive(), "the pod's command outlived it");
    let calls = calls(&bin);
    let del = calls.lines().filter(|line| line.starts_with("DEL")).collect::<Vec<_>>();
    ensure!(del.len() == 1 && del[0].contains("prevResult") && del[0].contains("K8S_POD_NAME=first"), "{del:?}");
    ensure!(calls.matches("ADD ").count() == 1, "{calls}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_add_is_told_and_tried_again() -> Result<()> {
    let Some((lab, bin)) = lab_with_fake_plugin("lab-refuse").await? else { return Ok(()) };
    fs::write(bin.join("refuse"), "")?;
    lab.apply(&pods(&["late"])).await?;
    let client = lab.client().await?;
    let pods_api = Api::<Pod>::namespaced(client.clone(), "default");
    let told = |pod: Option<&Pod>| waiting_message(pod).is_some_and(|message| message.contains("told to refuse"));
    tokio::time::timeout(Duration::from_secs(10), await_condition(pods_api.clone(), "late", told)).await??;
    let warned = |event: &Event| event.message.as_deref().is_some_and(|message| message.contains("told to refuse"));
    let events = Api::<Event>::namespaced(client, "default");
    ensure!(
        watcher(events, watcher::Config::default())
            .applied_objects()
            .any(async |event| event.is_ok_and(|event| warned(&event)))
            .await
    );
    fs::remove_file(bin.join("refuse"))?;
    lab.await_running("default").await?;
    // A pod that vanishes from the API without any grace leaves nothing, either.
    pods_api.delete("late", &kube::api::DeleteParams::default().grace_period(0)).await?;
    let layout = lab.layout().clone();
    wait_for("the sandbox to go", Duration::from_secs(10), || {
        ovenbird_lab::kubelet::Store::of_lab(layout.dir()).is_empty()
    })?;
    // Every failed sandbox was detached, too.
    let calls = calls(&bin);
    ensure!(calls.matches("ADD ").count() == calls.matches("DEL ").count(), "{calls}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_commands_have_their_phase_and_no_network() -> Result<()> {
    let Some((lab, _bin)) = lab_with_fake_plugin("lab-finish").await? else { return Ok(()) };
    let pod = |name: &str, code: u8| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: none, command: [sh, -c, exit {code}]}}]}}}}\n"
        )
    };
    lab.apply(&(pod("good", 0) + &pod("bad", 3))).await?;
    let api = Api::<Pod>::namespaced(lab.client().await?, "default");
    for (name, phase) in [("good", "Succeeded"), ("bad", "Failed")] {
        let finished =
            move |pod: Option<&Pod>| pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()) == Some(phase);
        tokio::time::timeout(Duration::from_secs(10), await_condition(api.clone(), name, finished)).await??;
    }
    let layout = lab.layout().clone();
    wait_for("the sandboxes to go", Duration::from_secs(10), || {
        ovenbird_lab::kubelet::Store::of_lab(layout.dir()).is_empty()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn down_leaves_nothing_after_a_crash_and_works_twice() -> Result<()> {
    let Some(lab) = testing::lab("lab-down", bare(1, Encap::Geneve)).await? else { return Ok(()) };
    let lab = lab.keep();
    let (dir, namespaces) = (lab.layout().dir().to_owned(), lab.layout().namespaces());
    let processes: Vec<_> = lab.layout().processes().all();
    ensure!(processes.len() >= 8, "{processes:?}");
    lab.kill("central/sb")?;
    lab.kill("node1/vswitchd")?;
    ensure!(down(&dir)?, "there was a lab");
    ensure!(!down(&dir)?, "there was none any more");
    ensure!(!dir.exists());
    ensure!(processes.iter().all(|record| !record.id.alive()));
    ensure!(namespaces.iter().all(|name| !Path::new("/run/netns").join(name).exists()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_api_server_is_reached_from_every_namespace() -> Result<()> {
    let Some(server) = testing::lab("lab-api", bare(1, Encap::Geneve)).await? else { return Ok(()) };
    let api = ovenbird_lab::Api::Kubeconfig(server.layout().kubeconfig());
    let Some(lab) = testing::lab("lab-guest", Options { api, ..bare(2, Encap::Geneve) }).await? else { return Ok(()) };
    // node2 exists only because the guest's kubelet, in a namespace of the guest's, has reached the other lab's server.
    for place in ["central", "node2"] {
        let names = lab.exec_node(place, &["kubectl", "get", "nodes", "-o", "name"])?;
        ensure!(names.contains("node/node2"), "{names}");
    }
    let records = lab.layout().processes().all();
    ensure!(records.iter().all(|record| record.spec.name != "scheduler"), "a given API server has its own scheduler");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_unknown_names_are_passed_on() -> Result<()> {
    let Some(lab) = testing::lab("lab-exec", bare(1, Encap::Geneve)).await? else { return Ok(()) };
    let program = lab.layout().bin_dir.join("ovenbird-lab");
    let run = |args: &[&str]| Command::new(&program).arg("--dir").arg(lab.layout().dir()).args(args).output();
    ensure!(run(&["exec", "node1", "--", "sh", "-c", "exit 7"])?.status.code() == Some(7));
    let output = run(&["exec", "node1", "--", "ovs-vsctl", "br-exists", "br-ex"])?;
    ensure!(output.status.success(), "{output:?}");
    for (args, said) in [
        (["exec", "node9", "--", "true"], "no node node9"),
        (["exec", "default/x", "--", "true"], "no pod default/x"),
        (["component", "kill", "nobody", "--"], "no component nobody"),
    ] {
        let output = run(&args)?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && stderr.contains(said), "{args:?}: {stderr}");
    }
    Ok(())
}

/// A bare lab of one node whose only CNI plugin is the fake one. Returns the folder of programs, too.
async fn lab_with_fake_plugin(name: &str) -> Result<Option<(Lab, std::path::PathBuf)>> {
    let own = std::env::current_exe()?;
    let built = own.ancestors().nth(2).context("no target folder")?;
    let bin = tempfile::tempdir()?.keep();
    for program in ["ovenbird-lab", "ovenbird-apiserver"] {
        std::os::unix::fs::symlink(built.join(program), bin.join(program))?;
    }
    fs::write(bin.join("fake"), FAKE_PLUGIN)?;
    fs::set_permissions(bin.join("fake"), fs::Permissions::from_mode(0o755))?;
    let options = Options { bin_dir: Some(bin.clone()), ..bare(1, Encap::Geneve) };
    let Some(lab) = testing::lab(name, options).await? else { return Ok(None) };
    let conf = lab.layout().home("node1").join("cni/net.d");
    fs::create_dir_all(&conf)?;
    fs::write(
        conf.join("10-fake.conflist"),
        r#"{"cniVersion": "1.1.0", "name": "fake", "plugins": [{"type": "fake"}]}"#,
    )?;
    Ok(Some((lab, bin)))
}

fn pods(names: &[&str]) -> String {
    let pod = |name| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: none}}]}}}}\n"
        )
    };
    names.iter().map(pod).collect()
}

fn waiting_message(pod: Option<&Pod>) -> Option<String> {
    let container = pod?.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.waiting.as_ref()?.message.clone()
}

fn calls(bin: &Path) -> String {
    fs::read_to_string(bin.join("calls")).unwrap_or_default()
}

async fn await_gone(api: &Api<Pod>, name: &str) -> Result<()> {
    let uid = api.get_opt(name).await?.and_then(|pod| pod.metadata.uid);
    if let Some(uid) = uid {
        tokio::time::timeout(Duration::from_secs(10), await_condition(api.clone(), name, conditions::is_deleted(&uid)))
            .await??;
    }
    Ok(())
}
