//! The rows that the translation yields for a cluster: what is judged.
//!
//! Inputs: a case's objects. Output: rows as a fresh Northbound would hold them. Must not: look into rows.

use ovenbird_reconcile::{Desired, WholeRow, Zone};
use ovenbird_schema::northbound::DATABASE;
use ovenbird_topology::{
    Change, Config, ConfigError, Engine, Fact, Interner, NamespaceFact, NetworkPolicyFact, NodeFact, PodFact,
};

use crate::generate::Case;

/// The rows of a case, for a server whose ACLs have tiers, or (OVN 23.03) have none.
pub fn rows(case: &Case, tiers: bool) -> Result<Vec<WholeRow>, ConfigError> {
    let mut engine = engine(case)?;
    engine.set_acl_tiers(tiers);
    let mut desired = Desired::new(Zone(0), &DATABASE);
    for owner in engine.take_dirty() {
        let output = engine.translate(&owner);
        desired.set(&owner, output);
    }
    Ok(desired.rows())
}

/// An engine that has been told of a case.
fn engine(case: &Case) -> Result<Engine, ConfigError> {
    let config = Config::parse("10.128.0.0/14/23,fd01::/48/64", "", "100.64.0.0/16,fd98::/64", 1400)?;
    let (mut engine, mut interner) = (Engine::new(config), Interner::default());
    let cluster = &case.cluster;
    let nodes = case.nodes.iter().map(|node| Fact::Node(NodeFact::from_k8s(node)));
    nodes.for_each(|fact| engine.apply(Change::Upsert(fact)));
    for namespace in &cluster.namespaces {
        let fact = NamespaceFact::from_k8s(namespace, &mut interner);
        engine.apply(Change::Upsert(Fact::Namespace(fact)));
    }
    for policy in &cluster.policies {
        let fact = NetworkPolicyFact::from_k8s(policy, &mut interner);
        engine.apply(Change::Upsert(Fact::NetworkPolicy(fact)));
    }
    for pod in &cluster.pods {
        engine.apply(Change::Upsert(Fact::Pod(PodFact::from_k8s(pod, &mut interner))));
    }
    Ok(engine)
}
