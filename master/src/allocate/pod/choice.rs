//! What is chosen for a pod, on its way into the pod's annotations: written, refused, written again, or taken back.
//!
//! Must not: know where a pod is at home (`pod`, `network`).

use ovenbird_topology::{Fact, PodAddresses};
use ovsdb::Str;

use super::{Pod, Stage};
use crate::allocate::network::{NO_NETWORK, told};
use crate::allocate::{Allocator, Effects, shown};
use crate::annotate::{Outcome, Request, Target};

impl Allocator {
    /// Chooses addresses and has them written. True when the node has none left.
    pub(super) fn choose(&mut self, key: &Str, fx: &mut Effects) -> bool {
        let Some(pod) = self.pods.get_mut(key).filter(|_| self.active) else { return false };
        let Some(work) = pod.work.as_mut().filter(|w| w.stage == Stage::Waiting) else { return false };
        if *pod.home == *NO_NETWORK {
            let problem = "no Network takes pods of its namespace; make one that selects it, or one with default: true";
            self.complain(key, Some(("NoNetwork", problem.to_owned())), fx);
            return false;
        }
        let Some(node) = self.nodes.get_mut(&pod.home) else { return false };
        let Some(pool) = &mut node.pool else { return false };
        let chosen = match pool.allocate(key) {
            Ok(addresses) => addresses,
            Err(error) => {
                node.blocked.push(key.clone());
                self.complain(key, Some(("NoFreeAddress", error.to_string())), fx);
                return true;
            }
        };
        let tag = match self.tags.allocate(key, &pod.uid, &pod.node) {
            Ok(tag) => tag,
            Err(error) => {
                pool.release(chosen);
                node.blocked.push(key.clone());
                self.complain(key, Some(("NoFreeTag", error.to_string())), fx);
                return false;
            }
        };
        // A pool without subnets gives no address, so there always is an attachment.
        let place = (&*pod.home, node.subnets());
        let Some((network, annotations)) = told(&self.config, &self.networks, place, (&pod.uid, &chosen), tag) else {
            return false;
        };
        pod.addresses = Some(network.into());
        pod.held = true;
        work.stage = Stage::Sent(work.guard.version.clone());
        fx.requests.push(Request {
            target: Target::Pod(key.clone()),
            guard: work.guard.clone(),
            annotations,
            removed: &[],
        });
        self.complain(key, None, fx);
        false
    }

    /// Hands the pod's fact to the engine: with its choice while that is being written, otherwise as it is.
    pub(super) fn show(&self, key: &str, fx: &mut Effects) {
        let Some(Pod { work: Some(work), addresses, held, home, .. }) = self.pods.get(key).map(|pod| &**pod) else {
            return;
        };
        fx.facts.push(Fact::Pod(match (addresses, &work.stage) {
            (Some(addresses), Stage::Sent(_)) if *held => shown(&work.fact, home, *addresses),
            _ => work.fact.clone(),
        }));
    }

    pub(in crate::allocate) fn pod_outcome(&mut self, key: &Str, version: &Str, outcome: Outcome, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let Some(work) = &mut pod.work else { return };
        if work.stage != Stage::Sent(version.clone()) {
            return;
        }
        match outcome {
            Outcome::Written => return,
            Outcome::Conflict => {
                let newer = work.guard.version != *version;
                work.stage = Stage::Stale;
                if newer {
                    self.resend_stale(key, fx);
                }
            }
            Outcome::Gone => self.take_back(key, fx),
            Outcome::Refused(error) => {
                work.stage = Stage::Failed;
                self.failed.push(Target::Pod(key.clone()));
                let problem = format!("the API server refuses its addresses, trying again: {error}");
                self.complain(key, Some(("AnnotationRefused", problem)), fx);
            }
            Outcome::Failed(error) => {
                work.stage = Stage::Failed;
                pod.problem = Some(format!("its annotation could not be written, trying again: {error}").into());
                self.failed.push(Target::Pod(key.clone()));
            }
        }
        self.show(key, fx);
    }

    /// A newer version of a pod whose write met another one has come.
    pub(super) fn resend_stale(&mut self, key: &Str, fx: &mut Effects) {
        if self.pods.get(key).is_some_and(|p| p.work.as_ref().is_some_and(|w| w.stage == Stage::Stale)) {
            self.resend(key, fx);
        }
    }

    /// Writes the same choice again, on the version that is known now.
    pub(in crate::allocate) fn resend(&mut self, key: &Str, fx: &mut Effects) {
        let Some(pod) = self.pods.get_mut(key).filter(|p| p.held && self.active) else { return };
        let Some(work) = pod.work.as_mut().filter(|w| matches!(w.stage, Stage::Stale | Stage::Failed)) else { return };
        let Some(node) = self.nodes.get(&pod.home) else { return };
        let addresses: Vec<_> = pod.addresses.iter().flat_map(PodAddresses::iter).collect();
        let place = (&*pod.home, node.subnets());
        let tag = pod.addresses.and_then(|addresses| addresses.tag);
        let Some((_, annotations)) = told(&self.config, &self.networks, place, (&pod.uid, &addresses), tag) else {
            return;
        };
        work.stage = Stage::Sent(work.guard.version.clone());
        fx.requests.push(Request {
            target: Target::Pod(key.clone()),
            guard: work.guard.clone(),
            annotations,
            removed: &[],
        });
        self.show(key, fx);
    }

    pub(super) fn take_back(&mut self, key: &str, fx: &mut Effects) {
        self.tags.release(key);
        self.release(key, fx);
        if let Some(work) = self.pods.get_mut(key).and_then(|p| p.work.as_mut()) {
            work.stage = Stage::Waiting;
        }
    }

    /// We lead no more: choices that are not known to be written are another's to make.
    pub(in crate::allocate) fn withdraw(&mut self, fx: &mut Effects) {
        self.withdraw_nodes();
        let chosen = self.pods.iter().filter(|(_, p)| p.work.is_some() && p.addresses.is_some());
        let mut keys: Vec<Str> = chosen.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        for key in keys {
            self.take_back(&key, fx);
            self.show(&key, fx);
        }
    }
}
