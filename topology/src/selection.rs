//! Selections: sets of pods that selectors name, kept up to date while pods and namespaces come, go and change labels.
//!
//! ```text
//! policies --uses--> [Selection -> SelectionId] <--matches-- pods (by namespace, by label)
//! ```
//!
//! The one place where selectors meet pods; whatever selects pods (policies, egress features) shares it. A selection lives as long as
//! something uses it; equal selectors are one selection. A change of a pod costs what it matches, not how many selections there
//! are. Must not: know rows, or what a use is for beyond its kind.

mod index;
mod scope;
mod selector;

use std::fmt;

use ovenbird_api::Protocol;
use ovsdb::Str;

pub(crate) use index::{Selected, Selections};
pub use selector::{LabelSelector, Problem, Requirement};

/// A set of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selection {
    /// Of these namespaces.
    pub namespaces: Namespaces,
    /// Those with these labels.
    pub pods: LabelSelector,
}

/// Where a selection looks for pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespaces {
    /// One namespace, by name.
    Only(Str),
    /// All namespaces with these labels.
    Matching(LabelSelector),
}

/// What a selection is used for; how often is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Its pods are isolated for what comes in.
    Ingress,
    /// Its pods are isolated for what goes out.
    Egress,
    /// Its pods are the subject of an admin policy.
    Subject,
    /// Its pods are allowed as the other end.
    Peer,
    /// Its pods' own port of this name is opened.
    TargetPort(Protocol, Str),
    /// A port of this name is opened towards its pods.
    PeerPort(Protocol, Str),
}

impl Selection {
    /// All pods of all namespaces.
    pub fn everything() -> Selection {
        Selection { namespaces: Namespaces::Matching(LabelSelector::default()), pods: LabelSelector::default() }
    }
}

/// `web/app=a`: the pods of namespace web with that label; `[team=x]/app=a`: of all namespaces with that label. No two selections
/// have one text.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            Namespaces::Only(name) => write!(f, "{name}/{}", self.pods),
            Namespaces::Matching(selector) => write!(f, "[{selector}]/{}", self.pods),
        }
    }
}
