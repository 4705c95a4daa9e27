//! Where Ovenbird's annotations meet what others do to pods: finished pods keep theirs, webhooks are slow or refuse them, and another
//! CNI has left thousands of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use ovenbird_e2e::real::{
    await_northbound_of_pods, await_object, await_ports_of_pods, container, echo, in_pod, ips, is, kubectl, pod, reach,
};
use ovenbird_e2e::{LIMIT, northbound};
use ovenbird_kube::Cache;
use ovenbird_kube::version::BUSYBOX;
use ovenbird_lab::probe::PORT;
use ovenbird_lab::{Api as ApiServer, Family, Lab, Options, Progress, Spec, testing, wait_for};
use serde_json::{Value, json};

/// Twelve pods on each node.
const SUBNETS: &str = "10.244.0.0/22/28";
const POD_NETWORKS: &str = "k8s.ovn.org/pod-networks";
const WEBHOOKS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9443);
/// Annotations that others have left.
const LEFT: usize = 5000;
/// On each pod of those: of ovn-kubernetes in another network and without what we need, of Kube-OVN, Calico and Multus.
const FOREIGN_POD: [(&str, &str); 4] = [
    (POD_NETWORKS, r#"{"default":{"ip_addresses":["10.128.5.7/23"],"gateway_ips":["10.128.4.1"]}}"#),
    ("ovn.kubernetes.io/ip_address", "10.16.0.9"),
    ("cni.projectcalico.org/podIP", "192.168.7.7/32"),
    ("k8s.v1.cni.cncf.io/network-status", r#"[{"name":"cbr0","ips":["10.128.5.7"],"default":true}]"#),
];
const FOREIGN_NODE: [(&str, &str); 5] = [
    ("k8s.ovn.org/zone-name", "global"),
    ("k8s.ovn.org/node-transit-switch-port-ifaddr", "100.88.0.2/16"),
    ("ovn.kubernetes.io/allocated", "true"),
    ("projectcalico.org/IPv4Address", "172.30.0.99/24"),
    ("flannel.alpha.coreos.com/public-ip", "172.30.0.98"),
];
const NODES: [&str; 2] = ["node1", "node2"];

#[tokio::test(flavor = "multi_thread")]
async fn annotations_meet_what_others_do() -> Result<()> {
    let options = Options {
        nodes: 2,
        family: Family::V4,
        api: ApiServer::Real,
        cluster_subnets: Some(SUBNETS.into()),
        ..Options::default()
    };
    let Some(lab) = testing::lab("e2e-annotations", options).await? else { return Ok(()) };
    let progress = Progress::shown();
    finished_pods(&lab).await.context("Job")?;
    progress.step("finished pods");
    webhooks(&lab).await.context("webhooks")?;
    progress.step("webhooks");
    northbound::equals_from_scratch(&lab)?;
    leftovers(&lab).await.context("leftovers of another CNI")
}

/// More pods than there are addresses, one after another: each gives its own back when it is done, though its object stays.
async fn finished_pods(lab: &Lab) -> Result<()> {
    const SPACE: &str = "jobs";
    const PODS: i32 = 40;
    lab.namespace(SPACE).await?;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "many", "namespace": SPACE},
        "spec": {"completions": PODS, "parallelism": 8, "template": {
            "spec": {"restartPolicy": "Never", "containers": [container(BUSYBOX, &["true"])]},
        }},
    });
    lab.apply(&job.to_string()).await?;
    for count in (10..=PODS).step_by(10) {
        let done = |job: Option<&Job>| job.and_then(|job| job.status.as_ref()?.succeeded).is_some_and(|n| n >= count);
        await_object(lab, SPACE, "many", done).await?;
    }
    await_northbound_of_pods(lab)?;
    NODES.iter().try_for_each(|node| await_ports_of_pods(lab, node))?;
    let pods = Api::<Pod>::namespaced(lab.client().await?, SPACE).list(&ListParams::default()).await?.items;
    let addresses: BTreeSet<_> = pods.iter().flat_map(ips).collect();
    ensure!(pods.len() == PODS as usize && addresses.len() <= 24, "{} pods at {addresses:?}", pods.len());
    ensure!(pods.iter().all(|pod| pod.annotations().contains_key(POD_NETWORKS)), "annotations are gone");
    // Their annotations say of one address that it is several pods'; none of these has a port, so nobody complains.
    restart_master(lab)?;
    lab.apply(&pod(SPACE, "later", json!({"nodeName": "node1", "containers": [echo()]}))).await?;
    await_object(lab, SPACE, "later", is(|pod| pod.ready)).await?;
    await_northbound_of_pods(lab)?;
    ensure!(our_events(lab)?.is_empty(), "{:?}", our_events(lab)?);
    reach(lab, SPACE).await
}

/// Each write of a pod of one namespace takes seconds; and one pod's annotation is refused. Nobody else waits for either.
async fn webhooks(lab: &Lab) -> Result<()> {
    const SLOW: &str = "slow";
    const OTHERS: &str = "others";
    lab.namespace(SLOW).await?;
    lab.namespace(OTHERS).await?;
    let log = start_webhooks(lab)?;
    let mut slow = Vec::new();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let mut webhook = webhook(lab, kind, "slow", "always-allow-delay-5s", &["pods", "pods/status"])?;
        webhook["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": SLOW}});
        webhook["webhooks"][0]["failurePolicy"] = json!("Ignore");
        lab.apply(&webhook.to_string()).await?;
        slow.push(webhook.to_string());
    }
    let calls = || fs::read_to_string(&log).unwrap_or_default().matches("handling request").count();
    let trial = ["-n", SLOW, "run", "trial", "--image=none", "--dry-run=server"];
    wait_for("both slow webhooks to be called", LIMIT, || {
        let before = calls();
        kubectl(lab, &trial).is_ok() && calls() == before + 2
    })?;
    let mut refusing = webhook(lab, "ValidatingWebhookConfiguration", "refusing", "always-deny", &["pods"])?;
    refusing["webhooks"][0]["objectSelector"] = json!({"matchLabels": {"app": "refused"}});
    refusing["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    lab.apply(&labelled(OTHERS, "trial", json!({"schedulerName": "nobody", "containers": [echo()]}))?).await?;
    lab.apply(&refusing.to_string()).await?;
    let trial = ["-n", OTHERS, "annotate", "pod", "trial", "a=b", "--overwrite", "--dry-run=server"];
    wait_for("the webhook to refuse", LIMIT, || kubectl(lab, &trial).is_err())?;

    let names = ["a", "b", "c", "d"];
    let manifests: Vec<_> = names.iter().map(|name| pod(SLOW, name, json!({"containers": [echo()]}))).collect();
    futures::future::try_join_all(manifests.iter().map(|manifest| lab.apply(manifest))).await?;
    lab.apply(&labelled(OTHERS, "refused", json!({"containers": [echo()]}))?).await?;
    for name in names {
        lab.apply(&pod(OTHERS, name, json!({"containers": [echo()]}))).await?;
    }
    for (space, name) in [OTHERS, SLOW].iter().flat_map(|space| names.map(|name| (space, name))) {
        await_object(lab, space, name, is(|pod| pod.ready)).await?;
    }
    reach(lab, SLOW).await?;
    reach(lab, OTHERS).await?;
    ensure!(fs::read_to_string(&log)?.contains("ovenbird-master"), "no webhook has seen a write of the master");

    let told = || our_events(lab).unwrap_or_default();
    wait_for("an Event about the refusal", LIMIT, || !told().is_empty())?;
    let told = told();
    let says =
        |event: &String| event.starts_with("others/refused AnnotationRefused") && event.contains("denies all requests");
    ensure!(told.len() == 1 && told.iter().all(says), "{told:?}");
    lab.delete(&refusing.to_string()).await?;
    await_object(lab, OTHERS, "refused", is(|pod| pod.ready)).await?;
    lab.delete(&slow.join("\n---\n")).await?;
    kubectl(lab, &["delete", "namespace", SLOW, OTHERS, "--timeout=60s"])?;
    lab.kill("central/webhook")?;
    await_northbound_of_pods(lab)
}

/// A webhook for writes of pods, served by [`start_webhooks`].
fn webhook(lab: &Lab, kind: &str, name: &str, path: &str, resources: &[&str]) -> Result<Value> {
    let authority = fs::read(lab.layout().home("kubernetes").join("ca.crt")).context("reading the authority")?;
    Ok(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": [{
            "name": format!("{name}.example.org"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            // Below the five seconds after which the slow one would answer.
            "timeoutSeconds": 2,
            "clientConfig": {"url": format!("https://{WEBHOOKS}/{path}"), "caBundle": ByteString(authority)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}],
        }],
    }))
}

/// Upstream's webhooks beside the API server, with its certificate. Returns their log.
fn start_webhooks(lab: &Lab) -> Result<PathBuf> {
    let (layout, processes) = (lab.layout(), lab.layout().processes());
    let file = |name: &str| layout.home("kubernetes").join(name).display().to_string();
    let argv = vec![
        Cache::ready()?.bin().join("agnhost").display().to_string(),
        "webhook".into(),
        "-v=2".into(),
        format!("--port={}", WEBHOOKS.port()),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
    ];
    let (env, place) = (layout.env("central"), layout.place("central"));
    processes.start(Spec { name: "central/webhook".into(), argv, env, place: place.clone() })?;
    wait_for("the webhooks to listen", LIMIT, || place.run(|| Ok(TcpStream::connect(WEBHOOKS)?)).is_ok())?;
    Ok(processes.log_path("central/webhook"))
}

fn labelled(namespace: &str, name: &str, spec: Value) -> Result<String> {
    let mut pod: Value = serde_json::from_str(&pod(namespace, name, spec))?;
    pod["metadata"]["labels"] = json!({"app": "refused"});
    Ok(pod.to_string())
}

/// Annotations of other CNI plugins, of an earlier ovn-kubernetes among them, on pods that run nowhere, on finished and on living ones: they
/// stay as they are, and only who must have a port and cannot is told so.
async fn leftovers(lab: &Lab) -> Result<()> {
    const SPACE: &str = "leftovers";
    const NEW: &str = "newcomers";
    const LIVING: usize = 10;
    lab.namespace(SPACE).await?;
    lab.namespace(NEW).await?;
    for node in NODES {
        let marks = FOREIGN_NODE.map(|(key, value)| format!("{key}={value}"));
        kubectl(lab, &[&["annotate", "node", node][..], &marks.each_ref().map(String::as_str)].concat())?;
    }
    // Nobody runs it: its pods never change.
    lab.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}}).to_string()).await?;
    lab.stop("central/master")?;
    let pods = Api::<Pod>::namespaced(lab.client().await?, SPACE);
    let make = |index| make_leftover(pods.clone(), index, index < LIVING);
    stream::iter(0..LEFT / FOREIGN_POD.len()).map(make).buffer_unordered(32).try_collect::<Vec<_>>().await?;
    let before = annotations(&pods).await?;
    ensure!(before.values().map(BTreeMap::len).sum::<usize>() == LEFT, "{} pods", before.len());

    lab.start("central/master")?;
    for (name, node) in [("new1", NODES[0]), ("new2", NODES[1])] {
        lab.apply(&pod(NEW, name, json!({"nodeName": node, "containers": [echo()]}))).await?;
        await_object(lab, NEW, name, is(|pod| pod.ready)).await?;
    }
    // Not by the matrix: the ghost has no network to probe from.
    let to = kubectl(lab, &["-n", NEW, "get", "pod", "new2", "-o", "jsonpath={.status.podIP}"])?;
    let answer = in_pod(lab, NEW, "new1", &format!("echo hello | nc -w 10 {to} {PORT}"))?;
    ensure!(answer == "hello\n", "{answer:?} from {to}");
    let told = || our_events(lab).unwrap_or_default();
    let about = |told: &[String]| told.iter().filter(|event| event.starts_with("leftovers/")).count();
    wait_for("the living pods to be told", LIMIT, || about(&told()) >= LIVING)?;
    let told = told();
    ensure!(
        about(&told) == LIVING
            && told.iter().all(|event| event.contains("remove the annotation") || event.starts_with("others/refused")),
        "{told:#?}"
    );
    ensure!(annotations(&pods).await? == before, "annotations of others have changed");
    let nodes = kubectl(lab, &["get", "nodes", "-o", "json"])?;
    ensure!(
        FOREIGN_NODE.iter().all(|(key, value)| nodes.matches(&format!("\"{key}\": \"{value}\"")).count() == 2),
        "{nodes}"
    );
    let lines = fs::read_to_string(lab.layout().processes().log_path("central/master"))?.lines().count();
    ensure!(lines < 200, "{lines} lines of log");
    // As the Event says.
    kubectl(lab, &["-n", SPACE, "annotate", "pod", "left0", &format!("{POD_NETWORKS}-")])?;
    await_object(lab, SPACE, "left0", |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.annotations().contains_key(POD_NETWORKS))
    })
    .await
}

/// Living ones are bound to a node; of the others one half is done, the other never was scheduled.
async fn make_leftover(pods: Api<Pod>, index: usize, living: bool) -> Result<()> {
    let (name, annotations) = (format!("left{index}"), BTreeMap::from(FOREIGN_POD));
    let done = !living && index.is_multiple_of(2);
    let place = if living || done { json!({"nodeName": "ghost"}) } else { json!({"schedulerName": "nobody"}) };
    let mut spec: Value =
        json!({"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "none"}]});
    spec.as_object_mut().into_iter().for_each(|spec| spec.extend(place.as_object().cloned().unwrap_or_default()));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": spec});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await
        .with_context(|| format!("making {name}"))?;
    if done {
        let status = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        pods.patch_status(&name, &PatchParams::default(), &status).await.with_context(|| format!("ending {name}"))?;
    }
    Ok(())
}

async fn annotations(pods: &Api<Pod>) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let pods = pods.list(&ListParams::default()).await.context("listing pods")?;
    Ok(pods.into_iter().map(|pod| (pod.name_any(), pod.annotations().clone())).collect())
}

fn restart_master(lab: &Lab) -> Result<()> {
    lab.stop("central/master")?;
    lab.start("central/master")
}

/// What masters have said of objects: `NAMESPACE/NAME REASON NOTE`, sorted.
fn our_events(lab: &Lab) -> Result<Vec<String>> {
    let text = kubectl(lab, &["get", "events.events.k8s.io", "-A", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text).context("reading Events")?;
    let ours = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["reportingController"] == "ovenbird.io/master");
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut texts: Vec<_> = ours
        .map(|event| {
            let about = &event["regarding"];
            format!(
                "{}/{} {} {}",
                field(&about["namespace"]),
                field(&about["name"]),
                field(&event["reason"]),
                field(&event["note"])
            )
        })
        .collect();
    texts.sort();
    Ok(texts)
}
