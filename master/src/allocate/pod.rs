//! Pods: addresses, and on nodes that are VMs tags; who holds them, and who waits. What is chosen goes its way in `choice`.

mod choice;

use ovenbird_api::annotation::{NETWORK, POD_NETWORKS};
use ovenbird_topology::allocate::AddressError;
use ovenbird_topology::underlay::scope;
use ovenbird_topology::{Fact, PodAddresses, PodFact};
use ovsdb::Str;

use super::network::network_of;
use super::node::Node;
use super::{Allocator, Effects, complaint};
use crate::annotate::{Request, Target};
use crate::event::Subject;
use crate::object::{Guard, Told};

/// A pod that must have a port.
#[derive(Debug)]
pub(super) struct Pod {
    pub uid: Str,
    pub node: Str,
    /// Where its addresses are from: the node, or a Network.
    pub home: Str,
    pub created: i64,
    /// As annotated, or as chosen.
    addresses: Option<PodAddresses>,
    /// The addresses are reserved in the node's pool.
    pub held: bool,
    /// There until the annotation has come by watch.
    work: Option<Box<Work>>,
    /// Of one with addresses of a Network, as annotated: what it takes to remove the annotation.
    guard: Option<Box<Guard>>,
    /// Why it has no address of its own.
    problem: Option<Box<str>>,
}

/// What it takes to get an annotation written.
#[derive(Debug)]
struct Work {
    /// The pod as it is, without the annotation.
    fact: PodFact,
    guard: Guard,
    stage: Stage,
}

#[derive(Debug, PartialEq)]
enum Stage {
    /// Nothing is chosen.
    Waiting,
    /// Chosen and shown; the write based on this version is in flight or done.
    Sent(Str),
    /// Chosen, but another version of the pod is needed to write it.
    Stale,
    /// The write failed, maybe after it took effect: kept reserved, not shown, tried again.
    Failed,
}

impl Pod {
    /// It has no address of its own, or its annotation is not there yet.
    pub fn is_waiting(&self) -> bool {
        !self.held || self.work.is_some()
    }

    /// The pod, while nothing is chosen for it.
    pub fn unchosen(&self) -> Option<&PodFact> {
        self.work.as_ref().filter(|work| work.stage == Stage::Waiting).map(|work| &work.fact)
    }

    /// Why it waits. `node` is its home.
    pub fn why(&self, node: Option<&Node>) -> Option<String> {
        if !self.is_waiting() {
            return None;
        }
        if let Some(problem) = &self.problem {
            return Some(problem.to_string());
        }
        let name = &self.node;
        if let Some(network) = network_of(&self.home) {
            return Some(match node.filter(|n| n.pool.is_some()) {
                _ if network.is_empty() => "its namespace is not known yet".into(),
                None => format!("Network {network} is not there, or has no effect; see the Events on it"),
                Some(_) if self.held => "its annotation is being written".into(),
                Some(_) => "no address is chosen yet".into(),
            });
        }
        Some(match node.filter(|n| n.known) {
            None => format!("node {name} does not exist"),
            Some(node) if node.pool.is_none() => format!("node {name} has no subnet yet"),
            Some(_) if self.held => "its annotation is being written".into(),
            Some(_) => "no address is chosen yet".into(),
        })
    }
}

impl Allocator {
    /// A pod is there, new or changed.
    pub fn upsert_pod(&mut self, told: Told<PodFact>, fx: &mut Effects) {
        let Told { fact, guard } = told;
        if let Some(node) = self.tags.pod(&fact) {
            self.tag_freed(&node, &fact.key, fx);
        }
        let Some(node) = fact.attached_to().cloned() else {
            self.forget_pod(&fact.key, fx);
            return fx.facts.push(Fact::Pod(fact));
        };
        let known = self.pods.get(&fact.key).filter(|old| old.uid == fact.uid && old.node == node);
        let home = match (&fact.network, &fact.on, known) {
            (Some(_), Some(network), _) => scope(network).into(),
            (Some(_), None, _) => node.clone(),
            // What is chosen stays.
            (None, _, Some(old)) if old.work.is_some() && old.unchosen().is_none() => old.home.clone(),
            (None, _, _) => self.home(&fact, &node),
        };
        if self.pods.get(&fact.key).is_some_and(|old| old.uid != fact.uid || old.node != node || old.home != home) {
            self.forget_pod(&fact.key, fx);
        }
        match fact.network {
            Some(Ok(addresses)) => self.annotated(&fact, (node, home), (addresses, guard), fx),
            // The engine complains of it; it is not overwritten.
            Some(Err(_)) => self.forget_pod(&fact.key, fx),
            None => return self.bare(fact, (node, home), guard, fx),
        }
        fx.facts.push(Fact::Pod(fact));
    }

    fn annotated(&mut self, fact: &PodFact, place: (Str, Str), told: (PodAddresses, Guard), fx: &mut Effects) {
        let (addresses, guard) = told;
        let guard = network_of(&place.1).map(|_| Box::new(guard));
        if let Some(pod) = self.pods.get_mut(&fact.key) {
            if pod.held && pod.addresses == Some(addresses) {
                (pod.work, pod.guard) = (None, guard);
                return self.complain(&fact.key, None, fx);
            }
            self.release(&fact.key, fx);
        }
        let pod = self.join(fact, place);
        (pod.addresses, pod.guard) = (Some(addresses), guard);
        if self.settled {
            self.hold(&fact.key, fx);
            self.evict(&fact.key, fx);
        }
    }

    /// Removes the annotation of a pod that cannot run, as somebody else on its Network has one of its addresses: it is given others.
    pub(super) fn evict(&self, key: &str, fx: &mut Effects) {
        let Some(pod) = self.pods.get(key).filter(|pod| self.active && !pod.held && pod.work.is_none()) else { return };
        let (Some(addresses), Some(guard)) = (&pod.addresses, &pod.guard) else { return };
        let network = network_of(&pod.home).and_then(|name| self.networks.usable(name));
        if network.is_some_and(|network| addresses.iter().any(|ip| network.in_use.contains(&ip))) {
            let (target, guard) = (Target::Pod(key.into()), (**guard).clone());
            fx.requests.push(Request { target, guard, annotations: Vec::new(), removed: &[POD_NETWORKS, NETWORK] });
        }
    }

    fn bare(&mut self, fact: PodFact, place: (Str, Str), guard: Guard, fx: &mut Effects) {
        let key = fact.key.clone();
        match self.pods.get_mut(&key).map(|pod| &mut **pod) {
            Some(Pod { work: Some(work), .. }) => {
                work.fact = fact;
                work.guard = guard;
            }
            known => {
                // New, or its annotation was removed.
                if known.is_some() {
                    self.release(&key, fx);
                }
                let pod = self.join(&fact, place);
                pod.work = Some(Box::new(Work { fact, guard, stage: Stage::Waiting }));
            }
        }
        self.choose(&key, fx);
        self.resend_stale(&key, fx);
        self.show(&key, fx);
    }

    /// The pod's record, made when there is none, without addresses.
    fn join(&mut self, fact: &PodFact, (node, home): (Str, Str)) -> &mut Pod {
        self.nodes.entry(home.clone()).or_default().pods.insert(fact.key.clone());
        let new = Pod {
            uid: fact.uid.clone(),
            node,
            home,
            created: fact.created,
            addresses: None,
            held: false,
            work: None,
            guard: None,
            problem: None,
        };
        let pod = self.pods.entry(fact.key.clone()).or_insert_with(|| Box::new(new));
        pod.addresses = None;
        pod.work = None;
        pod.guard = None;
        pod
    }

    /// The pod is gone, and with it its port in a VM: its tag, too, is free.
    pub(super) fn delete_pod(&mut self, key: &str, fx: &mut Effects) {
        let freed = self.tags.release(key);
        self.forget_pod(key, fx);
        if let Some(node) = freed {
            self.tag_freed(&node, key, fx);
        }
    }

    /// A tag of a node is free: its pods wait at home, be that the node or a Network.
    fn tag_freed(&mut self, node: &Str, freed: &str, fx: &mut Effects) {
        let waits = |key: &Str| self.pods.get(key).is_some_and(|pod| pod.node == *node);
        let homes = self.nodes.iter().filter(|(_, home)| home.blocked.iter().any(waits));
        let mut homes: Vec<Str> = homes.map(|(name, _)| name.clone()).collect();
        homes.sort_unstable();
        for home in homes {
            self.unblock(&home, freed, fx);
        }
    }

    /// The pod needs no port any more: its addresses are free at once.
    pub(super) fn forget_pod(&mut self, key: &str, fx: &mut Effects) {
        if !self.pods.contains_key(key) {
            return;
        }
        self.release(key, fx);
        self.complain(key, None, fx);
        let Some(pod) = self.pods.remove(key) else { return };
        self.leave(key, &pod.home);
    }

    /// A pod is no more at home somewhere.
    fn leave(&mut self, key: &str, home: &Str) {
        if let Some(node) = self.nodes.get_mut(home) {
            node.pods.remove(key);
            if node.pods.is_empty() && !node.known && node.network.is_none() {
                self.nodes.remove(home);
            }
        }
    }

    /// A pod for which nothing is chosen gets another home.
    pub(super) fn move_pod(&mut self, key: &Str, home: Str, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let before = std::mem::replace(&mut pod.home, home.clone());
        self.leave(key, &before);
        if let Some(node) = self.nodes.get_mut(&before) {
            node.blocked.retain(|other| other != key);
        }
        self.nodes.entry(home).or_default().pods.insert(key.clone());
        self.complain(key, None, fx);
        self.choose(key, fx);
        self.show(key, fx);
    }

    /// Frees the pod's addresses; whoever waited for one takes it.
    fn release(&mut self, key: &str, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let (held, addresses) = (std::mem::take(&mut pod.held), pod.addresses.take());
        let Some(node) = self.nodes.get_mut(&pod.home) else { return };
        if let (true, Some(addresses), Some(pool)) = (held, addresses, &mut node.pool) {
            pool.release(addresses.iter());
            let home = pod.home.clone();
            self.unblock(&home, key, fx);
        }
    }

    /// Something of a home is free: whoever waited for it takes it, but for the pod `freed` that had it.
    fn unblock(&mut self, name: &Str, freed: &str, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let mut blocked = std::mem::take(&mut node.blocked).into_iter();
        for next in blocked.by_ref() {
            if *next == *freed {
                continue;
            }
            self.hold(&next, fx);
            let full = self.choose(&next, fx);
            self.show(&next, fx);
            if full {
                break;
            }
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.blocked.extend(blocked);
        }
    }

    /// Reserves the addresses that the pod has by annotation, or was given before the pool was opened anew.
    pub(super) fn hold(&mut self, key: &Str, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let Some(node) = self.nodes.get_mut(&pod.home) else { return };
        let (Some(addresses), Some(pool), false) = (pod.addresses, &mut node.pool, pod.held) else { return };
        let reserved = match addresses.tag.map_or(Ok(()), |tag| self.tags.reserve(key, &pod.uid, &pod.node, tag)) {
            Ok(()) => pool
                .reserve(key, addresses.iter())
                .map_err(|e| (matches!(e, AddressError::Taken { .. }), e.to_string())),
            Err(error) => Err((true, error.to_string())),
        };
        match reserved {
            Ok(()) => {
                pod.held = true;
                self.complain(key, None, fx);
            }
            Err((may_be_freed, error)) => match &mut pod.work {
                // Ours to choose again.
                Some(work) => {
                    work.stage = Stage::Waiting;
                    pod.addresses = None;
                }
                // Annotated; the engine complains of it.
                None => {
                    if may_be_freed {
                        node.blocked.push(key.clone());
                    }
                    pod.problem = Some(error.into());
                }
            },
        }
    }

    /// Chooses for all pods of the node that wait.
    pub(super) fn fill_pods(&mut self, node: &str, fx: &mut Effects) {
        let Some(node) = self.nodes.get(node).filter(|n| self.active && n.pool.is_some()) else { return };
        let waits = |key: &&Str| self.pods.get(*key).is_some_and(|p| p.work.is_some());
        let mut keys: Vec<Str> = node.pods.iter().filter(waits).cloned().collect();
        keys.sort_unstable();
        for key in keys {
            self.choose(&key, fx);
            self.show(&key, fx);
        }
    }

    fn complain(&mut self, key: &str, problem: Option<(&'static str, String)>, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let text = problem.as_ref().map(|(_, text)| &**text);
        if pod.problem.as_deref() == text {
            return;
        }
        pod.problem = text.map(Into::into);
        let subject = Subject { kind: "Pod", key: key.into() };
        let diagnostics = problem.map_or(Vec::new(), |(reason, text)| complaint(reason, POD_NETWORKS, text));
        fx.complaints.push((subject, diagnostics));
    }
}
