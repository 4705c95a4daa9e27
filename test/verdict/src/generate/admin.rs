//! Random admin policies beside random NetworkPolicies: every field of the three kinds, most of them valid.
//!
//! Output: [`Case`]s, which print as text that can be read again. Must not: know the translation, or what a verdict should be.

mod policy;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeAddress};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use crate::evaluate::admin::Tiers;
use crate::evaluate::admin::object::Policy;

/// Most admin policies of a case.
const POLICIES: usize = 6;
/// Most NetworkPolicies beside them.
const NETWORK_POLICIES: usize = 3;

/// A cluster with admin policies, and packets to judge in it.
#[derive(Clone)]
pub struct Case {
    /// All but the admin policies; its nodes have labels and addresses.
    pub base: super::Case,
    /// The admin policies.
    pub policies: Vec<Policy>,
}

impl Case {
    /// The cluster as the evaluator has it.
    pub fn tiers(&self) -> Tiers<'_> {
        Tiers { cluster: &self.base.cluster, nodes: &self.base.nodes, policies: &self.policies }
    }

    /// Gives the nodes labels, and the addresses that their hosts have.
    fn label(&mut self, labels: &[BTreeMap<String, String>]) {
        let families = self.base.families.list();
        for (n, node) in (0..super::NODES).zip(&mut self.base.nodes) {
            let own = families.iter().map(|v6| super::uplink(n, *v6));
            let own = own.map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".to_owned() });
            node.metadata.labels = labels.get(usize::from(n)).cloned();
            node.status.get_or_insert_default().addresses = Some(own.collect());
        }
    }
}

/// A case.
pub fn case() -> impl Strategy<Value = Case> {
    with_policies(super::case())
}

/// Two cases of the same families.
pub fn pair() -> impl Strategy<Value = (Case, Case)> {
    super::pair().prop_flat_map(|(one, other)| (with_policies(Just(one)), with_policies(Just(other))))
}

fn with_policies(base: impl Strategy<Value = super::Case>) -> impl Strategy<Value = Case> {
    let nodes = vec(super::labels(), usize::from(super::NODES));
    let policies = vec(policy::policy(), 1..=POLICIES);
    (base, 0..=NETWORK_POLICIES, policies, nodes).prop_map(|(mut base, few, sketches, labels)| {
        base.cluster.policies.truncate(few);
        let policies = sketches.into_iter().enumerate().map(|(index, sketch)| sketch.build(index)).collect();
        let mut case = Case { base, policies };
        case.label(&labels);
        case
    })
}

/// As [`super::Case`] prints, with a line for each node's labels and each admin policy.
impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for node in &self.base.nodes {
            let metadata = serde_json::json!({"name": node.metadata.name, "labels": node.metadata.labels});
            writeln!(f, "{}", serde_json::json!({"kind": "Node", "metadata": metadata}))?;
        }
        for policy in &self.policies {
            let object = serde_json::to_value(policy).map_err(|_| std::fmt::Error)?;
            writeln!(f, "{}", without_nulls(object))?;
        }
        self.base.fmt(f)
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let there = map.into_iter().filter(|(_, value)| !value.is_null());
            there.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

impl std::str::FromStr for Case {
    /// The line that cannot be read, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let (mut base, mut policies, mut labels) = (String::new(), Vec::new(), Vec::new());
        for line in text.lines() {
            let kind = serde_json::from_str(line).map_or(String::new(), |object: Value| object["kind"].to_string());
            let error = |problem: serde_json::Error| format!("{line}: {problem}");
            match kind.trim_matches('"') {
                "Node" => {
                    let node: Node = serde_json::from_str(line).map_err(error)?;
                    labels.push(node.metadata.labels.unwrap_or_default());
                }
                "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy" => {
                    policies.push(serde_json::from_str(line).map_err(error)?);
                }
                _ => base.extend([line, "\n"]),
            }
        }
        let mut case = Case { base: base.parse()?, policies };
        case.label(&labels);
        Ok(case)
    }
}
