//! The rows that the translation yields for a cluster: what is judged.
//!
//! Inputs: a case's objects, and what there was before. Output: rows as a fresh Northbound would hold them. Must not: look into rows.

use std::collections::HashSet;

use ovenbird_reconcile::{Desired, WholeRow, Zone};
use ovenbird_schema::northbound::{DATABASE, acl};
use ovenbird_topology::{
    AdminKind, AdminPolicyFact, Change, Config, ConfigError, Engine, Fact, FactKey, Interner, NamespaceFact,
    NetworkPolicyFact, NodeFact, PodFact,
};

use crate::evaluate::admin::object::{Kind, Policy};
use crate::generate::{Case, Families, admin};

/// Why a case with admin policies has no rows.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The network.
    #[error("config")]
    Config(#[from] ConfigError),
    /// A policy that the translation does not read.
    #[error("policy")]
    Policy(#[from] serde_json::Error),
}

/// The rows of a case, for a server whose ACLs have tiers, or (OVN 23.03) have none.
pub fn rows(case: &Case, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    fresh(case.families, facts(case), tiers)
}

/// An engine that knows a case, for questions that it answers itself.
pub fn engine(case: &Case) -> Result<Engine, ConfigError> {
    let (mut engine, _) = start(case.families, true)?;
    facts(case).into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    Ok(engine)
}

/// As [`engine`], with admin policies.
pub fn admin_engine(case: &admin::Case) -> Result<Engine, AdminError> {
    let (mut engine, _) = start(case.base.families, true)?;
    admin_facts(case)?.into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    Ok(engine)
}

/// The rows of a case whose objects came in the place of those of `before`, which is of the same families. They are those of [`rows`].
pub fn rows_after(before: &Case, case: &Case, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    replaced(case.families, facts(before), facts(case), tiers)
}

/// As [`rows`], with admin policies.
pub fn admin_rows(case: &admin::Case, tiers: bool) -> Result<Vec<WholeRow>, AdminError> {
    Ok(fresh(case.base.families, admin_facts(case)?, tiers)?)
}

/// As [`rows_after`], with admin policies.
pub fn admin_rows_after(before: &admin::Case, case: &admin::Case, tiers: bool) -> Result<Vec<WholeRow>, AdminError> {
    Ok(replaced(case.base.families, admin_facts(before)?, admin_facts(case)?, tiers)?)
}

fn fresh(families: Families, facts: Vec<Fact>, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    let (mut engine, mut desired) = start(families, tiers)?;
    facts.into_iter().for_each(|fact| engine.apply(Change::Upsert(fact)));
    catch_up(&mut engine, &mut desired);
    Ok(as_held(&desired, tiers))
}

fn replaced(families: Families, old: Vec<Fact>, new: Vec<Fact>, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    let (mut engine, mut desired) = start(families, tiers)?;
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
    Ok(as_held(&desired, tiers))
}

/// A server that has no tiers has no column for them, and takes all ACLs as of one.
fn as_held(desired: &Desired, tiers: bool) -> Vec<WholeRow> {
    let mut rows = desired.rows();
    for row in rows.iter_mut().filter(|row| !tiers && row.table.name == acl::TABLE.name) {
        row.columns.retain(|(column, _)| *column != acl::TIER);
    }
    rows
}

fn start(families: Families, tiers: bool) -> Result<(Engine, Desired), ConfigError> {
    let (pods, join) = match families {
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
pub fn facts(case: &Case) -> Vec<Fact> {
    let mut interner = Interner::default();
    let cluster = &case.cluster;
    let mut facts: Vec<Fact> = case.nodes.iter().map(|node| Fact::Node(NodeFact::from_k8s(node))).collect();
    facts.extend(cluster.namespaces.iter().map(|n| Fact::Namespace(NamespaceFact::from_k8s(n, &mut interner))));
    let policies = cluster.policies.iter();
    facts.extend(policies.map(|p| Fact::NetworkPolicy(NetworkPolicyFact::from_k8s(p, &mut interner))));
    facts.extend(cluster.pods.iter().map(|pod| Fact::Pod(PodFact::from_k8s(pod, &mut interner))));
    facts
}

/// The same, with admin policies.
pub fn admin_facts(case: &admin::Case) -> serde_json::Result<Vec<Fact>> {
    let (mut facts, mut interner) = (facts(&case.base), Interner::default());
    for policy in &case.policies {
        facts.push(Fact::AdminPolicy(admin_fact(policy, &mut interner)?));
    }
    Ok(facts)
}

/// As the translation reads it: from JSON, for its types are its own.
fn admin_fact(policy: &Policy, interner: &mut Interner) -> serde_json::Result<AdminPolicyFact> {
    let kind = match policy.kind {
        Kind::AdminNetworkPolicy => AdminKind::AdminNetworkPolicy,
        Kind::ClusterNetworkPolicy => AdminKind::ClusterNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy => AdminKind::BaselineAdminNetworkPolicy,
    };
    let spec = serde_json::from_value(serde_json::to_value(&policy.spec)?)?;
    Ok(AdminPolicyFact::new(kind, &policy.metadata, &spec, interner))
}
