//! What no policy may stop: neighbour discovery, DHCP where pods have their addresses by it, a node to its own pods (probes), and a pod to itself through a Service.
//!
//! These rows are there while there is any policy, in the first tier and above all others, so a cluster without policies keeps no
//! state for them. Two are there without: where a DHCP server gives the addresses no pod may pass for it. Source: NetworkPolicy in the
//! Kubernetes documentation: "A Pod cannot block access to itself", "traffic to and from the node where a Pod is running is always allowed". Must not: depend on a certain policy.

use ipnet::IpNet;
use ovenbird_api::{address, name};
use ovenbird_reconcile::{Output, Owner};
use ovenbird_schema::northbound::acl::Action;
use ovenbird_schema::northbound::{logical_switch as ls, meter, meter_band, port_group as pg};
use ovsdb::Uuid;

use super::acl::{Acl, Gress, METER, TIER_ALWAYS};
use super::groups::{Group, NODE_ROLE};
use crate::build::{self, RowBuilder, contribution};
use crate::facts::NetworkFact;
use crate::view::View;
use crate::{kinds, node, underlay};

/// Name and role of the group of all management ports: what is in it applies to all node switches.
const EVERY_SWITCH: &str = "clusterPolicyPortGroup";
/// Priority above all others, but that of what is excepted here.
const PRIORITY: i64 = 32000;

fn every_switch() -> Uuid {
    build::id(&pg::TABLE, &kinds::cluster(), EVERY_SWITCH)
}

/// Adds what there is once in a cluster, and the meter of what is logged.
pub(crate) fn add_to_cluster(view: &View<'_>, owner: &Owner, output: &mut Output) {
    if !view.any_policy() {
        return;
    }
    let group = Group { id: every_switch(), name: EVERY_SWITCH.to_owned() };
    output.rows.push(
        RowBuilder::new(view, &pg::TABLE, owner, EVERY_SWITCH, pg::EXTERNAL_IDS, &[])
            .exactly(pg::name(EVERY_SWITCH))
            .members(pg::ACLS)
            .members(pg::PORTS)
            .build(),
    );
    let always = |name: &str, gress, action, text: &str| Acl {
        name: format!("NP:{name}"),
        gress,
        priority: PRIORITY,
        tier: TIER_ALWAYS,
        action,
        text: text.to_owned(),
        log: None,
    };
    for gress in Gress::ALL {
        let extra = [("direction", gress.as_str()), ("type", "arpAllow")];
        let role = format!("arpAllow_{}", gress.as_str());
        let acl = always("arpAllow", gress, Action::Allow, "arp || nd");
        acl.add(view, owner, &role, &extra, &group, output);
    }
    for v4 in view.config().families() {
        let (ip, hairpin) = (if v4 { "ip4" } else { "ip6" }, view.config().masquerade().hairpin(v4));
        let extra = [("direction", "Ingress"), ("type", "hairpin"), ("ip", &*hairpin.to_string())];
        let acl = always("hairpin", Gress::Ingress, Action::AllowRelated, &format!("{ip}.src == {hairpin}"));
        acl.add(view, owner, &format!("hairpin_{ip}"), &extra, &group, output);
    }
    let band = RowBuilder::new(view, &meter_band::TABLE, owner, METER, meter_band::EXTERNAL_IDS, &[])
        .exactly(meter_band::action(meter_band::Action::Drop))
        .exactly(meter_band::rate(view.config().acl_logging_rate()))
        .build();
    let limit = RowBuilder::new(view, &meter::TABLE, owner, METER, meter::EXTERNAL_IDS, &[])
        .exactly(meter::name(METER))
        .exactly(meter::unit(meter::Unit::Pktps))
        .exactly(meter::fair(Some(true)))
        .exactly(meter::bands([band.id.uuid()]))
        .build();
    output.rows.extend([band, limit]);
}

/// Adds a Network's switch to those where policies apply, and what its pods and a DHCP server on it say to each other. `localnet` is its port on the wire.
pub(crate) fn add_to_network(
    view: &View<'_>,
    owner: &Owner,
    network: &NetworkFact,
    localnet: Uuid,
    output: &mut Output,
) {
    if !view.any_policy() {
        return;
    }
    output.contributions.push(contribution(&pg::TABLE, every_switch(), pg::PORTS, localnet));
    if let Some(subnet) = network.subnets.first().filter(|_| network.dhcp) {
        add_dhcp(view, owner, network, subnet, output);
    }
}

/// Where pods have their addresses by DHCP none of them may answer as a server, be there policies or not: who asks by broadcast believes the first
/// answer. Two rows, as ovn-controller makes no flow of `inport !=`.
pub(crate) fn add_dhcp_guard(view: &View<'_>, owner: &Owner, network: &NetworkFact, output: &mut Output) {
    let wire = format!("inport == \"{}\" && ", name::network_localnet(&network.name));
    for (from, place, above, action) in [("wire", &*wire, 1, Action::Allow), ("pod", "", 0, Action::Drop)] {
        let acl = Acl {
            name: format!("NP:dhcpServer:{}", network.name),
            gress: Gress::Egress,
            priority: PRIORITY + above,
            tier: TIER_ALWAYS,
            action,
            text: format!("{place}udp.src == 67"),
            log: None,
        };
        let row = acl.row(
            view,
            owner,
            &format!("dhcpServer_{from}"),
            &[("direction", "Egress"), ("type", "dhcpServer"), ("from", from)],
        );
        output.contributions.push(contribution(&ls::TABLE, underlay::switch(&network.name), ls::ACLS, row.id.uuid()));
        output.rows.push(row);
    }
}

/// Pods and the DHCP server of their subnet hear each other, whatever policies say.
fn add_dhcp(view: &View<'_>, owner: &Owner, network: &NetworkFact, subnet: &IpNet, output: &mut Output) {
    for (gress, from, to) in [(Gress::Egress, 68, 67), (Gress::Ingress, 67, 68)] {
        let acl = Acl {
            name: format!("NP:dhcp:{}", network.name),
            gress,
            priority: PRIORITY,
            tier: TIER_ALWAYS,
            action: Action::Allow,
            text: format!("ip4.dst == {{255.255.255.255, {subnet}}} && udp.src == {from} && udp.dst == {to}"),
            log: None,
        };
        let extra = [("direction", gress.as_str()), ("type", "dhcp")];
        let row = acl.row(view, owner, &format!("dhcp_{}", gress.as_str()), &extra);
        let switch = underlay::switch(&network.name);
        output.contributions.push(contribution(&ls::TABLE, switch, ls::ACLS, row.id.uuid()));
        output.rows.push(row);
    }
}

/// Adds a pod on a Network to those that its node may reach.
pub(crate) fn add_to_node_group(view: &View<'_>, node: &str, port: Uuid, output: &mut Output) {
    if view.any_policy() {
        output.contributions.push(contribution(&pg::TABLE, Group::of_node(node).id, pg::PORTS, port));
    }
}

/// Adds what a node may do to its own pods, and its switch to those where policies apply. `management` is its port.
pub(crate) fn add_to_node(view: &View<'_>, owner: &Owner, subnets: &[IpNet], management: Uuid, output: &mut Output) {
    if !view.any_policy() {
        return;
    }
    output.contributions.push(contribution(&pg::TABLE, every_switch(), pg::PORTS, management));
    let on_networks = (!view.networks().is_empty()).then(|| Group::of_node(&owner.key));
    if let Some(group) = &on_networks {
        output.rows.push(
            RowBuilder::new(view, &pg::TABLE, owner, NODE_ROLE, pg::EXTERNAL_IDS, &[])
                .exactly(pg::name(group.name.clone()))
                .members(pg::ACLS)
                .members(pg::PORTS)
                .build(),
        );
    }
    for own in subnets.iter().filter_map(|subnet| address::management(*subnet)) {
        let ip = if own.is_ipv4() { "ip4" } else { "ip6" };
        let acl = |text: String| Acl {
            name: format!("NP:node:{}", owner.key),
            gress: Gress::Ingress,
            priority: PRIORITY,
            tier: TIER_ALWAYS,
            action: Action::AllowRelated,
            text,
            log: None,
        };
        let text = format!("{ip}.src == {own}");
        if let Some(group) = &on_networks {
            let role = format!("allow_networks_{ip}");
            let text = format!("{} && {text}", Gress::Ingress.at(&group.name));
            acl(text).add(view, owner, &role, &[("ip", &*own.to_string()), ("on", "networks")], group, output);
        }
        let row = acl(text).row(view, owner, &format!("allow_{ip}"), &[("ip", &*own.to_string())]);
        output.contributions.push(contribution(&ls::TABLE, node::switch(&owner.key), ls::ACLS, row.id.uuid()));
        output.rows.push(row);
    }
}
