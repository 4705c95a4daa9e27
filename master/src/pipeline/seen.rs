//! What watches tell: through the allocator where it chooses something for the object, else to the engine.
//!
//! Must not: translate.

use std::sync::atomic::Ordering;

use ovenbird_reconcile::Owner;
use ovenbird_topology::{AdminPolicyFact, Change as FactChange, Fact, FactKey, NetworkFact, kinds};
use ovsdb::Str;

use super::{Pipeline, Seen};
use crate::watch::{Batch, Change};

impl Pipeline {
    /// Returns the number of changes.
    pub(super) fn on_seen(&mut self, seen: Seen) -> usize {
        match seen {
            Seen::Nodes(batch) => {
                let change = |this: &mut Self, told| this.allocator.upsert_node(told, &mut this.effects);
                self.take("Node", batch, FactKey::Node, change)
            }
            Seen::Pods(batch) => {
                let change = |this: &mut Self, told| this.allocator.upsert_pod(told, &mut this.effects);
                self.take("Pod", batch, FactKey::Pod, change)
            }
            Seen::Namespaces(batch) => {
                let change = |this: &mut Self, fact| this.allocator.upsert_namespace(fact, &mut this.effects);
                self.take("Namespace", batch, FactKey::Namespace, change)
            }
            Seen::Services(batch) => {
                let change = |this: &mut Self, fact| this.effects.facts.push(Fact::Service(fact));
                self.take("Service", batch, FactKey::Service, change)
            }
            Seen::EndpointSlices(batch) => {
                let change = |this: &mut Self, fact| this.effects.facts.push(Fact::EndpointSlice(fact));
                self.take("EndpointSlice", batch, FactKey::EndpointSlice, change)
            }
            Seen::NetworkPolicies(batch) => {
                let change = |this: &mut Self, fact| this.effects.facts.push(Fact::NetworkPolicy(fact));
                self.take("NetworkPolicy", batch, FactKey::NetworkPolicy, change)
            }
            Seen::AdminPolicies(kind, batch) => {
                let change = |this: &mut Self, fact: AdminPolicyFact| {
                    this.out.conditions.forget(&Owner::new(kinds::of_admin(kind), fact.key.1.clone()));
                    this.effects.facts.push(Fact::AdminPolicy(fact));
                };
                self.take(kind.as_str(), batch, |name| FactKey::AdminPolicy((kind, name)), change)
            }
            Seen::Networks(batch) => {
                let change = |this: &mut Self, fact: NetworkFact| {
                    this.out.conditions.forget(&Owner::new(kinds::NETWORK, fact.name.clone()));
                    this.allocator.upsert_network(fact, &mut this.effects);
                };
                self.take(kinds::NETWORK.name, batch, FactKey::Network, change)
            }
            Seen::ProviderNetworks(batch) => {
                let change = |this: &mut Self, fact| this.allocator.upsert_provider(fact, &mut this.effects);
                self.take("ProviderNetwork", batch, FactKey::ProviderNetwork, change)
            }
            Seen::ServiceCidrs(batch) => {
                let change = |this: &mut Self, fact| this.effects.facts.push(Fact::ServiceCidr(fact));
                self.take("ServiceCIDR", batch, FactKey::ServiceCidr, change)
            }
        }
    }

    fn take<T>(
        &mut self,
        kind: &str,
        batch: Batch<T>,
        key: impl Fn(Str) -> FactKey,
        upsert: impl Fn(&mut Self, T),
    ) -> usize {
        let count = batch.changes.len();
        self.lists.note(kind, batch.objects, batch.error);
        for change in batch.changes {
            match change {
                Change::Upsert(told) => upsert(self, told),
                Change::Delete(name) => {
                    let key = key(name);
                    self.allocator.delete(&key, &mut self.effects);
                    self.flush_facts();
                    self.engine.apply(FactChange::Delete(key));
                }
            }
        }
        if let Some(generation) = batch.complete {
            self.lists.complete(kind, generation);
            self.on_listed();
        }
        count
    }

    /// The engine must learn of facts and deletes in their order.
    fn flush_facts(&mut self) {
        for fact in self.effects.facts.drain(..) {
            self.engine.apply(FactChange::Upsert(fact));
        }
    }

    fn on_listed(&mut self) {
        if self.lists.are_complete() && !self.out.readiness.watches.swap(true, Ordering::Relaxed) {
            let [nodes, pods] = ["Node", "Pod"].map(|kind| self.lists.objects(kind));
            tracing::info!(nodes, pods, "every list is complete");
            self.allocator.settle(&mut self.effects);
        }
        self.activate();
    }
}
