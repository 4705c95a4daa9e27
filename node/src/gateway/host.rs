//! The host's own way to Services: routes over the external bridge to a next hop that nobody has, where the flows take over. Pure.
//!
//! ```text
//! host -> 10.96.0.7 via 169.254.169.4 dev br-ex (permanent neighbour) --> flows: SNAT .2, to the gateway router
//! ```
//!
//! Must not: touch what others put on the bridge.

use ipnet::IpNet;
use ovenbird_api::{Mac, Masquerade};

use super::discover::Gateway;
use crate::net::{Route, SharedLink};

/// What the external bridge needs for it. Routes only while OVN is there to answer: else the management port's serve.
pub fn link(gateway: &Gateway, masquerade: &Masquerade, service_cidrs: &[IpNet], mtu: u32) -> SharedLink {
    let mut link = empty(&gateway.l3.bridge);
    for v4 in [true, false].into_iter().filter(|v4| gateway.l3.address(*v4).is_some()) {
        add_masquerade(&mut link, masquerade, v4);
        let next_hop = masquerade.dummy_next_hop(v4);
        let to = |dst: &IpNet| Route {
            src: Some(masquerade.host(v4)),
            mtu: Some(mtu),
            ..Route::to(dst.trunc(), Some(next_hop))
        };
        if gateway.patch.is_some() {
            link.routes.extend(service_cidrs.iter().filter(|cidr| cidr.addr().is_ipv4() == v4).map(to));
        }
    }
    link
}

/// What may be there of both families, without routes.
pub fn both_families(bridge: &str, masquerade: &Masquerade) -> SharedLink {
    let mut link = empty(bridge);
    [true, false].into_iter().for_each(|v4| add_masquerade(&mut link, masquerade, v4));
    link
}

fn empty(bridge: &str) -> SharedLink {
    SharedLink { name: bridge.into(), addresses: Vec::new(), neighbours: Vec::new(), routes: Vec::new() }
}

fn add_masquerade(link: &mut SharedLink, masquerade: &Masquerade, v4: bool) {
    let (next_hop, subnet) = (masquerade.dummy_next_hop(v4), masquerade.subnet(v4));
    link.addresses.extend(IpNet::new(masquerade.host(v4), subnet.prefix_len()).ok());
    // The flows write the MAC that is meant.
    let others = [masquerade.ovn(v4), masquerade.host_etp_local(v4), next_hop];
    link.neighbours.extend(others.map(|ip| (ip, Mac::of(next_hop))));
}

#[cfg(test)]
mod tests {
    use super::super::flows::tests::gateway;
    use super::*;

    #[test]
    fn services_are_routed_while_ovn_is_there() {
        let cidrs = ["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()];
        let dual = gateway(&["172.30.0.11/24", "fd30::11/64"], None);
        let of = |gateway: &Gateway| link(gateway, &Masquerade::default(), &cidrs, 1400);
        let whole = of(&dual);
        assert_eq!(whole.addresses, ["169.254.169.2/29".parse().unwrap(), "fd69::2/125".parse().unwrap()]);
        let neighbours: Vec<_> = whole.neighbours.iter().map(|(ip, mac)| format!("{ip} {mac}")).collect();
        let of_nobody = ["1", "3", "4"].map(|last| format!("169.254.169.{last} 0a:58:a9:fe:a9:04"));
        assert_eq!(neighbours[..3], of_nobody);
        assert_eq!(neighbours.len(), 6);
        let routes: Vec<_> =
            whole.routes.iter().map(|r| (r.dst.to_string(), r.via.unwrap().to_string(), r.mtu)).collect();
        assert_eq!(
            routes,
            [
                ("10.96.0.0/16".into(), "169.254.169.4".into(), Some(1400)),
                ("fd96::/112".into(), "fd69::4".into(), Some(1400)),
            ]
        );
        assert_eq!(of(&Gateway { patch: None, ..dual }), SharedLink { routes: Vec::new(), ..whole });
    }
}
