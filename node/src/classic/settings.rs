//! Settings of the classic network, validated.
//!
//! In: texts of flags. Out: values, or an error that names the flag. Must not: look at the host.

use ovenbird_classic::settings::{Attach, Mesh, Settings as Classic, Tunnel, Variant};
use ovenbird_daemon::settings::{SettingError, wrong};

use crate::config::Settings;
use crate::mode::link;

/// Validates the settings of the mode.
///
/// # Errors
/// The first setting that is wrong.
pub fn new(s: &Settings) -> Result<Classic, SettingError> {
    let variants = [("flow", Variant::Flow), ("stp", Variant::Stp), ("rstp", Variant::Rstp)];
    let tunnels = [("gre", Tunnel::Gre), ("vxlan", Tunnel::Vxlan), ("geneve", Tunnel::Geneve)];
    let meshes = [("full", Mesh::Full), ("ring", Mesh::Ring), ("hub", Mesh::Hub)];
    let ways = [("local", Attach::Local), ("internal", Attach::Internal), ("veth", Attach::Veth)];
    let settings = Classic {
        variant: choose("classic-variant", s.classic_variant.as_deref(), &variants, "choose flow, stp or rstp")?,
        tunnel: choose("classic-tunnel", s.classic_tunnel.as_deref(), &tunnels, "choose gre, vxlan or geneve")?,
        key: s.classic_key,
        mesh: choose("classic-mesh", s.classic_mesh.as_deref(), &meshes, "choose full, ring or hub")?,
        attach: choose("classic-attach", s.classic_attach.as_deref(), &ways, "choose local, internal or veth")?,
        bridge: link("classic-bridge", s.classic_bridge.as_deref().unwrap_or("kbr0"))?,
        ovs_bridge: link("classic-ovs-bridge", s.classic_ovs_bridge.as_deref().unwrap_or("obr0"))?,
        services: s.classic_services.unwrap_or(true),
        forward_delay: s.classic_forward_delay,
    };
    let vni = settings.tunnel != Tunnel::Gre;
    match settings {
        Classic { variant: Variant::Flow, mesh: Mesh::Ring | Mesh::Hub, .. } => Err(wrong(
            "classic-mesh",
            "flows lead to every node, and relay nothing".into(),
            "leave it full, or choose --classic-variant stp or rstp",
        )),
        Classic { key: Some(key), .. } if vni && key >= 1 << 24 => {
            Err(wrong("classic-key", format!("{key} is out of range"), "a VNI has 24 bits: choose less than 16777216"))
        }
        Classic { forward_delay: Some(seconds), .. } if !(4..=30).contains(&seconds) => {
            Err(wrong("classic-forward-delay", format!("{seconds} is out of range"), "choose 4 to 30"))
        }
        Classic { ref bridge, ref ovs_bridge, .. } if bridge == ovs_bridge => {
            Err(wrong("classic-bridge", format!("{bridge:?} is the OVS bridge's name, too"), "choose another"))
        }
        _ => Ok(settings),
    }
}

fn choose<T: Copy + Default>(
    flag: &'static str,
    text: Option<&str>,
    all: &[(&str, T)],
    advice: &'static str,
) -> Result<T, SettingError> {
    let Some(text) = text else { return Ok(T::default()) };
    let found = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| wrong(flag, format!("{text:?} is unknown"), advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::NetworkMode;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_error_names_the_flag_and_the_way_out() {
        let s = || Settings { network_mode: some("classic"), ..Settings::default() };
        for (settings, want) in [
            (Settings { network_mode: some("flat"), ..s() }, "--network-mode: \"flat\" is unknown; choose overlay, "),
            (Settings { classic_variant: some("x"), ..s() }, "--classic-variant: \"x\" is unknown; choose flow, "),
            (Settings { classic_mesh: some("ring"), ..s() }, "--classic-mesh: flows lead to every node"),
            (Settings { classic_bridge: some("obr0"), ..s() }, "--classic-bridge: \"obr0\" is the OVS bridge's name"),
            (Settings { classic_bridge: some("br/x"), ..s() }, "--classic-bridge: \"br/x\" is no name"),
            (Settings { classic_forward_delay: Some(2), ..s() }, "--classic-forward-delay: 2 is out of range"),
            (
                Settings { network_mode: some("nested"), nested_bridge: some("br/x"), ..s() },
                "--nested-bridge: \"br/x\" is no name",
            ),
            (
                Settings { classic_tunnel: some("vxlan"), classic_key: Some(1 << 24), ..s() },
                "--classic-key: 16777216 is out of range",
            ),
        ] {
            let text = NetworkMode::new(&settings).unwrap_err().to_string();
            assert!(text.starts_with(want), "{text}");
        }
        assert_eq!(NetworkMode::new(&s()).unwrap(), NetworkMode::Classic(Classic::default()));
        assert_eq!(NetworkMode::new(&Settings::default()).unwrap(), NetworkMode::Overlay);
    }
}
