//! The policies of the snapshot, and the selections that they need.
//!
//! Admin policies have an order, and so each a place in the priorities of ACLs: its first rule's, the further ones follow.
//!
//! ```text
//! Admin     30000 - 100 p          p below 100, as in ovn-kubernetes
//!           20000 - 11 (p - 100)   p from 100; after the rules of all before, where these are more, and before that place where it and all
//!                                  after it need more room
//! (NetworkPolicy 1001, 1000)
//! Baseline  999 and below, densely
//! ```
//!
//! Without tiers a rule that passes needs places for copies of all that comes after its tier (see `policy::admin`).
//! Inputs: facts. Outputs: owners and buckets that a change touches. Must not: match pods itself (that is `selection`'s part).

use std::collections::{BTreeMap, BTreeSet};

use ovenbird_reconcile::Owner;
use ovsdb::Str;
use rustc_hash::FxHashMap;

use crate::bucket::Bucket;
use crate::facts::{AdminAction, AdminKey, AdminPolicyFact, AdminRule, NetworkPolicyFact, Tier};
use crate::kinds;
use crate::selection::{Selection, Selections, Use};
use crate::snapshot::{Pods, Touched};

/// All policies.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    network: FxHashMap<Str, Box<NetworkPolicyFact>>,
    /// By namespace: keys of its NetworkPolicies.
    by_namespace: BTreeMap<Str, BTreeSet<Str>>,
    admin: BTreeMap<AdminKey, Box<AdminPolicyFact>>,
    /// Priority of the first rule of each admin policy; `None` without room.
    places: BTreeMap<AdminKey, Option<i64>>,
    /// The database has tiers of ACLs.
    tiers: bool,
    /// `places` do not yet follow from `admin` and `tiers`.
    unplaced: bool,
}

/// First and last priority of the tier before NetworkPolicies, and of the one after them.
const ADMIN: [i64; 2] = [30000, 10001];
const BASELINE: [i64; 2] = [999, 1];

impl Policies {
    /// A NetworkPolicy by `namespace/name`.
    pub fn network(&self, key: &str) -> Option<&NetworkPolicyFact> {
        self.network.get(key).map(|policy| &**policy)
    }

    /// The NetworkPolicies of a namespace, by name.
    pub fn network_in(&self, namespace: &str) -> Vec<&NetworkPolicyFact> {
        let keys = self.by_namespace.get(namespace).into_iter().flatten();
        keys.filter_map(|key| self.network(key)).collect()
    }

    /// True when the namespace has a NetworkPolicy.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.by_namespace.contains_key(namespace)
    }

    /// Namespaces that have NetworkPolicies, sorted.
    pub fn namespaces(&self) -> impl Iterator<Item = &Str> {
        self.by_namespace.keys()
    }

    /// An admin policy.
    pub fn admin(&self, key: &AdminKey) -> Option<&AdminPolicyFact> {
        self.admin.get(key).map(|policy| &**policy)
    }

    /// The priority of an admin policy's first rule; `None` without room.
    pub fn place(&self, key: &AdminKey) -> Option<i64> {
        self.places.get(key).copied().flatten()
    }

    /// The policies of the last tier that have room, in their order.
    pub fn baseline(&self) -> impl Iterator<Item = &AdminPolicyFact> {
        let baseline = self.admin_in_order().into_iter().filter(|policy| policy.tier == Tier::Baseline);
        baseline.filter(|policy| self.place(&policy.key).is_some())
    }

    /// True when the database has tiers of ACLs.
    pub fn tiers(&self) -> bool {
        self.tiers
    }

    /// Priorities that a rule takes up.
    pub fn slots(&self, rule: &AdminRule) -> i64 {
        if rule.action == AdminAction::Pass && !self.tiers { 3 + self.baseline_slots() } else { 1 }
    }

    /// Priorities between the first rule and the end of the last tier.
    pub fn baseline_slots(&self) -> i64 {
        let baseline = self.admin.values().filter(|policy| policy.tier == Tier::Baseline);
        baseline.map(|policy| self.slots_of(policy)).sum()
    }

    /// True when there is any policy.
    pub fn any(&self) -> bool {
        !self.network.is_empty() || !self.admin.is_empty()
    }

    /// Owners that there are for policies, unsorted.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        let shared = self.by_namespace.keys().map(|name| Owner::new(kinds::NETPOL_NAMESPACE, name.clone()));
        let admin = self.admin.keys().map(|(kind, name)| Owner::new(kinds::of_admin(*kind), name.clone()));
        self.network.keys().map(|key| Owner::new(kinds::NETWORK_POLICY, key.clone())).chain(shared).chain(admin)
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
        touched.buckets.push(Bucket::network_policies());
        let any = self.any();
        let before = self.network.remove(key);
        let old = before.as_ref().map(|policy| policy.uses()).unwrap_or_default();
        let new = fact.as_ref().map(NetworkPolicyFact::uses).unwrap_or_default();
        change_uses(&old, &new, selections, pods, touched);
        if before.is_some() != fact.is_some() {
            self.list(key, fact.is_some(), touched);
        }
        if let Some(fact) = fact {
            self.network.insert(fact.key.clone(), Box::new(fact));
        }
        if any != self.any() {
            touched.buckets.push(Bucket::any_policy());
        }
    }

    /// Takes in an admin policy that came, changed or went.
    pub fn set_admin(
        &mut self,
        key: &AdminKey,
        fact: Option<AdminPolicyFact>,
        selections: &mut Selections,
        pods: &Pods,
        touched: &mut Touched,
    ) {
        if self.admin(key) == fact.as_ref() {
            return;
        }
        touched.owners.push(Owner::new(kinds::of_admin(key.0), key.1.clone()));
        touched.buckets.push(Bucket::passes());
        let any = self.any();
        let old = self.admin.remove(key).map(|policy| policy.uses()).unwrap_or_default();
        let new = fact.as_ref().map(AdminPolicyFact::uses).unwrap_or_default();
        change_uses(&old, &new, selections, pods, touched);
        if let Some(fact) = fact {
            self.admin.insert(fact.key.clone(), Box::new(fact));
        }
        self.unplaced = true;
        if any != self.any() {
            touched.buckets.push(Bucket::any_policy());
        }
    }

    /// Says whether the database has tiers of ACLs; without, their meaning is composed.
    pub fn set_tiers(&mut self, tiers: bool) -> Vec<Bucket> {
        if self.tiers == tiers {
            return Vec::new();
        }
        self.tiers = tiers;
        self.unplaced = true;
        vec![Bucket::passes()]
    }

    /// Brings the places up to date and returns the buckets that changed by it.
    pub fn settle(&mut self) -> Vec<Bucket> {
        if !std::mem::take(&mut self.unplaced) {
            return Vec::new();
        }
        let mut next = [ADMIN[0], BASELINE[0]];
        let mut places = BTreeMap::new();
        let policies: Vec<(&AdminPolicyFact, i64)> =
            self.admin_in_order().into_iter().map(|policy| (policy, self.slots_of(policy))).collect();
        let of_admin = policies.iter().filter(|(policy, _)| policy.tier == Tier::Admin);
        let mut needed: i64 = of_admin.map(|(_, slots)| slots).sum();
        for (policy, slots) in policies {
            let (tier, last, wanted) = match policy.tier {
                Tier::Admin => (0, ADMIN[1], natural(policy.priority.map_or(0, i64::from)).max(ADMIN[1] - 1 + needed)),
                Tier::Baseline => (1, BASELINE[1], BASELINE[0]),
            };
            needed -= slots;
            let first = next[tier].min(wanted);
            let after = first - slots;
            let fits = after >= last - 1;
            if fits {
                next[tier] = after;
            }
            places.insert(policy.key.clone(), fits.then_some(first));
        }
        let old = std::mem::replace(&mut self.places, places);
        let changed = self.places.iter().filter(|(key, place)| old.get(*key) != Some(*place));
        changed.map(|(key, _)| Bucket::admin_place(key)).chain([Bucket::passes()]).collect()
    }

    /// Admin policies in the order in which they are asked.
    pub fn admin_in_order(&self) -> Vec<&AdminPolicyFact> {
        let mut policies: Vec<&AdminPolicyFact> = self.admin.values().map(|policy| &**policy).collect();
        policies.sort_by(|a, b| a.order().cmp(&b.order()));
        policies
    }

    fn slots_of(&self, policy: &AdminPolicyFact) -> i64 {
        let slots = |rules: &[AdminRule]| rules.iter().map(|rule| self.slots(rule)).sum::<i64>();
        slots(&policy.ingress).max(slots(&policy.egress))
    }

    /// Lists a NetworkPolicy with its namespace, or takes it off; the first and the last one are told.
    fn list(&mut self, key: &Str, there: bool, touched: &mut Touched) {
        let namespace: Str = key.split_once('/').map_or("", |(namespace, _)| namespace).into();
        let keys = self.by_namespace.entry(namespace.clone()).or_default();
        let had = !keys.is_empty();
        if there {
            keys.insert(key.clone());
        } else {
            keys.remove(key);
        }
        let has = !keys.is_empty();
        if !has {
            self.by_namespace.remove(&namespace);
        }
        if had != has {
            touched.owners.push(Owner::new(kinds::NETPOL_NAMESPACE, namespace));
        }
    }
}

/// The priority of the first rule of a policy that has room enough before it.
fn natural(priority: i64) -> i64 {
    if priority < 100 { ADMIN[0] - 100 * priority } else { ADMIN[0] - 10_000 - 11 * (priority - 100) }
}

fn change_uses(
    old: &[(Selection, Use)],
    new: &[(Selection, Use)],
    selections: &mut Selections,
    pods: &Pods,
    touched: &mut Touched,
) {
    // First what comes, so that what both need stays.
    for (selection, what) in new.iter().filter(|used| old.binary_search(used).is_err()) {
        selections.acquire(selection, what, pods, touched);
    }
    for (selection, what) in old.iter().filter(|used| new.binary_search(used).is_err()) {
        selections.release(selection, what, pods, touched);
    }
}
