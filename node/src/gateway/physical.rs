//! What of the external bridge is not the host's: the VLANs of physical networks that share its uplink. Pure.
//!
//! ```text
//! Networks on the bridge, the host's own VLAN, Bridge --> Physical --> [flows]
//! ```
//!
//! Frames of the host's own VLAN cannot be told from those of its shared MAC, so a Network of that VLAN is shut out. Must not: know what flows are.

use std::collections::{BTreeMap, BTreeSet};

use ovenbird_api::name::{network_localnet, patch_to_integration};

use super::bridge::Bridge;

/// See the file header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Physical {
    /// VLANs that are switched between uplink, patch ports and whoever else is in them.
    pub vlans: BTreeSet<u16>,
    /// OpenFlow numbers of patch ports from which nothing may come.
    pub shut: BTreeSet<u16>,
}

impl Physical {
    /// Of Networks by name with their VLANs, on a bridge where the host is in VLAN `own`.
    pub fn of(networks: &BTreeMap<String, Option<u16>>, own: Option<u16>, bridge: &Bridge) -> Physical {
        let (mut vlans, mut shut) = (BTreeSet::new(), BTreeSet::new());
        for (name, vlan) in networks {
            let port = || bridge.ports.get(&patch_to_integration(&network_localnet(name)))?.ofport;
            match vlan {
                _ if *vlan == own => shut.extend(port()),
                Some(vlan) => drop(vlans.insert(*vlan)),
                // Where the host is in a VLAN, frames without a tag are switched as they are.
                None => {}
            }
        }
        Physical { vlans, shut }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BridgePort;
    use super::*;

    #[test]
    fn networks_of_the_hosts_vlan_are_shut_out() {
        let port = BridgePort { ofport: Some(7), kind: "patch".into(), ..BridgePort::default() };
        let bridge =
            Bridge { ports: [("patch-localnet-NET_b-to-br-int".to_owned(), port)].into(), ..Bridge::default() };
        let networks = [("a".to_owned(), Some(100)), ("b".to_owned(), None), ("c".to_owned(), Some(200))].into();
        let of = |own| {
            let Physical { vlans, shut } = Physical::of(&networks, own, &bridge);
            (vlans.into_iter().collect::<Vec<_>>(), shut.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(of(None), (vec![100, 200], vec![7]));
        assert_eq!(of(Some(100)), (vec![200], vec![]));
    }
}
