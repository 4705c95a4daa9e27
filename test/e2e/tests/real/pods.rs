//! What kubelet and API server do with single pods: probes, exec, logs, port-forward, cp, static pods, pods of the host's network, and
//! one on every node.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ovenbird_e2e::real::{
    Running, await_northbound_of_pods, await_object, await_ports_of_pods, container, echo, in_pod, ips, is, kubectl,
    lab, pod, reach,
};
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_kube::version::{AGNHOST, BUSYBOX};
use ovenbird_lab::probe::PORT;
use ovenbird_lab::{Family, Lab, Progress, wait_for};
use serde_json::json;

/// Where the kubelet looks for pods of its own.
const MANIFEST: &str = "/etc/kubernetes/manifests/static.json";
/// Of the host's network, where 8080 is easily taken.
const HOST_PORT: u16 = 18080;
/// Enough to fill every buffer on the way a few times.
const BYTES: usize = 4 << 20;

const PROBES: &str = "probes";

#[tokio::test(flavor = "multi_thread")]
async fn what_kubelet_and_api_server_do_with_pods() -> Result<()> {
    let Some(lab) = lab("e2e-pods", Family::Dual).await? else { return Ok(()) };
    let progress = Progress::shown();
    on_every_node(&lab).await.context("DaemonSet")?;
    progress.step("a DaemonSet");
    probes(&lab).await.context("probes")?;
    progress.step("probes");
    through_the_api_server(&lab).await.context("exec, logs, port-forward, cp")?;
    progress.step("exec, logs, port-forward, cp");
    host_network(&lab).await.context("host network")?;
    progress.step("the host's network");
    static_pod(&lab).await.context("static pod")?;
    progress.step("a static pod");
    await_northbound_of_pods(&lab)?;
    northbound::equals_from_scratch(&lab)
}

async fn on_every_node(lab: &Lab) -> Result<()> {
    const SPACE: &str = "each";
    lab.namespace(SPACE).await?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each", "namespace": SPACE},
        "spec": {"selector": {"matchLabels": {"app": "each"}}, "template": {
            "metadata": {"labels": {"app": "each"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [echo()]},
        }},
    });
    lab.apply(&set.to_string()).await?;
    let ready = |set: Option<&DaemonSet>| {
        let status = set.and_then(|set| set.status.as_ref());
        status.is_some_and(|status| (status.desired_number_scheduled, status.number_ready) == (2, 2))
    };
    await_object(lab, SPACE, "each", ready).await?;
    reach(lab, SPACE).await?;
    lab.delete(&set.to_string()).await?;
    await_no_pod(lab, SPACE)?;
    ["node1", "node2"].iter().try_for_each(|node| await_ports_of_pods(lab, node))?;
    await_northbound_of_pods(lab)
}

/// HTTP, TCP, gRPC and exec, for start, readiness and liveness. What fails must fail by the pod's own answer: a refused connection,
/// not one that timed out.
async fn probes(lab: &Lab) -> Result<()> {
    let files = |path: &str, threshold: u16| json!({"periodSeconds": 1, "failureThreshold": threshold, "httpGet": {"path": path, "port": 80}});
    let mut web = container(BUSYBOX, &["sh", "-c", "mkdir /www; touch /www/alive; exec httpd -f -p 80 -h /www"]);
    web["startupProbe"] = files("/started", 1000);
    web["readinessProbe"] = files("/ready", 1);
    web["livenessProbe"] = files("/alive", 1);
    let mut grpc = container(AGNHOST, &["/agnhost", "grpc-health-checking"]);
    grpc["readinessProbe"] = json!({"periodSeconds": 1, "grpc": {"port": 5000}});
    let mut tcp = container(BUSYBOX, &["sleep", "100000"]);
    tcp["readinessProbe"] = json!({"periodSeconds": 1, "failureThreshold": 1, "tcpSocket": {"port": 81}});
    let mut exec = container(BUSYBOX, &["sleep", "100000"]);
    exec["readinessProbe"] = json!({"periodSeconds": 1, "exec": {"command": ["test", "-e", "/tmp/ready"]}});
    lab.namespace(PROBES).await?;
    for (name, container) in [("web", web), ("grpc", grpc), ("tcp", tcp), ("exec", exec)] {
        lab.apply(&pod(PROBES, name, json!({"nodeName": "node1", "containers": [container]}))).await?;
    }
    await_object(lab, PROBES, "grpc", is(|grpc| grpc.ready)).await?;

    let before = http_probes(lab).await?;
    in_pod(lab, PROBES, "web", "rm /www/alive")?;
    await_object(lab, PROBES, "web", is(|web| web.restart_count == 1 && web.started == Some(false))).await?;
    in_pod(lab, PROBES, "web", "touch /www/started /www/ready")?;
    await_object(lab, PROBES, "web", is(|web| web.ready)).await?;
    ensure!(addresses(lab, PROBES, "web").await? == before, "the addresses are not those from before: {before:?}");

    await_object(lab, PROBES, "tcp", is(|tcp| tcp.started == Some(true))).await?;
    let refused = || {
        kubectl(lab, &["-n", PROBES, "get", "events"])
            .is_ok_and(|events| events.contains(":81: connect: connection refused"))
    };
    wait_for("the closed port to refuse", LIMIT, refused)?;
    let _listener = Running::kubectl(lab, &["-n", PROBES, "exec", "tcp", "--", "nc", "-ll", "-p", "81", "-e", "cat"])?;
    await_object(lab, PROBES, "tcp", is(|tcp| tcp.ready)).await?;

    await_object(lab, PROBES, "exec", is(|exec| exec.started == Some(true) && !exec.ready)).await?;
    in_pod(lab, PROBES, "exec", "touch /tmp/ready")?;
    await_object(lab, PROBES, "exec", is(|exec| exec.ready)).await
}

/// Start and readiness; returns the pod's addresses.
async fn http_probes(lab: &Lab) -> Result<Vec<IpAddr>> {
    await_object(
        lab,
        PROBES,
        "web",
        is(|web| web.state.as_ref().is_some_and(|state| state.running.is_some()) && web.started == Some(false)),
    )
    .await?;
    in_pod(lab, PROBES, "web", "touch /www/started")?;
    await_object(lab, PROBES, "web", is(|web| web.started == Some(true) && !web.ready)).await?;
    in_pod(lab, PROBES, "web", "touch /www/ready")?;
    await_object(lab, PROBES, "web", is(|web| web.ready)).await?;
    in_pod(lab, PROBES, "web", "rm /www/ready")?;
    await_object(lab, PROBES, "web", is(|web| !web.ready)).await?;
    addresses(lab, PROBES, "web").await
}

/// All that the API server asks a kubelet for, with checked data.
async fn through_the_api_server(lab: &Lab) -> Result<()> {
    const SPACE: &str = "streams";
    lab.namespace(SPACE).await?;
    let echoes = format!("seq 3; nc -ll -p {PORT} -e cat & exec sleep 100000");
    lab.apply(&pod(SPACE, "box", json!({"containers": [container(BUSYBOX, &["sh", "-c", &echoes])]}))).await?;
    await_object(lab, SPACE, "box", is(|it| it.ready)).await?;
    let data = data();

    let mut exec =
        Running::kubectl(lab, &["-n", SPACE, "exec", "-i", "box", "--", "sh", "-c", "md5sum; wc -c < /etc/passwd"])?;
    exec.feed(&data)?;
    let here = lab.layout().home("central").join("data").display().to_string();
    fs::write(&here, &data)?;
    let sum = lab.exec_node("central", &["md5sum", &here])?;
    ensure!(exec.line()?.split_whitespace().next() == sum.split_whitespace().next(), "exec lost data");

    kubectl(lab, &["-n", SPACE, "cp", &here, "box:/tmp/data"])?;
    let back = format!("{here}.back");
    kubectl(lab, &["-n", SPACE, "cp", "box:/tmp/data", &back])?;
    ensure!(fs::read(&back)? == data, "cp lost data");

    let follower = Running::kubectl(lab, &["-n", SPACE, "logs", "-f", "box"])?;
    for line in ["1", "2", "3"] {
        ensure!(follower.line()? == line);
    }
    in_pod(lab, SPACE, "box", "echo later > /proc/1/fd/1")?;
    ensure!(follower.line()? == "later");
    ensure!(kubectl(lab, &["-n", SPACE, "logs", "box"])? == "1\n2\n3\nlater\n");

    let forward = Running::kubectl(lab, &["-n", SPACE, "port-forward", "box", &format!(":{PORT}")])?;
    let line = forward.line()?;
    let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split_whitespace().next());
    let address: SocketAddr = address.with_context(|| format!("no address in {line:?}"))?.parse()?;
    let stream = lab.layout().place("central").run(|| Ok(TcpStream::connect(address)?))?;
    ensure!(echoed(stream, &data)? == data, "port-forward lost data");
    Ok(())
}

/// Sends and receives at once.
fn echoed(mut stream: TcpStream, data: &[u8]) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = stream.try_clone()?;
    let mut back = vec![0; data.len()];
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| stream.write_all(data));
        let received = reader.read_exact(&mut back).context("reading the echo");
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?.context("sending")?;
        received
    })?;
    Ok(back)
}

/// No two pages alike.
fn data() -> Vec<u8> {
    (0..BYTES as u32 / 4).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect()
}

async fn host_network(lab: &Lab) -> Result<()> {
    const SPACE: &str = "hosts";
    lab.namespace(SPACE).await?;
    let listener = container(BUSYBOX, &["nc", "-ll", "-p", &HOST_PORT.to_string(), "-e", "cat"]);
    let host = json!({"nodeName": "node1", "hostNetwork": true, "containers": [listener]});
    lab.apply(&pod(SPACE, "host", host)).await?;
    for (name, node) in [("near", "node1"), ("far", "node2")] {
        lab.apply(&pod(SPACE, name, json!({"nodeName": node, "containers": [echo()]}))).await?;
    }
    for name in ["host", "near", "far"] {
        await_object(lab, SPACE, name, is(|it| it.ready)).await?;
    }
    await_northbound_of_pods(lab)?;
    let annotations = kubectl(lab, &["-n", SPACE, "get", "pod", "host", "-o", "jsonpath={.metadata.annotations}"])?;
    ensure!(annotations.is_empty(), "a pod of the host's network has {annotations}");
    for name in ["near", "far"] {
        for address in lab.layout().options.node_addresses(1) {
            echo_in_pod(lab, SPACE, name, SocketAddr::new(address, HOST_PORT))?;
        }
        for address in addresses(lab, SPACE, name).await? {
            echo_in_pod(lab, SPACE, "host", SocketAddr::new(address, PORT))?;
        }
    }
    Ok(())
}

fn echo_in_pod(lab: &Lab, namespace: &str, from: &str, to: SocketAddr) -> Result<()> {
    let answer = in_pod(lab, namespace, from, &format!("echo hello | nc -w 10 {} {}", to.ip(), to.port()))?;
    ensure!(answer == "hello\n", "{from} got {answer:?} from {to}");
    Ok(())
}

/// A pod that only its kubelet knows, and the mirror of it in the API.
async fn static_pod(lab: &Lab) -> Result<()> {
    const SPACE: &str = "static";
    lab.namespace(SPACE).await?;
    let node = lab.layout().inside("node1");
    let manifest = pod(SPACE, "alone", json!({"containers": [echo()]}));
    lab.apply(&pod(SPACE, "other", json!({"nodeName": "node2", "containers": [echo()]}))).await?;
    node.run(|| Ok(fs::write(MANIFEST, manifest)?))?;
    for name in ["alone-node1", "other"] {
        await_object(lab, SPACE, name, is(|it| it.ready)).await?;
    }
    await_northbound_of_pods(lab)?;
    reach(lab, SPACE).await?;
    // The mirror is made anew, for the pod that runs on.
    let (first, netns) =
        (pods::api(lab, SPACE).await?.get("alone-node1").await?.uid(), netns(lab, SPACE, "alone-node1")?);
    kubectl(lab, &["-n", SPACE, "delete", "pod", "alone-node1"])?;
    // A kubelet that starts makes missing mirrors at once, and not within a minute.
    lab.kill("node1/kubelet")?;
    lab.start("node1/kubelet")?;
    let anew = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.uid() != first && !ips(pod).is_empty());
    await_object(lab, SPACE, "alone-node1", anew).await?;
    ensure!(self::netns(lab, SPACE, "alone-node1")? == netns, "the static pod was started anew");
    await_northbound_of_pods(lab).context("the mirror was deleted")?;
    ["node1", "node2"].iter().try_for_each(|node| forget_flows(lab, node))?;
    reach(lab, SPACE).await.context("the mirror was deleted")?;
    node.run(|| Ok(fs::remove_file(MANIFEST)?))?;
    pods::await_gone(&pods::api(lab, SPACE).await?, "alone-node1").await?;
    await_northbound_of_pods(lab)?;
    await_ports_of_pods(lab, "node1")
}

/// Has the switch of a node compute the flows of its datapath anew. Open vSwitch before 3.1.3 (and 3.2.0) may keep one that says `drop` for
/// good when OpenFlow rules leave and come back below traffic that goes on: its userspace datapath gives the new actions to another flow
/// that overlaps (mended by its commit "dpif-netdev: Fix dpif_netdev_flow_put"). What the OpenFlow tables say is not touched.
fn forget_flows(lab: &Lab, node: &str) -> Result<()> {
    let home = lab.layout().home(node).display().to_string();
    let purge = format!("for ctl in {home}/ovs-vswitchd.*.ctl; do ovs-appctl -t $ctl revalidator/purge; done");
    lab.exec_node(node, &["sh", "-c", &purge]).map(drop)
}

async fn addresses(lab: &Lab, namespace: &str, name: &str) -> Result<Vec<IpAddr>> {
    pods::ips(&pods::api(lab, namespace).await?, name).await
}

fn await_no_pod(lab: &Lab, namespace: &str) -> Result<()> {
    wait_for("pods to go", LIMIT, || {
        kubectl(lab, &["-n", namespace, "get", "pods", "-o", "name"]).is_ok_and(|text| text.is_empty())
    })
}

fn netns(lab: &Lab, namespace: &str, name: &str) -> Result<Option<String>> {
    Ok(lab.scene(&format!("{namespace}/{name}"))?.place().netns.clone())
}
