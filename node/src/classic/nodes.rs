//! All nodes, as members of the classic network: their ends of tunnels and their subnets.
//!
//! ```text
//! annotations node-encap-ips, node-subnets; without them status.addresses (InternalIP), spec.podCIDRs --> Member
//! ```
//!
//! Must not: decide which of them are peers.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt};
use ovenbird_api::{annotation, node};
use ovenbird_classic::Member;
use tokio::sync::watch;

use crate::known::{self, Absence, Known};

/// Watches all Nodes; those that lack an address or subnets are not members yet.
pub fn watch_members(client: Client) -> watch::Receiver<Known<Member>> {
    known::follow(known::watch_all(Api::<Node>::all(client)), "nodes", Absence::Waits, member)
}

/// `None` for a node that nobody can reach yet. What cannot be read is told by its own daemon.
fn member(node: &Node) -> Option<Member> {
    let said = |key| node.annotations().get(key);
    let encap = said(annotation::NODE_ENCAP_IPS).and_then(|text| node::parse_encap_ips(text).ok());
    let status = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let internal = || status.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok());
    let subnets = said(annotation::NODE_SUBNETS).and_then(|text| node::parse_subnets(text).ok());
    let spec = node.spec.as_ref();
    let pod_cidrs = || {
        let many = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
        let one = spec.and_then(|s| s.pod_cidr.clone()).filter(|_| many.is_empty());
        many.into_iter().chain(one).filter_map(|text| text.parse().ok()).collect::<Vec<IpNet>>()
    };
    let subnets = subnets.unwrap_or_else(pod_cidrs);
    let address = encap.and_then(|all| all.first().copied()).or_else(internal)?;
    (!subnets.is_empty()).then(|| Member { name: node.name_any(), address, subnets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_win_over_what_the_kubelet_says() {
        let plain = serde_json::json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}]}});
        let found = member(&serde_json::from_value(plain.clone()).unwrap()).unwrap();
        assert_eq!(
            (found.address.to_string(), found.subnets[0].to_string()),
            ("10.0.0.1".into(), "10.244.1.0/24".into())
        );
        let mut said = plain;
        said["metadata"]["annotations"] = serde_json::json!({
            "k8s.ovn.org/node-encap-ips": "[\"10.1.0.1\"]", "k8s.ovn.org/node-subnets": "{\"default\":[\"10.128.0.0/23\"]}"});
        let found = member(&serde_json::from_value(said).unwrap()).unwrap();
        assert_eq!(
            (found.address.to_string(), found.subnets[0].to_string()),
            ("10.1.0.1".into(), "10.128.0.0/23".into())
        );
        assert_eq!(member(&Node::default()), None);
    }
}
