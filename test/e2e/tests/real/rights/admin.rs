//! The rights to admin policies: what makes the master need each, and how to see that it has it again.

use anyhow::{Context, Result};
use kube::api::{Api as KubeApi, ApiResource, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::{Right, World};

/// Kind, version and plural.
const KINDS: [[&str; 3]; 3] = [
    ["AdminNetworkPolicy", "v1alpha1", "adminnetworkpolicies"],
    ["BaselineAdminNetworkPolicy", "v1alpha1", "baselineadminnetworkpolicies"],
    ["ClusterNetworkPolicy", "v1alpha2", "clusternetworkpolicies"],
];

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
    fn admin(&self, kind: &Kind) -> KubeApi<DynamicObject> {
        KubeApi::all_with(self.client.clone(), &kind.0)
    }

    pub(super) async fn count_admin(&self, kind: &Kind) -> Result<usize> {
        Ok(self.admin(kind).list_metadata(&ListParams::default()).await?.items.len())
    }

    /// A policy of which something cannot be used, each time something else; returns its name.
    pub(super) async fn admin_policy(&self, kind: &Kind) -> Result<String> {
        let wrong = self.name();
        let baseline = kind.name() == "BaselineAdminNetworkPolicy";
        let name = if baseline { "default" } else { &*wrong };
        let mut spec = json!({
            "subject": {"namespaces": {"matchLabels": {"no": "where"}}},
            "egress": [{"action": "Deny", "to": [{"networks": [wrong]}]}],
        });
        if !baseline {
            spec["priority"] = json!(7);
        }
        if kind.name() == "ClusterNetworkPolicy" {
            spec["tier"] = json!("Baseline");
        }
        let policy =
            json!({"apiVersion": kind.0.api_version, "kind": kind.0.kind, "metadata": {"name": name}, "spec": spec});
        self.lab.apply(&policy.to_string()).await?;
        Ok(name.to_owned())
    }

    /// Waits until what the newest policy of the kind is told, as Event or condition, is there.
    pub(super) async fn admin_told(&self, right: &Right, kind: &Kind) -> Result<()> {
        let name = self.admin_policy(kind).await?;
        if !right.resource.ends_with("/status") {
            return self.told(&name).await;
        }
        let objects = self.admin(kind);
        self.until("a condition of this generation", async || {
            let object = objects.get(&name).await.context("reading the policy")?;
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
            let current = |c: &Value| c["observedGeneration"].as_i64() == object.metadata.generation;
            Ok(conditions.into_iter().flatten().any(current))
        })
        .await
    }
}
