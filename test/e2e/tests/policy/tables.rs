//! Each named policy of `policies.yaml` on the whole table: it holds, and stays.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ovenbird_e2e::side_by_side;
use ovenbird_lab::{Mode, Options, testing};
use serde_json::{Value, json};

use crate::table::{self, Table};
use crate::world::World;

/// Policies, each with its name.
pub fn named(world: &World) -> Result<Vec<(String, Vec<Value>)>> {
    let cases: Vec<Value> = serde_saphyr::from_str(include_str!("policies.yaml")).context("reading policies.yaml")?;
    let object = |index: usize, policy: &Value| {
        let of = |key: &str, default: &str| policy[key].as_str().unwrap_or(default).to_owned();
        // Of its own, so that it can be there beside the case before.
        let metadata = json!({"namespace": of("namespace", "x"), "name": format!("{}-{index}", of("name", "p"))});
        let mut spec = policy["spec"].clone();
        substitute(world, &mut spec)?;
        Ok(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}))
    };
    let case = |(index, case): (usize, &Value)| {
        let name = case["name"].as_str().context("a case without a name")?.to_owned();
        let policies = case["policies"].as_array().with_context(|| format!("{name}: no policies"))?;
        Ok((name, policies.iter().map(|policy| object(index, policy)).collect::<Result<Vec<_>>>()?))
    };
    cases.iter().enumerate().map(case).collect()
}

/// `$NAME.4` and `$NAME.6` become addresses.
fn substitute(world: &World, value: &mut Value) -> Result<()> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| substitute(world, item)),
        Value::Object(fields) => fields.values_mut().try_for_each(|field| substitute(world, field)),
        Value::String(text) => {
            let Some((name, rest)) = text.strip_prefix('$').and_then(|text| text.split_once('.')) else {
                return Ok(());
            };
            let (family, prefix) = rest.split_at(1);
            let ips = addresses(world, name)?;
            let ip = ips.get(usize::from(family == "6")).with_context(|| format!("no address {text}"))?;
            *text = format!("{ip}{prefix}");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn addresses(world: &World, name: &str) -> Result<Vec<IpAddr>> {
    if let Some(number) = name.strip_prefix("management") {
        let node = format!("node{number}");
        let host = world.management.iter().find(|host| host.name == node);
        return Ok(host.with_context(|| format!("no {name}"))?.management.clone());
    }
    match name {
        "beyond" => Ok(world.beyond()),
        "outside" => Ok(world.outside.ips.clone()),
        _ => {
            let node = world.nodes.iter().find(|end| end.name == name);
            Ok(node.map_or_else(|| world.pod(name), Ok)?.ips.clone())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_named_policy_holds_on_the_whole_table() -> Result<()> {
    hold_all("e2e-policy", Mode::Overlay, |_| true).await
}

#[test]
fn named_policies_hold_in_the_other_modes() -> Result<()> {
    let labs =
        [("e2e-policy-kbr", Mode::Classic), ("e2e-policy-vlan", Mode::Underlay), ("e2e-policy-vms", Mode::Nested)];
    side_by_side(labs.map(|(name, mode)| (name, move || hold_all(name, mode, some))))
}

/// Every eighth, and with `OVENBIRD_TEST_ALL` set all: rows and rules are the same in these modes, the places where they hold are others.
fn some(index: usize) -> bool {
    std::env::var_os("OVENBIRD_TEST_ALL").is_some() || index.is_multiple_of(8)
}

async fn hold_all(lab: &str, mode: Mode, chosen: impl Fn(usize) -> bool) -> Result<()> {
    let options = Options { nodes: 2, mode, ..Options::default() };
    let Some(lab) = testing::lab(lab, options).await? else { return Ok(()) };
    let world = World::build(lab).await?;
    let rows = table::rows(&world)?;
    ensure!(rows.len() >= 600, "only {} rows", rows.len());
    let mut cases = named(&world)?;
    let names: BTreeSet<_> = cases.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names.len() >= 60 && names.len() == cases.len(), "{} names of {} policies", names.len(), cases.len());
    cases = cases.into_iter().enumerate().filter(|(index, _)| chosen(*index)).map(|(_, case)| case).collect();
    let mut before = Table::new(&rows, &world.cluster(&[]).await?).verdicts;
    let (mut failures, mut stale, mut last, started) = (Vec::new(), Vec::new(), Vec::new(), Instant::now());
    for (name, policies) in &cases {
        let table = Table::new(&rows, &world.cluster(policies).await?);
        // The new ones come and the old ones go in one go.
        let began = Instant::now();
        world.create(policies).await.with_context(|| name.clone())?;
        world.delete(&last).await?;
        match table.hold(&world, &before, began) {
            Ok(held) => {
                println!("{:>5} ms: {name} ({} denied)", held.after.as_millis(), table.denied());
                stale.extend(held.stale);
            }
            Err(error) => {
                println!("FAILED: {name}: {error:#}");
                failures.push(name.as_str());
            }
        }
        (before, last) = (table.verdicts, policies.clone());
    }
    println!("{} policies on {} rows in {:.1?}", cases.len(), rows.len(), started.elapsed());
    println!("{} rows held once the datapath had forgotten its flows:\n{}", stale.len(), stale.join("\n"));
    ensure!(failures.is_empty(), "{} of {} policies do not hold: {failures:?}", failures.len(), cases.len());
    Ok(())
}
