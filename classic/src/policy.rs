//! NetworkPolicies and admin policies on a node, by nftables.
//!
//! ```text
//! facts --> topology's Engine --> ACLs, Port_Groups, Address_Sets --[rows, expression]--> what they say of own pods --[table]--> nft::Table
//! ```
//!
//! The rows are those of the overlay, without tiers, so what is proven of them holds here, too. What comes out of a pod is judged on
//! its node, and what goes into one likewise, by addresses, after Services have chosen an endpoint and before anything is masqueraded. Rows
//! of Cluster and Node, about what no policy may stop, are not taken: the node's own packets to its pods do not pass here.
//! Must not: do I/O.

mod expression;
mod rows;
mod table;

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_nft::Table;
use ovenbird_reconcile::Owner;
use ovenbird_topology::{Change, Config, Engine, Fact, FactKey, PodFact, kinds};
use ovsdb::Str;
use rustc_hash::FxHashSet;

pub use expression::Unreadable;
use rows::Rows;

/// Family and name of the table.
pub const TABLE: &str = "inet ovenbird-policy";

/// What policies say of the pods of one node.
#[derive(Debug)]
pub struct Policies {
    node: Str,
    engine: Engine,
    /// Pods of this node: of the others only addresses matter.
    own: FxHashSet<Str>,
    /// Those of them that have gone since the table was made.
    gone: FxHashSet<Str>,
    /// Networks of this node's pods.
    subnets: Vec<IpNet>,
    /// They have changed since the table was made.
    moved: bool,
    rows: Rows,
}

/// A pod of this node, as the table knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `namespace/name`.
    pub key: Str,
    /// `metadata.uid`; of a static pod the kubelet's.
    pub uid: Str,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Policies {
    /// Of a node, before anything is known.
    pub fn new(node: &str, config: Config) -> Policies {
        let mut engine = Engine::new(config);
        engine.set_acl_tiers(false);
        Policies {
            node: node.into(),
            engine,
            own: FxHashSet::default(),
            gone: FxHashSet::default(),
            subnets: Vec::new(),
            moved: false,
            rows: Rows::default(),
        }
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match &change {
            Change::Upsert(Fact::Pod(pod)) if pod.attached_to() == Some(&self.node) => {
                self.own.insert(pod.key.clone());
                self.gone.remove(&pod.key);
            }
            Change::Upsert(Fact::Pod(PodFact { key, .. })) | Change::Delete(FactKey::Pod(key)) => {
                self.gone.extend(self.own.get(key).cloned());
            }
            Change::Upsert(Fact::Node(node)) if node.name == self.node => {
                let subnets =
                    node.subnets.as_ref().and_then(|subnets| subnets.as_ref().ok()).cloned().unwrap_or_default();
                self.moved |= subnets != self.subnets;
                self.subnets = subnets;
            }
            _ => {}
        }
        self.engine.apply(change);
    }

    /// Brings what follows from the changes up to date. Returns false when the table is as it was.
    pub fn settle(&mut self) -> bool {
        let mut changed = std::mem::take(&mut self.moved);
        for owner in self.engine.take_dirty() {
            // A Peer is marked with its Pod, so Pods of other nodes are translated, too, for what they read.
            let concerns = self.concerns(&owner);
            if concerns || owner.kind == kinds::POD {
                let output = self.engine.translate(&owner);
                changed |= concerns && self.rows.set(&self.node, &owner, &output);
            }
        }
        for key in self.gone.drain() {
            self.own.remove(&key);
        }
        changed
    }

    /// The table, as of the last [`Policies::settle`].
    pub fn table(&self) -> Table {
        table::table(&self.rows, &self.subnets, self.engine.config().acl_logging_rate())
    }

    /// The pods of which the table knows, likewise.
    pub fn pods(&self) -> impl Iterator<Item = Pod> {
        let pod = |(key, port): (&Str, &rows::Port)| Pod {
            key: key.clone(),
            uid: port.uid.clone(),
            addresses: port.addresses.clone(),
        };
        self.rows.ports().iter().map(pod)
    }

    /// Networks of this node's pods.
    pub fn subnets(&self) -> &[IpNet] {
        &self.subnets
    }

    /// ACLs that cannot be said: what they would let through is dropped, and what they would drop is not. There are none, or topology writes
    /// something new.
    pub fn unreadable(&self) -> impl Iterator<Item = &Unreadable> {
        self.rows.unreadable()
    }

    fn concerns(&self, owner: &Owner) -> bool {
        match owner.kind {
            kinds::POD => self.own.contains(&owner.key),
            kinds::POD_SELECTOR | kinds::NETPOL_NAMESPACE | kinds::PEER | kinds::NETWORK_POLICY => true,
            _ => kinds::admin_key(owner).is_some(),
        }
    }
}
