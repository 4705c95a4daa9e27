//! What OVN does in the overlay and the node itself here: the lot by weights, limits of bandwidth, SCTP by every door, the log of policies.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use ovenbird_e2e::service::{ask, respond, service, slices};
use ovenbird_e2e::witness::Protocol;
use ovenbird_e2e::{LIMIT, pods, pour, sctp};
use ovenbird_lab::{Family, Lab, Place, testing, wait_for};
use serde_json::{Value, json};

use super::options;

const NAMESPACE: &str = "features";
/// Ports of the SCTP endpoint and its Service, of the node for both.
const SCTP: [u16; 3] = [7002, 30702, 9702];
/// Questions of which the shares are taken.
const MANY: usize = 300;
/// Bits a second that a limited pod may have, and bytes that are sent to it.
const LIMITED: (u64, usize) = (8_000_000, 5_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_does_itself() -> Result<()> {
    let Some(lab) = testing::lab("e2e-cl-own", options(2, Family::Dual, &[])).await? else { return Ok(()) };
    let limit = |way: &str| json!({format!("kubernetes.io/{way}-bandwidth"): LIMITED.0.to_string()});
    let sctp = json!([{"containerPort": SCTP[0], "hostPort": SCTP[2], "protocol": "SCTP"}]);
    let all = [
        pod("heavy", "node1", &json!({"ovenbird.io/weight": "4"}), &json!([])),
        pod("light", "node2", &json!({}), &sctp),
        pod("client", "node1", &json!({}), &json!([])),
        pod("slow-in", "node1", &limit("ingress"), &json!([])),
        pod("slow-out", "node1", &limit("egress"), &json!([])),
    ];
    lab.apply(&(pods::namespace(NAMESPACE) + &all.concat())).await?;
    lab.await_running(NAMESPACE).await?;
    shares_follow_weights(&lab).await.context("shares by weights")?;
    limits_hold(&lab).await.context("limits of bandwidth")?;
    sctp_by_every_door(&lab).await.context("SCTP")
}

/// A lot of four to one, and then, as the annotations are the other way round, of one to four.
async fn shares_follow_weights(lab: &Lab) -> Result<()> {
    let (names, mut endpoints) = ([("heavy", "node1"), ("light", "node2")], Vec::new());
    for (name, node) in names {
        endpoints.extend(ips(lab, name).await?.into_iter().map(|ip| (node, ip)));
        respond(&scene(lab, name)?, name)?;
    }
    let vips: Vec<IpAddr> = vec!["10.96.0.41".parse()?, "fd00:10:96::41".parse()?];
    let scheduler = json!({"ovenbird.io/scheduler": "wrr"});
    lab.apply(&(service(NAMESPACE, "lot", &vips, &scheduler, json!({})) + &slices(NAMESPACE, "lot", &endpoints)))
        .await?;
    let client = scene(lab, "client")?;
    let share = |to: SocketAddr| -> Result<usize> {
        let answers = (0..MANY).map(|_| ask(&client, Protocol::Tcp, to));
        Ok(answers.collect::<Result<Vec<_>>>()?.iter().filter(|answer| answer.name() == "heavy").count())
    };
    // Five standard deviations of a lot of 4 to 1.
    let around = |expected: usize| (expected - 35)..=(expected + 35);
    for (expected, weights) in [(MANY * 4 / 5, None), (MANY / 5, Some([("heavy", "1"), ("light", "4")]))] {
        for (name, weight) in weights.iter().flatten() {
            let patch = json!({"metadata": {"annotations": {"ovenbird.io/weight": weight}}});
            let api = pods::api(lab, NAMESPACE).await?;
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.context("weighing a pod anew")?;
        }
        for to in vips.iter().map(|ip| SocketAddr::new(*ip, 80)) {
            let mut seen = 0;
            wait_for("the share to follow", LIMIT, || {
                seen = share(to).unwrap_or_default();
                around(expected).contains(&seen)
            })
            .with_context(|| format!("{to}: {seen} of {MANY} times, expected {expected}"))?;
            println!("{to}: {seen} of {MANY} went to the pod whose share is {expected}");
        }
    }
    Ok(())
}

/// No more than its limit comes to a pod, and from one, however much is sent: by the clock, which knows no upper end.
async fn limits_hold(lab: &Lab) -> Result<()> {
    let (bits, bytes) = LIMITED;
    let rate = bits / 8;
    // The rate of a second, and the burst.
    let at_once = rate + rate / 10 + (2 << 16);
    let least = Duration::from_secs_f64((bytes as f64 - at_once as f64) / rate as f64);
    for (from, to, limited) in [
        ("client", "heavy", false),
        ("client", "slow-in", true),
        ("slow-out", "client", true),
        ("slow-out", "light", true),
    ] {
        for ip in ips(lab, to).await? {
            let took = pour::pour(&scene(lab, from)?, &scene(lab, to)?, ip, bytes)?;
            println!("{from} to {to}, {ip}: {bytes} bytes in {took:.2?}; with a limit not before {least:.2?}");
            ensure!(!limited || took >= least, "{from} to {to}: {took:?} is too fast");
        }
    }
    Ok(())
}

/// INIT and INIT ACK by cluster address, node port and host port: to the endpoint at its own port, and back from where the client asked.
async fn sctp_by_every_door(lab: &Lab) -> Result<()> {
    let [own, node_port, host_port] = SCTP;
    let options = &lab.layout().options;
    let vips: Vec<IpAddr> = vec!["10.96.0.42".parse()?, "fd00:10:96::42".parse()?];
    let endpoints = ips(lab, "light").await?;
    let port = json!([{"name": "sctp", "protocol": "SCTP", "port": own + 1, "targetPort": own, "nodePort": node_port}]);
    let spec = json!({"type": "NodePort", "ports": port});
    lab.apply(&(service(NAMESPACE, "sctp", &vips, &json!({}), spec) + &sctp_slices(own, &endpoints))).await?;
    let client = ips(lab, "client").await?;
    for (family, endpoint) in endpoints.iter().enumerate() {
        let seen = sctp::stand(&scene(lab, "light")?, *endpoint)?;
        let outside = options.outside_addresses()[family];
        let node = |index: u16| options.node_addresses(index)[family];
        let far = options.beyond_addresses()[family];
        for (name, from, at, to, port, keeps) in [
            ("ClusterIP", "client", client[family], vips[family], own + 1, true),
            ("NodePort", "outside", outside, node(1), node_port, false),
            ("NodePort of the endpoint's node", "outside", outside, node(2), node_port, false),
            ("hostPort", "outside", far, node(2), host_port, true),
            ("hostPort, of the node itself", "node2", node(2), node(2), host_port, true),
        ] {
            let (from, to) = (scene(lab, from)?, SocketAddr::new(to, port));
            let mut answer = None;
            wait_for("an INIT ACK", LIMIT, || {
                let asked = sctp::ask(&from, SocketAddr::new(at, 5702), to, Duration::from_secs(1));
                answer = asked.ok().flatten();
                answer.is_some()
            })
            .with_context(|| format!("{name}: {to} does not answer {at}"))?;
            let answer = answer.context("no answer")?;
            let came = seen.try_iter().last().with_context(|| format!("{name}: who answered {at}?"))?;
            println!("SCTP {name} {to}: the endpoint saw {} at port {}, {} answered", came.from, came.to, answer.from);
            ensure!(answer.from == to, "{name}: {} answers", answer.from);
            ensure!(came.to == own && came.intact && answer.intact, "{name}: {came:?}, {answer:?}");
            ensure!((came.from.ip() == at) == keeps, "{name}: the endpoint saw {came:?}");
        }
    }
    Ok(())
}

fn sctp_slices(port: u16, ips: &[IpAddr]) -> String {
    let slice = |(ip, family): (&IpAddr, &str)| {
        let metadata = json!({
            "namespace": NAMESPACE, "name": format!("sctp-{}", family.to_lowercase()), "labels": {"kubernetes.io/service-name": "sctp"},
        });
        let endpoint = json!({"addresses": [ip], "nodeName": "node2", "conditions": {"ready": true}});
        let ports = json!([{"name": "sctp", "port": port, "protocol": "SCTP"}]);
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": family,
            "endpoints": [endpoint], "ports": ports,
        });
        format!("---\n{slice}\n")
    };
    ips.iter().zip(["IPv4", "IPv6"]).map(slice).collect()
}

fn pod(name: &str, node: &str, annotations: &Value, ports: &Value) -> String {
    let container = json!({"name": "c", "image": "none", "command": ["ovenbird-lab", "probe-server"], "ports": ports});
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let metadata = json!({"name": name, "namespace": NAMESPACE, "annotations": annotations});
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

async fn ips(lab: &Lab, pod: &str) -> Result<Vec<IpAddr>> {
    pods::ips(&pods::api(lab, NAMESPACE).await?, pod).await
}

fn scene(lab: &Lab, name: &str) -> Result<Place> {
    let pod = format!("{NAMESPACE}/{name}");
    let is_host = name == "outside" || name.starts_with("node");
    Ok(lab.scene(if is_host { name } else { &pod })?.place().clone())
}
