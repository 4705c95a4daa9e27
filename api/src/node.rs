//! Typed node annotations: one parse and one format function for each, named after the annotation.
//!
//! Keys and who writes them: `annotation`. The gateway's has a file of its own, `gateway`. Must not: judge values against the cluster's configuration (topology does).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::annotation::{
    At, HOST_CIDRS, NODE_CHASSIS_ID, NODE_ENCAP_IPS, NODE_ID, NODE_MGMT_PORT_MACS, NODE_PRIMARY_IFADDR, NODE_SUBNETS,
    POD_MTU, PerNetwork, quote,
};
use crate::{AnnotationError, Mac};

/// Node ids in use, as many as Kubernetes supports nodes: 0 is nobody and 1 the cluster router in the join subnet.
pub const NODE_IDS: std::ops::RangeInclusive<u16> = 2..=5001;

/// `node-primary-ifaddr`: the address of the node's default-route interface, one of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryIfaddr {
    /// IPv4 address with prefix length.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ipv4: Option<Ipv4Net>,
    /// IPv6 address with prefix length.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ipv6: Option<Ipv6Net>,
}

/// Reads `node-subnets`: one subnet, or one of each family; host bits are dropped.
///
/// # Errors
/// When the text is not `{"default":["10.128.0.0/23"]}`.
pub fn parse_subnets(text: &str) -> Result<Vec<IpNet>, AnnotationError> {
    let at = At::whole(NODE_SUBNETS).field("default");
    let subnets: Vec<IpNet> = at.parse_all(&at.texts(default_of(NODE_SUBNETS, text)?)?, "a subnet")?;
    at.one_per_family(subnets.iter().map(IpNet::trunc).collect())
}

/// Text of `node-subnets`.
pub fn format_subnets(subnets: &[IpNet]) -> String {
    format!(r#"{{"default":{}}}"#, list(subnets))
}

/// Reads `node-id`.
///
/// # Errors
/// When the text is not a number in [`NODE_IDS`].
pub fn parse_id(text: &str) -> Result<u16, AnnotationError> {
    let at = At::whole(NODE_ID);
    let id = at.parse(text, "a number from 2 to 5001")?;
    if NODE_IDS.contains(&id) { Ok(id) } else { Err(at.error(format!("{id} is not from 2 to 5001"))) }
}

/// Text of `node-id`.
pub fn format_id(id: u16) -> String {
    id.to_string()
}

/// Reads `node-chassis-id`.
///
/// # Errors
/// When the text is empty, or has white space or control characters.
pub fn parse_chassis_id(text: &str) -> Result<&str, AnnotationError> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(At::whole(NODE_CHASSIS_ID).error(format!("{} is not a system-id", quote(text))));
    }
    Ok(text)
}

/// Reads `node-primary-ifaddr`.
///
/// # Errors
/// When the text is not `{"ipv4":"172.18.0.4/16","ipv6":"..."}` with at least one of them.
pub fn parse_primary_ifaddr(text: &str) -> Result<PrimaryIfaddr, AnnotationError> {
    let at = At::whole(NODE_PRIMARY_IFADDR);
    let parsed: PrimaryIfaddr = at.object(text, "an object of ipv4 and ipv6")?;
    if parsed == PrimaryIfaddr::default() { Err(at.error("empty")) } else { Ok(parsed) }
}

/// Text of `node-primary-ifaddr`.
pub fn format_primary_ifaddr(address: &PrimaryIfaddr) -> String {
    serde_json::to_string(address).unwrap_or_default()
}

/// Reads `node-encap-ips`.
///
/// # Errors
/// When the text is not `["172.18.0.4"]`.
pub fn parse_encap_ips(text: &str) -> Result<Vec<IpAddr>, AnnotationError> {
    let at = At::whole(NODE_ENCAP_IPS);
    at.parse_all(&at.texts(at.json(text, "an array of addresses")?)?, "an address")
}

/// Text of `node-encap-ips`.
pub fn format_encap_ips(addresses: &[IpAddr]) -> String {
    list(addresses)
}

/// Reads `host-cidrs`.
///
/// # Errors
/// When the text is not `["172.18.0.4/16"]`.
pub fn parse_host_cidrs(text: &str) -> Result<Vec<IpNet>, AnnotationError> {
    let at = At::whole(HOST_CIDRS);
    at.parse_all(&at.texts(at.json(text, "an array of addresses")?)?, "an address with prefix length")
}

/// Text of `host-cidrs`.
pub fn format_host_cidrs(addresses: &[IpNet]) -> String {
    list(addresses)
}

/// Reads `node-mgmt-port-mac-addresses`, or its legacy form, the bare MAC.
///
/// # Errors
/// When the text is not `{"default":"0a:58:0a:80:00:02"}`.
pub fn parse_management_mac(text: &str) -> Result<Mac, AnnotationError> {
    let at = At::whole(NODE_MGMT_PORT_MACS);
    if !text.trim_start().starts_with('{') {
        return at.parse(text, "a MAC address");
    }
    let at = at.field("default");
    at.parse(&at.text(default_of(NODE_MGMT_PORT_MACS, text)?)?, "a MAC address")
}

/// Text of `node-mgmt-port-mac-addresses`.
pub fn format_management_mac(mac: Mac) -> String {
    format!(r#"{{"default":"{mac}"}}"#)
}

/// Reads `pod-mtu`.
///
/// # Errors
/// When the text is not a number that IPv4 allows as an MTU, 576 or more.
pub fn parse_pod_mtu(text: &str) -> Result<u32, AnnotationError> {
    let at = At::whole(POD_MTU);
    match at.parse(text, "a number of bytes")? {
        mtu @ 576..=65535 => Ok(mtu),
        mtu => Err(at.error(format!("{mtu} is not from 576 to 65535"))),
    }
}

/// Text of `pod-mtu`.
pub fn format_pod_mtu(mtu: u32) -> String {
    mtu.to_string()
}

pub(crate) fn default_of<'a>(annotation: &'static str, text: &'a str) -> Result<&'a RawValue, AnnotationError> {
    let at = At::whole(annotation);
    let networks: PerNetwork<'a> = at.object(text, "a JSON object of networks")?;
    at.field("default").required(networks.default)
}

/// A JSON array of texts that need no escapes.
fn list<T: std::fmt::Display>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("\"{i}\"")).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let text = r#"{"default":["10.130.0.0/23","fd01:0:0:2::/64"]}"#;
        let subnets = parse_subnets(text).unwrap();
        assert_eq!(format_subnets(&subnets), text);
        let one: Vec<IpNet> = vec!["10.130.0.0/23".parse().unwrap()];
        assert_eq!(parse_subnets(r#"{"default":"10.130.0.0/23"}"#), Ok(one.clone()), "legacy string");
        assert_eq!(parse_subnets(r#"{"default":["10.130.1.7/23"]}"#), Ok(one), "host bits");
    }

    #[test]
    fn errors_name_annotation_and_field() {
        for (error, want) in [
            (parse_subnets("[]").unwrap_err(), "annotation k8s.ovn.org/node-subnets: "),
            (parse_subnets("{}").unwrap_err(), "annotation k8s.ovn.org/node-subnets: default: missing;"),
            (parse_subnets(r#"{"default":[]}"#).unwrap_err(), "annotation k8s.ovn.org/node-subnets: default: empty;"),
            (
                parse_subnets(r#"{"default":["10.0.0.0/33"]}"#).unwrap_err(),
                "annotation k8s.ovn.org/node-subnets: default: \"10.0.0.0/33\" is not a subnet;",
            ),
            (
                parse_subnets(r#"{"default":["10.0.0.0/24","10.0.1.0/24"]}"#).unwrap_err(),
                "annotation k8s.ovn.org/node-subnets: default: 10.0.0.0/24 and 10.0.1.0/24 are of one",
            ),
            (parse_id("1").unwrap_err(), "annotation k8s.ovn.org/node-id: 1 is not from 2 to 5001;"),
            (parse_pod_mtu("68").unwrap_err(), "annotation ovenbird.io/pod-mtu: 68 is not from 576 to 65535;"),
            (parse_id("x").unwrap_err(), "annotation k8s.ovn.org/node-id: \"x\" is not a number from 2"),
            (parse_chassis_id("a b").unwrap_err(), "annotation k8s.ovn.org/node-chassis-id: "),
            (parse_primary_ifaddr("{}").unwrap_err(), "annotation k8s.ovn.org/node-primary-ifaddr: empty;"),
            (parse_encap_ips(r#"["x"]"#).unwrap_err(), "annotation k8s.ovn.org/node-encap-ips: \"x\" is not"),
            (
                parse_management_mac("{}").unwrap_err(),
                "annotation k8s.ovn.org/node-mgmt-port-mac-addresses: default: m",
            ),
        ] {
            let text = error.to_string();
            assert!(text.starts_with(want) && text.ends_with("written anew"), "{text}");
        }
    }

    #[test]
    fn the_others_round_trip() {
        assert_eq!(parse_id("5001").map(format_id).as_deref(), Ok("5001"));
        assert_eq!(parse_pod_mtu("1442").map(format_pod_mtu).as_deref(), Ok("1442"));
        assert_eq!(parse_chassis_id("8d1f-0"), Ok("8d1f-0"));
        let text = r#"{"ipv4":"172.18.0.4/16"}"#;
        assert_eq!(format_primary_ifaddr(&parse_primary_ifaddr(text).unwrap()), text);
        let text = r#"["172.18.0.4/16","fc00::4/64"]"#;
        assert_eq!(format_host_cidrs(&parse_host_cidrs(text).unwrap()), text);
        let text = r#"["172.18.0.4"]"#;
        assert_eq!(format_encap_ips(&parse_encap_ips(text).unwrap()), text);
        let text = r#"{"default":"0a:58:0a:80:00:02"}"#;
        assert_eq!(format_management_mac(parse_management_mac(text).unwrap()), text);
        assert_eq!(parse_management_mac("0a:58:0a:80:00:02"), parse_management_mac(text), "legacy");
    }
}
