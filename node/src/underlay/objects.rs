//! Watches ProviderNetworks and Networks, and writes this node's part of their status.
//!
//! A cluster without these definitions, or one whose node accounts may not read them, has none. Must not: judge what it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use ovenbird_api::underlay::{
    GROUP, Holder, NETWORK, NETWORKS, NetworkSpec, NodeStatus, PROVIDER_NETWORK, PROVIDER_NETWORKS, VERSION,
};
use ovenbird_api::{ProviderNetworkSpec, ProviderNetworkStatus};
use ovenbird_daemon::rights;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::known::{self, Absence, Known};
use crate::plug::Report;

/// Time that an ADD spends on telling of an address.
const LIMIT: Duration = Duration::from_secs(5);
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
pub type Providers = Known<Provider>;

/// A Network that the master has accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its ProviderNetwork.
    pub provider: String,
    /// Its VLAN there; `None` for frames without a tag.
    pub vlan: Option<u16>,
    /// Subnets that OVN routes to.
    pub routed: Vec<IpNet>,
}

/// All of them by name; `None` until they are listed, or it is clear that there are none.
pub type Segments = Known<Segment>;

/// What the API says of physical networks.
#[derive(Clone, Debug)]
pub struct Objects {
    /// ProviderNetworks.
    pub providers: watch::Receiver<Providers>,
    /// Networks.
    pub segments: watch::Receiver<Segments>,
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
    let all = |kind, plural| known::watch_all(Api::<DynamicObject>::all_with(client.clone(), &resource(kind, plural)));
    let providers = all(PROVIDER_NETWORK, PROVIDER_NETWORKS);
    let providers = known::follow(providers, PROVIDER_NETWORKS, Absence::Empty, move |object| Some(provider(object)));
    let segments = known::follow(all(NETWORK, NETWORKS), NETWORKS, Absence::Empty, segment);
    let routed = known::derive(segments.clone(), |all| {
        let mut new: Vec<IpNet> = all.iter().flat_map(BTreeMap::values).flat_map(|s| &s.routed).copied().collect();
        new.sort_unstable();
        new.dedup();
        new
    });
    Objects { providers, segments, routed }
}

/// A part of an object; what cannot be read is as if it were not there, and the master tells of it.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> T {
    serde_json::from_value(object.data[name].clone()).unwrap_or_default()
}

/// A Network, once the master has accepted it.
fn segment(object: &DynamicObject) -> Option<Segment> {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let accepted = conditions.into_iter().flatten().any(|c| c["type"] == "Accepted" && c["status"] == "True");
    let spec: NetworkSpec<IgnoredAny> = part(object, "spec");
    let routed = |net: &IpNet| {
        spec.gateway.ovn.iter().filter_map(|text| text.parse().ok()).any(|ip: std::net::IpAddr| net.contains(&ip))
    };
    accepted.then(|| Segment {
        vlan: spec.vlan.filter(|vlan| *vlan != 0),
        routed: spec.subnets.iter().filter_map(|text| text.parse().ok()).filter(routed).collect(),
        provider: spec.provider_network,
    })
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

/// A way to write into a Network's status that somebody has an address, by which the master gives it to no pod. What cannot be written is said in
/// the log: the ADD fails in any case, and is repeated.
pub fn reports(client: Client, node: &str) -> Report {
    let node = node.to_owned();
    Box::new(move |network, ip, mac| {
        let objects = Api::<DynamicObject>::all_with(client.clone(), &resource(NETWORK, NETWORKS));
        let (network, seen) = (network.to_owned(), k8s_openapi::jiff::Timestamp::now());
        // To the second, as Kubernetes writes times.
        let seen = format!("{seen:.0}");
        let holder = Holder { mac: mac.to_string(), node: node.clone(), seen };
        let patch = json!({"status": {"inUse": {ip.to_string(): holder}}});
        Box::pin(async move {
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            let patch = Patch::Merge(&patch);
            let written = objects.patch_status(&network, &params, &patch);
            match tokio::time::timeout(LIMIT, written).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) if rights::was_told(&e) => {}
                Ok(Err(e)) => warn!("writing the status of Network {network}: {e}"),
                Err(_) => warn!("writing the status of Network {network}: no answer within {LIMIT:?}"),
            }
        })
    })
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
        let routed = |status, gateway| segment(&object(status, gateway)).map(|segment| segment.routed);
        assert_eq!(routed("True", ovn.clone()), Some(vec!["192.168.100.0/24".parse().unwrap()]));
        assert_eq!(routed("False", ovn), None);
        assert_eq!(routed("True", json!({"physical": ["192.168.100.1"]})), Some(vec![]));
    }
}
