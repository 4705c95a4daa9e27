//! Everything that a cluster consists of is killed and started, in an order that differs from run to run: what runs goes on, what
//! comes is attached, and the Northbound is what it should be.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::fault::await_api;
use ovenbird_e2e::real::{
    address, await_available, await_ports_of_pods, deployment, echo, kubectl, lab, pods_on, reach, stream,
};
use ovenbird_e2e::stream::Stream;
use ovenbird_e2e::{LIMIT, northbound};
use ovenbird_lab::{Family, Lab, wait_for};

const NAMESPACE: &str = "restarts";
const ROUNDS: u64 = 2;
const COMPONENTS: [&str; 14] = [
    "node1/kubelet",
    "node1/containerd",
    "node1/ovsdb",
    "node1/vswitchd",
    "node1/ovn-controller",
    "node1/ovenbird-node",
    "node2/ovenbird-node",
    "central/master",
    "central/nb",
    "central/sb",
    "central/northd",
    "central/etcd",
    "central/kube-apiserver",
    "central/kube-controller-manager",
];
/// A seed can be given in this variable: of an order that once failed. CI takes the same orders each time.
const SEED: &str = "OVENBIRD_TEST_SEED";

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_restarted_in_any_order() -> Result<()> {
    let Some(lab) = lab("e2e-restarts", Family::Dual).await? else { return Ok(()) };
    let seed = match (std::env::var(SEED), std::env::var_os("CI")) {
        (Ok(given), _) => given.parse().with_context(|| format!("reading {SEED}"))?,
        (Err(_), Some(_)) => 1,
        (Err(_), None) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    lab.namespace(NAMESPACE).await?;
    lab.apply(&deployment(NAMESPACE, "stays", 2, &echo())).await?;
    await_available(&lab, NAMESPACE, "stays").await?;
    for round in 0..ROUNDS {
        let order = shuffled(seed + round);
        all_goes_on(&lab, &order).await.with_context(|| format!("{SEED}={}: {order:?}", seed + round))?;
    }
    Ok(())
}

async fn all_goes_on(lab: &Lab, order: &[&str]) -> Result<()> {
    let stream = stream_between_nodes(lab).await?;
    lab.apply(&deployment(NAMESPACE, "comes", 4, &echo())).await?;
    for component in order {
        lab.kill(component)?;
        lab.start(component).with_context(|| format!("starting {component}"))?;
    }
    start_what_gave_up(lab)?;
    await_available(lab, NAMESPACE, "comes").await?;
    stream.await_blocks(1)?;
    stream.stop().context("between pods that stay")?;
    reach(lab, NAMESPACE).await?;
    northbound::equals_from_scratch(lab)?;
    kubectl(lab, &["-n", NAMESPACE, "delete", "deployment", "comes", "--cascade=foreground", "--timeout=60s"])?;
    for node in ["node1", "node2"] {
        ensure!(pods_on(lab, NAMESPACE, node).await?.len() == 1, "the pods that stay have moved");
        await_ports_of_pods(lab, node)?;
    }
    Ok(())
}

/// As an init system would: a kubelet that does not find its runtime ends, and so do Kubernetes' daemons that do not find the API
/// server. Ours do not.
fn start_what_gave_up(lab: &Lab) -> Result<()> {
    await_api(lab)?;
    wait_for("containerd", LIMIT, || lab.exec_node("node1", &["crictl", "version"]).is_ok())?;
    for component in COMPONENTS {
        if !lab.component(component)?.alive() {
            ensure!(component.contains("/kube"), "{component} has ended");
            lab.start(component)?;
        }
    }
    Ok(())
}

/// From the pod that stays on node 1 to the one on node 2.
async fn stream_between_nodes(lab: &Lab) -> Result<Stream> {
    let to = pods_on(lab, NAMESPACE, "node2").await?.into_values().next().context("no pod on node2")?;
    stream(lab, NAMESPACE, "node1", address(&to)?).await
}

/// The components in an order that depends on the seed alone (Fisher-Yates, xorshift64*).
fn shuffled(seed: u64) -> Vec<&'static str> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut order = COMPONENTS.to_vec();
    for index in (1..order.len()).rev() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        order.swap(index, usize::try_from(random).unwrap_or_default() % (index + 1));
    }
    order
}
