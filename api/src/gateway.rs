//! The node annotation `l3-gateway-config`: how a node's gateway router reaches the outside.
//!
//! ```text
//! {"default":{"mode":"shared","bridge-id":"br-ex","interface-id":"br-ex_n1","mac-address":"02:42:ac:12:00:04",
//!             "ip-addresses":["172.18.0.4/16"],"next-hops":["172.18.0.1"],"node-port-enable":"true","vlan-id":"0"}}
//! ```
//!
//! Must not: judge values against the cluster's configuration (topology does).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::annotation::{At, L3_GATEWAY_CONFIG, quote};
use crate::node::default_of;
use crate::{AnnotationError, Mac};

/// Which way traffic of pods leaves a node that has a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayMode {
    /// By the gateway router, which shares the uplink with the host.
    Shared,
    /// By the host's own routing; traffic from outside still enters by the gateway router.
    Local,
}

/// What a node tells of its external bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L3Gateway {
    /// Mode.
    pub mode: GatewayMode,
    /// External bridge, e.g. `br-ex`.
    pub bridge: String,
    /// Name of the localnet port, `<bridge>_<node>`.
    pub interface: String,
    /// MAC of the bridge.
    pub mac: Mac,
    /// Addresses of the bridge, at least one; the first of each family is the node's own.
    pub addresses: Vec<IpNet>,
    /// Next hops of the default routes, equal among each other.
    pub next_hops: Vec<IpAddr>,
    /// The node serves NodePorts.
    pub node_port: bool,
    /// VLAN of the uplink, 1 to 4094.
    pub vlan: Option<u16>,
}

/// Neither mode of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not shared or local")]
pub struct GatewayModeError;

/// The JSON as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Raw<'a> {
    mode: String,
    bridge_id: String,
    interface_id: String,
    mac_address: String,
    #[serde(borrow)]
    ip_addresses: Option<&'a RawValue>,
    /// Legacy form of `ip-addresses`.
    #[serde(borrow)]
    ip_address: Option<&'a RawValue>,
    #[serde(borrow)]
    next_hops: Option<&'a RawValue>,
    /// Legacy form of `next-hops`.
    #[serde(borrow)]
    next_hop: Option<&'a RawValue>,
    node_port_enable: String,
    vlan_id: String,
}

/// The JSON as it is written.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Written<'a> {
    mode: String,
    bridge_id: &'a str,
    interface_id: &'a str,
    mac_address: String,
    ip_addresses: &'a [IpNet],
    next_hops: &'a [IpAddr],
    node_port_enable: String,
    vlan_id: String,
}

impl L3Gateway {
    /// Reads `l3-gateway-config`; `None` when the node says that it has no gateway (mode empty or `none`).
    ///
    /// # Errors
    /// When the text is not as in the header of this file. Lists may also be single texts, `ip-address` and `next-hop`.
    pub fn parse(text: &str) -> Result<Option<L3Gateway>, AnnotationError> {
        let at = At::whole(L3_GATEWAY_CONFIG);
        let raw: Raw<'_> =
            at.field("default").object(default_of(L3_GATEWAY_CONFIG, text)?.get(), "a gateway configuration")?;
        if matches!(raw.mode.as_str(), "" | "none") {
            return Ok(None);
        }
        let at_addresses = at.field("default.ip-addresses");
        let addresses = at_addresses.texts(at_addresses.required(raw.ip_addresses.or(raw.ip_address))?)?;
        let addresses: Vec<IpNet> = at_addresses.parse_all(&addresses, "an address with prefix length")?;
        if addresses.is_empty() {
            return Err(at_addresses.error("empty"));
        }
        if let Some(odd) = addresses.iter().find(|net| !is_host(net.addr())) {
            return Err(at_addresses.error(format!("{odd} is not the address of a host")));
        }
        let at_hops = at.field("default.next-hops");
        let next_hops = raw.next_hops.or(raw.next_hop).map(|hops| at_hops.texts(hops)).transpose()?;
        let next_hops: Vec<IpAddr> = at_hops.parse_all(&next_hops.unwrap_or_default(), "an address")?;
        if let Some(odd) = next_hops.iter().find(|hop| !is_host(**hop)) {
            return Err(at_hops.error(format!("{odd} is not the address of a router")));
        }
        Ok(Some(L3Gateway {
            mode: at.field("default.mode").parse(&raw.mode, "shared, local or none")?,
            bridge: raw.bridge_id,
            interface: text_of(at.field("default.interface-id"), raw.interface_id)?,
            mac: at.field("default.mac-address").parse(&raw.mac_address, "a MAC address")?,
            addresses,
            next_hops,
            node_port: raw.node_port_enable == "true",
            vlan: vlan(at.field("default.vlan-id"), &raw.vlan_id)?,
        }))
    }

    /// Text of `l3-gateway-config`.
    pub fn format(&self) -> String {
        let written = Written {
            mode: self.mode.to_string(),
            bridge_id: &self.bridge,
            interface_id: &self.interface,
            mac_address: self.mac.to_string(),
            ip_addresses: &self.addresses,
            next_hops: &self.next_hops,
            node_port_enable: self.node_port.to_string(),
            vlan_id: self.vlan.unwrap_or(0).to_string(),
        };
        format!(r#"{{"default":{}}}"#, serde_json::to_string(&written).unwrap_or_default())
    }

    /// The node's own address of a family, with prefix length.
    pub fn address(&self, v4: bool) -> Option<IpNet> {
        self.addresses.iter().copied().find(|net| net.addr().is_ipv4() == v4)
    }
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GatewayMode::Shared => "shared",
            GatewayMode::Local => "local",
        })
    }
}

impl FromStr for GatewayMode {
    type Err = GatewayModeError;

    fn from_str(text: &str) -> Result<GatewayMode, GatewayModeError> {
        match text {
            "shared" => Ok(GatewayMode::Shared),
            "local" => Ok(GatewayMode::Local),
            _ => Err(GatewayModeError),
        }
    }
}

fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// A name that a row can have.
fn text_of(at: At, text: String) -> Result<String, AnnotationError> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(at.error(format!("{} is not the name of a port", quote(&text))));
    }
    Ok(text)
}

fn vlan(at: At, text: &str) -> Result<Option<u16>, AnnotationError> {
    match at.parse(if text.is_empty() { "0" } else { text }, "a VLAN")? {
        0 => Ok(None),
        tag @ 1..=4094 => Ok(Some(tag)),
        tag => Err(at.error(format!("{tag} is not from 0 to 4094"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        r#"{"default":{"mode":"shared","bridge-id":"br-ex","interface-id":"br-ex_n1","mac-address":"02:42:ac:12:00:04","#,
        r#""ip-addresses":["172.18.0.4/16","fc00::4/64"],"next-hops":["172.18.0.1","fe80::1"],"node-port-enable":"true","#,
        r#""vlan-id":"0"}}"#
    );

    #[test]
    fn round_trip() {
        let gateway = L3Gateway::parse(TEXT).unwrap().unwrap();
        assert_eq!(gateway.format(), TEXT);
        assert_eq!(gateway.address(false), Some("fc00::4/64".parse().unwrap()));
        let tagged = L3Gateway { vlan: Some(7), mode: GatewayMode::Local, node_port: false, ..gateway };
        assert_eq!(L3Gateway::parse(&tagged.format()), Ok(Some(tagged)));
    }

    #[test]
    fn legacy_forms_and_none() {
        let text = r#"{"default":{"mode":"local","interface-id":"breth0_n1","mac-address":"02:42:ac:12:00:04",
            "ip-address":"172.18.0.4/16","next-hop":"172.18.0.1","vlan-id":""}}"#;
        let gateway = L3Gateway::parse(text).unwrap().unwrap();
        assert_eq!(gateway.addresses, ["172.18.0.4/16".parse::<IpNet>().unwrap()]);
        assert_eq!(gateway.next_hops, ["172.18.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((gateway.node_port, gateway.vlan), (false, None));
        for none in [r#"{"default":{"mode":""}}"#, r#"{"default":{"mode":"none"}}"#, r#"{"default":{}}"#] {
            assert_eq!(L3Gateway::parse(none), Ok(None));
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (from, to, want) in [
            ("default", "other", "default: missing;"),
            (r#""shared""#, r#""fast""#, r#"default.mode: "fast" is not shared, local or none;"#),
            ("br-ex_n1", "", r#"default.interface-id: "" is not the name of a port;"#),
            ("02:42:", "02:", r#"default.mac-address: "02:ac:12:00:04" is not a MAC address;"#),
            ("172.18.0.4/16", "172.18.0.4/33", r#"default.ip-addresses: "172.18.0.4/33" is not an address with"#),
            ("172.18.0.4/16", "0.0.0.0/0", "default.ip-addresses: 0.0.0.0/0 is not the address of a host;"),
            (r#"["172.18.0.4/16","fc00::4/64"]"#, "[]", "default.ip-addresses: empty;"),
            ("ip-addresses", "ips", "default.ip-addresses: missing;"),
            ("172.18.0.1", "gw", r#"default.next-hops: "gw" is not an address;"#),
            (r#""vlan-id":"0""#, r#""vlan-id":"4095""#, "default.vlan-id: 4095 is not from 0 to 4094;"),
            (r#""vlan-id":"0""#, r#""vlan-id":"x""#, r#"default.vlan-id: "x" is not a VLAN;"#),
        ] {
            let error = L3Gateway::parse(&TEXT.replacen(from, to, 1)).unwrap_err().to_string();
            let want = format!("annotation k8s.ovn.org/l3-gateway-config: {want}");
            assert!(error.starts_with(&want), "{error}");
        }
    }
}
