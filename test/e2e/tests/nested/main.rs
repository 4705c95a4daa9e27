//! Nodes that are VMs on OVN hypervisors, by packets: a pod's frames carry its tag between VM and hypervisor and nowhere else, also between
//! pods of one VM, which OVN therefore keeps apart where a policy says so; and a port that is gone from OVN is cut off, whatever is in the VM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::runtime::wait::await_condition;
use ovenbird_e2e::reach::{all_cells, two_on_each_node};
use ovenbird_e2e::{LIMIT, pods};
use ovenbird_lab::probe::Target;
use ovenbird_lab::{Lab, Mode, Options, Place, Status, nested, testing, wait_for};
use serde_json::{Value, json};
use tokio::time::timeout;

mod way_out;

const NAMESPACE: &str = "nested";
/// Ping is given up after.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Where a pod is and what it has.
struct Inside {
    place: Place,
    address: IpAddr,
    tag: u16,
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_vms() -> Result<()> {
    let options = Options { nodes: 2, mode: Mode::Nested, ..Options::default() };
    let Some(lab) = testing::lab("e2e-nested", options).await? else { return Ok(()) };
    lab.apply(&two_on_each_node(&lab, NAMESPACE)).await?;
    lab.await_running(NAMESPACE).await?;
    rows(&lab).await?;
    println!("{}", all_cells(&lab, &Status::of(&lab).await?, NAMESPACE)?.table());
    on_the_wire(&lab).await?;
    a_host_reaches_the_other(&lab)?;
    a_daemon_restarts(&lab).await?;
    a_policy(&lab).await?;
    add_waits_for_the_hypervisor(&lab).await?;
    way_out::by_the_vm(&lab).await?;
    what_is_gone_is_cut_off(&lab).await
}

/// Every child port names its parent, has a tag of its own beside it, and is up.
async fn rows(lab: &Lab) -> Result<()> {
    for node in lab.layout().options.node_names() {
        let parent = format!("parent_name={}", nested::parent_port(&node));
        let find = ["ovn-nbctl", "--bare", "--no-heading", "--columns=name,tag,up", "--format=csv", "find"];
        let list = || lab.exec_node("central", &[&find[..], &["logical_switch_port", &parent]].concat());
        wait_for("the ports to be up", LIMIT, || {
            list().is_ok_and(|text| text.lines().all(|line| line.ends_with(",true")))
        })
        .with_context(|| list().unwrap_or_default())?;
        let text = list()?;
        let ports: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.rsplit_once(',')?.0.split_once(',')).collect();
        let tags: BTreeSet<&str> = ports.values().copied().collect();
        println!("{node}: {ports:?}");
        ensure!(ports.len() == 3 && tags.len() == 3, "{node} has {ports:?}");
        ensure!(ports.get(&*format!("k8s-{node}")) == Some(&"1"), "{node} has {ports:?}");
        for name in ["a", "b"] {
            let pod = inside(lab, &format!("{name}-{node}")).await?;
            ensure!(ports.get(&*format!("{NAMESPACE}_{name}-{node}")) == Some(&&*pod.tag.to_string()), "{ports:?}");
        }
    }
    Ok(())
}

/// Between VM and hypervisor a pod's frames have its tag, also to a pod of the same VM; between hypervisors they are in the tunnel, without.
async fn on_the_wire(lab: &Lab) -> Result<()> {
    let [a, b, other] = [inside(lab, "a-node1").await?, inside(lab, "b-node1").await?, inside(lab, "a-node2").await?];
    let (hypervisor, fabric) = (lab.scene("hv1")?, lab.scene("fabric")?);
    for (to, tunnelled) in [(&b, false), (&other, true)] {
        let tags = [a.tag, b.tag].map(|tag| format!("vlan id {tag} counter comment \"{tag}\"; ")).concat();
        hypervisor.checked(&["nft", &counters(nested::VIF, &tags)])?;
        let outer = "ether type vlan counter comment \"tagged\"; udp dport 6081 counter comment \"tunnel\"; ";
        fabric.checked(&["nft", &counters("hv1", outer)])?;
        a.place
            .run(|| Target::Ping(to.address).check(LIMIT))
            .with_context(|| format!("no answer of {}", to.address))?;
        let mut seen = BTreeMap::new();
        for scene in [&hypervisor, &fabric] {
            seen.extend(counts(&scene.checked(&["nft", "-j", "list", "table", "netdev", "wire"])?)?);
            scene.checked(&["nft", "delete", "table", "netdev", "wire"])?;
        }
        println!("from tag {} to {}: frames {seen:?}", a.tag, to.address);
        let of = |what: &str| seen.get(what).copied().unwrap_or_default();
        ensure!(of(&a.tag.to_string()) > 0, "no frame of the pod's tag: {seen:?}");
        ensure!(tunnelled || of(&b.tag.to_string()) > 0, "the answer comes past the hypervisor: {seen:?}");
        ensure!(of("tagged") == 0, "a tag on the fabric: {seen:?}");
        ensure!(!tunnelled || of("tunnel") > 0, "nothing in the tunnel: {seen:?}");
    }
    Ok(())
}

/// By the ports that hosts have beside their pods: VM and pods are in one routed network.
fn a_host_reaches_the_other(lab: &Lab) -> Result<()> {
    let [one, two] = ["node1", "node2"].map(|node| lab.scene(node));
    let text = two?.checked(&["ip", "-4", "-o", "address", "show", "ovn-k8s-mp0"])?;
    let address = text.split_whitespace().find_map(|word| word.split_once('/')?.0.parse::<IpAddr>().ok());
    let address = address.with_context(|| format!("no address in {text}"))?;
    one?.place().run(|| Target::Ping(address).check(LIMIT)).with_context(|| format!("no answer of {address}"))?;
    Ok(())
}

/// A daemon that starts again finds its ports, and changes nothing.
async fn a_daemon_restarts(lab: &Lab) -> Result<()> {
    let db = lab.layout().ovs("node1");
    let ports =
        || lab.exec_node("node1", &["ovs-vsctl", &format!("--db={db}"), "--columns=_uuid,name,tag", "list", "port"]);
    let sorted = |text: String| text.split("\n\n").map(|row| row.trim().to_owned()).collect::<BTreeSet<_>>();
    let before = sorted(ports()?);
    lab.kill("node1/ovenbird-node")?;
    lab.start("node1/ovenbird-node")?;
    lab.apply(&pods::pod(NAMESPACE, "late", "node1")).await?;
    lab.await_running(NAMESPACE).await?;
    let after = sorted(ports()?);
    ensure!(before.is_subset(&after) && after.len() == before.len() + 1, "before {before:#?}\nafter {after:#?}");
    Ok(())
}

/// While the hypervisor's ovn-controller sleeps a pod is plugged in, but not told to run; once it does, it is reached.
async fn add_waits_for_the_hypervisor(lab: &Lab) -> Result<()> {
    lab.pause("hv1/ovn-controller")?;
    lab.apply(&pods::pod(NAMESPACE, "waits", "node1")).await?;
    let db = format!("--db={}", lab.layout().ovs("node1"));
    let find =
        ["ovs-vsctl", &db, "--bare", "--columns=ofport", "find", "interface", "external_ids:iface-id=nested_waits"];
    let made = || lab.exec_node("node1", &find).is_ok_and(|text| text.trim().parse().is_ok_and(|port: u16| port > 0));
    wait_for("the port to be made in the VM", LIMIT, made)?;
    let api = pods::api(lab, NAMESPACE).await?;
    let phase = |pod: Pod| pod.status.and_then(|status| status.phase);
    ensure!(phase(api.get("waits").await?).as_deref() != Some("Running"), "it runs before its port is bound");
    lab.resume("hv1/ovn-controller")?;
    lab.await_running(NAMESPACE).await?;
    let waits = inside(lab, "waits").await?;
    inside(lab, "a-node1").await?.place.run(|| Target::Ping(waits.address).check(PATIENCE)).map(drop)
}

/// The hypervisor stops what a policy denies, between two pods of one VM too.
async fn a_policy(lab: &Lab) -> Result<()> {
    let [a, b] = [inside(lab, "a-node1").await?, inside(lab, "b-node1").await?];
    let answers = || a.place.run(|| Target::Ping(b.address).check(PATIENCE)).is_ok();
    ensure!(answers(), "no answer before the policy");
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": "closed"}, "spec": spec,
    });
    lab.apply(&policy.to_string()).await?;
    wait_for("the policy to stop what passes in one VM", LIMIT, || !answers())?;
    lab.delete(&policy.to_string()).await?;
    wait_for("the policy to be gone", LIMIT, answers)
}

/// A pod that was deleted by force, while its kubelet sleeps: its port in the VM is there, and reaches nobody; its tag is no other pod's.
async fn what_is_gone_is_cut_off(lab: &Lab) -> Result<()> {
    let [a, b] = [inside(lab, "a-node1").await?, inside(lab, "b-node1").await?];
    let reaches = || a.place.run(|| Target::Ping(b.address).check(PATIENCE)).is_ok();
    ensure!(reaches(), "no answer before it is deleted");
    lab.pause("node1/kubelet")?;
    let api = pods::api(lab, NAMESPACE).await?;
    api.delete("a-node1", &DeleteParams::default().grace_period(0)).await.context("deleting a pod by force")?;
    wait_for("the pod to be cut off", LIMIT, || !reaches())?;
    lab.apply(&pods::pod(NAMESPACE, "next", "node1")).await?;
    let chosen =
        await_condition(api.clone(), "next", |pod: Option<&Pod>| pod.is_some_and(|pod| network(pod).is_some()));
    let next = timeout(LIMIT, chosen).await.context("no tag is chosen for the next pod")?.context("watching a pod")?;
    let (_, next) = next.as_ref().and_then(network).context("the next pod has no tag")?;
    lab.resume("node1/kubelet")?;
    ensure!(next != a.tag, "the next pod has tag {} of one that is still there", a.tag);
    lab.await_running(NAMESPACE).await
}

async fn inside(lab: &Lab, name: &str) -> Result<Inside> {
    let pod = pods::api(lab, NAMESPACE).await?.get(name).await.with_context(|| format!("reading {name}"))?;
    let (address, tag) = network(&pod).with_context(|| format!("{name} has no tag: {:?}", pod.metadata.annotations))?;
    Ok(Inside { place: lab.scene(&format!("{NAMESPACE}/{name}"))?.place().clone(), address, tag })
}

/// Address and tag of a pod, once they are chosen.
fn network(pod: &Pod) -> Option<(IpAddr, u16)> {
    let text = pod.metadata.annotations.as_ref()?.get("k8s.ovn.org/pod-networks")?;
    let network = &serde_json::from_str::<Value>(text).ok()?["default"];
    let address = network["ip_addresses"][0].as_str()?.split('/').next()?.parse().ok()?;
    Some((address, u16::try_from(network["tag"].as_u64()?).ok()?))
}

/// Counts what comes in by a link.
fn counters(link: &str, rules: &str) -> String {
    format!("table netdev wire {{ chain in {{ type filter hook ingress device \"{link}\" priority 0; {rules} }}; }}")
}

/// Frames by the rules' comments.
fn counts(list: &str) -> Result<BTreeMap<String, u64>> {
    let list: Value = serde_json::from_str(list).context("reading counters")?;
    let rules = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["rule"]);
    let of = |rule: &Value| {
        let counter = rule["expr"].as_array()?.iter().find_map(|part| part["counter"]["packets"].as_u64())?;
        Some((rule["comment"].as_str()?.to_owned(), counter))
    };
    Ok(rules.filter_map(of).collect())
}
