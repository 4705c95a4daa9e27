//! An API server that is away, overloaded, without its database, or has forgotten the past; and clocks that jump. Traffic goes on, what
//! is pending waits, and everything comes right by itself within seconds.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use ovenbird_e2e::fault::await_api;
use ovenbird_e2e::real::{
    address, await_available, await_ports_of_pods, deployment, echo, ips, kubectl, lab, pods_on, reach, stream,
};
use ovenbird_e2e::stream::Stream;
use ovenbird_e2e::{LIMIT, northbound};
use ovenbird_lab::probe::PORT;
use ovenbird_lab::{Family, Lab, Spec, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "outages";
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Blocks of the stream between two events.
const BLOCKS: u64 = 200;
/// With these, our accounts may have one request under way (API Priority and Fairness).
const OVERLOAD: &str = include_str!("overload.yaml");
const OCCUPANT: &str = "central/occupant";
const FAKETIME: &str = "libfaketimeMT.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_is_away_and_forgets() -> Result<()> {
    let Some(lab) = lab_with_pods("e2e-away").await? else { return Ok(()) };
    api_server_away(&lab).await.context("API server away")?;
    forgotten_past(&lab).await.context("watches that end with 410")?;
    at_the_end(&lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_is_overloaded_and_clocks_jump() -> Result<()> {
    let Some(lab) = lab_with_pods("e2e-overload").await? else { return Ok(()) };
    overloaded(&lab).await.context("429")?;
    without_database(&lab).await.context("5xx")?;
    clocks_jump(&lab).await.context("clocks that jump")?;
    at_the_end(&lab)
}

async fn lab_with_pods(name: &str) -> Result<Option<Lab>> {
    let Some(lab) = lab(name, Family::Dual).await? else { return Ok(None) };
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment(NAMESPACE, "web", 4, &echo())).await?;
    await_available(&lab, NAMESPACE, "web").await?;
    Ok(Some(lab))
}

fn at_the_end(lab: &Lab) -> Result<()> {
    // An answer that an outage swallows must not make the master give an address twice.
    let told = kubectl(lab, &["get", "events", "-A"])?;
    ensure!(!told.contains("AddressInUse"), "{told}");
    northbound::equals_from_scratch(lab)
}

/// A minute without API server, under a stream, with pods that were created just before, a node daemon that restarts, and a sandbox
/// that dies.
async fn api_server_away(lab: &Lab) -> Result<()> {
    let web = pods_on(lab, NAMESPACE, "node2").await?;
    let [(dying, pod), (_, to)] = web.iter().take(2).collect::<Vec<_>>()[..] else { bail!("{} pods", web.len()) };
    let stream = running_stream(lab, address(to)?).await?;
    lab.apply(&deployment(NAMESPACE, "pending", 6, &echo())).await?;
    await_scheduled(lab, "pending", 6).await?;
    lab.kill("central/kube-apiserver")?;
    let back = Instant::now() + AWAY;
    lab.kill("node1/ovenbird-node")?;
    lab.start("node1/ovenbird-node")?;
    sandbox_dies(lab, "node2", dying)?;
    let target = format!("tcp:{}", SocketAddr::new(address(pod)?, PORT));
    lab.exec_node("node1", &["ovenbird-lab", "probe", "--timeout", "30", &target])
        .context("a pod whose sandbox was made anew")?;
    while Instant::now() < back {
        stream.await_blocks(BLOCKS)?;
    }
    lab.start("central/kube-apiserver")?;
    stream.await_blocks(BLOCKS)?;
    await_api(lab)?;
    await_ready(lab, "pending", 6).await?;
    stream.await_blocks(BLOCKS)?;
    stream.stop().context("the stream")?;
    await_ready(lab, "web", 4).await?;
    reach(lab, NAMESPACE).await?;
    go(lab, "pending").await
}

/// Both watch caches and etcd forget what happened while our daemons did not look: pods that came and went.
async fn forgotten_past(lab: &Lab) -> Result<()> {
    lab.apply(&deployment(NAMESPACE, "goes", 2, &echo())).await?;
    await_available(lab, NAMESPACE, "goes").await?;
    let ours = ["central/master", "node1/ovenbird-node", "node2/ovenbird-node"];
    ours.iter().try_for_each(|daemon| lab.pause(daemon))?;
    kubectl(lab, &["-n", NAMESPACE, "delete", "pod", "-l", "app=goes", "--force", "--grace-period=0"])?;
    kubectl(lab, &["-n", NAMESPACE, "delete", "deployment", "goes"])?;
    lab.apply(&deployment(NAMESPACE, "comes", 2, &echo())).await?;
    await_scheduled(lab, "comes", 2).await?;
    lab.kill("central/kube-apiserver")?;
    compact(lab)?;
    lab.start("central/kube-apiserver")?;
    await_api(lab)?;
    let logs = ours.map(|daemon| (daemon, log(lab, daemon).map_or(0, |text| text.len())));
    ours.iter().try_for_each(|daemon| lab.resume(daemon))?;
    await_ready(lab, "comes", 2).await?;
    for (daemon, before) in logs {
        let said = log(lab, daemon)?;
        ensure!(said[before..].contains("too old resource version"), "{daemon} met no 410:\n{}", &said[before..]);
    }
    reach(lab, NAMESPACE).await?;
    go(lab, "comes").await
}

/// Every request of our accounts is answered with 429.
async fn overloaded(lab: &Lab) -> Result<()> {
    let stream = running_stream(lab, address_of_one(lab, "node2").await?).await?;
    lab.apply(OVERLOAD).await?;
    occupy(lab)?;
    await_said(lab, "central/master", "Too many requests")?;
    lab.apply(&deployment(NAMESPACE, "waits", 2, &echo())).await?;
    await_scheduled(lab, "waits", 2).await?;
    await_said(lab, "central/master", "Too many requests")?;
    stream.await_blocks(BLOCKS)?;
    let waiting = pods_of(lab, "waits").await?;
    ensure!(waiting.iter().all(|pod| ips(pod).is_empty()), "pods were attached although we were refused everything");
    lab.delete(OVERLOAD).await?;
    lab.kill(OCCUPANT)?;
    await_ready(lab, "waits", 2).await?;
    stream.await_blocks(BLOCKS)?;
    stream.stop().context("the stream")?;
    go(lab, "waits").await
}

/// etcd stands still: the API server answers 500 and 504, or late.
async fn without_database(lab: &Lab) -> Result<()> {
    let stream = running_stream(lab, address_of_one(lab, "node2").await?).await?;
    lab.pause("central/etcd")?;
    await_said(lab, "central/master", "cannot write the Lease")?;
    stream.await_blocks(BLOCKS)?;
    lab.resume("central/etcd")?;
    await_api(lab)?;
    lab.apply(&deployment(NAMESPACE, "after", 2, &echo())).await?;
    await_available(lab, NAMESPACE, "after").await?;
    stream.stop().context("the stream")?;
    go(lab, "after").await
}

/// The clocks of the master and of a node daemon jump an hour ahead, and two back.
async fn clocks_jump(lab: &Lab) -> Result<()> {
    let clock = lab.layout().home("clock");
    let daemons = ["central/master", "node1/ovenbird-node"];
    for daemon in daemons {
        let mut spec = lab.layout().processes().get(daemon)?.spec;
        let library = faketime()?.display().to_string();
        let clock = clock.display().to_string();
        let env = [("LD_PRELOAD", library.as_str()), ("FAKETIME_TIMESTAMP_FILE", &clock)];
        let settings = [("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        spec.env.extend(env.iter().chain(&settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        fs::write(&clock, "+0").context("setting the clock")?;
        lab.stop(daemon)?;
        lab.layout().processes().start(spec)?;
    }
    for (round, offset) in ["+3600", "-3600", "+0"].iter().enumerate() {
        fs::write(&clock, offset).context("setting the clock")?;
        let name = format!("clock{round}");
        lab.apply(&deployment(NAMESPACE, &name, 2, &echo())).await?;
        await_available(lab, NAMESPACE, &name).await.with_context(|| format!("{offset} s"))?;
        reach(lab, NAMESPACE).await.with_context(|| format!("{offset} s"))?;
        go(lab, &name).await?;
    }
    ensure!(daemons.iter().all(|daemon| lab.component(daemon).is_ok_and(|id| id.alive())), "a daemon has ended");
    Ok(())
}

fn faketime() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("listing /usr/lib")?.flatten();
    let mut files = folders.map(|folder| folder.path().join("faketime").join(FAKETIME)).filter(|file| file.exists());
    files.next().with_context(|| format!("no {FAKETIME}: `make deps` installs it"))
}

/// Deletes a Deployment and waits until nothing of it is left on the nodes. Its controller may pause for a minute after an outage.
async fn go(lab: &Lab, name: &str) -> Result<()> {
    kubectl(lab, &["-n", NAMESPACE, "delete", "deployment", name, "--cascade=foreground", "--timeout=180s"])?;
    await_ports_of_pods(lab, "node1")?;
    await_ports_of_pods(lab, "node2")
}

/// Waits until so many pods of a Deployment have a node.
async fn await_scheduled(lab: &Lab, deployment: &str, count: usize) -> Result<()> {
    let has_node = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    await_pods(lab, deployment, "scheduled", count, has_node).await
}

/// Waits until so many pods of a Deployment are Ready. The Deployment's own status follows late: after an outage its controller pauses
/// for up to a minute before it looks again.
async fn await_ready(lab: &Lab, deployment: &str, count: usize) -> Result<()> {
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    await_pods(lab, deployment, "Ready", count, is_ready).await
}

async fn await_pods(lab: &Lab, deployment: &str, what: &str, count: usize, met: impl Fn(&&Pod) -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while pods_of(lab, deployment).await?.iter().filter(&met).count() < count {
        if Instant::now() > deadline {
            let (pods, logs) =
                (kubectl(lab, &["get", "pods", "-A", "-o", "wide"])?, testing::complaints(lab.layout().dir()));
            bail!("{count} pods of {deployment} are not {what} after {LIMIT:?}\n{pods}\n{logs}");
        }
    }
    Ok(())
}

/// Takes the only seat that the rules leave to our accounts: a request whose body never ends. It comes again when it is ended.
fn occupy(lab: &Lab) -> Result<()> {
    let config = lab.layout().home("kubernetes").join("ovenbird-master.conf");
    let config: Value = serde_json::from_slice(&fs::read(&config).context("reading the master's credentials")?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("credentials without a server or token");
    let (server, token) =
        (text(&config["clusters"][0]["cluster"]["server"])?, text(&config["users"][0]["user"]["token"])?);
    let leases = format!("{server}/apis/coordination.k8s.io/v1/namespaces/ovenbird/leases");
    let bearer = format!("Authorization: Bearer {token}");
    let body = ["-X", "POST", "-T", "/dev/zero", "--limit-rate", "1", "-H", "Content-Type: application/json"];
    let again = ["--retry", "1000", "--retry-delay", "1"];
    let parts = [&["curl", "--silent", "--insecure", "--http1.1"][..], &body, &again, &["-H", &bearer, &leases]];
    let argv = parts.concat().into_iter().map(str::to_owned).collect();
    let (env, place) = (lab.layout().env("central"), lab.layout().place("central"));
    lab.layout().processes().start(Spec { name: OCCUPANT.into(), argv, env, place }).map(drop)
}

/// Waits until a daemon's log has a text that it did not have.
fn await_said(lab: &Lab, daemon: &str, text: &str) -> Result<()> {
    let before = log(lab, daemon)?.len();
    wait_for(&format!("{daemon} to say {text:?}"), LIMIT, || {
        log(lab, daemon).is_ok_and(|log| log[before..].contains(text))
    })
    .with_context(|| lab.layout().processes().log_tail(daemon))
}

fn log(lab: &Lab, daemon: &str) -> Result<String> {
    fs::read_to_string(lab.layout().processes().log_path(daemon))
        .with_context(|| format!("reading the log of {daemon}"))
}

/// Kills a pod's sandbox behind everybody's back, and waits until the runtime has made another.
fn sandbox_dies(lab: &Lab, node: &str, pod: &str) -> Result<()> {
    let exactly = format!("^{pod}$");
    let ready = || lab.exec_node(node, &["crictl", "pods", "--quiet", "--state=ready", "--name", &exactly]);
    let id = ready()?.trim().to_owned();
    let shown: Value = serde_json::from_str(&lab.exec_node(node, &["crictl", "inspectp", &id])?)?;
    let pid = shown["info"]["pid"].as_i64().context("a sandbox without a process")?;
    lab.exec_node(node, &["kill", "-9", &pid.to_string()])?;
    wait_for("another sandbox", LIMIT, || ready().is_ok_and(|now| !now.trim().is_empty() && now.trim() != id))
}

/// Makes etcd forget everything but the present (etcd's gRPC gateway, /v3/kv/compaction).
fn compact(lab: &Lab) -> Result<()> {
    let ask = |path: &str, body: &Value| -> Result<Value> {
        let url = format!("http://127.0.0.1:2379/v3/kv/{path}");
        let text = lab
            .exec_node("central", &["curl", "--silent", "--show-error", "--fail", "--data", &body.to_string(), &url])?;
        serde_json::from_str(&text).with_context(|| format!("reading {text}"))
    };
    // The key is base64 of "/".
    let revision =
        ask("range", &json!({"key": "Lw=="}))?["header"]["revision"].as_str().context("no revision")?.to_owned();
    ask("compaction", &json!({"revision": revision, "physical": true})).map(drop)
}

async fn pods_of(lab: &Lab, deployment: &str) -> Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(lab.client().await?, NAMESPACE);
    Ok(api.list(&ListParams::default().labels(&format!("app={deployment}"))).await.context("listing pods")?.items)
}

/// From a pod on node 1, and running.
async fn running_stream(lab: &Lab, to: IpAddr) -> Result<Stream> {
    let stream = stream(lab, NAMESPACE, "node1", to).await?;
    stream.await_blocks(BLOCKS)?;
    Ok(stream)
}

async fn address_of_one(lab: &Lab, node: &str) -> Result<IpAddr> {
    address(pods_on(lab, NAMESPACE, node).await?.values().next().with_context(|| format!("no pod on {node}"))?)
}
