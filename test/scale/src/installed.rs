//! What OVN alone takes to attach a port: from its insertion into Open_vSwitch to `ovn-installed`. A floor for cases on real OVN.
//!
//! In: pods that the API has and nobody has attached. Must not: ask any of our daemons.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use ovenbird_api::annotation::POD_NETWORKS;
use ovenbird_api::name::lsp_name;
use ovenbird_lab::Place;
use ovenbird_schema::vswitch::{DATABASE, bridge, interface};
use ovsdb::{
    Atom, Client, Condition, Config, Datum, Endpoint, Event, Handle, MonitorSpec, Mutation, Mutator, Op, Replica,
    TableSpec, Uuid,
};

use crate::median;

/// A pod of a node that nobody has attached.
#[derive(Clone, Debug)]
pub struct Unattached {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Waits until every pod has its addresses.
pub async fn await_addresses(pods: &Api<Pod>) -> anyhow::Result<()> {
    let mut waiting: std::collections::BTreeSet<String> =
        pods.list(&ListParams::default()).await?.iter().filter(|p| !has_addresses(p)).map(|p| p.name_any()).collect();
    let changes = kube::runtime::watcher(pods.clone(), kube::runtime::watcher::Config::default());
    let mut changes = std::pin::pin!(changes);
    while !waiting.is_empty() {
        use kube::runtime::watcher::Event::{Apply, InitApply};
        let next = tokio::time::timeout(Duration::from_secs(120), changes.try_next()).await;
        let next = next.with_context(|| format!("{} pods have no address after two minutes", waiting.len()))?;
        if let Some(Apply(pod) | InitApply(pod)) = next?
            && has_addresses(&pod)
        {
            waiting.remove(&pod.name_any());
        }
    }
    Ok(())
}

fn has_addresses(pod: &Pod) -> bool {
    pod.annotations().contains_key(POD_NETWORKS)
}

/// Median milliseconds from the insertion of a port into the Open_vSwitch `ovs` of a node to `ovn-installed`, over a plain session.
pub async fn installed(node: &Place, ovs: Endpoint, namespace: &str, pods: &[&Unattached]) -> anyhow::Result<f64> {
    let mut raw = RawSwitch::connect(ovs).await?;
    let mut times = Vec::new();
    for (i, pod) in pods.iter().enumerate() {
        let link = format!("raw{i}");
        node.output(&["ip", "link", "add", &link, "type", "veth", "peer", "name", &format!("rawp{i}")])?;
        node.output(&["ip", "link", "set", &link, "up"])?;
        times.push(milliseconds(raw.plug(i, &link, namespace, pod).await?));
        raw.unplug(i).await?;
        node.output(&["ip", "link", "del", &link])?;
    }
    Ok(median(times))
}

/// A duration as a figure.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A session with Open_vSwitch that inserts ports and watches them.
struct RawSwitch {
    handle: Handle,
    events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    replica: Replica,
}

impl RawSwitch {
    async fn connect(endpoint: Endpoint) -> anyhow::Result<RawSwitch> {
        let spec = MonitorSpec::new()
            .with(TableSpec::columns(&bridge::TABLE, [bridge::NAME]))
            .with(TableSpec::columns(&interface::TABLE, [interface::NAME, interface::EXTERNAL_IDS]));
        let (handle, events) = Client::spawn(Config::new(vec![endpoint]), &DATABASE, spec.clone());
        let mut raw = RawSwitch { handle, events, replica: Replica::new(&DATABASE, &spec) };
        raw.until(|replica| !replica.is_empty(&bridge::TABLE)).await?;
        Ok(raw)
    }

    /// Takes events until the replica passes a test.
    async fn until(&mut self, test: impl Fn(&Replica) -> bool) -> anyhow::Result<()> {
        let mut changes = Vec::new();
        while !test(&self.replica) {
            match self.events.recv().await.context("the client ended")? {
                Event::Connected(info) => self.replica.set_server(&info),
                Event::Update(update) => self.replica.apply(&update, &mut changes)?,
                Event::Reply { result, .. } => {
                    let reply = result?;
                    ensure!(reply.is_committed(), "{:?}", reply.error());
                }
                other => bail!("unexpected: {other:?}"),
            }
        }
        Ok(())
    }

    fn ids(i: usize) -> [Uuid; 2] {
        [0xa, 0xb].map(|kind: u128| Uuid::from_u128((kind << 96) | i as u128))
    }

    fn in_bridge(mutator: Mutator, port: Uuid) -> Op {
        let condition = Condition::Column { column: "name", function: ovsdb::Function::Equal, value: "br-int".into() };
        let mutations = vec![Mutation::new("ports", mutator, Datum::set([Atom::from(port)]))];
        Op::Mutate { table: "Bridge", conditions: vec![condition], mutations }
    }

    async fn plug(&mut self, i: usize, link: &str, namespace: &str, pod: &Unattached) -> anyhow::Result<Duration> {
        let [port, interface_id] = RawSwitch::ids(i);
        let ids = [("iface-id", lsp_name(namespace, &pod.name)), ("iface-id-ver", pod.uid.clone())];
        let ids = Datum::map(ids.map(|(k, v)| (Atom::from(k), Atom::from(v))));
        let began = Instant::now();
        self.handle.transact(&[
            Op::Insert {
                table: "Interface",
                uuid: Some(interface_id),
                row: vec![("name", link.into()), ("external_ids", ids)],
            },
            Op::Insert {
                table: "Port",
                uuid: Some(port),
                row: vec![("name", link.into()), ("interfaces", interface_id.into())],
            },
            RawSwitch::in_bridge(Mutator::Insert, port),
        ]);
        self.until(|replica| {
            let row = replica.row(&interface::TABLE, &interface_id);
            row.is_some_and(|row| interface::Ref(row).external_ids().get("ovn-installed") == Some("true"))
        })
        .await?;
        Ok(began.elapsed())
    }

    async fn unplug(&mut self, i: usize) -> anyhow::Result<()> {
        let [port, interface_id] = RawSwitch::ids(i);
        self.handle.transact(&[RawSwitch::in_bridge(Mutator::Delete, port)]);
        self.until(|replica| replica.row(&interface::TABLE, &interface_id).is_none()).await
    }
}
