//! The rights to kinds that `deploy/crds.yaml` brings (admin policies, Networks, ProviderNetworks): what makes a daemon need each, and how to see that
//! it has it again.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api as KubeApi, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::runtime::conditions::is_pod_running;
use ovenbird_e2e::real::await_object;
use ovenbird_kube::version::BUSYBOX;
use serde_json::{Value, json};

use super::{POD_NETWORK, Right, World};

/// Kind, version and plural.
const KINDS: [[&str; 3]; 5] = [
    ["AdminNetworkPolicy", "v1alpha1", "adminnetworkpolicies"],
    ["BaselineAdminNetworkPolicy", "v1alpha1", "baselineadminnetworkpolicies"],
    ["ClusterNetworkPolicy", "v1alpha2", "clusternetworkpolicies"],
    ["Network", "v1alpha1", "networks"],
    ["ProviderNetwork", "v1alpha1", "providernetworks"],
];

/// A physical network that node 1 is on, and its bridge there.
const PROVIDER: &str = "physical";
const BRIDGE: &str = "br-physical";
/// A Network there on which the host has the first address, its namespace, and the pod that is to get it.
const TAKEN: &str = "taken";

/// One of the kinds.
#[derive(Clone, Debug)]
pub(super) struct Kind(ApiResource);

impl Kind {
    /// The kind that a right is about, if it is one of them.
    pub fn of(right: &Right) -> Option<Kind> {
        let plural = right.resource.trim_end_matches("/status");
        let [kind, version, plural] = KINDS.into_iter().find(|known| known[2] == plural)?;
        Some(Kind(ApiResource {
            group: right.group.clone(),
            version: version.into(),
            api_version: format!("{}/{version}", right.group),
            kind: kind.into(),
            plural: plural.into(),
        }))
    }

    pub fn name(&self) -> &str {
        &self.0.kind
    }
}

impl World<'_> {
    fn custom(&self, kind: &Kind) -> KubeApi<DynamicObject> {
        KubeApi::all_with(self.client.clone(), &kind.0)
    }

    pub(super) async fn count_custom(&self, kind: &Kind) -> Result<usize> {
        Ok(self.custom(kind).list_metadata(&ListParams::default()).await?.items.len())
    }

    pub(super) async fn custom_mended(&self, right: &Right, kind: &Kind) -> Result<()> {
        match &*right.verb {
            _ if right.is_of_addresses_in_use() => self.pod_gets_another_address().await,
            _ if right.account == "ovenbird-node" => self.node_sees_network(kind).await,
            "get" | "patch" => self.custom_told(right, kind).await,
            _ => self.master_sees(right).await,
        }
    }

    /// An object of which something cannot be used, each time something else; returns its name.
    pub(super) async fn custom_object(&self, kind: &Kind) -> Result<String> {
        let own = self.name();
        let (name, spec) = match kind.name() {
            // No node has the bridge.
            "ProviderNetwork" => (&*own, json!({"nodes": [{"nodeSelector": {}, "bridge": "br-nowhere"}]})),
            // The cluster's pods are there.
            "Network" => {
                let spec = json!({"providerNetwork": "none", "vlan": self.number()?, "subnets": [format!("{POD_NETWORK}.0.0/24")]});
                (&*own, spec)
            }
            kind => {
                let mut spec = json!({
                    "subject": {"namespaces": {"matchLabels": {"no": "where"}}},
                    "egress": [{"action": "Deny", "to": [{"networks": [own]}]}],
                });
                let baseline = kind == "BaselineAdminNetworkPolicy";
                if !baseline {
                    spec["priority"] = json!(7);
                }
                if kind == "ClusterNetworkPolicy" {
                    spec["tier"] = json!("Baseline");
                }
                (if baseline { "default" } else { &*own }, spec)
            }
        };
        self.apply_custom(kind, name, &spec).await?;
        Ok(name.to_owned())
    }

    pub(super) async fn apply_custom(&self, kind: &Kind, name: &str, spec: &Value) -> Result<()> {
        let ApiResource { api_version, kind, .. } = &kind.0;
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.lab.apply(&object.to_string()).await.map(drop)
    }

    /// The node says of a new ProviderNetwork how it is with it; or it leads to a Network that OVN routes.
    async fn node_sees_network(&self, kind: &Kind) -> Result<()> {
        if kind.name() == "ProviderNetwork" {
            let name = self.custom_object(kind).await?;
            let objects = self.custom(kind);
            return self
                .until("the node's part of the status", async || {
                    let object = objects.get(&name).await.context("reading a ProviderNetwork")?;
                    Ok(object.data.pointer("/status/nodes/node1").is_some())
                })
                .await;
        }
        // A Network is in effect once a node is on its physical network.
        self.be_on_physical_network(kind).await?;
        let (name, number) = (self.name(), self.number()?);
        let subnet = format!("10.77.{number}.0/24");
        let gateway = json!({"ovn": [format!("10.77.{number}.254")]});
        let spec = json!({"providerNetwork": PROVIDER, "vlan": number, "subnets": [subnet], "gateway": gateway});
        self.apply_custom(kind, &name, &spec).await?;
        let routes = async || Ok(self.lab.exec_node("node1", &["ip", "route", "show"])?.contains(&subnet));
        self.until("a route to the Network", routes).await
    }

    /// Puts node 1 on the physical network; `kind` is of the same group.
    async fn be_on_physical_network(&self, kind: &Kind) -> Result<()> {
        let bridge =
            ["ovs-vsctl", "--may-exist", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"];
        self.lab.exec_node("node1", &bridge)?;
        let (kind_name, plural) = ("ProviderNetwork".into(), "providernetworks".into());
        let provider = Kind(ApiResource { kind: kind_name, plural, ..kind.0.clone() });
        self.apply_custom(&provider, PROVIDER, &json!({"nodes": [{"bridge": BRIDGE}]})).await?;
        let objects = self.custom(&provider);
        self.until("node 1 to be on the physical network", async || {
            let object = objects.get(PROVIDER).await.context("reading the ProviderNetwork")?;
            Ok(object.data.pointer("/status/nodes/node1/ready") == Some(&Value::Bool(true)))
        })
        .await
    }

    /// A pod whose address the host answers for.
    pub(super) async fn pod_with_anothers_address(&self, kind: &Kind) -> Result<()> {
        self.be_on_physical_network(kind).await?;
        for command in [
            ["ip", "address", "replace", "10.78.0.1/28", "dev", BRIDGE].as_slice(),
            ["ip", "link", "set", BRIDGE, "up"].as_slice(),
        ] {
            self.lab.exec_node("node1", command)?;
        }
        self.lab.namespace(TAKEN).await?;
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": TAKEN}});
        let spec = json!({"providerNetwork": PROVIDER, "subnets": ["10.78.0.0/28"], "namespaceSelector": selector});
        self.apply_custom(kind, TAKEN, &spec).await?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": TAKEN, "namespace": TAKEN},
            "spec": {"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "idle", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]},
        });
        self.lab.apply(&pod.to_string()).await.map(drop)
    }

    async fn pod_gets_another_address(&self) -> Result<()> {
        await_object(self.lab, TAKEN, TAKEN, is_pod_running()).await?;
        let pods = KubeApi::<Pod>::namespaced(self.client.clone(), TAKEN);
        let ip = pods.get(TAKEN).await?.status.and_then(|status| status.pod_ip);
        anyhow::ensure!(ip.as_deref() == Some("10.78.0.2"), "the pod has {ip:?}, and the host 10.78.0.1");
        pods.delete(TAKEN, &DeleteParams::default()).await.map(drop).context("deleting the pod")
    }

    /// Waits until what the newest object of the kind is told, as Event or condition, is there.
    async fn custom_told(&self, right: &Right, kind: &Kind) -> Result<()> {
        let name = self.custom_object(kind).await?;
        if !right.resource.ends_with("/status") {
            return self.told(&name).await;
        }
        let objects = self.custom(kind);
        self.until("a condition of this generation", async || {
            let object = objects.get(&name).await.context("reading the object")?;
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
            let current = |c: &Value| c["observedGeneration"].as_i64() == object.metadata.generation;
            Ok(conditions.into_iter().flatten().any(current))
        })
        .await
    }
}
