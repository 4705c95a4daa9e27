//! The engine: facts in, dirty owners and their translations out.
//!
//! ```text
//! apply(Change)* -> take_dirty() -> translate(owner) for each -> Output
//! ```
//!
//! What incremental use yields is what a new engine with the same facts would yield (a property test says so). Must not:
//! keep outputs (that is `reconcile::Desired`'s part).

use std::cell::RefCell;
use std::collections::BTreeSet;

use ovenbird_reconcile::{Output, Owner};

use crate::bucket::Bucket;
use crate::check::{self, Answer, Query, Refusal};
use crate::facts::{Change, Fact};
use crate::reads::Reads;
use crate::snapshot::Snapshot;
use crate::view::View;
use crate::{Config, Interner, cluster, kinds, node, pod, policy, service, service_cidr, underlay};

/// Facts, and who read what of them.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    snapshot: Snapshot,
    texts: RefCell<Interner>,
    dirty: BTreeSet<Owner>,
    reads: Reads,
}

impl Engine {
    /// An engine without facts; the cluster itself is dirty.
    pub fn new(config: Config) -> Engine {
        Engine {
            config,
            snapshot: Snapshot::default(),
            texts: RefCell::default(),
            dirty: BTreeSet::from([kinds::cluster()]),
            reads: Reads::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes a change in and marks the owners that it may concern.
    pub fn apply(&mut self, change: Change) {
        let policy = matches!(change, Change::Upsert(Fact::NetworkPolicy(_) | Fact::AdminPolicy(_)));
        if policy && !self.config.network_policy() {
            return;
        }
        let touched = self.snapshot.apply(change);
        self.dirty.extend(touched.owners);
        self.mark(&touched.buckets);
    }

    /// Says whether the database has tiers of ACLs (ovn-nb(5), `tier`); until then, and without them, their meaning is composed of
    /// priorities alone.
    pub fn set_acl_tiers(&mut self, tiers: bool) {
        let changed = self.snapshot.set_acl_tiers(tiers);
        self.mark(&changed);
    }

    /// The owners to translate since the last call, in commit order. Owners whose object is gone are among them: they
    /// translate to nothing.
    pub fn take_dirty(&mut self) -> Vec<Owner> {
        self.settle();
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// All owners that there are, in commit order.
    pub fn owners(&self) -> Vec<Owner> {
        self.snapshot.owners()
    }

    /// What an owner yields now. Who follows Peers translates all Pods: a Peer is marked with its Pod.
    pub fn translate(&mut self, owner: &Owner) -> Output {
        self.settle();
        let view = View::new(&self.config, &self.snapshot, &self.texts);
        let output = match owner.kind {
            kinds::CLUSTER => cluster::translate(&view, owner),
            kinds::NODE => node::translate(&view, owner),
            kinds::POD => pod::translate(&view, owner),
            kinds::SERVICE => service::translate(&view, owner),
            kinds::ADMIN_NETWORK_POLICY | kinds::BASELINE_ADMIN_NETWORK_POLICY | kinds::CLUSTER_NETWORK_POLICY => {
                policy::admin::translate(&view, owner)
            }
            kinds::POD_SELECTOR => policy::translate_selection(&view, owner),
            kinds::NETPOL_NAMESPACE => policy::translate_namespace(&view, owner),
            kinds::PEER => policy::translate_peer(&view, owner),
            kinds::NETWORK_POLICY => policy::translate(&view, owner),
            kinds::NETWORK => underlay::translate(&view, owner),
            kinds::SERVICE_CIDR => service_cidr::translate(&view, owner),
            _ => Output::default(),
        };
        // A Peer reads what its Pod reads, and is marked with it.
        if owner.kind != kinds::PEER {
            let reads = view.into_reads();
            self.reads.record(owner, reads);
        }
        output
    }

    /// What the policies say of a pod's traffic.
    ///
    /// # Errors
    /// When the question is about something that is not there.
    pub fn check(&mut self, query: &Query) -> Result<Answer, Refusal> {
        self.settle();
        // What it reads is not recorded: nothing is made of it.
        let view = View::new(&self.config, &self.snapshot, &self.texts);
        check::check(&self.config, &self.snapshot, &view, query)
    }

    fn settle(&mut self) {
        let changed = self.snapshot.settle(&self.config);
        self.mark(&changed);
    }

    fn mark(&mut self, buckets: &[Bucket]) {
        for owner in buckets.iter().flat_map(|bucket| self.reads.of(*bucket)) {
            if owner.kind == kinds::POD && self.snapshot.selections().is_peer(&owner.key) {
                self.dirty.insert(Owner::new(kinds::PEER, owner.key.clone()));
            }
            self.dirty.insert(Owner::clone(owner));
        }
    }
}
