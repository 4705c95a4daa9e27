//! Feature: nodes that are VMs on OVN hypervisors. Ports of such a node are children of the VM's port.
//!
//! ```text
//! Node, annotation parent-port --> parent_name        Pod, tag in pod-networks --> tag_request        [way_out]: by the VM
//! ```
//!
//! Two nodes may name one parent, two pods one tag: the older has it. The parent itself is of whoever made the VM: its row is neither
//! read nor written; without it, OVN binds no child. A child port names no chassis: it is where its parent is. A Node that
//! was a VM and is none must be made anew.

mod way_out;

use std::collections::BTreeSet;

use ovenbird_api::annotation::{PARENT_PORT, POD_NETWORKS};
use ovenbird_reconcile::{Diagnostic, Output, Severity};
use ovsdb::Str;
use rustc_hash::FxHashMap;
pub(crate) use way_out::{add as add_way_out, host};

use crate::build::{complaint, refused};
use crate::facts::{NodeFact, PodAddresses, PodFact};
use crate::node::check;
use crate::view::View;

/// What became of a node's parent port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The name of the port.
    Port(Str),
    /// It is this other node's; or, without a name, the annotation cannot be read.
    None(Option<Str>),
}

/// Which pod claims which tag, by node.
#[derive(Debug, Default)]
pub(crate) struct Tags(FxHashMap<Str, BTreeSet<(u16, i64, Str)>>);

impl Tags {
    /// A pod claims the tag of its annotation, if it has one. Returns node and tag.
    pub fn claim<'a>(&mut self, pod: &'a PodFact) -> Option<(&'a Str, u16)> {
        let (node, tag) = claim_of(pod)?;
        self.0.entry(node.clone()).or_default().insert((tag, pod.created, pod.key.clone()));
        Some((node, tag))
    }

    /// It claims it no more.
    pub fn unclaim<'a>(&mut self, pod: &'a PodFact) -> Option<(&'a Str, u16)> {
        let (node, tag) = claim_of(pod)?;
        let claims = self.0.get_mut(node)?;
        claims.remove(&(tag, pod.created, pod.key.clone()));
        if claims.is_empty() {
            self.0.remove(node);
        }
        Some((node, tag))
    }

    /// The pod that has a tag: of those that claim it the oldest, then the first by key.
    pub fn holder(&self, node: &str, tag: u16) -> Option<&Str> {
        let first = self.0.get(node)?.range((tag, i64::MIN, Str::default())..).next()?;
        (first.0 == tag).then_some(&first.2)
    }
}

fn claim_of(pod: &PodFact) -> Option<(&Str, u16)> {
    Some((pod.attached_to()?, pod.network.as_ref()?.as_ref().ok()?.tag?))
}

/// Gives each node the parent port that it names; of two nodes that name one, to the older.
pub(crate) fn judge<'a>(nodes: impl Iterator<Item = &'a NodeFact>) -> FxHashMap<Str, Parent> {
    let mut nodes: Vec<&NodeFact> = nodes.filter(|node| node.parent.is_some()).collect();
    nodes.sort_by_key(|node| (node.created, &node.name));
    let mut taken: FxHashMap<&Str, &Str> = FxHashMap::default();
    let mut judged = FxHashMap::default();
    for node in nodes {
        let parent = match &node.parent {
            Some(Ok(port)) => match taken.get(&**port) {
                Some(holder) => Parent::None(Some((*holder).clone())),
                None => {
                    taken.insert(&**port, &node.name);
                    Parent::Port((**port).clone())
                }
            },
            _ => Parent::None(None),
        };
        judged.insert(node.name.clone(), parent);
    }
    judged
}

/// The parent of the host's port, `None` for a node that is no VM, or cannot have the one it names.
pub(crate) fn parent_of_node<'a>(
    view: &View<'a>,
    node: &NodeFact,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'a Str> {
    check(&node.parent, PARENT_PORT, Severity::Error, diagnostics);
    match view.parent(&node.name)? {
        Parent::Port(port) => Some(port),
        Parent::None(holder) => {
            let told = holder.as_ref().map(|holder| {
                let problem = format!("its parent port is node {holder}'s, which is older; give each VM's own port");
                complaint(Severity::Error, "ParentPortInUse", PARENT_PORT, &problem)
            });
            diagnostics.extend(told);
            None
        }
    }
}

/// Parent and tag of a pod's port; `None` on a node that is no VM. Then a tag has no meaning.
///
/// # Errors
/// When it has none, or an older pod has it: a complaint; when the node has no parent, which is the node's to complain of: nothing.
pub(crate) fn child<'a>(
    view: &View<'a>,
    pod: &PodFact,
    node: &Str,
    addresses: &PodAddresses,
) -> Result<Option<(&'a Str, u16)>, Box<Output>> {
    let parent = match view.parent(node) {
        None => return Ok(None),
        Some(Parent::None(_)) => return Err(Box::default()),
        Some(Parent::Port(port)) => port,
    };
    let refuse = |reason, problem: &str| Err(Box::new(refused(reason, POD_NETWORKS, &problem)));
    let Some(tag) = addresses.tag else {
        return refuse("NoTag", "its node is a VM, and it has no tag; remove the annotation and it is written anew");
    };
    match view.tag_holder(node, tag).filter(|key| **key != pod.key) {
        None => Ok(Some((parent, tag))),
        Some(holder) => {
            let problem = format!(
                "tag {tag} belongs to pod {holder}, which is older; remove the annotation and it is written anew"
            );
            refuse("TagInUse", &problem)
        }
    }
}
