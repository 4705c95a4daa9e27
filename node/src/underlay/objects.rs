//! Watches ProviderNetworks and Networks, and writes this node's part of a ProviderNetwork's status.
//!
//! A cluster without these definitions, or one whose node accounts may not read them, has none. Must not: judge what it reads.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt;
use ipnet::IpNet;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use ovenbird_api::underlay::{
    GROUP, NETWORK, NETWORKS, NetworkSpec, NodeStatus, PROVIDER_NETWORK, PROVIDER_NETWORKS, VERSION,
};
use ovenbird_api::{ProviderNetworkSpec, ProviderNetworkStatus};
use ovenbird_daemon::{access, rights};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

/// Manager name of our writes.
const MANAGER: &str = "ovenbird-node";

/// A ProviderNetwork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// `spec`.
    pub spec: ProviderNetworkSpec,
    /// This node's part of `status`.
    pub said: Option<NodeStatus>,
}

/// All ProviderNetworks by name; `None` until they are listed, or it is clear that there are none.
pub type Providers = Option<BTreeMap<String, Provider>>;

/// What the API says of physical networks.
#[derive(Clone, Debug)]
pub struct Objects {
    /// ProviderNetworks.
    pub providers: watch::Receiver<Providers>,
    /// Subnets that are reached over the management port.
    pub routed: watch::Receiver<Vec<IpNet>>,
}

/// A kind as dynamic clients name it.
fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: GROUP.into(),
        version: VERSION.into(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// Watches both kinds.
pub fn watch_all(client: &Client, node: &str) -> Objects {
    let node = node.to_owned();
    let provider = move |object: &DynamicObject| {
        let status: ProviderNetworkStatus = part(object, "status");
        Provider { spec: part(object, "spec"), said: status.nodes.get(&node).cloned() }
    };
    let (providers_tx, providers) = watch::channel(None);
    follow(client, resource(PROVIDER_NETWORK, PROVIDER_NETWORKS), provider, move |all| {
        providers_tx.send_if_modified(|old| old.replace(all.clone()).as_ref() != Some(all));
    });
    let (routed_tx, routed) = watch::channel(Vec::new());
    follow(client, resource(NETWORK, NETWORKS), routed_subnets, move |all: &BTreeMap<String, Vec<IpNet>>| {
        let mut new: Vec<IpNet> = all.values().flatten().copied().collect();
        new.sort_unstable();
        new.dedup();
        routed_tx.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
    });
    Objects { providers, routed }
}

/// A part of an object; what cannot be read is as if it were not there, and the master tells of it.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> T {
    serde_json::from_value(object.data[name].clone()).unwrap_or_default()
}

/// The subnets of a Network that OVN routes to, once the master has accepted it.
fn routed_subnets(object: &DynamicObject) -> Vec<IpNet> {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let accepted = conditions.into_iter().flatten().any(|c| c["type"] == "Accepted" && c["status"] == "True");
    let spec: NetworkSpec<IgnoredAny> = part(object, "spec");
    if !accepted {
        return Vec::new();
    }
    let routed = |net: &IpNet| {
        spec.gateway.ovn.iter().filter_map(|text| text.parse().ok()).any(|ip: std::net::IpAddr| net.contains(&ip))
    };
    spec.subnets.iter().filter_map(|text| text.parse().ok()).filter(routed).collect()
}

/// Keeps what is told of each object of a kind, and passes all of it on after each change.
fn follow<T: Clone + Debug + Send + 'static>(
    client: &Client,
    resource: ApiResource,
    tell: impl Fn(&DynamicObject) -> T + Send + 'static,
    pass: impl Fn(&BTreeMap<String, T>) + Send + 'static,
) {
    let objects = Api::<DynamicObject>::all_with(client.clone(), &resource);
    tokio::spawn(async move {
        let mut all = std::pin::pin!(watcher(objects, watcher::Config::default()).backoff(access::watch_backoff()));
        let (mut known, mut listing) = (BTreeMap::new(), BTreeMap::new());
        let mut listed = false;
        while let Some(event) = all.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => drop(listing.insert(object.name_any(), tell(&object))),
                Ok(Event::InitDone) => (known, listed) = (std::mem::take(&mut listing), true),
                Ok(Event::Apply(object)) => drop(known.insert(object.name_any(), tell(&object))),
                Ok(Event::Delete(object)) => drop(known.remove(&object.name_any())),
                Err(e) if access::is_unknown_kind(&e) => (known, listed) = (BTreeMap::new(), true),
                // What was known stays; a daemon that may not read them goes on without.
                Err(e) if rights::was_told(&e) => listed = true,
                Err(e) => warn!("watching {}: {e}", resource.plural),
            }
            if listed {
                pass(&known);
            }
        }
    });
}

/// Writes this node's part of a ProviderNetwork's status, or takes it out.
///
/// # Errors
/// Those of the API, but that the object is gone.
pub async fn say(client: &Client, name: &str, node: &str, said: Option<&NodeStatus>) -> Result<(), kube::Error> {
    let objects = Api::<DynamicObject>::all_with(client.clone(), &resource(PROVIDER_NETWORK, PROVIDER_NETWORKS));
    // With null for what is absent: a merge would keep it.
    let whole = said.map(
        |said| json!({"ready": said.ready, "bridge": said.bridge, "reason": said.reason, "message": said.message}),
    );
    let patch = json!({"status": {"nodes": {node: whole}}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match objects.patch_status(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accepted_networks_with_a_router_of_ovn_are_routed() {
        let object = |status: &str, gateway: Value| -> DynamicObject {
            serde_json::from_value(
                json!({"apiVersion": "ovenbird.io/v1alpha1", "kind": "Network", "metadata": {"name": "a"},
                "spec": {"subnets": ["192.168.100.0/24", "fd00::/64"], "gateway": gateway, "namespaceSelector": {}},
                "status": {"conditions": [{"type": "Accepted", "status": status}]}}),
            )
            .unwrap()
        };
        let ovn = json!({"ovn": ["192.168.100.1"]});
        assert_eq!(routed_subnets(&object("True", ovn.clone())), ["192.168.100.0/24".parse().unwrap()]);
        assert_eq!(routed_subnets(&object("False", ovn)), []);
        assert_eq!(routed_subnets(&object("True", json!({"physical": ["192.168.100.1"]}))), []);
    }
}
