//! How far the watches are: which lists are complete, and what waits for which of them.
//!
//! ```text
//! policies listed --> pods and policies are translated    all needed listed --> Services are translated, things chosen and deleted
//! ```
//!
//! Inputs: the ends of batches. Must not: know objects, or do what waits.

use crate::status::Watch;

/// What waits for a complete list of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Nothing: ServiceCIDRs yield no rows, and before Kubernetes 1.33 there are none.
    Nothing,
    /// What is chosen or deleted.
    Choice,
    /// That, and every pod: it says what pods may do, or where they are.
    Connection,
}

/// Kinds that are watched.
const KINDS: [(&str, Need); 12] = [
    ("Node", Need::Connection),
    ("Pod", Need::Choice),
    ("Namespace", Need::Connection),
    ("Service", Need::Choice),
    ("EndpointSlice", Need::Choice),
    ("NetworkPolicy", Need::Connection),
    ("AdminNetworkPolicy", Need::Connection),
    ("BaselineAdminNetworkPolicy", Need::Connection),
    ("ClusterNetworkPolicy", Need::Connection),
    ("Network", Need::Connection),
    ("ProviderNetwork", Need::Connection),
    ("ServiceCIDR", Need::Nothing),
];

/// See the file header.
#[derive(Debug)]
pub struct Lists {
    watches: [Watch; KINDS.len()],
    /// Generation of the last complete list of each kind.
    generations: [Option<u64>; KINDS.len()],
}

impl Default for Lists {
    fn default() -> Self {
        let watches = KINDS.map(|(kind, _)| Watch { kind, ..Watch::default() });
        Lists { watches, generations: [None; KINDS.len()] }
    }
}

impl Lists {
    /// All watches, for people.
    pub fn watches(&self) -> &[Watch] {
        &self.watches
    }

    /// Objects known of a kind.
    pub fn objects(&self, kind: &str) -> usize {
        self.watches.iter().find(|watch| watch.kind == kind).map_or(0, |watch| watch.objects)
    }

    /// A batch of a kind has come: so many objects are known with it, and this went wrong before.
    pub fn note(&mut self, kind: &str, objects: usize, error: Option<String>) {
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.kind == kind) {
            (watch.objects, watch.error) = (objects, error);
        }
    }

    /// A list of a generation is complete, and all of it taken in.
    pub fn complete(&mut self, kind: &str, generation: u64) {
        if let Some(at) = self.watches.iter().position(|watch| watch.kind == kind) {
            self.watches[at].complete = true;
            self.generations[at] = Some(generation);
        }
    }

    /// True when every list that is needed is complete.
    pub fn are_complete(&self) -> bool {
        self.missing().is_none()
    }

    /// A list that is needed and not complete.
    pub fn missing(&self) -> Option<&Watch> {
        self.needed(Need::Choice).map(|(watch, _)| watch).find(|watch| !watch.complete)
    }

    /// True when all that may restrict a pod is listed.
    pub fn have_policies(&self) -> bool {
        self.needed(Need::Connection).all(|(watch, _)| watch.complete)
    }

    /// True when every list that is needed is complete, and of this generation.
    pub fn are_of(&self, generation: u64) -> bool {
        self.needed(Need::Choice).all(|(_, listed)| *listed == Some(generation))
    }

    fn needed(&self, least: Need) -> impl Iterator<Item = (&Watch, &Option<u64>)> {
        let all = KINDS.iter().zip(self.watches.iter().zip(&self.generations));
        all.filter(move |((_, need), _)| *need >= least).map(|(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_wait_for_policies_and_choices_for_more() {
        let mut lists = Lists::default();
        for kind in ["Node", "Namespace", "NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"] {
            lists.complete(kind, 1);
        }
        lists.complete("Network", 1);
        lists.complete("ProviderNetwork", 1);
        assert!(!lists.have_policies());
        lists.complete("ClusterNetworkPolicy", 1);
        assert!(lists.have_policies() && !lists.are_complete());
        for kind in ["Pod", "Service", "EndpointSlice"] {
            assert_eq!(lists.missing().map(|watch| watch.kind), Some(kind));
            lists.complete(kind, 1);
        }
        assert!(lists.are_complete() && lists.are_of(1) && !lists.are_of(2));
        lists.note("Pod", 3, None);
        assert_eq!((lists.objects("Pod"), lists.objects("Node")), (3, 0));
    }
}
