//! `endpoint-storm`: many endpoints change at once, as fast as the API server takes it. `restart`: each endpoint of a Service of 250 is
//! replaced by another. `drain`: the 100 pods of a node leave the 400 Services that they serve, and come back. From the first PATCH to
//! the last row, against the PATCHes' way to a watcher; and what was written: transactions and bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use ovenbird_schema::northbound::load_balancer as lb;
use ovsdb::{Replica, Uuid};
use serde_json::Value;

use crate::balancers::{self, create, endpoint, name_of, patch, row_of, service, slice};
use crate::cluster::{ApiServer, Master, SELDOM};
use crate::rows::Rows;
use crate::server::Server;
use crate::written::Written;
use crate::{Context, Outcome, quantile};

/// Services that a pod of the drained node serves.
const SERVICES: usize = 400;
/// Pods of that node.
const PODS: usize = 100;
/// Endpoints on other nodes that each of them has.
const OTHERS: usize = 4;
/// The Service that is restarted, with the endpoints of each of its slices.
const BIG: usize = SERVICES;
const SLICES: [Range<usize>; 3] = [0..100, 100..200, 200..250];
/// PATCHes under way at once.
const AT_ONCE: usize = 16;
/// Storms of each kind and round, an even number.
const STORMS: usize = 4;

/// Runs the case.
pub async fn run(context: &Context) -> anyhow::Result<Outcome> {
    let api = ApiServer::start(&context.dir.join("api"), None)?;
    api.fill(0..0, true).await?;
    let small = (0..SERVICES).map(|i| (service(i), vec![slice(i, &name_of(i), &of_small(i, false))]));
    let parts = SLICES.iter().enumerate().map(|(n, part)| slice(BIG, &part_name(n), &of_part(part, 0)));
    create(&api, small.chain([(service(BIG), parts.collect())])).await?;
    let server = Server::start(&context.dir)?;
    let master = Master::start(&context.dir, &api, &server)?;
    master.settle(SELDOM)?;
    let mut balancers = balancers::watch(&server).await?;

    let (mut ours, mut written) = ([Vec::new(), Vec::new()], [Written::default(), Written::default()]);
    for turn in 0..context.rounds * STORMS {
        for (kind, storm) in [Storm::drain(turn % 2 == 0), Storm::restart(turn % 2 == 0)].iter().enumerate() {
            let before = Written::so_far(&master)?;
            ours[kind].push(storm.until_written(&api, &mut balancers).await?);
            written[kind].add(&before, &Written::so_far(&master)?);
        }
    }
    let usage = master.usage()?;
    master.stop()?;
    let mut floor = [Vec::new(), Vec::new()];
    for turn in 0..context.rounds * STORMS {
        for (kind, storm) in [Storm::drain(turn % 2 == 0), Storm::restart(turn % 2 == 0)].iter().enumerate() {
            floor[kind].push(storm.until_seen(&api).await?);
        }
    }

    let ms = |times: &[Duration]| (quantile(times, 0.5) * 1e5).round() / 1e2;
    let storms = (context.rounds * STORMS) as u64;
    Ok(Outcome {
        ours: ms(&ours[0]),
        floor: ms(&floor[0]),
        unit: "ms",
        goal: "100 ms (must: 1 transaction per 50 Services, so 8 of a drain; bytes of the changed keys only)",
        usage,
        transactions: written[0].transactions / storms,
        rows: SERVICES as u64,
        bytes: written[0].bytes / storms,
        more: BTreeMap::from([
            ("drain_transactions", (written[0].transactions / storms).into()),
            ("drain_bytes", (written[0].bytes / storms).into()),
            ("restart_ms", ms(&ours[1]).into()),
            ("restart_floor_ms", ms(&floor[1]).into()),
            ("restart_transactions", (written[1].transactions / storms).into()),
            ("restart_bytes", (written[1].bytes / storms).into()),
        ]),
    })
}

/// Pods have numbers; those of the drained node are the multiples of 100.
fn of_small(i: usize, drained: bool) -> Vec<Value> {
    let others = (1..=OTHERS).map(|n| (i * OTHERS + n) * 100 + n);
    let own = (!drained).then_some(i * PODS / SERVICES * 100);
    own.into_iter().chain(others).map(|pod| endpoint(i, pod)).collect()
}

/// The endpoints of a slice of the big Service when the first `replaced` are those of the other generation.
fn of_part(part: &Range<usize>, replaced: usize) -> Vec<Value> {
    let pod = |n: usize| 200_000 + 2 * n + usize::from(n < part.start + replaced);
    part.clone().map(|n| endpoint(BIG, pod(n))).collect()
}

fn part_name(n: usize) -> String {
    format!("{}-{n}", name_of(BIG))
}

/// PATCHes, and what they lead to.
struct Storm {
    /// Those of a chain are sent one after the other: number of the Service, name of the slice, its endpoints.
    chains: Vec<Vec<(usize, String, Vec<Value>)>>,
    /// What the Services have in the end.
    last: Vec<(usize, Vec<String>)>,
}

impl Storm {
    fn drain(away: bool) -> Storm {
        let chains = (0..SERVICES).map(|i| vec![(i, name_of(i), of_small(i, away))]).collect();
        Storm { chains, last: (0..SERVICES).map(|i| (i, backends(&of_small(i, away)))).collect() }
    }

    fn restart(forth: bool) -> Storm {
        let replaced = |part: &Range<usize>, step: usize| if forth { step } else { part.len() - step };
        let chain = |(n, part): (usize, &Range<usize>)| {
            let step = |step| (BIG, part_name(n), of_part(part, replaced(part, step)));
            (1..=part.len()).map(step).collect()
        };
        let last = SLICES.iter().flat_map(|part| backends(&of_part(part, replaced(part, part.len()))));
        let mut last: Vec<String> = last.collect();
        last.sort();
        Storm { chains: SLICES.iter().enumerate().map(chain).collect(), last: vec![(BIG, last)] }
    }

    async fn send(&self, client: &kube::Client) -> anyhow::Result<()> {
        let chain = |chain: Vec<(usize, String, Vec<Value>)>| async move {
            for (i, slice, endpoints) in chain {
                patch(client, i, &slice, endpoints).await?;
            }
            anyhow::Ok(())
        };
        futures::stream::iter(self.chains.clone()).map(chain).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Time from the first PATCH to the last row.
    async fn until_written(&self, api: &ApiServer, balancers: &mut Rows) -> anyhow::Result<Duration> {
        let client = api.client()?;
        let row = |(i, list): &(usize, Vec<String>)| anyhow::Ok((row_of(&balancers.replica, *i)?, list.clone()));
        let mut missing: Vec<(Uuid, Vec<String>)> = self.last.iter().map(row).collect::<Result<_, _>>()?;
        let began = Instant::now();
        let seeing = async {
            let all = |replica: &Replica| {
                while missing.last().is_some_and(|(row, list)| has(replica, row, list)) {
                    missing.pop();
                }
                missing.is_empty()
            };
            balancers.until(all).await.map(|()| began.elapsed())
        };
        Ok(futures::future::try_join(self.send(&client), seeing).await?.1)
    }

    /// Time from the first PATCH to seeing the last in a watch.
    async fn until_seen(&self, api: &ApiServer) -> anyhow::Result<Duration> {
        let client = api.client()?;
        let slices = Api::<EndpointSlice>::all(client.clone());
        let version = slices.list(&Default::default()).await.context("list")?.metadata.resource_version;
        let stream = slices.watch(&WatchParams::default(), &version.unwrap_or_default()).await.context("watch")?;
        tokio::pin!(stream);
        let mut missing: usize = self.chains.iter().map(Vec::len).sum();
        let began = Instant::now();
        let seeing = async {
            while missing > 0 {
                match stream.try_next().await.context("watch")? {
                    Some(WatchEvent::Modified(_)) => missing -= 1,
                    Some(_) => {}
                    None => bail!("the watch ended"),
                }
            }
            Ok(began.elapsed())
        };
        Ok(futures::future::try_join(self.send(&client), seeing).await?.1)
    }
}

/// Endpoints as a load balancer names them, sorted.
fn backends(endpoints: &[Value]) -> Vec<String> {
    let addresses = endpoints.iter().filter_map(|endpoint| endpoint["addresses"][0].as_str());
    let mut backends: Vec<String> = addresses.map(|address| format!("{address}:8080")).collect();
    backends.sort();
    backends
}

fn has(replica: &Replica, row: &Uuid, wanted: &[String]) -> bool {
    replica.row(&lb::TABLE, row).is_some_and(|row| {
        lb::Ref(row).vips().iter().all(|(_, list)| {
            let mut list: Vec<&str> = list.split(',').collect();
            list.len() == wanted.len() && {
                list.sort_unstable();
                list.iter().eq(wanted)
            }
        })
    })
}
