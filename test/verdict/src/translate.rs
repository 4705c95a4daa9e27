//! The rows that the translation yields for a cluster: what is judged.
//!
//! Inputs: a case's objects, and what there was before. Output: rows as a fresh Northbound would hold them. Must not: look into rows.

use std::collections::HashSet;

use ovenbird_reconcile::{Desired, WholeRow, Zone};
use ovenbird_schema::northbound::DATABASE;
use ovenbird_topology::{
    Change, Config, ConfigError, Engine, Fact, FactKey, Interner, NamespaceFact, NetworkPolicyFact, NodeFact, PodFact,
};

use crate::generate::{Case, Families};

/// The rows of a case, for a server whose ACLs have tiers, or (OVN 23.03) have none.
pub fn rows(case: &Case, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    let (mut engine, mut desired) = start(case, tiers)?;
    facts(case).into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    catch_up(&mut engine, &mut desired);
    Ok(desired.rows())
}

/// The rows of a case whose objects came in the place of those of `before`, which is of the same families. They are those of [`rows`].
pub fn rows_after(before: &Case, case: &Case, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    let (mut engine, mut desired) = start(case, tiers)?;
    let (old, new) = (facts(before), facts(case));
    let kept: HashSet<FactKey> = new.iter().map(Fact::key).collect();
    let gone: Vec<FactKey> = old.iter().map(Fact::key).filter(|key| !kept.contains(key)).collect();
    old.into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    catch_up(&mut engine, &mut desired);
    // Half of the changes are told together, the others one by one.
    let changes = new.into_iter().map(Change::Upsert).chain(gone.into_iter().map(Change::Delete));
    for (index, change) in changes.enumerate() {
        engine.apply(change);
        if index % 2 == 0 {
            catch_up(&mut engine, &mut desired);
        }
    }
    catch_up(&mut engine, &mut desired);
    Ok(desired.rows())
}

fn start(case: &Case, tiers: bool) -> Result<(Engine, Desired), ConfigError> {
    let (pods, join) = match case.families {
        Families::Both => ("10.128.0.0/14/23,fd01::/48/64", "100.64.0.0/16,fd98::/64"),
        Families::V4 => ("10.128.0.0/14/23", "100.64.0.0/16"),
        Families::V6 => ("fd01::/48/64", "fd98::/64"),
    };
    let mut engine = Engine::new(Config::parse(pods, "", join, 1400)?);
    engine.set_acl_tiers(tiers);
    Ok((engine, Desired::new(Zone(0), &DATABASE)))
}

fn catch_up(engine: &mut Engine, desired: &mut Desired) {
    for owner in engine.take_dirty() {
        let output = engine.translate(&owner);
        desired.set(&owner, output);
    }
}

/// All that an engine is told of a case.
fn facts(case: &Case) -> Vec<Fact> {
    let mut interner = Interner::default();
    let cluster = &case.cluster;
    let mut facts: Vec<Fact> = case.nodes.iter().map(|node| Fact::Node(NodeFact::from_k8s(node))).collect();
    facts.extend(cluster.namespaces.iter().map(|n| Fact::Namespace(NamespaceFact::from_k8s(n, &mut interner))));
    let policies = cluster.policies.iter();
    facts.extend(policies.map(|p| Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(p, &mut interner))));
    facts.extend(cluster.pods.iter().map(|pod| Fact::Pod(PodFact::from_k8s(pod, &mut interner))));
    facts
}
