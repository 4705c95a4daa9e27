//! Source addresses on the way out: pods get their node's, but towards the destinations that the operator excludes.

use ipnet::IpNet;
use ovenbird_api::{Masquerade, name};
use ovenbird_reconcile::{DesiredRow, Output, Owner};
use ovenbird_schema::northbound::nat::{self, Type};
use ovenbird_schema::northbound::{address_set, logical_router as lr};
use ovsdb::Uuid;

use super::{Gateway, ip};
use crate::build::{self, RowBuilder};
use crate::config::is_v4;
use crate::kinds;
use crate::underlay;
use crate::view::View;

/// Adds the NAT rules of a gateway.
pub(super) fn add(gateway: &Gateway<'_>, output: &mut Output) {
    let config = gateway.view.config();
    let own = (&lr::TABLE, gateway.router(), lr::NAT);
    for family in &gateway.families {
        let (uplink, join) = (family.uplink.addr().to_string(), family.join.addr().to_string());
        if config.snat() {
            let pods = config.cluster_subnets().iter().map(|s| s.net).filter(|net| is_v4(net) == family.v4);
            for net in pods.chain(underlay::routed(gateway.view, family.v4)) {
                let role = format!("gateway-cluster:{net}");
                let exempted = excluded(gateway.view, family.v4);
                gateway.add_to(output, snat(gateway, &role, net.to_string(), &uplink, exempted), own);
            }
        }
        // The router itself speaks from its join address, in ICMP errors.
        let role = format!("gateway-join:{}", ip(family.v4));
        gateway.add_to(output, snat(gateway, &role, join.clone(), &uplink, None), own);
        // The router's own address for the host towards endpoints (lb_force_snat_ip) comes with the load balancer, which OVN asks for the first
        // packet of a connection only: those that follow before anybody has answered would leave as from 169.254.169.2, which is
        // another host where they arrive.
        let role = format!("gateway-host:{}", ip(family.v4));
        gateway.add_to(output, snat(gateway, &role, host(config.masquerade(), family.v4), &join, None), own);
    }
}

/// The host's masquerade address. The longer a rule's prefix, the higher its priority, and the load balancer's (110 in northd) must be higher: of
/// IPv6 the rule is for a network, in which there is nobody else.
fn host(masquerade: &Masquerade, v4: bool) -> String {
    const LONGEST: u8 = 96;
    let host = masquerade.host(v4);
    if v4 {
        return host.to_string();
    }
    IpNet::new(host, LONGEST).map_or_else(|_| host.to_string(), |net| net.trunc().to_string())
}

fn snat(gateway: &Gateway<'_>, role: &str, from: String, to: &str, exempted: Option<Uuid>) -> DesiredRow {
    RowBuilder::new(gateway.view, &nat::TABLE, gateway.owner, role, nat::EXTERNAL_IDS, &[])
        .exactly(nat::type_(Type::Snat))
        .exactly(nat::logical_ip(from))
        .exactly(nat::external_ip(to.to_owned()))
        .exactly(nat::exempted_ext_ips(exempted))
        .build()
}

/// The set of destinations without SNAT, if there are any.
fn excluded(view: &View<'_>, v4: bool) -> Option<Uuid> {
    let any = view.config().non_masquerade_cidrs().iter().any(|net| is_v4(net) == v4);
    any.then(|| build::id(&address_set::TABLE, &kinds::cluster(), name::non_masquerade(v4)))
}

/// The sets of destinations without SNAT: rows of the owner Cluster.
pub(crate) fn exclusions(view: &View<'_>, owner: &Owner) -> Vec<DesiredRow> {
    let config = view.config();
    let used = |v4: &bool| config.snat() && excluded(view, *v4).is_some();
    let set = |v4: bool| {
        let addresses = config.non_masquerade_cidrs().iter().filter(|net| is_v4(net) == v4);
        let name = name::non_masquerade(v4);
        RowBuilder::new(view, &address_set::TABLE, owner, name, address_set::EXTERNAL_IDS, &[])
            .exactly(address_set::name(name))
            .exactly(address_set::addresses(addresses.map(ToString::to_string)))
            .build()
    };
    [true, false].into_iter().filter(used).map(set).collect()
}
