//! Which weights pods ask for (annotation `weight`), for Services whose scheduler goes by them.
//!
//! ```text
//! changes of Pods --> by pod --> by address --> [services]
//! ```
//!
//! Must not: tell anything before all pods are listed: until then nobody knows who asks for none.

use std::net::IpAddr;

use ovenbird_classic::services::Weights;
use ovenbird_topology::{Change, Fact, FactKey, PodFact};
use ovsdb::Str;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

/// See the file header.
#[derive(Debug)]
pub struct Weighing {
    pods: FxHashMap<Str, (Vec<IpAddr>, u8)>,
    complete: bool,
    told: watch::Sender<Option<Weights>>,
}

impl Weighing {
    /// Knows of no pods yet.
    pub fn new(told: watch::Sender<Option<Weights>>) -> Weighing {
        Weighing { pods: FxHashMap::default(), complete: false, told }
    }

    /// Follows changes of Pods. `complete` says that with them a list ends.
    pub fn take(&mut self, changes: &[Change], complete: bool) {
        let mut news = complete && !self.complete;
        self.complete |= complete;
        for change in changes {
            news |= match change {
                Change::Upsert(Fact::Pod(pod)) => match asked(pod) {
                    Some(asked) => self.pods.insert(pod.key.clone(), asked.clone()).as_ref() != Some(&asked),
                    None => self.pods.remove(&pod.key).is_some(),
                },
                Change::Delete(FactKey::Pod(key)) => self.pods.remove(key).is_some(),
                _ => false,
            };
        }
        if news && self.complete {
            let all = self.pods.values().flat_map(|(addresses, weight)| addresses.iter().map(|own| (*own, *weight)));
            self.told.send_replace(Some(all.collect()));
        }
    }
}

/// What a pod asks for that has addresses of its own; a weight that cannot be read is none.
fn asked(pod: &PodFact) -> Option<(Vec<IpAddr>, u8)> {
    let weight = *pod.weight.as_ref()?.as_ref().ok()?;
    let addresses = pod.network.as_ref()?.as_ref().ok().filter(|_| !pod.finished && !pod.host_network)?;
    Some((addresses.iter().collect(), weight))
}

#[cfg(test)]
mod tests {
    use ovenbird_topology::Interner;
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_weighed_by_their_addresses_once_all_are_known() {
        let (tx, rx) = watch::channel(None);
        let mut weighing = Weighing::new(tx);
        let mut texts = Interner::default();
        let mut pod = |name: &str, ip: &str, weight: &str| {
            let network =
                json!({"default": {"ip_addresses": [format!("{ip}/24")], "mac_address": "0a:58:0a:80:00:03"}});
            let annotations = json!({"k8s.ovn.org/pod-networks": network.to_string(), "ovenbird.io/weight": weight});
            let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": "u", "annotations": annotations}, "spec": {"nodeName": "n1", "containers": []}});
            Change::Upsert(Fact::Pod(PodFact::from_k8s(&serde_json::from_value(pod).unwrap(), &mut texts)))
        };
        let seen = || rx.borrow().as_ref().map(|all| all.iter().map(|(ip, n)| format!("{ip} {n}")).collect::<Vec<_>>());
        weighing.take(&[pod("a", "10.244.1.4", "3"), pod("b", "10.244.1.5", "much")], false);
        assert_eq!(seen(), None);
        weighing.take(&[], true);
        assert_eq!(seen(), Some(vec!["10.244.1.4 3".into()]));
        weighing.take(&[pod("b", "10.244.1.5", "20")], false);
        assert_eq!(seen(), Some(vec!["10.244.1.4 3".into(), "10.244.1.5 20".into()]));
        weighing.take(&[Change::Delete(FactKey::Pod("ns/a".into())), pod("b", "10.244.1.5", "0")], false);
        assert_eq!(seen(), Some(vec![]));
    }
}
