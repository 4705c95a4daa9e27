//! Tags of pods on nodes that are VMs: each is a child of the VM's port.
//!
//! A tag is the pod's from its choice until the Pod is deleted, not only until it is finished: its kubelet lets the object go after
//! the sandbox's DEL, by which the port in the VM is gone. Of a pod that was deleted by force this is not sure; its tag comes last in the ring
//! (`TagPool`), and the node daemon takes a port away whose tag another pod has.
//!
//! Must not: complain, or wait; the pod's part of the allocator does.

use ovenbird_topology::allocate::{TagError, TagPool};
use ovenbird_topology::{NodeFact, PodFact};
use ovsdb::Str;
use rustc_hash::{FxHashMap, FxHashSet};

/// See the file header.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Nodes that are VMs.
    nested: FxHashSet<Str>,
    /// By node.
    pools: FxHashMap<Str, TagPool>,
    /// By pod.
    held: FxHashMap<Str, Held>,
}

#[derive(Debug)]
struct Held {
    uid: Str,
    node: Str,
    tag: u16,
}

impl Tags {
    /// A node is there, new or changed.
    pub fn node(&mut self, node: &NodeFact) {
        match &node.parent {
            Some(_) => drop(self.nested.insert(node.name.clone())),
            None => drop(self.nested.remove(&node.name)),
        }
    }

    /// A node is gone. What pods hold of it they hold until they are gone, too.
    pub fn delete_node(&mut self, name: &str) {
        self.nested.remove(name);
    }

    /// A pod is there, new or changed: another one of this name, or one that is bound elsewhere, has no right to the tag held. One that is
    /// finished keeps its own. Returns the node of a tag that was freed.
    pub fn pod(&mut self, pod: &PodFact) -> Option<Str> {
        let freed = match self.held.get(&pod.key) {
            Some(held) if held.uid != pod.uid || Some(&held.node) != pod.node.as_ref() => self.release(&pod.key),
            _ => None,
        };
        if let (None, Some(node)) = (pod.attached_to(), pod.node.as_ref().filter(|_| !pod.host_network)) {
            let tag = pod.network.as_ref().and_then(|network| network.as_ref().ok()?.tag);
            // Should another have it, there is nothing to keep.
            let _ = tag.map(|tag| self.reserve(&pod.key, &pod.uid, node, tag));
        }
        freed
    }

    /// Takes the tag that a pod's annotation names.
    ///
    /// # Errors
    /// When another pod has it.
    pub fn reserve(&mut self, pod: &Str, uid: &Str, node: &Str, tag: u16) -> Result<(), TagError> {
        if self.held.get(pod).is_some_and(|held| held.tag == tag && held.node == *node) {
            return Ok(());
        }
        self.pools.entry(node.clone()).or_default().reserve(pod, tag)?;
        self.release(pod);
        self.held.insert(pod.clone(), Held { uid: uid.clone(), node: node.clone(), tag });
        Ok(())
    }

    /// The pod's tag, chosen when it has none; `None` on a node that is no VM.
    ///
    /// # Errors
    /// When all are in use.
    pub fn allocate(&mut self, pod: &Str, uid: &Str, node: &Str) -> Result<Option<u16>, TagError> {
        if !self.nested.contains(node) {
            return Ok(None);
        }
        if let Some(held) = self.held.get(pod) {
            return Ok(Some(held.tag));
        }
        let tag = self.pools.entry(node.clone()).or_default().allocate(pod)?;
        self.held.insert(pod.clone(), Held { uid: uid.clone(), node: node.clone(), tag });
        Ok(Some(tag))
    }

    /// Frees the pod's tag. Returns the node of it.
    pub fn release(&mut self, pod: &str) -> Option<Str> {
        let held = self.held.remove(pod)?;
        self.pools.get_mut(&held.node)?.release(held.tag);
        Some(held.node)
    }
}
