//! Settings of the gateway, validated. Flags are those of ovn-kubernetes.
//!
//! In: texts of flags. Out: values, or an error that names the flag. Must not: look at the host.

use std::net::IpAddr;

use ipnet::IpNet;
use ovenbird_api::{GatewayMode, Masquerade};
use ovenbird_daemon::settings::{SettingError, parse, wrong};

use crate::config::Settings;

/// The external bridge that operators usually prepare.
pub const DEFAULT_BRIDGE: &str = "br-ex";

/// Which gateway this node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Mode; `None` for no gateway.
    pub mode: Option<GatewayMode>,
    /// Somebody asked for a gateway, so that its absence is a fault.
    pub asked: bool,
    /// External bridge; as it is given it may be a NIC that is taken over into one (`uplink`).
    pub bridge: String,
    /// It was given.
    pub named: bool,
    /// Next hops, instead of those of the host's default routes.
    pub next_hops: Vec<IpAddr>,
    /// VLAN of the uplink, instead of the one that the bridge's own port is in.
    pub vlan: Option<u16>,
    /// The node serves NodePorts.
    pub node_port: bool,
    /// NodePorts are served on the host's addresses in these networks; empty for all.
    pub node_port_addresses: Vec<IpNet>,
    /// The node answers ARP and neighbour discovery for external addresses of Services.
    pub answer_external: bool,
    /// Pods leave with the node's address. Of mode local it is the host who sees to it.
    pub snat: bool,
    /// Networks that pods reach with their own address all the same.
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// Addresses for the link between host and OVN.
    pub masquerade: Masquerade,
}

impl GatewaySettings {
    /// Validates the settings that concern the gateway.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn new(s: &Settings) -> Result<GatewaySettings, SettingError> {
        let mode = match s.gateway_mode.as_deref() {
            None | Some("shared") => Some(GatewayMode::Shared),
            Some("local") => Some(GatewayMode::Local),
            Some("none") => None,
            Some(other) => {
                return Err(wrong("gateway-mode", format!("{other:?} is unknown"), "choose shared, local or none"));
            }
        };
        let bridge = s.gateway_interface.clone().unwrap_or_else(|| DEFAULT_BRIDGE.into());
        if bridge.is_empty() || bridge.chars().any(|c| c.is_whitespace() || c == '/' || c == ',' || c == ':') {
            let problem = format!("{bridge:?} is no name of a bridge or NIC");
            let advice = "name the OVS bridge with the uplink inside, e.g. br-ex, or the uplink, e.g. eth0";
            return Err(wrong("gateway-interface", problem, advice));
        }
        Ok(GatewaySettings {
            mode,
            asked: mode.is_some() && (s.gateway_mode.is_some() || s.gateway_interface.is_some()),
            bridge,
            named: s.gateway_interface.is_some(),
            next_hops: list(s.gateway_nexthop.as_deref())
                .map(|t| parse("gateway-nexthop", t, "write addresses such as 172.18.0.1"))
                .collect::<Result<_, _>>()?,
            vlan: s.gateway_vlanid.map(checked_vlan).transpose()?.flatten(),
            node_port: s.nodeport.unwrap_or(true),
            node_port_addresses: list(s.nodeport_addresses.as_deref())
                .map(|t| parse("nodeport-addresses", t, "write networks such as 172.18.0.0/16"))
                .collect::<Result<_, _>>()?,
            answer_external: s.answer_external_addresses.unwrap_or(false),
            snat: !s.disable_snat.unwrap_or(false),
            non_masquerade_cidrs: list(s.non_masquerade_cidrs.as_deref())
                .map(|t| parse("non-masquerade-cidrs", t, "write networks such as 192.168.0.0/16"))
                .collect::<Result<_, _>>()?,
            masquerade: masquerade(s)?,
        })
    }
}

fn masquerade(s: &Settings) -> Result<Masquerade, SettingError> {
    let (v4_flag, v6_flag) = ("gateway-v4-masquerade-subnet", "gateway-v6-masquerade-subnet");
    let v4 = s.gateway_v4_masquerade_subnet.as_deref().unwrap_or("169.254.169.0/29");
    let v6 = s.gateway_v6_masquerade_subnet.as_deref().unwrap_or("fd69::/125");
    let v4 = parse(v4_flag, v4, "write a network such as 169.254.169.0/29")?;
    let v6 = parse(v6_flag, v6, "write a network such as fd69::/125")?;
    Masquerade::new(v4, v6).map_err(|e| {
        let flag = if e.0.addr().is_ipv4() { v4_flag } else { v6_flag };
        wrong(flag, e.to_string(), "the master must be given the same")
    })
}

/// 0 says that there is none.
fn checked_vlan(tag: u16) -> Result<Option<u16>, SettingError> {
    match tag {
        0 => Ok(None),
        1..=4094 => Ok(Some(tag)),
        _ => Err(wrong("gateway-vlanid", format!("{tag} is out of range"), "choose 1 to 4094, or 0 for none")),
    }
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn without_flags_there_is_a_shared_gateway_where_br_ex_is() {
        let settings = GatewaySettings::new(&Settings::default()).unwrap();
        assert_eq!((settings.mode, settings.asked), (Some(GatewayMode::Shared), false));
        assert_eq!(settings.bridge, "br-ex");
        assert_eq!(settings.masquerade, Masquerade::default());
        let none = Settings { gateway_mode: some("none"), ..Settings::default() };
        assert_eq!(GatewaySettings::new(&none).unwrap().mode, None);
    }

    #[test]
    fn every_error_names_the_flag_and_the_way_out() {
        let s = Settings::default;
        for (settings, want) in [
            (Settings { gateway_mode: some("fast"), ..s() }, "--gateway-mode: \"fast\" is unknown; choose shared, "),
            (Settings { gateway_interface: some("br ex"), ..s() }, "--gateway-interface: \"br ex\" is no name"),
            (Settings { gateway_nexthop: some("gw"), ..s() }, "--gateway-nexthop: \"gw\""),
            (Settings { gateway_vlanid: Some(4095), ..s() }, "--gateway-vlanid: 4095 is out of range; choose 1"),
            (Settings { nodeport_addresses: some("x"), ..s() }, "--nodeport-addresses: \"x\""),
            (Settings { non_masquerade_cidrs: some("x"), ..s() }, "--non-masquerade-cidrs: \"x\""),
            (
                Settings { gateway_v4_masquerade_subnet: some("169.254.0.0/30"), ..s() },
                "--gateway-v4-masquerade-subnet: 169.254.0.0/30 has no room",
            ),
            (
                Settings { gateway_v6_masquerade_subnet: some("fd69::/127"), ..s() },
                "--gateway-v6-masquerade-subnet: fd69::/127 has no room",
            ),
        ] {
            let text = GatewaySettings::new(&settings).unwrap_err().to_string();
            assert!(text.starts_with(want), "{text}");
        }
    }
}
