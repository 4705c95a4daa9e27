//! The pod annotation `k8s.ovn.org/pod-networks`: what the master allocated for a pod.
//!
//! ```json
//! {"default":{"ip_addresses":["10.129.0.3/23"],"mac_address":"0a:58:0a:81:00:03","gateway_ips":["10.129.0.1"],
//!   "routes":[{"dest":"10.128.0.0/14","nextHop":"10.129.0.1"}],"ip_address":"10.129.0.3/23","gateway_ip":"10.129.0.1",
//!   "role":"primary"}}
//! ```
//!
//! `ip_address` and `gateway_ip` repeat the list when it has one entry; a text that has only them is read too. Entries of
//! other networks are left alone. Where a DHCP server gives the address there is none, and `dhcp` is true (see [`crate::Lease`]). On a nested node there is a `tag` (see [`crate::nested`]). Must not: judge the addresses against the cluster (topology does).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::annotation::{At, POD_NETWORKS, PerNetwork};
use crate::nested::POD_TAGS;
use crate::{AnnotationError, Mac};

/// A pod's attachment to the default network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// Addresses with the prefix length of the node's subnet: one, or one of each family; none with `dhcp`.
    pub addresses: Vec<IpNet>,
    /// MAC of the pod's interface.
    pub mac: Mac,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<PodRoute>,
    /// MTU of the pod's interface, in bytes, where it is not the node's for pods: on a network that is not tunnelled.
    pub mtu: Option<u32>,
    /// The addresses are probed on the link before they are used (RFC 5227, RFC 4862): others may be there that know nothing of us.
    pub probe: bool,
    /// Its address is what a DHCP server of the network gives it (RFC 2131).
    pub dhcp: bool,
    /// On a nested node: VLAN tag between VM and hypervisor, one of [`crate::nested::POD_TAGS`].
    pub tag: Option<u16>,
}

/// A route inside the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// Destination.
    pub dest: IpNet,
    /// Next hop of the same family; `None` for a destination on the link.
    pub next_hop: Option<IpAddr>,
}

/// The object under `default`, each field unparsed so that an error can name it.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    ip_addresses: Option<&'a RawValue>,
    mac_address: Option<&'a RawValue>,
    gateway_ips: Option<&'a RawValue>,
    routes: Option<&'a RawValue>,
    ip_address: Option<&'a RawValue>,
    gateway_ip: Option<&'a RawValue>,
    mtu: Option<&'a RawValue>,
    probe: Option<&'a RawValue>,
    dhcp: Option<&'a RawValue>,
    tag: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawRoute<'a> {
    #[serde(borrow)]
    dest: Option<&'a RawValue>,
    #[serde(rename = "nextHop")]
    next_hop: Option<&'a RawValue>,
}

impl PodNetwork {
    /// Reads the annotation's text.
    ///
    /// # Errors
    /// When the text is not the JSON above, or addresses, gateways and routes contradict each other.
    pub fn parse(text: &str) -> Result<PodNetwork, AnnotationError> {
        let at = At::whole(POD_NETWORKS);
        let networks: PerNetwork<'_> = at.object(text, "a JSON object of networks")?;
        let default = at.field("default").required(networks.default)?;
        let raw: Raw<'_> = at.field("default").object(default.get(), "an object")?;

        let field = at.field("default.dhcp");
        let dhcp = raw.dhcp.map(|raw| field.json(raw.get(), "true or false")).transpose()?.unwrap_or(false);
        let is_legacy = raw.ip_addresses.is_none() && raw.ip_address.is_some();
        let field = at.field(if is_legacy { "default.ip_address" } else { "default.ip_addresses" });
        let texts = match raw.ip_addresses.or(raw.ip_address) {
            None if dhcp => Vec::new(),
            raw => field.texts(field.required(raw)?)?,
        };
        let addresses = field.parse_all(&texts, "an address with prefix length")?;
        let addresses = match addresses.as_slice() {
            [] if dhcp => addresses,
            [_, ..] if dhcp => return Err(field.error("addresses beside dhcp")),
            _ => field.one_per_family(addresses)?,
        };

        let field = at.field("default.mac_address");
        let mac = field.parse(&field.text(field.required(raw.mac_address)?)?, "a MAC address")?;

        let field = at.field("default.gateway_ips");
        let mut gateways: Vec<IpAddr> = Vec::new();
        if let Some(texts) = raw.gateway_ips.or(raw.gateway_ip) {
            let parsed = field.parse_all(&field.texts(texts)?, "an address")?;
            if !parsed.is_empty() {
                gateways = field.one_per_family(parsed)?;
            }
        }
        let routes = raw.routes.map_or(Ok(Vec::new()), |raw| parse_routes(at.field("default.routes"), raw))?;
        let field = at.field("default.mtu");
        let mtu = raw.mtu.map(|raw| field.json(raw.get(), "a number of bytes")).transpose()?;
        let field = at.field("default.probe");
        let probe = raw.probe.map(|raw| field.json(raw.get(), "true or false")).transpose()?.unwrap_or(false);
        let tag = raw.tag.map(|raw| parse_tag(at.field("default.tag"), raw)).transpose()?;
        Ok(PodNetwork { addresses, mac, gateways, routes, mtu, probe, dhcp, tag })
    }

    /// The annotation's text, for a pod that has no other networks.
    pub fn format(&self) -> String {
        let written = Written { default: WrittenNetwork::from(self) };
        // Serialising strings and lists to memory has no failure; an empty text would be reported by every reader.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

fn parse_tag(at: At, raw: &RawValue) -> Result<u16, AnnotationError> {
    let tag = at.json(raw.get(), "a number from 2 to 4094")?;
    if POD_TAGS.contains(&tag) { Ok(tag) } else { Err(at.error(format!("{tag} is not from 2 to 4094"))) }
}

fn parse_routes(at: At, raw: &RawValue) -> Result<Vec<PodRoute>, AnnotationError> {
    let dest_at = At { field: "default.routes.dest", ..at };
    let hop_at = At { field: "default.routes.nextHop", ..at };
    let routes: Vec<RawRoute<'_>> = at.json(raw.get(), "an array of {dest, nextHop}")?;
    let parse = |route: RawRoute<'_>| {
        let dest: IpNet = dest_at.parse(&dest_at.text(dest_at.required(route.dest)?)?, "a subnet")?;
        let hop = route.next_hop.map(|raw| hop_at.text(raw)).transpose()?.filter(|text| !text.is_empty());
        let next_hop: Option<IpAddr> = hop.map(|text| hop_at.parse(&text, "an address")).transpose()?;
        match next_hop {
            Some(hop) if hop.is_ipv4() != dest.addr().is_ipv4() => {
                Err(hop_at.error(format!("{hop} is of another address family than {dest}")))
            }
            _ => Ok(PodRoute { dest, next_hop }),
        }
    };
    routes.into_iter().map(parse).collect()
}

#[derive(Serialize)]
struct Written {
    default: WrittenNetwork,
}

#[derive(Serialize)]
struct WrittenNetwork {
    ip_addresses: Vec<String>,
    mac_address: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gateway_ips: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<WrittenRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    probe: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dhcp: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<u16>,
    role: &'static str,
}

#[derive(Serialize)]
struct WrittenRoute {
    dest: String,
    #[serde(rename = "nextHop")]
    next_hop: String,
}

impl From<&PodNetwork> for WrittenNetwork {
    fn from(network: &PodNetwork) -> WrittenNetwork {
        let route = |r: &PodRoute| WrittenRoute {
            dest: r.dest.to_string(),
            next_hop: r.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
        };
        WrittenNetwork {
            ip_addresses: network.addresses.iter().map(IpNet::to_string).collect(),
            mac_address: network.mac.to_string(),
            gateway_ips: network.gateways.clone(),
            routes: network.routes.iter().map(route).collect(),
            ip_address: if let [one] = network.addresses[..] { Some(one.to_string()) } else { None },
            gateway_ip: if let [one] = network.gateways[..] { Some(one) } else { None },
            mtu: network.mtu,
            probe: network.probe,
            dhcp: network.dhcp,
            tag: network.tag,
            role: "primary",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = concat!(
        r#"{"default":{"ip_addresses":["10.129.0.3/23"],"mac_address":"0a:58:0a:81:00:03","gateway_ips":["10.129.0.1"],"#,
        r#""routes":[{"dest":"10.128.0.0/14","nextHop":"10.129.0.1"}],"ip_address":"10.129.0.3/23","#,
        r#""gateway_ip":"10.129.0.1","role":"primary"}}"#
    );

    #[test]
    fn the_reference_text_is_read_and_written() {
        let network = PodNetwork::parse(V4).unwrap();
        assert_eq!(network.addresses, ["10.129.0.3/23".parse().unwrap()]);
        assert_eq!(network.format(), V4);
    }

    #[test]
    fn dual_stack_has_no_single_address() {
        let network = PodNetwork {
            addresses: vec!["10.129.0.3/23".parse().unwrap(), "fd01:0:0:1::3/64".parse().unwrap()],
            mac: Mac([10, 0x58, 10, 129, 0, 3]),
            gateways: vec![],
            routes: vec![PodRoute { dest: "fd01::/48".parse().unwrap(), next_hop: None }],
            mtu: Some(9000),
            probe: true,
            dhcp: false,
            tag: Some(4094),
        };
        let text = network.format();
        assert!(!text.contains("ip_address\""), "{text}");
        assert_eq!(PodNetwork::parse(&text), Ok(network));
    }

    #[test]
    fn legacy_and_foreign_parts_are_read() {
        let text = r#"{"ns/other":7,"default":{"ip_address":"10.129.0.3/23","mac_address":"0A:58:0a:81:00:03","gateway_ip":"10.129.0.1","x":1}}"#;
        let network = PodNetwork::parse(text).unwrap();
        assert_eq!((network.addresses.len(), network.gateways.len(), network.routes.len()), (1, 1, 0));
    }

    #[test]
    fn with_dhcp_there_is_no_address() {
        let text = r#"{"default":{"ip_addresses":[],"mac_address":"2e:00:00:00:00:01","dhcp":true,"role":"primary"}}"#;
        let network = PodNetwork::parse(text).unwrap();
        assert!(network.dhcp && network.addresses.is_empty());
        assert_eq!(network.format(), text);
        assert!(PodNetwork::parse(&text.replace("true", "false")).is_err());
    }

    #[test]
    fn errors_name_annotation_field_and_remedy() {
        for (from, to, field) in [
            (V4, "", ""),
            (V4, "{}", "default"),
            (V4, "[1]", ""),
            (V4, r#"{"default":null}"#, "default"),
            (V4, r#"{"default":"10.0.0.1"}"#, "default"),
            (r#"["10.129.0.3/23"]"#, "[]", "default.ip_addresses"),
            (r#"["10.129.0.3/23"]"#, r#"["10.129.0.3"]"#, "default.ip_addresses"),
            (r#"["10.129.0.3/23"]"#, r#"["10.129.0.3/23","10.129.0.4/23"]"#, "default.ip_addresses"),
            (r#"["10.129.0.3/23"]"#, "[3]", "default.ip_addresses"),
            ("0a:58:0a:81:00:03", "0a:58", "default.mac_address"),
            (r#"["10.129.0.1"]"#, r#"["x"]"#, "default.gateway_ips"),
            ("10.128.0.0/14", "nowhere", "default.routes.dest"),
            (r#""nextHop":"10.129.0.1""#, r#""nextHop":"fd01::1""#, "default.routes.nextHop"),
            (r#""role""#, r#""mtu":"much","role""#, "default.mtu"),
            (r#""role""#, r#""dhcp":true,"role""#, "default.ip_addresses"),
            (r#"[{"dest""#, r#"[{"dst""#, "default.routes.dest"),
            (r#""role""#, r#""tag":1,"role""#, "default.tag"),
            (r#""role""#, r#""tag":4095,"role""#, "default.tag"),
            (r#""role""#, r#""tag":"2","role""#, "default.tag"),
        ] {
            let text = V4.replacen(from, to, 1);
            let error = PodNetwork::parse(&text).expect_err(&text);
            assert_eq!((error.annotation, error.field.as_str()), (POD_NETWORKS, field), "{text}");
            assert!(error.to_string().ends_with("remove the annotation and it is written anew"), "{error}");
        }
    }

    #[test]
    fn error_texts_stay_short() {
        let error = PodNetwork::parse(&"é".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 400, "{}", error.len());
    }
}
