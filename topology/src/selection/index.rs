//! The index of selections: which pods each one has, kept while either side changes.
//!
//! ```text
//! namespace --scopes--> Scope (one namespace, or one namespace selector) --by a label--> selections --uses--> owners
//!     '--pods--> matched selections
//! ```
//!
//! A pod is looked up by its own labels in the scopes of its namespace; a new selection looks through the pods of its scope once. Only
//! pods that have a port count: not those on the host's network, unbound or finished. A namespace of which no object is known has the one
//! label that every namespace has. Inputs: facts and uses. Outputs: owners and buckets that a change touches. Must not: keep facts of pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use ovenbird_api::Protocol;
use ovenbird_reconcile::{Owner, Shared};
use ovsdb::Str;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::scope::{Id, Scope};
use super::{Namespaces, Selection, Use};
use crate::bucket::Bucket;
use crate::facts::{Labels, NAME_LABEL, NamespaceFact, PodFact};
use crate::kinds;
use crate::snapshot::{Pods, Touched};

type ScopeId = usize;

/// See the file header.
#[derive(Debug, Default)]
pub(crate) struct Selections {
    ids: FxHashMap<Str, Id>,
    selected: Slab<Selected>,
    scope_ids: FxHashMap<Namespaces, ScopeId>,
    scopes: Slab<Scope>,
    homes: FxHashMap<Str, Home>,
    /// Equal ones are one: a Deployment's pods are in the same.
    lists: Shared<[Id]>,
}

/// A selection in use.
#[derive(Debug)]
pub(crate) struct Selected {
    /// What is selected.
    pub selection: Selection,
    /// Its text, which is the key of its owner.
    pub key: Str,
    /// Uses with their number, sorted.
    uses: Vec<(Use, u32)>,
    /// By port name that some use asks for: how many of its pods mean which number.
    numbers: BTreeMap<(Protocol, Str), BTreeMap<u16, u32>>,
    scope: ScopeId,
}

/// A namespace with pods, or of which the object is known.
#[derive(Debug, Default)]
struct Home {
    fact: Option<NamespaceFact>,
    scopes: Vec<ScopeId>,
    /// By pod that has a port: the selections that it is in, sorted.
    pods: BTreeMap<Str, Arc<[Id]>>,
}

impl Selected {
    /// True when it is used so.
    pub fn is_used(&self, what: &Use) -> bool {
        self.uses.binary_search_by(|(known, _)| known.cmp(what)).is_ok()
    }

    /// All its uses, sorted.
    pub fn uses(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter().map(|(what, _)| what)
    }

    /// The numbers that a port name means to its pods, sorted. The name must be in use.
    pub fn numbers(&self, protocol: Protocol, name: &Str) -> impl Iterator<Item = u16> {
        self.numbers.get(&(protocol, name.clone())).into_iter().flat_map(|counts| counts.keys().copied())
    }
}

impl Selections {
    /// A selection in use, by its text.
    pub fn get(&self, key: &str) -> Option<&Selected> {
        self.selected.get(*self.ids.get(key)?)
    }

    /// The selections that a pod is in.
    pub fn of_pod<'a>(&'a self, pod: &str) -> impl Iterator<Item = &'a Selected> + use<'a> {
        self.ids_of(pod).iter().filter_map(|id| self.selected.get(*id))
    }

    /// The keys of all pods that are in some selection used as a peer, unsorted.
    pub fn peers(&self) -> impl Iterator<Item = &Str> {
        let pods = self.homes.values().flat_map(|home| &home.pods);
        pods.filter(|(_, ids)| self.any_peer(ids)).map(|(key, _)| key)
    }

    /// Whether a pod is in some selection used as a peer.
    pub fn is_peer(&self, pod: &str) -> bool {
        self.any_peer(self.ids_of(pod))
    }

    /// The texts of all selections in use, unsorted.
    pub fn keys(&self) -> impl Iterator<Item = &Str> {
        self.ids.keys()
    }

    /// The keys of a namespace's pods that have a port, sorted.
    pub fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Str> + use<'a> {
        self.homes.get(namespace).into_iter().flat_map(|home| home.pods.keys())
    }

    /// A namespace's fact.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFact> {
        self.homes.get(name)?.fact.as_ref()
    }

    /// Whether a selection looks for pods in a namespace.
    pub fn is_in(&self, selection: &Selection, namespace: &str) -> bool {
        is_of(&selection.namespaces, namespace, self.namespace(namespace))
    }

    /// Counts a further use.
    pub fn acquire(&mut self, selection: &Selection, what: &Use, pods: &Pods, touched: &mut Touched) {
        let key = selection.to_string();
        let id = match self.ids.get(&*key) {
            Some(id) => *id,
            None => self.insert(key.into(), selection, pods),
        };
        let Some(selected) = self.selected.get_mut(id) else { return };
        match selected.uses.binary_search_by(|(known, _)| known.cmp(what)) {
            Ok(at) => selected.uses[at].1 += 1,
            Err(at) => {
                selected.uses.insert(at, (what.clone(), 1));
                self.used(id, what, pods, touched);
            }
        }
    }

    /// Counts a use less.
    pub fn release(&mut self, selection: &Selection, what: &Use, pods: &Pods, touched: &mut Touched) {
        let Some(id) = self.ids.get(&*selection.to_string()).copied() else { return };
        let Some(selected) = self.selected.get_mut(id) else { return };
        let Ok(at) = selected.uses.binary_search_by(|(known, _)| known.cmp(what)) else { return };
        selected.uses[at].1 -= 1;
        if selected.uses[at].1 == 0 {
            selected.uses.remove(at);
            let unused = selected.uses.is_empty();
            self.used(id, what, pods, touched);
            if unused {
                self.remove(id);
            }
        }
    }

    /// Takes in a pod that came, changed or went.
    pub fn set_pod(&mut self, before: Option<&PodFact>, after: Option<&PodFact>, touched: &mut Touched) {
        let with_port = |pod: &&PodFact| pod.attached_to().is_some();
        let (before, after) = (before.filter(with_port), after.filter(with_port));
        let Some(pod) = after.or(before) else { return };
        let same = |a: &PodFact, b: &PodFact| a.labels == b.labels && a.ports == b.ports;
        if !before.zip(after).is_some_and(|(a, b)| same(a, b)) {
            self.home(pod.namespace());
            let new = after.map(|pod| self.matches(pod));
            let old = self.set_matched(&pod.key, new.as_deref());
            let new = new.unwrap_or_default();
            if self.any_peer(&old) && !self.any_peer(&new) {
                touched.owners.push(Owner::new(kinds::PEER, pod.key.clone()));
            }
            // First those that come, so that a number which stays is not told.
            after.into_iter().for_each(|pod| self.count(&new, pod, true, touched));
            before.into_iter().for_each(|pod| self.count(&old, pod, false, touched));
            self.forget_home(pod.namespace());
        }
        if self.is_peer(&pod.key) {
            touched.owners.push(Owner::new(kinds::PEER, pod.key.clone()));
        }
    }

    /// Takes in a namespace that came, changed or went.
    pub fn set_namespace(&mut self, name: &Str, fact: Option<NamespaceFact>, pods: &Pods, touched: &mut Touched) {
        let logging = |fact: Option<&NamespaceFact>| fact.and_then(|fact| fact.acl_logging.clone());
        let home = self.home(name);
        if logging(home.fact.as_ref()) != logging(fact.as_ref()) {
            touched.buckets.push(Bucket::acl_logging(name));
        }
        if home.fact.as_ref().map(|fact| &fact.labels) != fact.as_ref().map(|fact| &fact.labels) {
            touched.buckets.extend([Bucket::network_policies(), Bucket::labels(name)]);
        }
        home.fact = fact;
        let scopes = self.scopes_of(name);
        let home = self.home(name);
        if home.scopes != scopes {
            home.scopes = scopes;
            for pod in home.pods.clone().keys().filter_map(|key| pods.get(key)) {
                self.match_again(pod, touched);
            }
        }
        self.forget_home(name);
    }

    /// Compares a pod with the selections of its namespace, which changed.
    fn match_again(&mut self, pod: &PodFact, touched: &mut Touched) {
        let new = self.matches(pod);
        let old = self.set_matched(&pod.key, Some(&new));
        if *old == *new {
            return;
        }
        touched.owners.push(Owner::new(kinds::POD, pod.key.clone()));
        if self.any_peer(&old) || self.any_peer(&new) {
            touched.owners.push(Owner::new(kinds::PEER, pod.key.clone()));
        }
        self.count(&new, pod, true, touched);
        self.count(&old, pod, false, touched);
    }

    /// The selections that a pod is in, sorted.
    fn ids_of(&self, pod: &str) -> &[Id] {
        let home = if self.selected.is_empty() { None } else { self.homes.get(namespace_of(pod)) };
        home.and_then(|home| home.pods.get(pod)).map_or(&[], |ids| ids)
    }

    /// Notes the selections that a pod is in, `None` when it has no port; returns those before. Its namespace is known.
    fn set_matched(&mut self, pod: &Str, ids: Option<&[Id]>) -> Arc<[Id]> {
        let Some(home) = self.homes.get_mut(namespace_of(pod)) else { return Arc::default() };
        let old = match ids {
            Some(ids) => home.pods.insert(pod.clone(), self.lists.intern(ids)),
            None => home.pods.remove(pod),
        };
        old.unwrap_or_default()
    }

    /// Changes which selections a pod is in that has a port.
    fn change_matched(&mut self, pod: &str, change: impl FnOnce(&mut Vec<Id>)) {
        let home = self.homes.get_mut(namespace_of(pod));
        let Some(ids) = home.and_then(|home| home.pods.get_mut(pod)) else { return };
        let mut changed = ids.to_vec();
        change(&mut changed);
        *ids = self.lists.intern(&changed);
    }

    /// A use began or ended: tells the selection's owner and those of its pods.
    fn used(&mut self, id: Id, what: &Use, pods: &Pods, touched: &mut Touched) {
        let members = self.members(id);
        let Some(selected) = self.selected.get_mut(id) else { return };
        touched.owners.push(Owner::new(kinds::POD_SELECTOR, selected.key.clone()));
        let kind = if what.is_peer() { kinds::PEER } else { kinds::POD };
        if let Use::TargetPort(protocol, name) | Use::PeerPort(protocol, name) = what {
            let (protocol, name) = (*protocol, name.clone());
            let wanted = selected.is_used(&Use::TargetPort(protocol, name.clone()))
                || selected.is_used(&Use::PeerPort(protocol, name.clone()));
            let port = (protocol, name);
            if !wanted {
                selected.numbers.remove(&port);
            } else if !selected.numbers.contains_key(&port) {
                let numbers = members.iter().filter_map(|key| pods.get(key)?.number(port.0, &port.1));
                let counts: &mut BTreeMap<u16, u32> = selected.numbers.entry(port.clone()).or_default();
                numbers.for_each(|number| *counts.entry(number).or_default() += 1);
            }
        }
        touched.owners.extend(members.into_iter().map(|key| Owner::new(kind, key)));
    }

    /// Counts the numbers that a pod means, for those of its selections in which a name is in use.
    fn count(&mut self, ids: &[Id], pod: &PodFact, more: bool, touched: &mut Touched) {
        for id in ids {
            let Some(selected) = self.selected.get_mut(*id) else { continue };
            for ((protocol, name), counts) in &mut selected.numbers {
                let Some(number) = pod.number(*protocol, name) else { continue };
                let count = counts.entry(number).or_default();
                *count = if more { *count + 1 } else { count.saturating_sub(1) };
                let gone = *count == 0;
                if gone {
                    counts.remove(&number);
                }
                if gone || (more && counts.get(&number) == Some(&1)) {
                    touched.buckets.push(Bucket::port_numbers(&selected.key, *protocol, name));
                    touched.owners.push(Owner::new(kinds::POD_SELECTOR, selected.key.clone()));
                }
            }
        }
    }

    fn any_peer(&self, ids: &[Id]) -> bool {
        ids.iter().any(|id| self.selected.get(*id).is_some_and(|s| s.uses.iter().any(|(what, _)| what.is_peer())))
    }

    /// The pods of a selection.
    fn members(&self, id: Id) -> Vec<Str> {
        let Some(selected) = self.selected.get(id) else { return Vec::new() };
        let homes = self.homes_in(selected.scope, &selected.selection.namespaces);
        let pods = homes.flat_map(|home| &home.pods).filter(|(_, ids)| ids.binary_search(&id).is_ok());
        pods.map(|(key, _)| key.clone()).collect()
    }

    /// The namespaces of a scope.
    fn homes_in<'a>(&'a self, scope: ScopeId, namespaces: &'a Namespaces) -> Box<dyn Iterator<Item = &'a Home> + 'a> {
        match namespaces {
            Namespaces::Only(name) => Box::new(self.homes.get(name).into_iter()),
            Namespaces::Matching(_) => Box::new(self.homes.values().filter(move |home| home.scopes.contains(&scope))),
        }
    }

    /// The selections that a pod with a port is in, sorted.
    fn matches(&self, pod: &PodFact) -> Vec<Id> {
        let scopes = self.homes.get(pod.namespace()).map_or(&[][..], |home| &home.scopes);
        let mut ids = Vec::new();
        for scope in scopes.iter().filter_map(|id| self.scopes.get(*id)) {
            let fits = |id: &&Id| self.selected.get(**id).is_some_and(|s| s.selection.pods.matches(&pod.labels));
            ids.extend(scope.candidates(&pod.labels).filter(fits));
        }
        ids.sort_unstable();
        ids
    }

    fn insert(&mut self, key: Str, selection: &Selection, pods: &Pods) -> Id {
        let scope = match self.scope_ids.get(&selection.namespaces) {
            Some(scope) => *scope,
            None => self.insert_scope(&selection.namespaces),
        };
        let id = self.selected.insert(Selected {
            selection: selection.clone(),
            key: key.clone(),
            uses: Vec::with_capacity(1),
            numbers: BTreeMap::new(),
            scope,
        });
        self.ids.insert(key, id);
        if let Some(scope) = self.scopes.get_mut(scope) {
            scope.insert(&selection.pods, id);
        }
        let keys = self.homes_in(scope, &selection.namespaces).flat_map(|home| home.pods.keys());
        let fits = |key: &&Str| pods.get(*key).is_some_and(|pod| selection.pods.matches(&pod.labels));
        for key in keys.filter(fits).cloned().collect::<Vec<_>>() {
            self.change_matched(&key, |ids| ids.insert(ids.partition_point(|other| *other < id), id));
        }
        id
    }

    fn remove(&mut self, id: Id) {
        for key in self.members(id) {
            self.change_matched(&key, |ids| ids.retain(|other| *other != id));
        }
        let Some(selected) = self.selected.try_remove(id) else { return };
        self.ids.remove(&selected.key);
        let Some(scope) = self.scopes.get_mut(selected.scope) else { return };
        scope.remove(&selected.selection.pods, id);
        if scope.is_empty() {
            self.scopes.try_remove(selected.scope);
            self.scope_ids.remove(&selected.selection.namespaces);
            self.homes.values_mut().for_each(|home| home.scopes.retain(|other| *other != selected.scope));
        }
    }

    fn insert_scope(&mut self, namespaces: &Namespaces) -> ScopeId {
        let id = self.scopes.insert(Scope::default());
        self.scope_ids.insert(namespaces.clone(), id);
        for (name, home) in &mut self.homes {
            if is_of(namespaces, name, home.fact.as_ref()) {
                home.scopes.push(id);
                home.scopes.sort_unstable();
            }
        }
        id
    }

    /// The scopes that a namespace is in, sorted.
    fn scopes_of(&self, name: &str) -> Vec<ScopeId> {
        let fact = self.namespace(name);
        let scopes = self.scope_ids.iter().filter(|(namespaces, _)| is_of(namespaces, name, fact));
        let mut scopes: Vec<ScopeId> = scopes.map(|(_, id)| *id).collect();
        scopes.sort_unstable();
        scopes
    }

    fn home(&mut self, name: &str) -> &mut Home {
        if !self.homes.contains_key(name) {
            let scopes = self.scopes_of(name);
            self.homes.insert(name.into(), Home { scopes, ..Home::default() });
        }
        self.homes.entry(name.into()).or_default()
    }

    fn forget_home(&mut self, name: &str) {
        if self.homes.get(name).is_some_and(|home| home.fact.is_none() && home.pods.is_empty()) {
            self.homes.remove(name);
        }
    }
}

impl Use {
    /// Of the other end, not of the pods that are isolated.
    fn is_peer(&self) -> bool {
        matches!(self, Use::Peer | Use::PeerPort(..))
    }
}

/// The namespace of a pod, of `namespace/name`.
fn namespace_of(pod: &str) -> &str {
    pod.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn is_of(namespaces: &Namespaces, name: &str, fact: Option<&NamespaceFact>) -> bool {
    match (namespaces, fact) {
        (Namespaces::Only(only), _) => **only == *name,
        (Namespaces::Matching(selector), Some(fact)) => selector.matches(&fact.labels),
        (Namespaces::Matching(selector), None) => {
            let labels: Labels = [(NAME_LABEL.into(), name.into())].into();
            selector.matches(&labels)
        }
    }
}
