//! The policies of the snapshot, and the selections that they need.
//!
//! Inputs: facts. Outputs: owners and buckets that a change touches. Must not: match pods itself (that is `selection`'s part).

use std::collections::BTreeMap;

use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::bucket::Bucket;
use crate::facts::NetworkPolicyFact;
use crate::kinds;
use crate::selection::Selections;
use crate::snapshot::{Pods, Touched};

/// All policies.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    network: FxHashMap<Str, Box<NetworkPolicyFact>>,
    /// Number of NetworkPolicies by namespace.
    by_namespace: BTreeMap<Str, usize>,
}

impl Policies {
    /// A NetworkPolicy by `namespace/name`.
    pub fn network(&self, key: &str) -> Option<&NetworkPolicyFact> {
        self.network.get(key).map(|policy| &**policy)
    }

    /// True when the namespace has a NetworkPolicy.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.by_namespace.contains_key(namespace)
    }

    /// True when there is any policy.
    pub fn any(&self) -> bool {
        !self.network.is_empty()
    }

    /// Owners that there are for policies, unsorted.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        let shared = self.by_namespace.keys().map(|name| Owner::new(kinds::NETPOL_NAMESPACE, name.clone()));
        self.network.keys().map(|key| Owner::new(kinds::NETWORK_POLICY, key.clone())).chain(shared)
    }

    /// Takes in a NetworkPolicy that came, changed or went.
    pub fn set_network(
        &mut self,
        key: &Str,
        fact: Option<NetworkPolicyFact>,
        selections: &mut Selections,
        pods: &Pods,
        touched: &mut Touched,
    ) {
        if self.network(key) == fact.as_ref() {
            return;
        }
        touched.owners.push(Owner::new(kinds::NETWORK_POLICY, key.clone()));
        let any = self.any();
        let before = self.network.remove(key);
        let old = before.as_ref().map(|policy| policy.uses()).unwrap_or_default();
        let new = fact.as_ref().map(NetworkPolicyFact::uses).unwrap_or_default();
        // First what comes, so that what both need stays.
        for (selection, what) in new.iter().filter(|used| old.binary_search(used).is_err()) {
            selections.acquire(selection, what, pods, touched);
        }
        for (selection, what) in old.iter().filter(|used| new.binary_search(used).is_err()) {
            selections.release(selection, what, pods, touched);
        }
        match (&before, &fact) {
            (None, Some(policy)) => self.count(policy.namespace(), true, touched),
            (Some(policy), None) => self.count(policy.namespace(), false, touched),
            _ => {}
        }
        if let Some(fact) = fact {
            self.network.insert(fact.key.clone(), Box::new(fact));
        }
        if any != self.any() {
            touched.buckets.push(Bucket::any_policy());
        }
    }

    fn count(&mut self, namespace: &str, more: bool, touched: &mut Touched) {
        let name = Str::from(namespace);
        let count = self.by_namespace.entry(name.clone()).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.by_namespace.remove(&name);
        } else if *count > 1 || !more {
            return;
        }
        touched.owners.push(Owner::new(kinds::NETPOL_NAMESPACE, name));
    }
}
