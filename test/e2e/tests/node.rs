//! The node under load and under restart: no packet is lost, a hundred pods come and go and leave nothing, and nonsense from a runtime
//! gets an answer and harms nobody.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use ovenbird_e2e::stream::Stream;
use ovenbird_e2e::{LIMIT, northbound, pods};
use ovenbird_lab::{Lab, Options, Place, probe, testing, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "node";
const MANY: usize = 100;
/// Blocks of the stream between two steps of a fault: enough for both directions to have been used many times.
const BLOCKS: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn restarts_load_and_nonsense() -> Result<()> {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(lab) = testing::lab("e2e-node", options).await? else { return Ok(()) };
    lab.apply(&pods::namespace(NAMESPACE)).await?;
    let at_rest = View::at_rest(&lab)?;
    nonsense_gets_an_answer(&lab).context("nonsense")?;
    at_rest.is_back(&lab).context("after nonsense")?;
    restarts_lose_nothing(&lab).await.context("restarts")?;
    at_rest.is_back(&lab).context("after restarts")?;
    many_pods_come_at_once(&lab, &at_rest).await.context("many pods")?;
    at_rest.is_back(&lab).context("after many pods")?;
    northbound::equals_from_scratch(&lab)
}

/// Both ends' daemons are stopped, killed and started under a running stream.
async fn restarts_lose_nothing(lab: &Lab) -> Result<()> {
    lab.apply(&(pods::pod(NAMESPACE, "from", "node1") + &pods::pod(NAMESPACE, "to", "node2"))).await?;
    lab.await_running(NAMESPACE).await?;
    let place = lab.scene(&format!("{NAMESPACE}/from"))?.place().clone();
    let api = pods::api(lab, NAMESPACE).await?;
    for ip in pods::ips(&api, "to").await? {
        let stream = Stream::start(&place, SocketAddr::new(ip, probe::PORT))?;
        stream.await_blocks(BLOCKS)?;
        for component in ["node1/ovenbird-node", "node2/ovenbird-node"] {
            lab.stop(component)?;
            stream.await_blocks(BLOCKS)?;
            lab.start(component)?;
            await_serving(lab, component)?;
            stream.await_blocks(BLOCKS)?;
            lab.kill(component)?;
            lab.start(component)?;
            await_serving(lab, component)?;
            stream.await_blocks(BLOCKS)?;
        }
        let lost = stream.stop()?;
        ensure!(lost == 0, "{lost} segments to {ip} were lost");
    }
    pods::delete_all(&api).await
}

/// A node serves when its CNI plugin says so.
fn await_serving(lab: &Lab, component: &str) -> Result<()> {
    let node = component.split('/').next().unwrap_or_default();
    wait_for(&format!("{component} to serve"), LIMIT, || {
        let conf = conf(lab, node).map(|conf| conf.to_string());
        conf.and_then(|conf| cni(lab, node, &[("CNI_COMMAND", "STATUS")], &conf))
            .is_ok_and(|output| output.status.success())
    })
}

/// What the kernel and the switch of node 1 hold.
#[derive(Debug, PartialEq, Eq)]
struct View {
    links: BTreeSet<String>,
    addresses: BTreeSet<String>,
    ports: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    sandboxes: BTreeSet<String>,
}

impl View {
    /// The view without any pod, once the tunnel to the other node is there.
    fn at_rest(lab: &Lab) -> Result<Self> {
        wait_for("the tunnel", LIMIT, || Self::of(lab).is_ok_and(|view| view.ports.contains("ovn-node2-0")))?;
        Self::of(lab)
    }

    /// Waits until the node looks like this again: the kernel ends namespaces in the background.
    fn is_back(&self, lab: &Lab) -> Result<()> {
        let mut now = None;
        wait_for("the node to look as at rest", LIMIT, || {
            now = Self::of(lab).ok();
            now.as_ref() == Some(self)
        })
        .with_context(|| format!("at rest: {self:?}\nnow: {now:?}"))
    }

    fn of(lab: &Lab) -> Result<Self> {
        let lines = |text: String| text.lines().map(|line| line.trim().to_owned()).collect::<BTreeSet<_>>();
        let ovs = |args: &[&str]| lab.exec_node("node1", &[&["ovs-vsctl", "--bare"], args].concat()).map(lines);
        let links: Vec<Value> =
            serde_json::from_str(&lab.exec_node("node1", &["ip", "-j", "address"])?).context("reading links")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_link = |link: &Value| {
            let addresses = link["addr_info"].as_array().cloned().unwrap_or_default();
            addresses
                .iter()
                .map(|address| format!("{} {}", text(&link["ifname"]), text(&address["local"])))
                .collect::<Vec<_>>()
        };
        Ok(Self {
            links: links.iter().map(|link| text(&link["ifname"])).collect(),
            addresses: links.iter().flat_map(of_link).collect(),
            ports: ovs(&["--columns=name", "list", "port"])?,
            interfaces: ovs(&["--columns=name", "list", "interface"])?,
            sandboxes: lines(Place::default().output(&["ip", "netns"])?)
                .into_iter()
                .filter(|line| line.starts_with("e2e-node-"))
                .collect(),
        })
    }
}

async fn many_pods_come_at_once(lab: &Lab, before: &View) -> Result<()> {
    let api = pods::api(lab, NAMESPACE).await?;
    let names: Vec<_> = (0..MANY).map(|index| format!("many-{index}")).collect();
    try_join_all(names.iter().map(async |name| lab.apply(&pods::pod(NAMESPACE, name, "node1")).await)).await?;
    lab.await_running(NAMESPACE).await?;
    let during = View::of(lab)?;
    ensure!(
        during.ports.len() == before.ports.len() + MANY,
        "{} ports for {MANY} pods",
        during.ports.len() - before.ports.len()
    );
    let ips = try_join_all(names.iter().map(|name| pods::ips(&api, name))).await?.concat();
    ensure!(
        ips.iter().collect::<BTreeSet<_>>().len() == 2 * MANY,
        "two addresses for each of {MANY} pods, all different: {}",
        ips.len()
    );
    pods::delete_all(&api).await
}

fn nonsense_gets_an_answer(lab: &Lab) -> Result<()> {
    let good = conf(lab, "node1")?;
    let pod = "K8S_POD_NAMESPACE=node;K8S_POD_NAME=nobody;K8S_POD_UID=0;K8S_POD_INFRA_CONTAINER_ID=nonsense";
    let netns = format!("/run/netns/{}", lab.layout().netns("node2"));
    // Where a truncated configuration cannot say it.
    let socket = good["socket"].as_str().unwrap_or_default().to_owned();
    let call = |command: &str, stdin: &str| {
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "nonsense"),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", pod),
            ("CNI_PATH", "/"),
            ("OVENBIRD_CNI_SOCKET", &socket),
        ];
        cni(lab, "node1", &env, stdin)
    };
    let mut unknown = good.clone();
    unknown["cniVersion"] = json!("9.9.9");
    let text = good.to_string();
    // CNI spec section 5: 1 incompatible version, 4 bad environment, 6 undecodable content.
    refused(&call("ADD", &unknown.to_string())?, Some(1)).context("an unknown CNI version")?;
    refused(&call("ADD", &text[..text.len() / 2])?, Some(6)).context("a truncated stdin")?;
    refused(&call("JUMP", &text)?, Some(4)).context("an unknown command")?;
    let error = refused(&call("ADD", &text)?, None).context("ADD for a pod that does not exist")?;
    ensure!(error.contains("nobody"), "the error does not name the pod: {error}");
    let output = call("DEL", &text)?;
    ensure!(output.status.success(), "DEL for a sandbox that never was: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// The error of a refused call, whose code must be this one.
fn refused(output: &Output, code: Option<u64>) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it succeeded: {stdout}");
    let error: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("not a CNI error: {stdout}"))?;
    ensure!(code.is_none_or(|code| error["code"] == code), "wanted code {code:?}: {error}");
    ensure!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "no message: {error}");
    Ok(error.to_string())
}

/// The configuration of the node's only plugin, as a runtime would pass it.
fn conf(lab: &Lab, node: &str) -> Result<Value> {
    let folder = lab.layout().home(node).join("cni/net.d");
    let mut lists = std::fs::read_dir(&folder).context("reading the CNI configuration")?.flatten();
    let path = lists.find(|file| file.path().extension().is_some_and(|extension| extension == "conflist"));
    let list: Value = serde_json::from_slice(&std::fs::read(path.context("no CNI configuration")?.path())?)?;
    let mut conf = list["plugins"][0].clone();
    // As libcni does: the newest of the versions on offer.
    conf["cniVersion"] = list["cniVersions"].as_array().and_then(|v| v.last()).context("no version")?.clone();
    conf["name"] = list["name"].clone();
    Ok(conf)
}

/// Calls the shim on a node.
fn cni(lab: &Lab, node: &str, env: &[(&str, &str)], stdin: &str) -> Result<Output> {
    let mut command = Command::new(lab.layout().bin_dir.join("ovenbird-cni"));
    command.env_clear().envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lab.scene(node)?.place().spawn(&mut command)?;
    if let Some(mut pipe) = child.stdin.take() {
        // It may answer before it has read everything.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    child.wait_with_output().context("waiting for the shim")
}
